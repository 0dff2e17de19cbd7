"""Examples and batches of random ids, for tests of what happens behind the tokenizer."""

import random
from collections.abc import Sequence as Many

from tunesmith.core.records import IGNORE, Batch, Example, Sequence, collate
from tunesmith.core.rows import Origin


def example(
    length: int, size: int, seed: int, *, share: float = 0.5, weight: float = 1.0
) -> Example:
    """A row of `length` ids below `size`, whose last `share` is supervised."""
    draw = random.Random(seed)
    ids = tuple(draw.randrange(size) for _ in range(length))
    first = int(length * (1 - share))
    targets = tuple(ids[t + 1] if t + 1 < length and t >= first else IGNORE for t in range(length))
    return Example(
        (Sequence(ids, targets),), f"row{seed}", Origin("rows.jsonl", seed + 1), weight=weight
    )


def examples(lengths: Many[int], size: int, *, share: float = 0.5) -> list[Example]:
    """One row for each length."""
    return [example(n, size, seed, share=share) for seed, n in enumerate(lengths)]


def batch(lengths: Many[int], size: int, *, share: float = 0.5) -> Batch:
    """The rows as one padded batch on the CPU."""
    return collate(examples(lengths, size, share=share), "cpu")
