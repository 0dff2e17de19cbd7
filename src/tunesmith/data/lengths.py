"""How long the rows are, drawn in a few lines of text."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tunesmith.core.rows import Row

WIDTH = 40
"""Characters of the longest bar."""


def histogram(rows: Sequence[Row], tokenizer: Any = None) -> Iterator[str]:
    """Median, 95 of 100 and longest, then a bar for each doubling of the length.

    Lengths are words, or tokens of the texts where there is a tokenizer; what a chat template
    puts between the texts is not counted.
    """
    lengths = sorted(length(row, tokenizer) for row in rows)
    if not lengths:
        return
    unit = "words" if tokenizer is None else "tokens"
    yield (
        f"{unit} a row: median {lengths[len(lengths) // 2]}, 95 of 100 have at most "
        f"{lengths[(len(lengths) * 95 - 1) // 100]}, longest {lengths[-1]}"
    )
    buckets = Counter(value.bit_length() for value in lengths)
    most = max(buckets.values())
    for bucket in range(min(buckets), max(buckets) + 1):
        low, high = (1 << bucket) >> 1, (1 << bucket) - 1
        bar = "#" * -(-buckets[bucket] * WIDTH // most)
        yield f"  {low:>7}-{high:<7} {buckets[bucket]:>7}  {bar}".rstrip()


def length(row: Row, tokenizer: Any) -> int:
    """Words or tokens in all texts of a row."""
    texts = row.texts()
    if tokenizer is None:
        return sum(len(text.split()) for text in texts)
    return sum(len(tokenizer.encode(text)) for text in texts)
