"""Which examples an epoch holds, and in which order: a pure function of the seed and the epoch.

Every source is walked through by itself, pass after pass in a fresh order, and each epoch takes the
next so many of its examples. So at any time no example of a source was drawn more than once more
often than another, and what one epoch leaves out, the next begins with.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.mixing import Recipe, names
from tunesmith.core.quote import visible
from tunesmith.core.records import Example


@dataclass(frozen=True)
class Stock:
    """One source: its examples by their places, and how many of them an epoch draws."""

    name: str
    places: Sequence[int]
    drawn: int

    def walk(self, first: int, last: int, seed: int) -> Iterator[int]:
        """The places of the draws from `first` to before `last`, counted from the start."""
        size = len(self.places)
        for number in range(first // size, -(-last // size)):
            turn, start = list(self.places), number * size
            random.Random(f"walk {seed} {self.name} {number}").shuffle(turn)
            yield from turn[max(first - start, 0) : last - start]


@dataclass
class Mixture:
    """All sources, in an order that every epoch keeps."""

    stocks: tuple[Stock, ...]
    _known: tuple[int, int, list[int]] | None = field(default=None, repr=False, compare=False)
    """The last epoch asked for: step after step asks for the same."""

    @property
    def size(self) -> int:
        """Examples in one epoch."""
        return sum(stock.drawn for stock in self.stocks)

    def order(self, epoch: int, seed: int) -> list[int]:
        """The places of one epoch, in the order in which they are drawn."""
        if self._known is None or self._known[:2] != (epoch, seed):
            # Sorted before they are shuffled together: one source, seen whole, is in its order.
            drawn = [
                place
                for stock in self.stocks
                for place in sorted(
                    stock.walk(epoch * stock.drawn, (epoch + 1) * stock.drawn, seed)
                )
            ]
            random.Random(f"order {seed} {epoch}").shuffle(drawn)
            self._known = (epoch, seed, drawn)
        return self._known[2]

    def times(self, rows: int, seed: int, steps: int) -> Counter[int]:
        """How often each place is drawn in so many steps of `rows` examples."""
        found: Counter[int] = Counter()
        whole, more = divmod(steps, -(-self.size // rows))
        for stock in self.stocks:
            passes = whole * stock.drawn // len(stock.places)
            found.update(dict.fromkeys(stock.places, passes))
            found.update(stock.walk(passes * len(stock.places), whole * stock.drawn, seed))
        found.update(self.order(whole, seed)[: more * rows] if more else ())
        return found


def whole(count: int) -> Mixture:
    """One source, all of it in every epoch."""
    return Mixture((Stock("", range(count), count),))


def mixed(examples: Sequence[Example], recipe: Recipe | None) -> Mixture:
    """The examples as a recipe mixes them; all alike where there is none."""
    if recipe is None:
        return whole(len(examples))
    places: dict[str, list[int]] = {name: [] for name in names(e.source for e in examples)}
    for place, example in enumerate(examples):
        places[example.source].append(place)
    rule = recipe.among(places)
    if all(each.replay is not None for each in rule.sources):
        raise DataError("only replayed rows are left to train on, and none of the task")
    rows = {name: len(found) for name, found in places.items()}
    sizes: dict[str, float] = dict(rows)
    if recipe.by == "tokens":
        for name, found in places.items():
            sizes[name] = sum(trained(examples[place]) for place in found)
            if not sizes[name]:
                raise SettingsError(
                    "data.mix.by: tokens counts the tokens that are trained, and rows with labels "
                    "train none; set data.mix.by=rows"
                )
    counts = rule.counts(rows, sizes)
    return Mixture(
        tuple(Stock(each.name, places[each.name], counts[each.name]) for each in rule.sources)
    )


def trained(example: Example) -> int:
    """The tokens that an example trains."""
    return sum(sequence.supervised for sequence in example.sequences)


def account(
    mixture: Mixture, examples: Sequence[Example], drawn: Counter[int]
) -> dict[str, dict[str, Any]]:
    """What is seen of each source: its examples, how many were drawn and never drawn, how often at
    least and at most, and its share of all draws and of all trained tokens."""
    draws = {s.name: sum(drawn[p] for p in s.places) for s in mixture.stocks}
    tokens = {
        s.name: sum(drawn[p] * trained(examples[p]) for p in s.places) for s in mixture.stocks
    }
    whole = sum(tokens.values())  # None of a row with a label.
    return {
        stock.name: {
            "examples": len(stock.places),
            "epoch": stock.drawn,
            "drawn": draws[stock.name],
            "least": min(drawn[place] for place in stock.places),
            "most": max(drawn[place] for place in stock.places),
            "left_out": sum(not drawn[place] for place in stock.places),
            "share": draws[stock.name] / max(1, sum(draws.values())),
            "share_of_tokens": tokens[stock.name] / whole if whole else None,
        }
        for stock in mixture.stocks
    }


def sentence(name: str, found: Mapping[str, Any]) -> str:
    """What is seen of a source, for a reader."""
    often = f"{found['least']} to {found['most']} times each"
    if found["least"] == found["most"]:
        often = "once each" if found["least"] == 1 else f"{found['least']} times each"
    left = f", {found['left_out']} left out" if found["left_out"] else ""
    tokens = found["share_of_tokens"]
    trained = "" if tokens is None else f", {tokens:.1%} of trained tokens"
    return (
        f"{visible(name)}: {found['examples']} rows, {often}{left}; {found['share']:.1%} of all "
        f"draws{trained}"
    )
