"""Strict readers for tables of text: nothing is guessed, nothing altered, faults name file:line."""

import codecs
import errno
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError, ResourceError, TunesmithError
from tunesmith.core.folders import write_parts
from tunesmith.core.quote import quoted, visible
from tunesmith.core.records import Origin, Row, canonical, row_from
from tunesmith.core.strictjson import Malformed, decode, parse

LIMIT = 16 * 2**20
"""Bytes of one record: more is a broken file, and would not fit a model anyway."""
PIECE = 2**20
"""Bytes read at once from a file that is not read by lines."""


@dataclass(frozen=True)
class Record:
    """One row of a table as it stands there. Cells of CSV and TSV are text, byte for byte."""

    origin: Origin
    fields: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """An open file and who hears how many of its bytes are read."""

    path: Path
    file: io.BufferedReader
    advance: Callable[[int], object]

    def fault(self, line: int, what: str) -> DataError:
        """The error for something wrong at a line."""
        return DataError(f"{visible(self.path)}:{line}: {what}")

    def record(self, line: int, fields: dict[str, Any]) -> Record:
        """A row that was read at a line."""
        return Record(Origin(str(self.path), line), fields)


def read(path: Path, *, advance: Callable[[int], object] = lambda size: None) -> Iterator[Record]:
    """The rows of a .jsonl, .json, .csv or .tsv file, one at a time, in constant memory.

    `advance` hears the bytes of each piece read. Raises DataError for a file that is not what its
    name says, in one line with the place; ResourceError where the disk or the rights fail.
    """
    path = Path(path)
    with opened(path) as file:
        reader = reader_of(path)
        table = Table(path, file, advance)
        refuse_disguise(table)
        found = False
        try:
            for record in reader(table):
                found = True
                yield record
        except OSError as error:
            raise unreadable(path, error) from None
    if not found:
        raise table.fault(1, "there is no row in this file; name a file with rows")


def reader_of(path: Path) -> Callable[[Table], Iterator[Record]]:
    """The reader for a file name."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{visible(path)}: the ending {quoted(path.suffix)} is not one that is read here; "
            f"convert the file to one of {', '.join(READERS)}"
        )
    return reader


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
    if code in (errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE):
        reason = os.strerror(code)
        return ResourceError(f"{where}: {reason}; check the file's rights and its disk")
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


def refuse_disguise(table: Table) -> None:
    """Refuse a file that is another kind of file under a borrowed name."""
    head = table.file.read(64)
    table.file.seek(0)
    if not head:
        raise table.fault(1, "the file is empty; name a file with rows")
    for start, what in DISGUISES.items():
        if head.startswith(start):
            raise table.fault(1, what)


def lines(table: Table) -> Iterator[tuple[int, str]]:
    """Numbered lines with their ends kept; only \\n ends one. Byte order mark dropped."""
    number = 0
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


def json_lines(table: Table) -> Iterator[Record]:
    """One object a line. Blank lines are passed over."""
    for number, text in lines(table):
        if not text.strip(" \t\r\n"):
            continue
        try:
            value = parse(text)
        except Malformed as error:
            raise table.fault(number, json_fault(text, error)) from None
        if not isinstance(value, dict):
            advice = (
                "rename the file to .json if all of it is one list"
                if isinstance(value, list)
                else "write {...}"
            )
            raise table.fault(number, f"the line is {KINDS[type(value)]}, not an object; {advice}")
        yield table.record(number, value)


def json_fault(text: str, error: Malformed) -> str:
    """The sentence for a line of JSON, with hints that only a whole line can give."""
    if text.lstrip().startswith("[") and error.at >= len(text.rstrip()):
        return "a list begins here, and this is a .jsonl file; rename it to .json"
    if text[: error.at].endswith("\r"):
        return OLD_MAC
    return f"column {error.at + 1}: {error.what}"


class Window:
    """The part of a JSON list that is in memory: text, a place in it, and the line of that place.

    A list may be one line of many gigabytes, so it is read in pieces, never by lines.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.text = ""
        self.at = 0
        self.base = 1  # line number of text[0]
        self.size = PIECE
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()

    def line(self, at: int | None = None) -> int:
        """The line number of a place in the text, by default the current one."""
        return self.base + self.text.count("\n", 0, self.at if at is None else at)

    def more(self) -> bool:
        """Drop what is done with and read a piece. False at the end of the file."""
        raw = self.table.file.read(self.size)
        self.table.advance(len(raw))
        self.base, self.text, self.at = self.line(), self.text[self.at :], 0
        if b"\0" in raw:
            clean = raw[: raw.index(b"\0")].decode("utf-8", "replace")
            raise self.table.fault(self.line(len(self.text)) + clean.count("\n"), NUL)
        try:
            self.text += self.decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].count(b"\n")
            number = self.line(len(self.text)) + before
            raise self.table.fault(number, f"the line holds a byte that {NOT_UTF8}") from None
        return bool(raw)

    def next(self) -> str:
        """The next character that is not space, without taking it; empty at the end."""
        while True:
            match = SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self) -> Any:
        """Take one whole value. Text that ends in the middle of it is read on, up to the limit."""
        self.size = PIECE
        while True:
            try:
                value, self.at = decode(self.text, self.at)
                return value
            except Malformed as error:
                what, number = error.what, self.line(error.at)
                if error.unfinished and len(self.text) - self.at > LIMIT:
                    what, number = TOO_LONG, self.line()
                elif error.unfinished and self.more():
                    self.size *= 2  # so that a long record is not decoded again for each piece
                    continue
                raise self.table.fault(number, what) from None


