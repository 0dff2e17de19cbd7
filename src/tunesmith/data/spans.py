"""Stretches of a text that are of some kind, and the rules that find them."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (exclusive) of a text, and what they are."""

    kind: str
    start: int
    end: int


class Rule(NamedTuple):
    """A kind, its shape, and what else must hold of a match. A group `value` is the span."""

    kind: str
    shape: re.Pattern[str]
    holds: Callable[[str], bool] = bool


def matches(text: str, rules: Iterable[Rule]) -> Iterator[Span]:
    """Every match of every rule."""
    for rule in rules:
        group: str | int = "value" if "value" in rule.shape.groupindex else 0
        for match in rule.shape.finditer(text):
            if rule.holds(match[group]):
                yield Span(rule.kind, *match.span(group))


def apart(spans: Iterable[Span]) -> list[Span]:
    """Of spans that overlap the first given, whose rule is surer; then in order of place."""
    kept: list[Span] = []
    starts: list[int] = []
    for span in spans:
        place = bisect_right(starts, span.start)  # Only the two neighbours there can overlap.
        before, behind = kept[place - 1 : place] if place else [], kept[place : place + 1]
        if all(other.end <= span.start for other in before) and all(
            span.end <= other.start for other in behind
        ):
            kept.insert(place, span)
            starts.insert(place, span.start)
    return kept
