"""Even out classes: drop rows of large ones, repeat rows of small ones, or weigh all alike."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tunesmith.core.quote import listed as named
from tunesmith.core.rows import Labelled, Row
from tunesmith.data.classes import Class, class_of
from tunesmith.data.draw import draw
from tunesmith.data.shelf import listed
from tunesmith.data.transforms.base import Account, Transform

EXACT = 1e-9
"""Weights that differ by less are equal: sums of floats are not exact."""


class Balance(Transform):
    """Make classes equally large, or count equally in the loss.

    Which rows go, or stand more than once, is drawn from the seed and their content. Repeated rows
    stand behind their first one. Parts are split off afterwards, so held-out rows are balanced too;
    where they should be as in life, name files for valid and test.
    """

    kind: Literal["balance"] = "balance"
    by: str = "label"
    """`label` (of a conversation, its last answer), or a key of the records (`product`,
    `metadata.region`)."""
    how: Literal["down", "up", "weights"] = "down"
    """Drop rows of the larger classes, repeat those of the smaller ones, or give every class the
    same sum of weights."""
    to: Annotated[int, Field(ge=1)] | None = None
    """Rows of each class, for `down` at most and for `up` at least; by default those of the
    smallest, or of the largest one."""

    @model_validator(mode="after")
    def size_means_something(self) -> "Balance":
        """Weights change no number of rows."""
        if self.to is not None and self.how == "weights":
            raise ValueError("to is for how: down or up; leave it out")
        return self

    def fields(self) -> tuple[str, ...]:
        """The key whose values are the classes."""
        return () if self.by == "label" else (self.by,)

    def apply(self, rows: Iterable[Row], account: Account, seed: int) -> Iterator[Row]:
        """The rows, balanced."""
        held, labels = listed(rows), self.by == "label"
        numbers: dict[Class, int] = {}
        places, draws, weights = array("L"), array("Q"), Counter[int]()
        for row in held:
            number = numbers.setdefault(class_of(row, self.by, "balance.by"), len(numbers))
            labels = labels and isinstance(row, Labelled)
            places.append(number)
            draws.append(draw(seed, row))
            weights[number] += row.weight  # type: ignore[assignment]
        note(numbers, Counter(places), account, labels=labels)
        if self.how == "weights":
            yield from weighed(held, places, weights, account)
        else:
            yield from repeated(held, self.times(places, draws), account)

    def times(self, places: "array[int]", draws: "array[int]") -> Iterator[int]:
        """How often each row stands."""
        counts = Counter(places)
        sizes = counts.values()
        size = self.to or (min if self.how == "down" else max)(sizes, default=1)
        order: dict[int, list[int]] = {number: [] for number in counts}
        for index, number in enumerate(places):
            order[number].append(index)
        found = array("L", bytes(8 * len(places)))
        for number, indices in order.items():
            indices.sort(key=lambda index: (draws[index], index))
            wanted = (min if self.how == "down" else max)(size, counts[number])
            for rank, index in enumerate(indices):
                found[index] = wanted // len(indices) + (rank < wanted % len(indices))
        return iter(found)


def repeated(rows: Iterable[Row], times: Iterator[int], account: Account) -> Iterator[Row]:
    """Each row as often as it shall stand."""
    for row, count in zip(rows, times, strict=True):
        account.taken += 1
        if not count:
            account.drop("its class is larger than others", row)
        for number in range(count):
            account.kept += 1
            if number:
                account.add(row, "its class is smaller than others")
            yield row


def weighed(
    rows: Iterable[Row], places: "array[int]", weights: Mapping[int, float], account: Account
) -> Iterator[Row]:
    """The rows with weights that add up to the same in every class, and to what they did."""
    share = sum(weights.values()) / max(len(weights), 1)
    for row, number in zip(rows, places, strict=True):
        account.taken += 1
        account.kept += 1
        factor = share / weights[number]
        if abs(factor - 1) > EXACT:
            account.change(row, "weight")
            row = replace(row, weight=row.weight * factor)
        yield row


def note(
    numbers: Mapping[Class, int], counts: Mapping[int, int], account: Account, *, labels: bool
) -> None:
    """Say how uneven the classes were, by name where they are `labels`: an answer or a field of a
    record may be private."""
    if len(counts) > 1:
        sizes = {each: counts[number] for each, number in numbers.items()}
        smallest, largest = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        few, many = (f" ({named([each[1]])})" if labels else "" for each in (smallest, largest))
        account.notes.append(
            f"{len(counts)} classes, from {sizes[smallest]} rows{few} to {sizes[largest]}{many}"
        )
