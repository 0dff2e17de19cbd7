"""How alike two rows are: shingles, their Jaccard index, and the sketches that find who to compare.

A text is the set of its 5-character stretches, without case and with single spaces, so that it
holds for every script and for short texts. Two rows are alike when whole texts and each answer
have at least `threshold` of their stretches in common. A sketch (MinHash, Broder 1997) of 240
numbers estimates that; bands of it tell which rows are worth comparing. Our own 30 lines of numpy,
not a library: what a fixed file keeps must not change with a version.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.rows import Chat, Judged, Labelled, Pair, Row, Turns, canonical, digest
from tunesmith.data.prompts import normalised

Words = NDArray[np.uint64]
Sketch = NDArray[np.uint32]

WIDTH = 5
"""Characters of a shingle."""
HASHES = 240
"""Numbers of a sketch: many divisors, so that bands of every height use all of them."""
HEIGHTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 16, 20, 24, 30)
"""Numbers of a band: the higher, the fewer rows of a lower likeness meet by chance."""
RECALL = 0.99
"""Of pairs just as alike as the threshold, at least this share meets in some band."""
MULTIPLY, SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)
"""Constants of a multiplicative hash (Knuth): what matters is that they never change."""


def shingles(text: str) -> Words:
    """The text's 5-character stretches as sorted 64-bit hashes; a shorter text is one stretch."""
    codes = np.frombuffer(normalised(text).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    width = min(WIDTH, len(codes))
    count = len(codes) - width + 1
    hashed = np.full(count, width, dtype=np.uint64)
    for place in range(width):
        hashed = (hashed ^ codes[place : place + count]) * MULTIPLY
        hashed ^= hashed >> SHIFT
    return np.unique(hashed)


def jaccard(one: Words, other: Words) -> float:
    """The share of both that is in both."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


@cache
def permutations() -> tuple[Sketch, Sketch]:
    """Factors and terms of the hashes of a sketch; the same for ever."""
    draw = np.random.Generator(np.random.Philox(20261127))
    factors = draw.integers(0, 2**32, HASHES, dtype=np.uint32) | np.uint32(1)
    return factors, draw.integers(0, 2**32, HASHES, dtype=np.uint32)


def sketch(words: Words) -> Sketch:
    """The smallest value of each hash over the shingles: two sketches agree in a place with the
    probability of the Jaccard index."""
    factors, terms = permutations()
    short = (words >> np.uint64(32)).astype(np.uint32)
    found: Sketch = (short[:, None] * factors + terms).min(axis=0)
    return found


def height(threshold: float) -> int:
    """The highest band with which pairs at the threshold are still found."""
    kept = [h for h in HEIGHTS if 1 - (1 - threshold**h) ** (HASHES // h) >= RECALL]
    return max(kept, default=1)


def whole(row: Row) -> str:
    """All that a row says in words; its label is no text."""
    return "\n".join(row.texts())


def sides(row: Row) -> tuple[str, ...]:
    """Its answers, each compared by itself: a long question must not hide that they differ."""
    match row:
        case Chat():
            return (row.answer() + calls(row.messages[-1:]),)
        case Pair():
            return (spoken(row.chosen), spoken(row.rejected))
        case Judged():
            return (spoken(row.answered),)
    return ()


def spoken(turns: Turns) -> str:
    """The texts of turns, with their calls."""
    return "\n".join(turn.content or "" for turn in turns) + calls(turns)


def calls(turns: Turns) -> str:
    """The calls that turns make."""
    made = [turn.extra["tool_calls"] for turn in turns if turn.extra.get("tool_calls")]
    return canonical(made) if made else ""


def scope(row: Row, *, across: bool = True) -> str:
    """Rows of two scopes are never alike: of another kind, label, verdict, or scope of labels;
    where sources are not compared `across`, of another source."""
    verdict: Any = None
    if isinstance(row, Labelled):
        verdict = [*row.labels]
    elif isinstance(row, Judged):
        verdict = row.liked
    return digest([row.kind, row.scope if across else row.source, verdict])


def compared(row: Row, *, across: bool = True) -> tuple[str, list[Words]]:
    """A row's scope, and the shingles of it as a whole and of each answer."""
    return scope(row, across=across), [
        shingles(whole(row)),
        *(shingles(side) for side in sides(row)),
    ]


def alike(one: tuple[str, list[Words]], other: tuple[str, list[Words]], threshold: float) -> bool:
    """Whether two rows say the same but for so much."""
    return one[0] == other[0] and all(
        jaccard(mine, theirs) >= threshold for mine, theirs in zip(one[1], other[1], strict=True)
    )


def sketched(rows: Sequence[Row]) -> Sketch:
    """The sketches of the rows, moved apart by scope. # [rows, HASHES]"""
    found = np.empty((len(rows), HASHES), dtype=np.uint32)
    for index, row in enumerate(rows):
        found[index] = sketch(shingles(whole(row)))
        found[index] ^= np.uint32(int(scope(row)[:8], 16))
    return found


def questions(rows: Sequence[Row]) -> Sketch:
    """The sketches of what the rows ask, whatever the answer. # [rows, HASHES]"""
    found = np.empty((len(rows), HASHES), dtype=np.uint32)
    for index, row in enumerate(rows):
        found[index] = sketch(asked_words(row))
    return found


def asked_words(row: Row) -> Words:
    """The shingles of what a row asks."""
    return shingles(whole(row.question()))
