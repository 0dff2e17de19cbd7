"""Tables of records: strict readers by file ending, and the parts that the data stage writes."""

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tunesmith.core import textfile
from tunesmith.core.delimited import comma_separated, tab_separated
from tunesmith.core.disk import write_parts
from tunesmith.core.documents import document
from tunesmith.core.errors import DataError
from tunesmith.core.gzipped import MAGIC, Inflated
from tunesmith.core.jsonfiles import json_lines, json_list
from tunesmith.core.parquet import parquet_rows
from tunesmith.core.pieces import Piece, cut, stretch
from tunesmith.core.quote import quoted, visible
from tunesmith.core.rows import Origin, Row, canonical, row_from
from tunesmith.core.textfile import TextFile, opened, refuse_disguise, unreadable

Reader = Callable[[TextFile], Iterator[tuple[int, dict[str, Any]]]]

READERS: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".json": json_list,
    ".csv": comma_separated,
    ".tsv": tab_separated,
    ".parquet": parquet_rows,
    ".txt": document,
    ".md": document,
}
PACKED = ".gz"
"""What may follow the ending of every text."""
STARTS = {".parquet": b"PAR1"}
"""How files that are no text begin."""
ABOUT = (
    *("readme.md", "readme.txt", "license.md", "license.txt", "changelog.md"),
    *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
    "manifest.json",
)
"""Files that lie beside rows and say something about them: a folder's reader passes them over."""


@dataclass(frozen=True)
class Record:
    """One row of a table as it stands there. Cells of CSV and TSV are text, byte for byte."""

    origin: Origin
    fields: dict[str, Any]


def read(path: Path, *, advance: Callable[[int], object] = lambda size: None) -> Iterator[Record]:
    """The rows of a file, or of every file of a folder, one at a time, in constant memory.

    `advance` hears the bytes of each piece read; of a compressed file, its compressed ones.
    Raises DataError for a file that is not what its name says, in one line with the place;
    ResourceError where the disk or the rights fail.
    """
    for file in files_of(Path(path)):
        yield from read_piece(Piece(file), advance)


def read_piece(piece: Piece, advance: Callable[[int], object]) -> Iterator[Record]:
    """The rows of one file, or of a stretch of it."""
    path = piece.path
    with opened(path) as whole:
        reader = reader_of(path)
        file = whole if piece.whole else stretch(whole, piece)
        table = TextFile(path, file, advance, piece.before)
        found = not piece.whole
        try:
            if packed(path):
                refuse_disguise(table, MAGIC)
                table = inflated(table)
            if not piece.start:
                refuse_disguise(table, STARTS.get(ending(path), b""))
            for line, fields in reader(table):
                found = True
                yield Record(Origin(str(path), line), fields)
        except OSError as error:
            raise unreadable(path, error) from None
    if not found:
        raise table.fault(1, "there is no row in this file; name a file with rows")


def pieces_of(path: Path, size: int) -> list[Piece]:
    """The files of `path`; of lines of JSON, which can be read from anywhere, stretches of `size`
    bytes."""
    found: list[Piece] = []
    for file in files_of(path):
        apart = ending(file) == ".jsonl" and not packed(file)
        found += cut(file, size) if apart else [Piece(file)]
    return found


def inflated(table: TextFile) -> TextFile:
    """What a compressed file holds; it tells by itself how far it was read."""
    content = Inflated(table.path, table.file, table.advance)
    return TextFile(table.path, io.BufferedReader(content, textfile.PIECE), lambda size: None)


def packed(path: Path) -> bool:
    """Whether a file says by its name that it is compressed."""
    return path.suffix.lower() == PACKED


def ending(path: Path) -> str:
    """What a file's name says it holds, compressed or not: `.csv` of `rows.csv.gz`."""
    return (Path(path.stem) if packed(path) else path).suffix.lower()


def reader_of(path: Path) -> Reader:
    """The reader for a file name."""
    reader = READERS.get(ending(path))
    if reader is None:
        inside = " inside .gz" if packed(path) else ""
        raise DataError(
            f"{visible(path)}: the ending {quoted(ending(path))}{inside} is not one that is read "
            f"here; convert the file to one of {', '.join(READERS)}"
        )
    if packed(path) and ending(path) in STARTS:
        what = f"a {ending(path)} file is compressed by itself"
        raise DataError(f"{visible(path)}: {what}; unpack it with gunzip")
    return reader


def is_rows(name: str) -> bool:
    """Whether a file in a folder is one of rows, by its name; hidden ones are not."""
    path = Path(name)
    return not name.startswith(".") and ending(path) in READERS and name.lower() not in ABOUT


def files_of(path: Path) -> list[Path]:
    """The file itself, or the files of rows in a folder and below it, by name.

    Hidden files and those of ABOUT are passed over. Links are refused: rows would come from
    elsewhere, or twice.
    """
    if not os.path.isdir(path):
        return [path]
    found = sorted(under(path), key=lambda file: file.relative_to(path).as_posix())
    if not found:
        raise DataError(
            f"{visible(path)}: no file in this folder ends in one of {', '.join(READERS)}; name "
            "a folder with rows, or a file"
        )
    return found


def under(folder: Path) -> Iterator[Path]:
    """The files of rows in a folder and below it, in no order."""

    def refuse(error: OSError) -> NoReturn:
        raise unreadable(Path(error.filename), error) from None

    for place, inner, names in os.walk(folder, onerror=refuse):
        inner[:] = [name for name in inner if not name.startswith(".")]
        files = [name for name in names if is_rows(name)]
        for name in (*inner, *files):
            if os.path.islink(path := Path(place, name)):
                raise DataError(
                    f"{visible(path)}: is a link, and a folder's rows must lie in it; put the "
                    "file itself there"
                )
        yield from (Path(place, name) for name in files)


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
