"""Which earlier row each row repeats nearly: bands of sketches say whom to compare, and each pair
is compared in full. What is held in memory does not grow with the texts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.rows import Row
from tunesmith.data.shelf import tables
from tunesmith.data.similar import (
    HASHES,
    Sketch,
    Words,
    alike,
    asked_words,
    compared,
    height,
    jaccard,
    questions,
    sketched,
)

Places = NDArray[np.int64]
Marks = NDArray[np.uint8]
Shingled = Callable[[int], tuple[str, list[Words]]]

MOST = 128
"""Kept rows of one bucket that a new one is compared with: many rows of one template, all below
the threshold, would otherwise cost the square of their number."""
DOUBT = 0.2
"""Sketches that agree this much less than the threshold (7 standard errors) need no comparison."""
REMEMBERED = 4096
"""Rows whose shingles stay in memory, since many rows repeat one."""


def repeats(
    rows: Sequence[Row], threshold: float, *, across: bool = True
) -> Iterator[tuple[int, int]]:
    """(row, earlier row that is kept and nearly the same), by row; `across` sources or in each.

    A row that repeats one that was dropped is compared with the kept ones alone, so a second look
    at what was kept finds nothing.
    """
    bands, marks = gathered(tables(rows, sketched), height(threshold))
    shingled = lru_cache(REMEMBERED)(lambda index: compared(rows[index], across=across))
    kept: dict[int, list[int]] = {}
    for row, buckets in meeting(bands):
        others = sorted({other for bucket in buckets for other in kept.get(bucket, ())})
        found = first_alike(row, others, marks, threshold, shingled)
        if found is not None:
            yield row, found
            continue
        for bucket in buckets:
            held = kept.setdefault(bucket, [])
            if len(held) < MOST:
                held.append(row)


def alike_questions(
    rows: Sequence[Row], threshold: float, known: Callable[[int, int], bool]
) -> Iterator[tuple[int, int]]:
    """(row, earlier row) that ask nearly the same, but for pairs that are `known` to belong
    together: enough of them to tie every row to the rows that it is like."""
    bands, marks = gathered(tables(rows, questions), height(threshold))
    shingled = lru_cache(REMEMBERED)(lambda index: asked_words(rows[index]))
    met: dict[int, list[int]] = {}
    for row, buckets in meeting(bands):
        for other in sorted({other for bucket in buckets for other in met.get(bucket, ())}):
            agreement = float((marks[other] == marks[row]).mean())
            if agreement < threshold - DOUBT or known(row, other):
                continue
            if jaccard(shingled(row), shingled(other)) >= threshold:
                yield row, other
        for bucket in buckets:
            held = met.setdefault(bucket, [])
            if len(held) < MOST:
                held.append(row)


def alike_to(
    rows: Sequence[Row], others: Sequence[Row], threshold: float
) -> Iterator[tuple[int, int]]:
    """(row, one of the others) that ask nearly the same, once for each such row."""
    sketches = chain(tables(others, questions), tables(rows, questions))
    bands, marks = gathered(sketches, height(threshold))
    size = len(others)

    @lru_cache(REMEMBERED)
    def shingled(index: int) -> Words:
        return asked_words(others[index] if index < size else rows[index - size])

    met: dict[int, list[int]] = {}
    for row, buckets in meeting(bands):
        if row < size:
            for bucket in buckets:
                met.setdefault(bucket, []).append(row)
            continue
        near = {other for bucket in buckets for other in met.get(bucket, ())}
        for other in likely(row, sorted(near), marks, threshold):
            if jaccard(shingled(row), shingled(other)) >= threshold:
                yield row - size, other
                break


def first_alike(
    row: int, others: list[int], marks: Marks, threshold: float, shingled: Shingled
) -> int | None:
    """The first of the others that says the same."""
    near = likely(row, others, marks, threshold)
    return next((o for o in near if alike(shingled(row), shingled(o), threshold)), None)


def likely(row: int, others: list[int], marks: Marks, threshold: float) -> list[int]:
    """Those whose sketches are worth a full comparison."""
    if not others:
        return []
    agreement = (marks[others] == marks[row]).mean(axis=1)
    return [o for o, a in zip(others, agreement, strict=True) if a >= threshold - DOUBT]


def gathered(pieces: Iterable[Sketch], high: int) -> tuple[list[Sketch], Marks]:
    """Of sketches, what is held in memory: a number for each band, and the last byte of each hash,
    which is enough to tell how many agree. # [band][rows], [rows, HASHES]"""
    parts: list[list[Sketch]] = [[] for _ in range(0, HASHES, high)]
    marks: list[Marks] = []
    for piece in pieces:
        marks.append(piece.astype(np.uint8))
        for number, start in enumerate(range(0, HASHES, high)):
            parts[number].append(banded(piece[:, start : start + high]))
    return [np.concatenate(part) for part in parts], np.concatenate(marks)


def meeting(bands: Sequence[Sketch]) -> Iterator[tuple[int, list[int]]]:
    """Rows that share a band with another one, in order, each with its buckets."""
    found: list[tuple[Places, Places]] = []
    total = 0  # buckets of the bands before
    for band in bands:
        rows, buckets = shared(band)
        found.append((rows, buckets + total))
        total += int(buckets.max(initial=-1)) + 1
    rows = np.concatenate([each for each, _ in found])
    buckets = np.concatenate([each for _, each in found])
    del found
    order = np.argsort(rows, kind="stable")
    rows, buckets = rows[order], buckets[order]
    borders = [*np.flatnonzero(np.diff(rows, prepend=-1)).tolist(), len(rows)]
    for start, stop in pairwise(borders):
        yield int(rows[start]), buckets[start:stop].tolist()


def banded(band: Sketch) -> Sketch:
    """One number for each row's band. Two bands have the same by accident once in 2**32."""
    hashed = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        hashed = (hashed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        hashed ^= hashed >> np.uint64(29)
    return (hashed >> np.uint64(32)).astype(np.uint32)


def shared(values: Sketch) -> tuple[Places, Places]:
    """The rows whose value another row has too, and for each the number of that value."""
    order = np.argsort(values, kind="stable")
    sorted_values = values[order]
    same = sorted_values[1:] == sorted_values[:-1]
    member = np.zeros(len(values), dtype=bool)
    member[1:] |= same
    member[:-1] |= same
    first = member.copy()
    first[1:] &= ~same
    return order[member].astype(np.int64), np.cumsum(first)[member].astype(np.int64) - 1
