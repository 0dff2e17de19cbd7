"""Which rows answer what held-out rows ask, wherever either lie: by digests, by likeness, by group.

Rows are told by their place in their part. What is held in memory are a few numbers a row.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.rows import Row
from tunesmith.data.neighbours import alike_to
from tunesmith.data.prompts import asked, exact, normalised
from tunesmith.data.shelf import Table, tables

Leaks = list[tuple[int, int]]
"""A row, and a held-out row beside it."""
WAYS = (exact, normalised)


def asks(rows: Sequence[Row]) -> Table:
    """What each row asks, to the letter and loosely. # [rows, ways]"""
    found = [[number(asked(row, way).prompt) for way in WAYS] for row in rows]
    return np.array(found, dtype=np.uint64).reshape(-1, len(WAYS))


def answers(rows: Sequence[Row]) -> Table:
    """What each trained turn answers: the row's place, then as above. # [turns, 1 + ways]"""
    found = [
        (place, *map(number, turn))
        for place, row in enumerate(rows)
        for turn in zip(*(asked(row, way).trained for way in WAYS), strict=True)
    ]
    # The last line keeps how many rows there are.
    lines = [*found, (len(rows), *(0 for _ in WAYS))]
    return np.array(lines, dtype=np.uint64)


def number(key: bytes) -> int:
    """A digest's beginning: two of a million questions have the same once in a hundred million."""
    return int.from_bytes(key[:8], "little")


def answered(rows: Sequence[Row], held_out: Sequence[Row]) -> tuple[Leaks, Leaks]:
    """Rows that answer what is held out to the letter, and those that do so but for case and
    spaces."""
    if not rows or not held_out:
        return [], []
    asking = np.concatenate(list(tables(held_out, asks)))
    known = [np.unique(asking[:, way], return_index=True) for way in range(len(WAYS))]
    found: list[dict[int, int]] = [{} for _ in WAYS]
    start = 0
    for table in tables(rows, answers):
        for way, leaks in enumerate(found):
            for place, other in hits(table[:-1], way, *known[way]):
                leaks.setdefault(place + start, other)
        start += int(table[-1, 0])
    letter, loosely = found
    return [*letter.items()], [pair for pair in loosely.items() if pair[0] not in letter]


def hits(
    table: NDArray[np.uint64], way: int, keys: NDArray[np.uint64], first: NDArray[np.intp]
) -> Iterator[tuple[int, int]]:
    """Places in one table of answers, each with the first that asks so."""
    wanted = table[:, 1 + way]
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    for line in np.flatnonzero(keys[at] == wanted).tolist():
        yield int(table[line, 0]), int(first[at[line]])


def nearly(rows: Sequence[Row], held_out: Sequence[Row], threshold: float) -> Leaks:
    """Rows that ask nearly what is held out."""
    return list(alike_to(rows, held_out, threshold)) if rows and held_out else []


def grouped(rows: Iterable[Row], held_out: Iterable[Row], by: str) -> Leaks:
    """Rows that share a group with one that is held out."""
    pattern = re.compile(by)

    def groups(row: Row) -> Iterator[str]:
        matches = chain.from_iterable(pattern.finditer(text) for text in row.texts())
        return (match[0] for match in matches if match[0])

    known: dict[str, int] = {}
    for place, row in enumerate(held_out):
        for group in groups(row):
            known.setdefault(group, place)
    found = ((place, known.keys() & {*groups(row)}) for place, row in enumerate(rows))
    return [(place, known[min(shared)]) for place, shared in found if shared]
