"""Which earlier row each row repeats in what it means: texts as the bundled encoder reads them."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.rows import Row
from tunesmith.data.similar import scope, sides, whole
from tunesmith.model.encode import vectors

Vectors = NDArray[np.float32]

BLOCK = 1024
"""Rows compared with all earlier ones at once."""


def repeats(
    rows: Sequence[Row], threshold: float, *, across: bool = True
) -> Iterator[tuple[int, int]]:
    """(row, earlier row that is kept and means the same), by row; `across` sources or in each.

    The texts as a whole and each answer by itself are compared: a cosine of at least `threshold`.
    """
    scopes = [scope(row, across=across) for row in rows]
    parts = [(whole(row), *sides(row)) for row in rows]
    most = max(map(len, parts), default=0)
    tables = [vectors([(*part, *[""] * most)[place] for part in parts]) for place in range(most)]
    dropped: set[int] = set()
    for start in range(0, len(rows), BLOCK):
        stop = min(start + BLOCK, len(rows))
        close = likeness(tables, start, stop) >= threshold
        for row in range(start, stop):
            near = np.flatnonzero(close[row - start, :row])
            found = (n for n in near.tolist() if n not in dropped and scopes[n] == scopes[row])
            if (earlier := next(found, None)) is not None:
                dropped.add(row)
                yield row, earlier


def likeness(tables: list[Vectors], start: int, stop: int) -> Vectors:
    """The lowest cosine of any part, of rows of a block with all rows before its end."""
    found = np.ones((stop - start, stop), np.float32)
    for each in tables:
        found = np.minimum(found, each[start:stop] @ each[:stop].T)
    return found
