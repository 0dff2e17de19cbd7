"""Rows that lie on disk: a sequence that is read as it is gone through, in files of a few MiB.

Steps that need every row at once ask for `listed` rows, and compute what they need of each with
`tables`; both work alike on rows in memory and on a shelf, where files are done side by side and
what is done stays.
"""

import importlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from tunesmith.core.disk import make_folders
from tunesmith.core.rows import Row, canonical, row_from
from tunesmith.data.crew import Crew
from tunesmith.data.whole import whole

FILE = 8 * 2**20
"""Bytes of a file: many of them fit in memory, and few of them hold a large source."""

FIELDS = b'"fields":'
"""What a line has that keeps some of its record."""
TABLE = "table"
Table = NDArray[Any]
Make = Callable[[Sequence[Row]], Table]


class Shelf(Sequence[Row]):
    """The rows of several files, in order. `counts` are the rows of each; `advance` is told of rows
    that a look at all of them is done with."""

    def __init__(
        self,
        files: Sequence[Path],
        counts: Sequence[int],
        crew: Crew,
        advance: Callable[[int], object] = lambda rows: None,
    ) -> None:
        self.files = list(files)
        self.counts = list(counts)
        self.crew = crew
        self.advance = advance
        self.starts = [0, *accumulate(self.counts)]

    def __len__(self) -> int:
        return self.starts[-1]

    def __iter__(self) -> Iterator[Row]:
        for file in self.files:
            yield from rows_in(file)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | Sequence[Row]:
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(len(self)))]
        index = place + len(self) if place < 0 else place
        if not 0 <= index < len(self):
            raise IndexError(place)
        number = bisect_right(self.starts, index) - 1
        with self.files[number].open("rb") as file:
            file.seek(int(self.offsets[number][index - self.starts[number]]))
            return row_from(json.loads(file.readline()))

    @cached_property
    def offsets(self) -> list[NDArray[np.uint64]]:
        """Where each row begins in its file."""
        found = []
        for file in self.files:
            with file.open("rb") as lines:
                sizes = [len(line) for line in lines]
            found.append(np.cumsum([0, *sizes], dtype=np.uint64)[:-1])
        return found

    def lines(self) -> Iterator[bytes]:
        """The rows as they are written."""
        for file in self.files:
            with file.open("rb") as lines:
                yield from lines

    def tables(self, make: Make) -> Iterator[Table]:
        """What `make` says of the rows, file by file."""
        name = f"{make.__module__}:{make.__qualname__}"
        left = [file for file in self.files if not whole_table(beside(file, name))]
        for _ in self.crew.each(tabled, [{"file": str(file), "make": name} for file in left]):
            pass
        return (load_file(beside(file, name))[TABLE] for file in self.files)


def noticed(rows: Sequence[Row], advance: Callable[[int], object]) -> Sequence[Row]:
    """The same rows; a shelf tells of those that a look at all of them is done with."""
    if not isinstance(rows, Shelf):
        return rows
    return Shelf(rows.files, rows.counts, rows.crew, advance)


def rows_in(file: Path) -> Iterator[Row]:
    """The rows of one file."""
    with file.open("rb") as lines:
        for line in lines:
            yield row_from(json.loads(line))


def beside(file: Path, make: str) -> Path:
    """Where what `make`, by its module and name, knows of a file's rows is kept."""
    return file.with_suffix(f".{make.replace(':', '.')}")


def whole_table(path: Path) -> bool:
    """Whether a table is there and as long as it says: after a power loss it may not be."""
    try:
        with safe_open(path, framework="numpy"):
            return True
    except (OSError, SafetensorError):
        return False


def tabled(file: str, make: str) -> None:
    """Keep what `make`, a function of ours by its name, says of a file's rows."""
    module, _, name = make.partition(":")
    found = getattr(importlib.import_module(module), name)(list(rows_in(Path(file))))
    with whole(beside(Path(file), make)) as out:
        out.write(save({TABLE: found}))


def listed(rows: Iterable[Row]) -> Sequence[Row]:
    """Rows that can be gone through twice: those of a shelf stay there."""
    return rows if isinstance(rows, Sequence) else list(rows)


def tables(rows: Sequence[Row], make: Make) -> Iterator[Table]:
    """What `make` says of each row, one line of numbers a row, in as many tables as there are
    files."""
    return rows.tables(make) if isinstance(rows, Shelf) else iter([make(rows)])


def written(rows: Iterable[Row]) -> Iterator[bytes]:
    """Rows as lines of a prepared file."""
    return (f"{canonical(row.record())}\n".encode() for row in rows)


def lines_of(rows: Sequence[Row]) -> Iterator[bytes]:
    """The same of rows wherever they are."""
    return rows.lines() if isinstance(rows, Shelf) else written(rows)


def bare(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of rows without the fields of their records: once rows are divided nothing reads those,
    and no step has looked at what stands in them."""
    for line in lines:
        if FIELDS not in line:
            yield line
            continue
        record = json.loads(line)
        record.pop("fields", None)
        yield f"{canonical(record)}\n".encode()


def shelved(lines: Iterable[bytes], folder: Path, crew: Crew) -> Shelf:
    """Put rows on a shelf, line by line."""
    shelving = Shelving(folder, crew)
    for line in lines:
        shelving.add(line)
    return shelving.done()


class Shelving:
    """A shelf that is being filled, from its first file on."""

    def __init__(self, folder: Path, crew: Crew) -> None:
        self.folder = folder
        self.crew = crew
        self.files: list[Path] = []
        self.counts: list[int] = []
        self.held: list[bytes] = []
        self.size = 0

    def add(self, line: bytes) -> None:
        """One row more."""
        self.held.append(line)
        self.size += len(line)
        if self.size >= FILE:
            self.put()

    def put(self) -> None:
        """Write what is held as one file."""
        make_folders(self.folder)
        self.files.append(self.folder / f"{len(self.files):06}.jsonl")
        self.counts.append(len(self.held))
        with whole(self.files[-1]) as out:
            out.writelines(self.held)
        self.held, self.size = [], 0

    def done(self) -> Shelf:
        """The shelf."""
        if self.held or not self.files:
            self.put()
        return Shelf(self.files, self.counts, self.crew)
