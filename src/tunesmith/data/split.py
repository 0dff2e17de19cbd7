"""Train, valid and test without leaks: rows that ask the same stay in one part."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tunesmith.core.errors import DataError
from tunesmith.core.mixing import divided
from tunesmith.core.parts import Spec
from tunesmith.core.quote import visible
from tunesmith.core.rows import Row
from tunesmith.data.classes import class_of
from tunesmith.data.neighbours import alike_questions
from tunesmith.data.prompts import asked

Kind = tuple[str, str]
"""What is divided by itself: a source, and a class in it."""
STRATIFY = "data.split.stratify"
NOTHING: Mapping[str, Collection[str]] = MappingProxyType({})


def not_a_switch(value: Any) -> Any:
    """YAML reads `no` as false, which would pass for the number 0."""
    if isinstance(value, bool):
        raise ValueError("write a share such as 0.1, a number of rows, or 0 for none")
    return value


def share_or_count(value: float | int) -> float | int:
    """A share is below 1; whole numbers are rows."""
    if isinstance(value, float) and not value < 1:
        raise ValueError("a share is below 1, such as 0.1; a number of rows is whole")
    return value


Size = Annotated[
    float | int, BeforeValidator(not_a_switch), AfterValidator(share_or_count), Field(ge=0)
]


class Split(Spec):
    """How many rows are kept from training, to choose and to judge by."""

    valid: Size = 0.1
    """Rows to choose the best step by: a share (0.1) or a number (200). 0 for none."""
    test: Size = 0.1
    """Rows to judge the result by, used once: a share (0.1) or a number (200). 0 for none."""
    by: str | None = None
    """Key of the records (`customer`, `metadata.case`) whose equal values stay in one part."""
    time: str | None = None
    """Key of the records whose values tell the order (`date`, written so that they sort): the
    latest rows are test, those before them valid, as the model will meet them."""
    stratify: str | None = None
    """Divide the rows of each class by themselves, so that every part has its share: `label`, or a
    key of the records."""
    near: Annotated[float, Field(gt=0.3, le=1)] | None = None
    """Rows whose questions are at least so alike (0.8: a Jaccard index of 5-character stretches)
    stay in one part; null looks past case and spaces only. Costs 0.2 ms a row."""

    @model_validator(mode="after")
    def leave_some_to_train(self) -> "Split":
        """Shares that take everything leave nothing to learn from."""
        if isinstance(self.valid, float) and isinstance(self.test, float):
            taken = self.valid + self.test
            if taken >= 1:
                raise ValueError(f"valid and test take {taken:g} of the rows; leave some to train")
        return self

    @model_validator(mode="after")
    def one_order(self) -> "Split":
        """The latest rows are what they are, of whatever class."""
        if self.time is not None and self.stratify is not None:
            raise ValueError("time and stratify contradict each other; keep one")
        return self

    def fields(self) -> tuple[str, ...]:
        """Keys of the records that decide."""
        named = (self.by, self.time, None if self.stratify == "label" else self.stratify)
        return tuple(key for key in named if key is not None)


def split(
    rows: Sequence[Row],
    sizes: Mapping[str, float | int],
    rule: Split,
    seed: int,
    *,
    kept: Mapping[str, Collection[str]] = NOTHING,
) -> dict[str, list[Row]]:
    """The rows in parts `train` and those of `sizes`, in their order."""
    parts: dict[str, list[Row]] = {part: [] for part in ("train", *(p for p in sizes if sizes[p]))}
    for row, part in zip(rows, parted(rows, sizes, rule, seed, kept=kept), strict=True):
        parts[part].append(row)
    return parts


def parted(
    rows: Sequence[Row],
    sizes: Mapping[str, float | int],
    rule: Split,
    seed: int,
    *,
    kept: Mapping[str, Collection[str]] = NOTHING,
) -> list[str]:
    """The part of each row; groups are never divided.

    Each source, and each class where the rule says so, is divided by itself, and groups may hold
    rows of several: a part takes the next group, in an order that seed and content decide, or from
    the latest on, as long as its rows of every kind fit. So a part is never larger than asked.
    `kept` names the parts that take no row of a source. Raises DataError where a part stays empty.
    """
    facts = gathered(rows, rule)
    counts = Counter(facts.kinds)
    wanted = {
        part: rows_wanted(size, {k: n for k, n in counts.items() if part not in kept.get(k[0], ())})
        for part, size in sizes.items()
        if size
    }
    part_of = ["train"] * len(facts.kinds)
    taken: dict[str, Counter[Kind]] = {part: Counter() for part in wanted}
    still = list(wanted)
    for group in ordered(facts, tied(facts, rows, rule), seed):
        held = Counter(facts.kinds[index] for index in group)
        if not any(target.get(kind) for target in wanted.values() for kind in held):
            continue  # Of a replayed source, say: no part takes its rows, however late.
        fits = [part for part in still if within(taken[part] + held, wanted[part])]
        if facts.times:
            # Whatever is earlier than a group that does not fit is no later than training.
            still = still[still.index(fits[0]) :] if fits else []
        if fits:
            taken[fits[0]] += held
            for index in group:
                part_of[index] = fits[0]
    found = Counter(part_of)
    asked_for = {part: sum(target.values()) for part, target in wanted.items()}
    refuse_empty({part: found[part] for part in ("train", *wanted)}, asked_for)
    return part_of


def within(held: Mapping[Kind, int], wanted: Mapping[Kind, int]) -> bool:
    """Whether so many rows of each kind are no more than were asked for."""
    return all(count <= wanted.get(kind, 0) for kind, count in held.items())


def rows_wanted(size: float | int, counts: Mapping[Kind, int]) -> dict[Kind, int]:
    """Rows of each kind for one part: a share of its own rows, at least one since some were asked
    for, or its portion of a number."""
    if isinstance(size, int):
        return dict(zip(counts, divided(size, list(counts.values())), strict=True))
    return {kind: max(1, round(size * total)) for kind, total in counts.items()}


def refuse_empty(parts: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    """Refuse a split that leaves a part without rows."""
    total = sum(parts.values())
    for part, rows in parts.items():
        if not rows and not wanted.get(part, 1):
            continue  # Every source has its own rows for it, or none is to be held out.
        if not rows and part == "train":
            raise DataError(
                f"nothing is left to train on: {total} rows, of which the split takes "
                f"{sum(wanted.values())}; lower data.split, or state data.split: none"
            )
        if not rows:
            raise DataError(
                f"no row is left for {part}: the {total} rows ask too few different things to be "
                f"divided, since rows that ask the same stay together; add rows, or state "
                f"data.split: none"
            )


@dataclass
class Facts:
    """Of every row, all that dividing needs: numbers and digests, no texts."""

    prompts: dict[bytes, int] = field(default_factory=dict)
    """Every question, by its digest, with its number."""
    asks: "array[int]" = field(default_factory=lambda: array("L"))
    """The number of each row's question."""
    trained: dict[int, tuple[bytes, ...]] = field(default_factory=dict)
    """Questions that turns inside a row answer, of the rows that have such turns."""
    kinds: list[Kind] = field(default_factory=list)
    groups: dict[int, str] = field(default_factory=dict)
    times: list[Any] = field(default_factory=list)


