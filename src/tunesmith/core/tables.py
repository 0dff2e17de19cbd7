"""Tables of records: strict readers by file ending, and the parts that the data stage writes."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.delimited import comma_separated, tab_separated
from tunesmith.core.disk import write_parts
from tunesmith.core.errors import DataError
from tunesmith.core.jsonfiles import json_lines, json_list
from tunesmith.core.quote import quoted, visible
from tunesmith.core.rows import Origin, Row, canonical, row_from
from tunesmith.core.textfile import TextFile, opened, refuse_disguise, unreadable

Reader = Callable[[TextFile], Iterator[tuple[int, dict[str, Any]]]]

READERS: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".json": json_list,
    ".csv": comma_separated,
    ".tsv": tab_separated,
}


@dataclass(frozen=True)
class Record:
    """One row of a table as it stands there. Cells of CSV and TSV are text, byte for byte."""

    origin: Origin
    fields: dict[str, Any]


def read(path: Path, *, advance: Callable[[int], object] = lambda size: None) -> Iterator[Record]:
    """The rows of a .jsonl, .json, .csv or .tsv file, one at a time, in constant memory.

    `advance` hears the bytes of each piece read. Raises DataError for a file that is not what its
    name says, in one line with the place; ResourceError where the disk or the rights fail.
    """
    path = Path(path)
    with opened(path) as file:
        reader = reader_of(path)
        table = TextFile(path, file, advance)
        refuse_disguise(table)
        found = False
        try:
            for line, fields in reader(table):
                found = True
                yield Record(Origin(str(path), line), fields)
        except OSError as error:
            raise unreadable(path, error) from None
    if not found:
        raise table.fault(1, "there is no row in this file; name a file with rows")


def reader_of(path: Path) -> Reader:
    """The reader for a file name."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{visible(path)}: the ending {quoted(path.suffix)} is not one that is read here; "
            f"convert the file to one of {', '.join(READERS)}"
        )
    return reader


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