def json_list(table: Table) -> Iterator[Record]:
    """The objects of one list."""
    window = Window(table)
    first = window.next()
    if not first:
        return
    if first != "[":
        what = "a .json file holds one list of objects; begin it with '['"
        lines_of_objects = (
            "an object begins here, and a .json file holds one list of objects; if each line is "
            "an object, rename the file to .jsonl"
        )
        raise table.fault(window.line(), lines_of_objects if first == "{" else what)
    window.at += 1
    if window.next() == "]":
        window.at += 1
    else:
        yield from items(window)
    if window.next():
        raise table.fault(window.line(), "text follows the closing ']'; delete it")


def items(window: Window) -> Iterator[Record]:
    """The objects up to and with the closing bracket of a list."""
    while True:
        first, number = window.next(), window.line()
        if first != "{":
            what = "an item of the list is not an object; write {...}"
            raise window.table.fault(number, what if first else CUT_SHORT)
        yield window.table.record(number, window.value())
        mark = window.next()
        if mark not in (",", "]"):
            what = "a comma is missing between two objects; write it"
            raise window.table.fault(window.line(), what if mark else CUT_SHORT)
        window.at += 1
        if mark == "]":
            return


def delimited(table: Table, mark: str) -> Iterator[Record]:
    """Rows of RFC 4180, with `mark` between cells: the first row names the columns."""
    rows = cells(table, mark)
    number, names = next(rows, (1, []))
    if names:
        check_header(table, number, names, mark)
    for number, row in rows:
        if len(row) != len(names):
            raise table.fault(
                number,
                f"{len(row)} cells under {len(names)} columns; put quotes around a cell "
                f"that holds {quoted(mark)}, or fill the row up",
            )
        yield table.record(number, dict(zip(names, row, strict=True)))


def check_header(table: Table, number: int, names: list[str], mark: str) -> None:
    """Refuse columns that cannot be told apart, and a file that another mark divides."""
    others = [other for other in ",;\t|" if other != mark and other in names[0]]
    if len(names) == 1 and others:
        raise table.fault(
            number,
            f"the first line is one column, {quoted(names[0])}; it looks divided by "
            f"{quoted(others[0])}. Save the file with {quoted(mark)} between the cells",
        )
    for name in names:
        if not name.strip() or name != name.strip():
            what = f"the column name {quoted(name)} is empty or has spaces around it"
            raise table.fault(number, f"{what}; correct the first line")
        if names.count(name) > 1:
            raise table.fault(number, f"two columns are named {quoted(name)}; rename one of them")


