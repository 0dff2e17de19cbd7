"""Seam: which rows make a step, and how a step is cut into micro-batches.

Everything is a pure function of the examples, the seed and the step, so a checkpoint holds one
integer. The gradient does not depend on the cut: the loop divides by the whole step's weight. Only
what is rounded to bytes (`coarse`) does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tunesmith.core.records import Batch, Example, collate
from tunesmith.model import attention
from tunesmith.model.policy import Laid
from tunesmith.train.mixture import Mixture, whole

COPIED = 8
"""Tokens of a common beginning whose keys and values, copied for a row, take a token's memory."""


def steps_in(count: int, rows: int) -> int:
    """Optimiser steps in one epoch; the last may hold fewer rows."""
    return -(-count // rows)


def step_rows(mixture: Mixture, rows: int, seed: int, step: int) -> list[int]:
    """The places of the rows of one step."""
    epoch, within = divmod(step, steps_in(mixture.size, rows))
    return mixture.order(epoch, seed)[within * rows : (within + 1) * rows]


def bins(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Places grouped so that each group holds at most `limit` tokens: best fit, longest first.

    A row longer than the limit gets a group of its own.
    """
    groups: list[list[int]] = []
    free: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [g for g, room in enumerate(free) if room >= lengths[place]]
        if fitting:
            best = min(fitting, key=lambda g: free[g])
            groups[best].append(place)
            free[best] -= lengths[place]
        else:
            groups.append([place])
            free.append(max(0, limit - lengths[place]))
    return groups


def shelves(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Places grouped so that each group, padded to its longest row, holds at most `limit` tokens:
    rows of similar length together, longest first.

    A row longer than the limit gets a group of its own.
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        full = not groups or lengths[groups[-1][0]] * (len(groups[-1]) + 1) > limit
        if full:
            groups.append([])
        groups[-1].append(place)
    return groups


class Groups:
    """The micro-batches of each step, from step `start` on, for ever. `drawn` is the cursor.

    Without a `mixture` every example is drawn once an epoch.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        mixture: Mixture | None = None,
        rows: int,
        tokens: int,
        seed: int,
        device: Any,
        laid: Laid = "packed",
        start: int = 0,
    ) -> None:
        self.examples, self.rows, self.tokens, self.laid = examples, rows, tokens, laid
        self.seed, self.device, self.drawn = seed, device, start
        self.mixture = mixture or whole(len(examples))

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        places = step_rows(self.mixture, self.rows, self.seed, self.drawn)
        self.drawn += 1
        chosen = [self.examples[p] for p in places]
        return cut(chosen, self.tokens, self.device, laid=self.laid)


def cut(
    examples: Sequence[Example], tokens: int, device: Any, *, laid: Laid = "packed"
) -> list[Batch]:
    """Examples as micro-batches of at most `tokens` tokens, as the model lays them: padding counts
    where rows are `padded`, and what all begin with counts once where it is `shared`."""
    common = common_start(examples) if laid == "shared" else 0
    own = [e.length - saved(common) * len(e.sequences) for e in examples]
    group = shelves if laid == "padded" else bins
    groups = group(own, tokens - common)
    return [collate([examples[i] for i in group], device) for group in groups]


def largest(tokens: int, *, longest: int, common: int, rows: int) -> int:
    """Tokens of the largest pass of a step of so many rows, none of them over `longest`."""
    return max(longest, min(tokens, common + rows * (longest - saved(common))))


def saved(common: int) -> int:
    """Tokens that each row costs less where what all begin with is laid once."""
    return common - common // COPIED


def common_start(examples: Sequence[Example]) -> int:
    """Tokens that all sequences begin with alike, where they are worth laying once; else 0."""
    return attention.beginning([s.ids for e in examples for s in e.sequences])


def halves(batch: Batch) -> list[Batch]:
    """A micro-batch as two of half the sequences, for when memory ran out; one stays as it is."""
    count = batch.ids.shape[0]
    several = batch.labels is not None and len(batch.labels) != count  # sequences to an example
    if count == 1 or several:
        return [batch]
    middle = count // 2
    return [_rows_of(batch, slice(0, middle)), _rows_of(batch, slice(middle, count))]


def _rows_of(batch: Batch, rows: slice) -> Batch:
    width = int(batch.mask[rows].sum(dim=1).max())
    return replace(
        batch,
        ids=batch.ids[rows, :width],
        mask=batch.mask[rows, :width],
        targets=batch.targets[rows, :width],
        weights=batch.weights[rows],
        rows=batch.rows[rows],
        origins=batch.origins[rows],
        sources=batch.sources[rows],
        labels=None if batch.labels is None else batch.labels[rows],
        segments=None if batch.segments is None else batch.segments[rows, :width],
        extra={name: value[rows] for name, value in batch.extra.items()},
    )
