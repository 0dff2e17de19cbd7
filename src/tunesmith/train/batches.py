"""Seam: which rows make a step, and how a step is cut into micro-batches.

Everything is a pure function of the examples, the seed and the step, so a checkpoint holds one
integer. The gradient does not depend on the cut: the loop divides by the whole step's weight.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tunesmith.core.records import Batch, Example, collate


def order(count: int, epoch: int, seed: int) -> list[int]:
    """The rows' order in one epoch."""
    places = list(range(count))
    random.Random(f"order {seed} {epoch}").shuffle(places)
    return places


def steps_in(count: int, rows: int) -> int:
    """Optimiser steps in one epoch; the last may hold fewer rows."""
    return -(-count // rows)


def step_rows(count: int, rows: int, seed: int, step: int) -> list[int]:
    """The places of the rows of one step."""
    epoch, within = divmod(step, steps_in(count, rows))
    return order(count, epoch, seed)[within * rows : (within + 1) * rows]


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


class Groups:
    """The micro-batches of each step, from step `start` on, for ever. `drawn` is the cursor."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        rows: int,
        tokens: int,
        seed: int,
        device: Any,
        start: int = 0,
    ) -> None:
        self.examples, self.rows, self.tokens = examples, rows, tokens
        self.seed, self.device, self.drawn = seed, device, start

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        places = step_rows(len(self.examples), self.rows, self.seed, self.drawn)
        self.drawn += 1
        return cut([self.examples[p] for p in places], self.tokens, self.device)


def cut(examples: Sequence[Example], tokens: int, device: Any) -> list[Batch]:
    """Examples as micro-batches of at most `tokens` tokens."""
    groups = bins([e.length for e in examples], tokens)
    return [collate([examples[i] for i in group], device) for group in groups]


def halves(batch: Batch) -> list[Batch]:
    """A micro-batch as two of half the sequences, for when memory ran out; one stays as it is."""
    count = batch.ids.shape[0]
    if count == 1 or batch.labels is not None or batch.extra:
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
    )
