"""A file of text, opened and read with care: every fault names the file and the line."""

import codecs
import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tunesmith.core import rights
from tunesmith.core.errors import DataError, ResourceError, TunesmithError
from tunesmith.core.quote import quoted, visible

LIMIT = 16 * 2**20
"""Bytes of one record: more is a broken file, and would not fit a model anyway."""
PIECE = 2**20
"""Bytes read at once from a file that is not read by lines."""
TOO_LONG = f"the record is longer than {LIMIT // 2**20} MiB; split it, or look for a missing quote"
NUL = "a NUL byte: this is binary or UTF-16; save the file as UTF-8 text"
NOT_UTF8 = "is not UTF-8; convert the file, for example with iconv -f latin1 -t utf-8"
OLD_MAC = "a carriage return ends a line by itself; save the file with \\n or \\r\\n line ends"
DISGUISES = {
    b"\x1f\x8b": "the file is compressed with gzip; unpack it with gunzip, or end its name in .gz",
    b"\x28\xb5\x2f\xfd": "the file is compressed with zstd; unpack it with unzstd",
    b"\xfd7zXZ": "the file is compressed with xz; unpack it with unxz",
    b"BZh91AY&SY": "the file is compressed with bzip2; unpack it with bunzip2",
    b"PK\x03\x04": "the file is a zip archive or an Excel workbook; unpack it or save it as CSV",
    b"PAR1": "the file is Parquet; end its name in .parquet",
    b"ARROW1": "the file is Arrow; convert it to .jsonl",
    b"SQLite format 3": "the file is an SQLite data base; export the table as CSV",
    codecs.BOM_UTF16_LE: "the file is UTF-16; save it as UTF-8",
    codecs.BOM_UTF16_BE: "the file is UTF-16; save it as UTF-8",
    b"version https://git-lfs": "the file is a Git LFS pointer; fetch the data with git lfs pull",
    b"<!DOCTYPE": "the file is a web page; download the data file itself",
    b"<html": "the file is a web page; download the data file itself",
}


@dataclass(frozen=True)
class TextFile:
    """An open file and who hears how many of its bytes are read."""

    path: Path
    file: io.BufferedReader
    advance: Callable[[int], object]
    before: int = 0
    """Lines of the file before what is read here."""

    def fault(self, line: int, what: str) -> DataError:
        """The error for something wrong at a line."""
        return DataError(f"{visible(self.path)}:{line}: {what}")


def opened(path: Path) -> io.BufferedReader:
    """The file, open for reading, after making sure that it is one."""
    try:
        # Without O_NONBLOCK a FIFO without a writer would hold us here for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise DataError(f"{visible(path)}: this is {kind}; name one file with rows")
    return io.BufferedReader(io.FileIO(handle, "rb"), PIECE)


def unreadable(path: Path, error: Exception) -> TunesmithError:
    """The error for a file that cannot be opened or read to its end."""
    where, code = visible(path), getattr(error, "errno", None)
    if code == errno.ENOENT:
        return DataError(f"{where}: {missing(path)}")
    if code == errno.ELOOP:
        return DataError(f"{where}: the link leads back to itself; name the file it should lead to")
    if code in rights.DENIED:
        reason = os.strerror(code).lower()
        return ResourceError(f"{where}: {reason}; {rights.missing(path, 'r', code)}")
    if code in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE):
        return ResourceError(f"{where}: {os.strerror(code)}; check its disk, and try again")
    reason = visible(getattr(error, "strerror", None) or str(error))
    return DataError(f"{where}: the file cannot be opened ({reason}); check its name")


def missing(path: Path) -> str:
    """What to say about a file that is not there, with a name that comes near."""
    if path.is_symlink():
        return "the link leads to a file that is not there; name the file itself"
    try:
        near = get_close_matches(path.name, os.listdir(path.parent), n=1)
    except OSError:
        return "there is no such folder; correct the path"
    return "there is no such file; " + (
        f"did you mean {quoted(near[0])}?" if near else "correct the path"
    )


def refuse_disguise(table: TextFile, start: bytes = b"") -> None:
    """Refuse a file that is another kind of file under a borrowed name.

    `start` is how a file of its ending begins, where that is no text.
    """
    head = table.file.peek(64)
    if not head:
        raise table.fault(1, "the file is empty; name a file with rows")
    if start and head.startswith(start):
        return
    for other, what in DISGUISES.items():
        if head.startswith(other):
            raise table.fault(1, what)
    if start:
        raise table.fault(1, "the file is not what its ending says; correct its name")


def lines(table: TextFile) -> Iterator[tuple[int, str]]:
    """Numbered lines with their ends kept; only \\n ends one. Byte order mark dropped."""
    number = table.before
    while raw := table.file.readline(LIMIT + 1):
        number += 1
        table.advance(len(raw))
        if len(raw) > LIMIT:
            raise table.fault(number, TOO_LONG)
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if b"\0" in raw:
            raise table.fault(number, NUL)
        try:
            yield number, raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise table.fault(number, f"byte {error.start + 1} of the line {NOT_UTF8}") from None
