"""Keep some rows of many, chosen by seed."""

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

from tunesmith.core.rows import Row
from tunesmith.data.transforms.base import Account, Transform


class Sample(Transform):
    """A random subset of `rows` rows, in their order. Holds only those rows in memory.

    Each row draws its place from the seed and its own content, so a row added to the file changes
    the choice by one row at most.
    """

    kind: Literal["sample"] = "sample"
    rows: int = Field(ge=1)
    """How many rows to keep; fewer are all kept."""

    def apply(self, rows: Iterable[Row], account: Account, seed: int) -> Iterator[Row]:
        """The chosen rows."""
        chosen: list[tuple[int, int, Row]] = []  # a heap with the worst draw on top
        for index, row in enumerate(rows):
            account.taken += 1
            entry = (-draw(seed, row), -index, row)
            if len(chosen) < self.rows:
                heapq.heappush(chosen, entry)
            else:
                heapq.heappushpop(chosen, entry)
                account.drop("not in the sample")
        for _, _, row in sorted(chosen, key=lambda entry: -entry[1]):
            account.kept += 1
            yield row


def draw(seed: int, row: Row) -> int:
    """A row's place in the draw."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{row.digest}".encode()).digest()[:8], "big")
