"""Where the data stage works on more rows than memory should hold; few rows need no room."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesmith.core import disk
from tunesmith.core.rows import Row, digest
from tunesmith.data.crew import Crew
from tunesmith.data.shelf import Shelf, Shelving, shelved, written
from tunesmith.environment import code_digest

WORK = "work"
"""The folder in the stage's own; it is gone when the stage is finished."""


@dataclass(frozen=True)
class Room:
    """A folder that is made when it is needed, and the processes that work in it. `inputs` and our
    code decide whether what an earlier process left there is still good."""

    path: Path
    inputs: Mapping[str, Any]
    crew: Crew

    @cached_property
    def key(self) -> str:
        """What all that is kept rests on: another version of us may find other things."""
        return digest({**self.inputs, "code": code_digest()})[:16]

    def take(self) -> Path:
        """The folder for these inputs; what was done with others is removed."""
        folder = self.path / self.key
        if self.path.is_dir():
            for other in self.path.iterdir():
                if other != folder:
                    disk.discard(other)
        disk.make_folders(folder)
        return folder

    def leave(self) -> None:
        """Remove the folder."""
        if self.path.is_dir():
            disk.discard(self.path)

    def dealt(
        self, rows: Sequence[Row], chosen: Sequence[str], parts: Sequence[str]
    ) -> dict[str, Sequence[Row]]:
        """The rows of each part, in their order."""
        if not isinstance(rows, Shelf):
            found: dict[str, list[Row]] = {part: [] for part in parts}
            for row, part in zip(rows, chosen, strict=True):
                found[part].append(row)
            return {**found}
        shelves = {part: Shelving(self.take() / part, self.crew) for part in parts}
        for line, part in zip(rows.lines(), chosen, strict=True):
            shelves[part].add(line)
        return {part: each.done() for part, each in shelves.items()}

    def joined(self, rows: Sequence[Row], more: Sequence[Row]) -> Sequence[Row]:
        """All of both, one behind the other."""
        if not isinstance(rows, Shelf):
            return [*rows, *more]
        beside = shelved(written(more), rows.files[0].parent / "more", self.crew)
        return Shelf([*rows.files, *beside.files], [*rows.counts, *beside.counts], self.crew)

    def again(self, rows: Sequence[Row], left: Iterable[Row]) -> Sequence[Row]:
        """What is `left` of rows, kept as they are."""
        if not isinstance(rows, Shelf):
            return list(left)
        return shelved(written(left), rows.files[0].parent / "left", self.crew)
