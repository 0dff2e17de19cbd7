"""Stretches of words: what two texts must have in common to be told from chance."""

import hashlib
import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\w+")
SHORT = 3
"""A text of fewer words than this says nothing of its own: `yes`, a label, a number."""


def words_of(text: str) -> NDArray[np.uint64]:
    """The words as hashes, without case and punctuation; the same in every process."""
    found = WORD.findall(text.casefold())
    return np.array([word_hash(word) for word in found], dtype=np.uint64)


@lru_cache(1 << 16)
def word_hash(word: str) -> int:
    """64 bits of a word."""
    found = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(found.digest(), "big")


def grams(words: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """Every stretch of `size` words as one hash; a shorter text is one stretch, and one that is
    too short is none."""
    if len(words) < SHORT:
        return words[:0]
    width = min(size, len(words))
    count = len(words) - width + 1
    found = np.full(count, width, dtype=np.uint64)
    for place in range(width):
        found = (found ^ words[place : place + count]) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    return found
