"""A missing right: which file or folder lacks it, and the command that gives it."""

import errno
import os
import shlex
from pathlib import Path
from typing import Literal

from tunesmith.core.quote import visible

DENIED = (errno.EACCES, errno.EPERM)
"""How the system says that a right is missing."""
WORDS = {"r": "read", "w": "write to", "rwx": "enter"}


def missing(path: Path, right: Literal["r", "w"]) -> str:
    """What to do about a file that may not be read, or a place that may not be written to."""
    place, letters = blocking(path, right)
    name, what = visible(shlex.quote(str(place))), WORDS[letters]
    rest = ", or choose another folder" if right == "w" else ""
    if not own(place):
        return f"{name} is another user's: ask for the right to {what} it{rest}"
    if letters != "rwx" and place.is_dir():
        letters += "x"
    return f"you have no right to {what} it: run chmod u+{letters} {name}{rest}"


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


def own(path: Path) -> bool:
    """Whether this user may change the rights of a file: its owner and root may."""
    try:
        return os.geteuid() in (0, os.stat(path).st_uid)
    except OSError:
        return False
