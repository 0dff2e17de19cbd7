"""How often the rows of several sources are seen: shares by weight or temperature, as counts.

A mixture is a rule, not rows: the data stage tells by it what an epoch holds, and training draws
by it. What both need is here; the draw itself is `train/mixture.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.disk import read_json

Until = Literal["all", "first"]
Unit = Literal["rows", "tokens"]

ACCOUNT = "account.json"
"""The file among prepared rows that holds the recipe, under `mixture`."""


@dataclass(frozen=True)
class Ingredient:
    """A source and what was said of it: a weight beside the others', or a share to replay."""

    name: str
    weight: float | None = None
    replay: float | None = None


@dataclass(frozen=True)
class Recipe:
    """What a run says of its sources together. `by` is what shares are shares of."""

    sources: tuple[Ingredient, ...]
    temperature: float | None = None
    until: Until = "all"
    by: Unit = "rows"

    def shares(self, sizes: Mapping[str, float]) -> dict[str, float]:
        """Each source's share of what is seen; they add up to 1.

        A replayed source has what it says. The others divide the rest by their weights, 1 where
        none is said; where no weight is said at all, by size ** (1 / temperature): proportional at
        1, all alike far above (T5, arXiv 1910.10683; mT5, arXiv 2010.11934).
        """
        rest = 1.0 - sum(each.replay or 0.0 for each in self.sources)
        tasks = [each for each in self.sources if each.replay is None]
        if any(each.weight is not None for each in tasks):
            raw = {each.name: 1.0 if each.weight is None else each.weight for each in tasks}
        else:
            power = 1.0 / (self.temperature or 1.0)
            raw = {each.name: sizes[each.name] ** power for each in tasks}
        total = sum(raw.values())
        found = {name: rest * value / total for name, value in raw.items()}
        return {e.name: found[e.name] if e.replay is None else e.replay for e in self.sources}

    def counts(self, rows: Mapping[str, int], sizes: Mapping[str, float]) -> dict[str, int]:
        """Rows of each source in one epoch. `sizes` are in the unit of the shares.

        With `all`, the shortest epoch in which every row of every task is seen; with `first`, the
        longest in which none is seen twice. A replayed source never decides that.
        """
        shares = self.shares(sizes)
        rates = {name: share * rows[name] / sizes[name] for name, share in shares.items()}
        tasks = [each.name for each in self.sources if each.replay is None]
        ends = [rows[name] / rates[name] for name in tasks]
        whole = max(ends) if self.until == "all" else min(ends)
        return {name: max(1, round(whole * rate)) for name, rate in rates.items()}

    @property
    def replayed(self) -> set[str]:
        """The sources that are only read beside the task."""
        return {each.name for each in self.sources if each.replay is not None}

    def among(self, present: Iterable[str]) -> "Recipe":
        """The recipe of those sources that are there: one may have lost every row as too long."""
        there = {*present}
        return replace(self, sources=tuple(each for each in self.sources if each.name in there))

    def record(self) -> dict[str, Any]:
        """As plain JSON; the inverse of `recipe`."""
        return {
            "temperature": self.temperature,
            "until": self.until,
            "by": self.by,
            "sources": [vars(each) for each in self.sources],
        }


def recipe(record: Mapping[str, Any]) -> Recipe:
    """The recipe in a record; what else the record holds is left alone."""
    found = tuple(
        Ingredient(each["name"], each["weight"], each["replay"]) for each in record["sources"]
    )
    return Recipe(found, record["temperature"], record["until"], record["by"])


def recipe_of(data: Path) -> Recipe | None:
    """The recipe of prepared rows; None where they come from one source."""
    path = data / ACCOUNT
    found = read_json(path).get("mixture") if path.is_file() else None
    return recipe(found) if found else None


def replays(data: Path) -> bool:
    """Whether text is replayed beside the task of prepared rows."""
    found = recipe_of(data)
    return found is not None and bool(found.replayed)


def divided(total: int, sizes: Sequence[int]) -> list[int]:
    """A whole number over parts in proportion to their sizes, by largest remainder; at least one
    for each part, as long as there are that many."""
    least = 1 if total >= len(sizes) else 0
    left, whole = total - least * len(sizes), sum(sizes)
    wanted = [max(0.0, total * size / whole - least) for size in sizes]
    scale = left / sum(wanted) if sum(wanted) else 0.0
    exact = [value * scale for value in wanted]
    found = [int(value) for value in exact]
    order = sorted(range(len(sizes)), key=lambda i: (found[i] - exact[i], i))
    for place in order[: left - sum(found)]:
        found[place] += 1
    return [least + count for count in found]


def seen(rows: int, drawn: int) -> str:
    """How often each of `rows` rows is seen in `drawn` draws, in words."""
    times, more = divmod(drawn, rows)
    if not more:
        return "once each" if times == 1 else f"{times} times each"
    if not times:
        return f"{drawn} of them once, {rows - drawn} left out"
    return f"{'once' if times == 1 else f'{times} times'} each, {more} of them once more"


def names(sources: Iterable[str]) -> list[str]:
    """Names of sources in the order in which they are met, each once."""
    return list(dict.fromkeys(sources))
