"""A missing right: which file or folder lacks it, and what gives it, if anything of the user's can.

The system refuses for more reasons than the rights that a file's mode gives: a read-only disk, a
flag of the file, an access list, a security module. `chmod` is advised where the mode is why.
"""

import errno
import os
import shlex
import sys
from pathlib import Path
from typing import Literal

from tunesmith.core.quote import visible

DENIED = (errno.EACCES, errno.EPERM)
"""How the system says that a right is missing."""
READ_ONLY = "the disk is read-only: choose a folder on another one"
BEYOND = "an access list or a security module forbids that: ask who runs this machine"
WORDS = {"r": "read", "w": "write to", "rwx": "enter"}
NEEDED = {"r": "r", "w": "w", "rwx": "x"}
"""What the mode must give for it."""
BITS = {"r": 4, "w": 2, "x": 1}
LOOK, LIFT = (
    ("ls -ldO", "chflags nouchg") if sys.platform == "darwin" else ("lsattr -d", "chattr -ia")
)
"""The commands that show and lift the flags that forbid a change whatever the mode."""


def missing(path: Path, right: Literal["r", "w"], code: int | None) -> str:
    """What to do about a file that may not be read, or a place that may not be written to, where
    the system refused it with the error `code`."""
    place, letters = blocking(path, right)
    if right == "w" and read_only(place):
        return READ_ONLY
    name, what = visible(shlex.quote(str(place))), WORDS[letters]
    rest = ", or choose another folder" if right == "w" else ""
    inside = "x" if letters != "rwx" and place.is_dir() else ""
    if given(place, NEEDED[letters] + inside):
        other = flagged(name) if (right, code) == ("w", errno.EPERM) else BEYOND
        return f"the mode of {name} lets you {what} it, but {other}{rest}"
    if not own(place):
        return f"{name} is another user's: ask for the right to {what} it{rest}"
    return f"you have no right to {what} it: run chmod u+{letters}{inside} {name}{rest}"


def blocking(path: Path, right: Literal["r", "w"]) -> tuple[Path, str]:
    """The name whose rights stand in the way, and those it lacks: a folder above that may not be
    entered, the file itself, or the folder that a new file would be in."""
    for folder in reversed(path.parents):
        if os.path.isdir(folder) and not os.access(folder, os.X_OK):
            return folder, "rwx"
    if right == "r":
        return path, right
    there = [name for name in (path, *path.parents) if os.path.exists(name)][:2]
    return next((name for name in there if not os.access(name, os.W_OK)), there[0]), right


def flagged(name: str) -> str:
    """That a file may be one that nobody changes, whatever its mode."""
    return f"a flag of it may forbid that ({LOOK} {name}), which root lifts: {LIFT} {name}"


def given(place: Path, letters: str) -> bool:
    """Whether the mode of a file gives this user these rights."""
    try:
        facts = os.stat(place)
    except OSError:
        return False
    groups = (os.getegid(), *os.getgroups())
    shift = 6 if facts.st_uid == os.geteuid() else 3 if facts.st_gid in groups else 0
    return all(facts.st_mode >> shift & BITS[letter] for letter in letters)


def own(path: Path) -> bool:
    """Whether a file is this user's, who may then change its mode."""
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False


def read_only(path: Path) -> bool:
    """Whether nobody can write where a file or a folder is."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False
