"""The lock of a run: one process at a time, and a dead one holds nothing."""

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tunesmith.core.errors import ResourceError

_HELD: set[int] = set()
"""Lock files of this process. A forked child lets go of them, or it would hold a dead parent's."""


def take(path: Path) -> int:
    """Lock the file at `path` and write who holds it; `ResourceError` when another one does."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        lock_or_refuse(file, path)
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps({"pid": os.getpid(), "boot": boot()}).encode(), 0)
    except BaseException:
        os.close(file)
        raise
    _HELD.add(file)
    return file


def release(file: int) -> None:
    """Let go. The file stays: removing it would let two processes hold two files of one name."""
    if file in _HELD:
        _HELD.discard(file)
        with suppress(OSError):
            os.ftruncate(file, 0)
        os.close(file)


def in_use_by(path: Path) -> int | None:
    """The process that holds the lock at `path`, if one does. Nothing is locked or written."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = holder(file)
    finally:
        os.close(file)
    return found["pid"] if runs_still(found) else None


def lock_or_refuse(file: int, path: Path) -> None:
    """flock; on a network disk without locks the process id in the file has to do."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise in_use(path, holder(file)) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise
        if runs_still(other := holder(file)):
            raise in_use(path, other) from None


def in_use(path: Path, found: Mapping[str, Any]) -> ResourceError:
    """The one line for the second process."""
    pid = found.get("pid", "unknown")
    return ResourceError(
        f"{path.parent}: in use by process {pid}; wait until it ends, or stop it: kill {pid}"
    )


def holder(file: int) -> dict[str, Any]:
    """Who wrote the lock file last; empty when that cannot be read."""
    with suppress(OSError, ValueError):
        found = json.loads(os.pread(file, 1000, 0))
        return found if isinstance(found, dict) else {}
    return {}


def runs_still(found: Mapping[str, Any]) -> bool:
    """Whether the process in the lock file still runs: same boot, and its id is taken."""
    pid = found.get("pid")
    return isinstance(pid, int) and found.get("boot") == boot() and process_runs(pid)


def process_runs(pid: int) -> bool:
    """Whether a process of this id exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it exists and belongs to somebody else
        return True
    return True


def boot() -> str:
    """The id of this boot of the machine: process ids mean something within one only."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _let_go() -> None:
    for file in _HELD:
        with suppress(OSError):
            os.close(file)
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)
