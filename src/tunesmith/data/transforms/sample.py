"""Keep some rows of many, chosen by seed."""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Literal

from pydantic import Field, model_validator

from tunesmith.core.quote import listed
from tunesmith.core.rows import Row
from tunesmith.data.classes import Class, classes
from tunesmith.data.draw import draw
from tunesmith.data.transforms.base import Account, Transform

INSTEAD = "state rows instead of per_class"


class Sample(Transform):
    """A random subset, in its order: `rows` rows, or `per_class` of each label (few-shot).

    The class of a row is its label, or the last answer of a conversation; a row of several labels
    counts for each, and labels of two sources are two labels. Each row draws its place from the
    seed and its own content, so a row added to the file changes the choice by one row at most of
    each of its classes. Parts are split off afterwards: for exactly `per_class` rows to train on,
    name files for valid and test. Holds only the chosen rows in memory.
    """

    kind: Literal["sample"] = "sample"
    rows: int | None = Field(default=None, ge=1)
    """How many rows to keep; fewer are all kept."""
    per_class: int | None = Field(default=None, ge=1)
    """How many rows of each label to keep; of a label with fewer all are kept, and that is said."""

    @model_validator(mode="after")
    def say_one_size(self) -> "Sample":
        """Two sizes contradict each other, and none is none."""
        if (self.rows is None) == (self.per_class is None):
            raise ValueError("state one of rows and per_class, such as {kind: sample, rows: 100}")
        return self

    def apply(self, rows: Iterable[Row], account: Account, seed: int) -> Iterator[Row]:
        """The chosen rows."""
        size = self.per_class or self.rows or 0
        heaps: dict[Class, list[tuple[int, int]]] = {}  # of each class, with the worst draw on top
        held: dict[int, tuple[Row, set[Class]]] = {}  # beside each row the classes that chose it
        for index, row in enumerate(rows):
            account.taken += 1
            named = classes(row, INSTEAD) if self.per_class else ("any",)
            names = {(row.scope if self.per_class else "", name) for name in named}
            held[index], place = (row, names), draw(seed, row)
            for name in sorted(names):
                heap = heaps.setdefault(name, [])
                heapq.heappush(heap, (-place, -index))
                if len(heap) > size:
                    release(-heapq.heappop(heap)[1], name, held, account)
        if self.per_class:
            note_small(heaps, size, account)
        for row, _ in held.values():
            account.kept += 1
            yield row


def release(
    index: int, name: Class, held: dict[int, tuple[Row, set[Class]]], account: Account
) -> None:
    """Take a row out of the sample of one class, and drop it when no other has it."""
    row, names = held[index]
    names.remove(name)
    if not names:
        del held[index]
        account.drop("not in the sample", row)


def note_small(heaps: Mapping[Class, Sized], size: int, account: Account) -> None:
    """Say which classes have fewer rows than asked for."""
    small = [name for (_, name), heap in heaps.items() if len(heap) < size]
    if small:
        account.notes.append(
            f"classes with fewer than {size} rows, all kept: {len(small)} of {len(heaps)} "
            f"({listed(small, most=5)})"
        )