def gathered(rows: Iterable[Row], rule: Split) -> Facts:
    """What dividing needs, of each row."""
    found = Facts()
    known: dict[Kind, Kind] = {}  # one object for each kind
    for index, row in enumerate(rows):
        ask = asked(row)
        found.asks.append(found.prompts.setdefault(ask.prompt, len(found.prompts)))
        inner = tuple(key for key in ask.trained if key != ask.prompt)
        if inner:
            found.trained[index] = inner
        named = "" if rule.stratify is None else class_of(row, rule.stratify, STRATIFY)[1]
        kind = (row.source, named)
        found.kinds.append(known.setdefault(kind, kind))
        try:
            if rule.by is not None:
                found.groups[index] = group_of(row.fields, rule.by)
            if rule.time is not None:
                found.times.append(time_of(row.fields, rule.time))
        except DataError as error:
            raise DataError(f"{visible(row.origin)}: {error}") from None
    if len({type(time) for time in found.times}) > 1:
        raise DataError(
            f"data.split.time: some values under {rule.time!r} are texts and others numbers; "
            "write all in one way"
        )
    return found


def tied(facts: Facts, rows: Sequence[Row], rule: Split) -> list[list[int]]:
    """Rows that may not be parted: by question, by answered question, by group, by likeness.

    A turn inside one conversation that answers what another row asks ties the two. Turns that
    nobody else asks tie nothing, so few-shot examples before every row do not make one group.
    """
    ties = Ties(len(facts.asks))
    first: dict[int | str, int] = {}
    for index, prompt in enumerate(facts.asks):
        inner = (facts.prompts[k] for k in facts.trained.get(index, ()) if k in facts.prompts)
        found: list[int | str] = [prompt, *inner]
        found += [facts.groups[index]] if index in facts.groups else []
        for tie in found:
            ties.join(index, first.setdefault(tie, index))
    if rule.near is not None:
        for one, other in alike_questions(rows, rule.near, ties.together):
            ties.join(one, other)
    return ties.groups()


class Ties:
    """Which rows belong together (union-find)."""

    def __init__(self, size: int) -> None:
        self.parent = array("L", range(size))

    def root(self, index: int) -> int:
        """The row that stands for a row's group."""
        parent = self.parent
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    def join(self, one: int, other: int) -> None:
        """These two belong together."""
        self.parent[self.root(one)] = self.root(other)

    def together(self, one: int, other: int) -> bool:
        """Whether these two belong together already."""
        return self.root(one) == self.root(other)

    def groups(self) -> list[list[int]]:
        """All rows, group by group, in the order of their first row."""
        found: dict[int, list[int]] = {}
        for index in range(len(self.parent)):
            found.setdefault(self.root(index), []).append(index)
        return list(found.values())


def ordered(facts: Facts, groups: list[list[int]], seed: int) -> list[list[int]]:
    """Groups in an order of seed and content, so that sorting the file changes nothing; with times,
    from the one with the latest row on."""
    keys = list(facts.prompts)

    def place(group: list[int]) -> bytes:
        least = min(keys[facts.asks[index]] for index in group)
        return hashlib.sha256(f"{seed}:".encode() + least).digest()

    found = sorted(groups, key=place)
    if facts.times:
        found.sort(key=lambda group: max(facts.times[index] for index in group), reverse=True)
    return found


def time_of(record: Mapping[str, Any], key: str) -> Any:
    """When a record says it was: a number, or a text that sorts, such as 2026-11-27."""
    value = record.get(key)
    if isinstance(value, bool) or value is None or value == "":
        raise DataError(
            f"there is no time under {key!r}, which data.split.time names; give every record one, "
            "or leave data.split.time out"
        )
    return float(value) if isinstance(value, int | float) else value


def group_of(record: Mapping[str, Any], by: str) -> str:
    """The group a record names under `by`: one of its keys, or a path such as `metadata.case`."""
    value: Any = record
    for key in [by] if by in record else by.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None or value == "" or isinstance(value, dict | list):
        raise DataError(
            f"there is no value under {by!r}, which data.split.by names; give every record one, "
            f"or leave data.split.by out"
        )
    return f"{type(value).__name__}:{value}"
