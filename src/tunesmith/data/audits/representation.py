"""Who and what the rows are about, how evenly, and whether groups of people go with an outcome."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from tunesmith.core.findings import Finding
from tunesmith.core.quote import quoted
from tunesmith.core.rows import Judged, Labelled, Row
from tunesmith.data.audits.base import Audit
from tunesmith.data.found import report
from tunesmith.data.lexicons import BAD, GOOD, GROUPS, pattern


class Representation(Audit):
    """Labels that are rare or that most rows have; groups of people that are hardly there; and
    groups that go with a label, or with good or bad words, more than others do.

    An association is told where its odds ratio is `odds` or more, or as much less, and Fisher's
    exact test, corrected for all that was tested (Holm), leaves a chance of one in a thousand.
    Groups are known by English words (data/lexicons.py). Whether an association is unfair, or
    what the task is about, a person decides.
    """

    kind: Literal["representation"] = "representation"
    odds: Annotated[float, Field(gt=1)] = 1.5
    """Odds ratio from which an association is told."""
    skew: Annotated[float, Field(gt=1)] = 10
    """How many times the rarest label's rows the commonest may have, and a group's another's."""
    least: Annotated[int, Field(ge=1)] = 20
    """Rows that a group must be named in before anything is tested of it."""

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """Associations first, then labels and groups that are few. Of the training rows: they
        are what a model learns."""
        rows = parts.get("train", ())
        named = groups_in(rows)
        yield from self._associations(rows, named)
        yield from self._labels(rows)
        yield from self._few(rows, named)

    def _associations(
        self, rows: Sequence[Row], named: Mapping[str, set[int]]
    ) -> Iterator[Finding]:
        """Groups that go with an outcome."""
        outcomes = outcomes_of(rows)
        tested = [
            table(group, outcome, members, having, within)
            for outcome, (having, within) in outcomes.items()
            for group, members in named.items()
            if len(members & within) >= self.least and self.least <= len(having) < len(within)
        ]
        for place, each in enumerate(sorted(tested, key=lambda each: each.chance)):
            if each.chance > LEVEL / (len(tested) - place):
                return  # Holm: the first that fails ends it.
            if max(each.odds, 1 / each.odds) >= self.odds:
                yield from self._told(rows, each)

    def _told(self, rows: Sequence[Row], each: "Association") -> Iterator[Finding]:
        """The finding for an association."""
        more = "more" if each.odds > 1 else "less"
        yield from report(
            "warning",
            f"rows of train about {each.group} have {each.outcome} {more} often than others, odds "
            f"{each.odds:.2g} to 1",
            [rows[place] for place in sorted(each.members)],
            "where the outcome should not depend on the group, add or balance rows "
            "(data.transforms: [{kind: balance, by: label}]), and measure fairness of the model",
            seen=f"{each.both} of {len(each.members)} against {each.others} of {each.rest}; chance "
            f"{each.chance:.1g}",
            counts={"association": 1},
        )

    def _labels(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Labels that few rows have, by source: other sources have other labels."""
        counted: dict[str, Counter[str]] = {}
        for row in rows:
            if isinstance(row, Labelled):
                counted.setdefault(row.scope, Counter()).update(row.labels)
        for scope, counts in counted.items():
            (_, most), (rare, few) = counts.most_common()[0], counts.most_common()[-1]
            if most < self.skew * few:
                continue
            behind = [r for r in rows if isinstance(r, Labelled) and rare in r.labels]
            yield from report(
                "warning",
                f"rows of train{f' of {quoted(scope)}' if len(counted) > 1 else ''} with their "
                f"rarest label, where the commonest has {most}",
                [row for row in behind if row.scope == scope],
                f"{sum(c * self.skew <= most for c in counts.values())} of {len(counts)} labels "
                "are that rare: add rows, or state data.transforms: [{kind: balance, by: label}]",
                counts={"labels": len(counts), "most": most, "least": few},
            )

    def _few(self, rows: Sequence[Row], named: Mapping[str, set[int]]) -> Iterator[Finding]:
        """Groups that are hardly there beside another of their family."""
        for family, groups in GROUPS.items():
            counts = {group: len(named[group]) for group in groups}
            most = max(counts, key=lambda group: counts[group])
            if len(counts) == 1 or counts[most] < self.skew * self.least:
                continue
            few = [group for group, count in counts.items() if count * self.skew <= counts[most]]
            if few:
                yield from report(
                    "info",
                    f"rows of train about {most}, where those about "
                    + ", ".join(f"{group} are {counts[group]}" for group in few),
                    [rows[place] for place in sorted(named[most])],
                    f"if the model will be used for everyone, add rows of other groups by {family}",
                    counts=counts,
                )


LEVEL = 0.001
"""Chance of any false association among all that are tested: with a hundredth, one file in five of
twenty would have one."""


class Association(NamedTuple):
    """How often an outcome is there with a group and without it."""

    group: str
    outcome: str
    members: set[int]
    both: int
    others: int
    rest: int
    odds: float
    chance: float


def groups_in(rows: Sequence[Row]) -> dict[str, set[int]]:
    """The rows that name each group."""
    found: dict[str, set[int]] = {}
    texts = ["\n".join(row.texts()) for row in rows]
    for groups in GROUPS.values():
        for group, words in groups.items():
            named = pattern(words)
            found[group] = {place for place, text in enumerate(texts) if named.search(text)}
    return found


def outcomes_of(rows: Sequence[Row]) -> dict[str, tuple[set[int], set[int]]]:
    """Each outcome: the rows that have it, of those that could. Labels and verdicts by name; good
    and bad words where there are no labels."""
    found: dict[str, tuple[set[int], set[int]]] = {}
    labelled = {place for place, row in enumerate(rows) if isinstance(row, Labelled)}
    for place in labelled:
        row = rows[place]
        assert isinstance(row, Labelled)
        for label in row.labels:
            found.setdefault(f"the label {quoted(label)}", (set(), labelled))[0].add(place)
    if len(found) == 2:  # The other label says the same once more.
        found.pop(max(found))
    judged = {place: row.liked for place, row in enumerate(rows) if isinstance(row, Judged)}
    if judged:
        found["a liked answer"] = ({p for p, liked in judged.items() if liked}, {*judged})
    texts = {place: "\n".join(row.texts()) for place, row in enumerate(rows)}
    for name, words in (("good words", GOOD), ("bad words", BAD)):
        having = {place for place, text in texts.items() if pattern(words).search(text)}
        found[name] = (having, set(texts))
    return found


def table(
    group: str, outcome: str, members: set[int], having: set[int], within: set[int]
) -> Association:
    """The four counts of a group and an outcome. Half a row is added to each for the odds, so
    that an empty one divides (Haldane and Anscombe)."""
    members = members & within
    both = len(members & having)
    others, rest = len(having & within) - both, len(within) - len(members)
    odds = (both + 0.5) * (rest - others + 0.5) / ((len(members) - both + 0.5) * (others + 0.5))
    chance = fisher(both, len(members) - both, others, rest - others)
    return Association(group, outcome, members, both, others, rest, odds, chance)


def fisher(a: int, b: int, c: int, d: int) -> float:
    """Fisher's exact test of a 2x2 table, both sides: all tables no likelier than this one."""
    rows, column, total = a + b, a + c, a + b + c + d

    def log_choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    whole = log_choose(total, column)
    likely = [
        log_choose(rows, x) + log_choose(total - rows, column - x) - whole
        for x in range(max(0, column - (total - rows)), min(rows, column) + 1)
    ]
    here = likely[a - max(0, column - (total - rows))]
    return min(1.0, sum(math.exp(each) for each in likely if each <= here + 1e-9))