def cells(table: Table, mark: str) -> Iterator[tuple[int, list[str]]]:
    """Rows as lists of cells, with the line each begins at.

    A row goes on over line ends as long as a quote is open. In a well-formed file a quote is open
    exactly when the number of quotes so far is odd.
    """
    cell = re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^"{mark}\r\n]*))({mark}|\Z)')
    source = lines(table)
    columns = 0
    for number, text in source:
        whole = joined(table, number, text, source) if text.count('"') % 2 else text
        row = whole.removesuffix("\n").removesuffix("\r")
        if not row and columns != 1:
            continue
        if '"' in row:
            found = quoted_cells(table, number, row, cell, mark)
        elif "\r" in row:
            raise table.fault(number, OLD_MAC)
        else:
            found = row.split(mark)
        columns = columns or len(found)
        yield number, found


def joined(table: Table, number: int, text: str, source: Iterator[tuple[int, str]]) -> str:
    """A row and the lines its open quote goes on over."""
    parts, size = [text], len(text)
    for _, following in source:
        parts.append(following)
        size += len(following)
        if size > LIMIT:
            break
        if following.count('"') % 2:
            return "".join(parts)
    raise table.fault(number, "a quote is opened in this row and never closed; close or double it")


def quoted_cells(
    table: Table, number: int, row: str, cell: re.Pattern[str], mark: str
) -> list[str]:
    """The cells of a row that has quotes in it."""
    found: list[str] = []
    at = 0
    while match := cell.match(row, at):
        inside, bare, end = match.groups()
        found.append(bare if inside is None else inside.replace('""', '"'))
        if not end:
            return found
        at = match.end()
    raise table.fault(
        number + row.count("\n", 0, at),
        f"a quote in cell {len(found) + 1} does not stand around the whole cell; "
        f"put quotes around all of it and double those inside",
    )


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line; the file appears whole or not at all."""
    write_parts(path, (f"{canonical(row)}\n".encode() for row in rows))


def read_part(folder: Path, part: str) -> list[Row]:
    """The rows of a part (`train`, `valid`, `test`) of a finished data stage; none if it has none.

    The stage's manifest vouches for the file, so it is not checked again here.
    """
    path = folder / f"{part}.jsonl"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="\n") as file:
        return [row_from(json.loads(line)) for line in file]


def comma_separated(table: Table) -> Iterator[Record]:
    """Cells divided by commas."""
    return delimited(table, ",")


def tab_separated(table: Table) -> Iterator[Record]:
    """Cells divided by tabs."""
    return delimited(table, "\t")


SPACE = re.compile(r"[ \t\r\n]*")
TOO_LONG = f"the record is longer than {LIMIT // 2**20} MiB; split it, or look for a missing quote"
NUL = "a NUL byte: this is binary or UTF-16; save the file as UTF-8 text"
NOT_UTF8 = "is not UTF-8; convert the file, for example with iconv -f latin1 -t utf-8"
CUT_SHORT = "the list is not closed: the file is cut short; write the closing ']'"
OLD_MAC = "a carriage return ends a line by itself; save the file with \\n or \\r\\n line ends"
KINDS = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
READERS: dict[str, Callable[[Table], Iterator[Record]]] = {
    ".jsonl": json_lines,
    ".json": json_list,
    ".csv": comma_separated,
    ".tsv": tab_separated,
}
DISGUISES = {
    b"\x1f\x8b": "the file is compressed with gzip; unpack it with gunzip",
    b"\x28\xb5\x2f\xfd": "the file is compressed with zstd; unpack it with unzstd",
    b"\xfd7zXZ": "the file is compressed with xz; unpack it with unxz",
    b"BZh91AY&SY": "the file is compressed with bzip2; unpack it with bunzip2",
    b"PK\x03\x04": "the file is a zip archive or an Excel workbook; unpack it or save it as CSV",
    b"PAR1": "the file is Parquet; convert it to .jsonl",
    b"ARROW1": "the file is Arrow; convert it to .jsonl",
    b"SQLite format 3": "the file is an SQLite data base; export the table as CSV",
    codecs.BOM_UTF16_LE: "the file is UTF-16; save it as UTF-8",
    codecs.BOM_UTF16_BE: "the file is UTF-16; save it as UTF-8",
    b"version https://git-lfs": "the file is a Git LFS pointer; fetch the data with git lfs pull",
    b"<!DOCTYPE": "the file is a web page; download the data file itself",
    b"<html": "the file is a web page; download the data file itself",
}
