"""The disk: every way in which we change it, durable writes, and a failing one as a sentence.

Every operation goes through `DISK`, one method each, so that the crash tests can log each call, let
it fail and replay what a power loss would leave: a write outside of it would escape those tests.
Outside are the lock, which means nothing after a power loss, and what libraries write into the
folder of a stage, which nobody trusts before `Stage.finish` made it durable.
"""

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tunesmith.core import rights
from tunesmith.core.errors import IntegrityError, ResourceError
from tunesmith.core.quote import visible

CHUNK = 1 << 22
"""Bytes hashed and written at a time."""

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP)
"""How a disk without hard links refuses one."""
ADVICE = {
    errno.ENOSPC: "free some space and give the same command again",
    errno.EDQUOT: "your disk quota is used up: free some space and give the same command again",
    errno.EROFS: rights.READ_ONLY,
    errno.EIO: "the disk reports a fault: check it before you go on",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ELOOP: "symbolic links are not followed here: name the real file",
}


class Disk:
    """Every way in which we change a disk. Folders are 0700 and files 0600."""

    def mkdir(self, path: Path) -> None:
        """Make one folder."""
        os.mkdir(path, 0o700)

    def create(self, path: Path) -> int:
        """A new file, open for writing; an existing name, a link included, is an error."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, 0o600)

    def append(self, path: Path) -> int:
        """A file, made where there is none, open for adding at its end; a link is an error."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, 0o600)

    def open(self, path: Path) -> int:
        """A file that is there, to make it durable; a link is an error."""
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def write(self, file: int, content: memoryview) -> int:
        """Write some of `content`; how much."""
        return os.write(file, content)

    def sync(self, file: int) -> None:
        """Make a file's bytes durable. After an error they are lost: never try twice."""
        os.fsync(file)

    def close(self, file: int) -> None:
        """Close a file."""
        os.close(file)

    def size(self, path: Path) -> int:
        """The size the disk reports."""
        return os.stat(path, follow_symlinks=False).st_size

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def rename(self, source: Path, target: Path) -> None:
        """Move a name, at once and whole."""
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, at once; one that is there is an error."""
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder."""
        os.rmdir(path)

    def free(self, path: Path) -> int:
        """Bytes an ordinary user may still write on the disk of `path`."""
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
        facts = os.statvfs(there)
        return facts.f_bavail * facts.f_frsize


DISK = Disk()
"""The disk in use; tests put another in its place."""


@contextmanager
def disk_errors(path: Path, doing: str, needed: int | None = None) -> Iterator[None]:
    """Inside, a failing disk becomes one sentence with the path, needed and free bytes."""
    try:
        yield
    except OSError as error:
        raise ResourceError(sentence(error, path, doing, needed)) from error
    except SafetensorError as error:
        # The library says "... (os error 28)" and raises no OSError.
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        failed = OSError(code, os.strerror(code))
        raise ResourceError(sentence(failed, path, doing, needed)) from error


def sentence(error: OSError, path: Path, doing: str, needed: int | None) -> str:
    """What failed where, the bytes needed and free, and what to do."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in rights.DENIED:
        advice = rights.missing(path, "r" if doing.startswith("read") else "w", error.errno)
        return f"{visible(path)}: cannot {doing}: {reason}; {advice}"
    try:
        free = f"{DISK.free(path)} bytes are free"
    except OSError:
        free = "the free space is unknown"
    wanted = "" if needed is None else f"{needed} bytes are needed, "
    advice = ADVICE.get(error.errno or 0, "mend that and give the same command again")
    return f"{visible(path)}: cannot {doing}: {reason} ({wanted}{free}); {advice}"


def write_new(path: Path, chunks: Iterable[memoryview]) -> dict[str, Any]:
    """A new durable file of `chunks`: its `bytes` and its `sha256`, hashed while writing."""
    written, hashed = 0, hashlib.sha256()
    file = DISK.create(path)
    try:
        for chunk in chunks:
            for start in range(0, len(chunk), CHUNK):
                part = chunk[start : start + CHUNK]
                hashed.update(part)
                written += len(part)
                while part:
                    part = part[DISK.write(file, part) :]
        DISK.sync(file)
    finally:
        DISK.close(file)
    if (size := DISK.size(path)) != written:
        raise OSError(errno.EIO, f"{written} bytes were written, {size} are there")
    return {"bytes": written, "sha256": hashed.hexdigest()}


def write_parts(path: Path, parts: Iterable[bytes], *, needed: int | None = None) -> None:
    """Put `parts` at `path`, whole or not at all, durably. A link at `path` is replaced.

    `needed` is their size, where it is known, for the sentence of a full disk.
    """
    temporary = path.parent / f".{os.getpid()}-{secrets.token_hex(8)}.tmp"
    with disk_errors(path, "write", needed):
        try:
            write_new(temporary, (memoryview(part) for part in parts))
            DISK.rename(temporary, path)
            DISK.sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                DISK.unlink(temporary)
            raise


def write_once(path: Path, content: bytes) -> None:
    """Put `content` at a new `path`, whole or not at all. Where several do, the first one wins."""
    temporary = path.parent / f".{os.getpid()}-{secrets.token_hex(8)}.tmp"
    with disk_errors(path, "write", len(content)):
        try:
            write_new(temporary, [memoryview(content)])
            try:
                DISK.link(temporary, path)
            except FileExistsError:
                pass
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                with suppress(FileExistsError):
                    write_new(path, [memoryview(content)])
            DISK.sync_folder(path.parent)
        finally:
            with suppress(OSError):
                DISK.unlink(temporary)


def write_bytes(path: Path, content: bytes) -> None:
    """`write_parts` of one part."""
    write_parts(path, [content], needed=len(content))


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of JSON with sorted keys, two spaces of indent and a newline at the end."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """The one way JSON files look. NaN and Infinity are not JSON: a ValueError."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "surrogatepass")


def read_json(path: Path) -> Any:
    """The value of one of our JSON files; a damaged one is an IntegrityError."""
    with disk_errors(path, "read"):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as stream:
            content = stream.read()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path}: not JSON any more ({error}); it was damaged") from error


def file_digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with disk_errors(path, "read"), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_folders(path: Path) -> None:
    """`path` and the folders above it, durably; one that another process makes is as good."""
    if path.is_dir():
        return
    make_folders(path.parent)
    with suppress(FileExistsError):
        DISK.mkdir(path)
    DISK.sync_folder(path.parent)


def discard(place: Path) -> None:
    """Remove a folder and what is in it. No link is followed."""
    with disk_errors(place, "remove"):
        for home, inner, names in os.walk(place, topdown=False):
            for path in (Path(home, name) for name in (*names, *inner)):
                gone = DISK.unlink if linked_or_file(path) else DISK.rmdir
                gone(path)
        DISK.rmdir(place)


def linked_or_file(path: Path) -> bool:
    """Whether a name is removed as a file is."""
    return path.is_symlink() or not path.is_dir()


def sync_file(path: Path) -> None:
    """Make durable a file that a library wrote, or that grew line by line."""
    file = DISK.open(path)
    try:
        DISK.sync(file)
    finally:
        DISK.close(file)
