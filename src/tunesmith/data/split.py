"""Train, valid and test without leaks: rows that ask the same stay in one part."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tunesmith.core.errors import DataError
from tunesmith.core.mixing import divided
from tunesmith.core.parts import Spec
from tunesmith.core.rows import Origin, Row
from tunesmith.data.prompts import asked

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

    @model_validator(mode="after")
    def leave_some_to_train(self) -> "Split":
        """Shares that take everything leave nothing to learn from."""
        if isinstance(self.valid, float) and isinstance(self.test, float):
            taken = self.valid + self.test
            if taken >= 1:
                raise ValueError(f"valid and test take {taken:g} of the rows; leave some to train")
        return self


def split(
    rows: Sequence[Row],
    sizes: Mapping[str, float | int],
    groups: Mapping[Origin, str],
    seed: int,
    *,
    kept: Mapping[str, Collection[str]] = NOTHING,
) -> dict[str, list[Row]]:
    """The rows in parts `train` and those of `sizes`, in their order; groups are never divided.

    Each source is divided by itself, and groups may hold rows of several: a part takes the next
    group, in an order that seed and content decide, as long as its rows of every source fit. So a
    part is never larger than asked. `kept` names the parts that take no row of a source. Raises
    DataError where a part stays empty.
    """
    counts = Counter(row.source for row in rows)
    wanted = {
        part: rows_wanted(size, {s: n for s, n in counts.items() if part not in kept.get(s, ())})
        for part, size in sizes.items()
        if size
    }
    part_of = ["train"] * len(rows)
    taken: dict[str, Counter[str]] = {part: Counter() for part in wanted}
    for group in ordered(together(rows, groups), seed):
        held = Counter(rows[index].source for index in group)
        for part, target in wanted.items():
            if all(taken[part][name] + n <= target.get(name, 0) for name, n in held.items()):
                taken[part] += held
                for index in group:
                    part_of[index] = part
                break
    parts: dict[str, list[Row]] = {part: [] for part in ("train", *wanted)}
    for row, part in zip(rows, part_of, strict=True):
        parts[part].append(row)
    refuse_empty(parts, {part: sum(target.values()) for part, target in wanted.items()})
    return parts


def rows_wanted(size: float | int, counts: Mapping[str, int]) -> dict[str, int]:
    """Rows of each source for one part: a share of its own rows, at least one since some were asked
    for, or its portion of a number."""
    if isinstance(size, int):
        return dict(zip(counts, divided(size, list(counts.values())), strict=True))
    return {name: max(1, round(size * total)) for name, total in counts.items()}


def refuse_empty(parts: Mapping[str, Sequence[Row]], wanted: Mapping[str, int]) -> None:
    """Refuse a split that leaves a part without rows."""
    total = sum(len(rows) for rows in parts.values())
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


def together(rows: Sequence[Row], groups: Mapping[Origin, str]) -> list[list[tuple[bytes, int]]]:
    """Rows that may not be parted, as (prompt, index): by prompt, by answered prompt, by group.

    A turn inside one conversation that answers what another row asks ties the two. Turns that
    nobody else asks tie nothing, so few-shot examples before every row do not make one group.
    """
    asks = [asked(row) for row in rows]
    prompts = {ask.prompt for ask in asks}
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    first: dict[bytes | str, int] = {}
    for index, (row, ask) in enumerate(zip(rows, asks, strict=True)):
        ties: list[bytes | str] = [ask.prompt, *(key for key in ask.trained if key in prompts)]
        ties += [groups[row.origin]] if row.origin in groups else []
        for tie in ties:
            parent[root(index)] = root(first.setdefault(tie, index))
    found: dict[int, list[tuple[bytes, int]]] = {}
    for index, ask in enumerate(asks):
        found.setdefault(root(index), []).append((ask.prompt, index))
    return list(found.values())


def ordered(groups: list[list[tuple[bytes, int]]], seed: int) -> list[list[int]]:
    """Groups as indices, in an order of seed and content: sorting the file changes nothing."""

    def place(group: list[tuple[bytes, int]]) -> bytes:
        return hashlib.sha256(f"{seed}:".encode() + min(prompt for prompt, _ in group)).digest()

    return [[index for _, index in group] for group in sorted(groups, key=place)]


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
