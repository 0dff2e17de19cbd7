"""From the rows that settings name to what the transforms leave of them, in memory or on disk."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path

from tunesmith.core.log import Log
from tunesmith.core.quote import listed, visible
from tunesmith.core.rows import Row
from tunesmith.core.tables import files_of, packed
from tunesmith.core.textfile import opened
from tunesmith.data.formats.base import Format
from tunesmith.data.large import Origins, transformed
from tunesmith.data.ledger import Ledger
from tunesmith.data.located import Located
from tunesmith.data.room import Room
from tunesmith.data.source import Reading
from tunesmith.data.source import rows as rows_of
from tunesmith.data.steps import chained
from tunesmith.data.transforms.base import Transform

LONG = 8 * 2**20
"""Bytes of a file above which reading it shows progress."""
LARGE = 32 * 2**20
"""Bytes of the sources above which rows stay on disk: in memory they take about five times that."""
PACKING = 5
"""How often a text is larger than its compressed file, about."""


@dataclass(frozen=True)
class Given:
    """A setting that names rows: for which part they are, in which form, and of which source."""

    path: str
    part: str
    format: Format | None
    source: str = ""
    """The source's name in a mixture; else rows have the name of their place."""

    def called(self, there: Located) -> str:
        """What rows are told to be of; the name of their file where that is nothing."""
        return self.source or (there.place if there.fetched else "")


def left_by_steps(
    given: Mapping[str, Given],
    found: Mapping[str, Located],
    steps: Sequence[Transform],
    room: Room,
    *,
    keys: tuple[str, ...],
    seed: int,
    log: Log,
) -> tuple[Sequence[Row], Ledger]:
    """The rows of the sources as the transforms leave them, with what their records say under
    `keys`, and what happened on the way."""
    sources = {name: each for name, each in given.items() if each.part == "source"}
    files = [file for name in sources for file in files_of(found[name].path)]
    ledger = Ledger()
    if bytes_of(files) >= LARGE:
        left = on_disk(sources, found, steps, ledger, room=room, keys=keys, seed=seed, log=log)
    else:
        left = in_memory(sources, found, steps, ledger, keys=keys, seed=seed, log=log)
    return left, ledger


def bytes_of(files: Iterable[Path]) -> int:
    """What files of rows hold; of compressed ones, about what is inside."""
    return sum(file.stat().st_size * (PACKING if packed(file) else 1) for file in files)


def in_memory(
    sources: Mapping[str, Given],
    found: Mapping[str, Located],
    steps: Sequence[Transform],
    ledger: Ledger,
    *,
    keys: tuple[str, ...],
    seed: int,
    log: Log,
) -> Sequence[Row]:
    """The rows that the transforms leave, in memory."""
    stream = chain.from_iterable(
        rows_from(name, given, found[name], ledger, log=log, keys=keys)
        for name, given in sources.items()
    )
    left, ledger.steps = chained(stream, steps, seed, ledger.tell, {})
    return list(left)


def on_disk(
    sources: Mapping[str, Given],
    found: Mapping[str, Located],
    steps: Sequence[Transform],
    ledger: Ledger,
    *,
    room: Room,
    keys: tuple[str, ...],
    seed: int,
    log: Log,
) -> Sequence[Row]:
    """The same on disk, by several processes."""
    origins = [
        Origins(found[name].path, given.called(found[name]), given.format, found[name].origin)
        for name, given in sources.items()
    ]
    work = transformed(origins, steps, room.take(), room.crew, seed=seed, keys=keys, log=log)
    for (name, given), reading in zip(sources.items(), work.readings, strict=True):
        note_file(name, given, found[name], reading, ledger=ledger, log=log)
    ledger.steps, ledger.told = work.accounts, [*work.told]
    return work.shelf


def rows_from(
    name: str,
    given: Given,
    there: Located,
    ledger: Ledger,
    *,
    log: Log,
    keys: tuple[str, ...] = (),
) -> Iterator[Row]:
    """The rows that one setting names, with what their records say under `keys`; afterwards the
    ledger has them."""
    origin = lru_cache(there.origin)  # Rows of one file come together.
    reading = Reading(there.path, given.format, given.called(there), keys=keys)
    with watched(there.path, log) as advance:
        for _, row in rows_of(reading, advance=advance):
            yield row.at(origin(row.origin.file))
    note_file(name, given, there, reading, ledger=ledger, log=log)


def note_file(
    name: str, given: Given, there: Located, reading: Reading, *, ledger: Ledger, log: Log
) -> None:
    """Say what was read, and keep it in the ledger."""
    form = reading.format.kind if reading.format else ""
    how = "stated" if given.format else "found"
    unused = list(reading.unused)
    ledger.files.append(
        {"file": there.place, "as": name, "format": form, "rows": reading.rows, "unused": unused}
    )
    rest = f"; keys not used: {listed(unused)}" if unused else ""
    log.say(f"{visible(given.path)}: {reading.rows} rows, format {form} ({how}){rest}")


@contextmanager
def watched(path: Path, log: Log) -> Iterator[Callable[[int], object]]:
    """Progress in bytes for files that take a while, silence for the others."""
    size = 0
    for each in files_of(path):
        with opened(each) as file:
            size += file.seek(0, 2)
    if size < LONG:
        yield lambda read: None
        return
    with log.progress(f"reading {visible(path.name)}, bytes", size) as advance:
        yield advance
