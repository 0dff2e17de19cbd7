"""Who and what the rows are about, how evenly, and whether groups of people go with an outcome."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from tunesmith.core.findings import Finding
from tunesmith.core.quote import quoted
from tunesmith.core.rows import Judged, Labelled, Row
from tunesmith.data.audits.base import Audit, Eye
from tunesmith.data.found import Seen, Sight, report
from tunesmith.data.lexicons import BAD, GOOD, GROUPS, pattern
from tunesmith.data.seen import seen


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

    def eye(self) -> Eye:
        """The groups that a row names and the outcomes that it has, and of each two whether both
        are there."""
        return of_row

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """Associations first, then labels and groups that are few. Of the training rows: they
        are what a model learns."""
        found = Counts(seen(parts.get("train", ()), self))
        yield from self._associations(found)
        yield from self._labels(found)
        yield from self._few(found)

    def _associations(self, found: "Counts") -> Iterator[Finding]:
        """Groups that go with an outcome."""
        tested = [
            association(found, group, among, outcome)
            for among, outcome in found.outcomes()
            for group in NAMED
            if found.rows("named", group, among) >= self.least
            and self.least <= found.rows("outcome", among, outcome) < found.rows("among", among)
        ]
        for place, each in enumerate(sorted(tested, key=lambda each: each.chance)):
            if each.chance > LEVEL / (len(tested) - place):
                return  # Holm: the first that fails ends it.
            if max(each.odds, 1 / each.odds) >= self.odds:
                yield from self._told(each)

    def _told(self, each: "Association") -> Iterator[Finding]:
        """The finding for an association."""
        more = "more" if each.odds > 1 else "less"
        yield from report(
            "warning",
            f"rows of train about {each.group} have {each.outcome} {more} often than others, odds "
            f"{each.odds:.2g} to 1",
            each.members,
            "where the outcome should not depend on the group, add or balance rows "
            "(data.transforms: [{kind: balance, by: label}]), and measure fairness of the model",
            seen=f"{each.both} of {each.members.rows} against {each.others} of {each.rest}; chance "
            f"{each.chance:.1g}",
            counts={"association": 1},
        )

    def _labels(self, found: "Counts") -> Iterator[Finding]:
        """Labels that few rows have, by source: other sources have other labels."""
        scopes = found.labels()
        for scope, labels in scopes.items():
            counts = Counter({label: each.count for label, each in labels.items()})
            (_, most), (rare, few) = counts.most_common()[0], counts.most_common()[-1]
            if most < self.skew * few:
                continue
            yield from report(
                "warning",
                f"rows of train{f' of {quoted(scope)}' if len(scopes) > 1 else ''} with their "
                f"rarest label, where the commonest has {most}",
                labels[rare],
                f"{sum(c * self.skew <= most for c in counts.values())} of {len(counts)} labels "
                "are that rare: add rows, or state data.transforms: [{kind: balance, by: label}]",
                counts={"labels": len(counts), "most": most, "least": few},
            )

    def _few(self, found: "Counts") -> Iterator[Finding]:
        """Groups that are hardly there beside another of their family."""
        for family, groups in GROUPS.items():
            counts = {group: found.rows("named", group, ALL) for group in groups}
            most = max(counts, key=lambda group: counts[group])
            if len(counts) == 1 or counts[most] < self.skew * self.least:
                continue
            few = [group for group, count in counts.items() if count * self.skew <= counts[most]]
            if few:
                yield from report(
                    "info",
                    f"rows of train about {most}, where those about "
                    + ", ".join(f"{group} are {counts[group]}" for group in few),
                    found.seen["named", most, ALL],
                    f"if the model will be used for everyone, add rows of other groups by {family}",
                    counts=counts,
                )


LEVEL = 0.001
"""Chance of any false association among all that are tested: with a hundredth, one file in five of
twenty would have one."""


ALL, LABELLED, JUDGED = "all", "labelled", "judged"
"""Among which rows an outcome is possible."""
NAMED = {group: words for groups in GROUPS.values() for group, words in groups.items()}


def of_row(row: Row) -> Iterator[Sight]:
    """What one row adds to the counts."""
    text = "\n".join(row.texts())
    groups = [group for group, words in NAMED.items() if pattern(words).search(text)]
    had = [(ALL, name) for name, said in FEELINGS.items() if pattern(said).search(text)]
    possible = [ALL]
    if isinstance(row, Labelled):
        possible.append(LABELLED)
        had += [(LABELLED, label) for label in dict.fromkeys(row.labels)]
        for label, count in Counter(row.labels).items():
            yield Sight(("label", row.scope, label), count)
    if isinstance(row, Judged):
        possible.append(JUDGED)
        had += [(JUDGED, "a liked answer")] if row.liked else []
    for among in possible:
        yield Sight(("among", among))
        for group in groups:
            yield Sight(("named", group, among))
    for among, outcome in had:
        yield Sight(("outcome", among, outcome))
        for group in groups:
            yield Sight(("both", group, among, outcome))


FEELINGS = {"good words": GOOD, "bad words": BAD}


@dataclass(frozen=True)
class Counts:
    """What was seen in all rows."""

    seen: Mapping[tuple[str, ...], Seen]

    def rows(self, *what: str) -> int:
        """How many rows show this."""
        return self.seen[what].rows if what in self.seen else 0

    def outcomes(self) -> list[tuple[str, str]]:
        """Each outcome, and among which rows: labels, verdicts, good and bad words."""
        found = [(what[1], what[2]) for what in self.seen if what[0] == "outcome"]
        labels = sorted(label for among, label in found if among == LABELLED)
        if len(labels) == 2:  # The other label says the same once more.
            found.remove((LABELLED, labels[1]))
        return found

    def labels(self) -> dict[str, dict[str, Seen]]:
        """The rows of each label, by its scope."""
        found: dict[str, dict[str, Seen]] = {}
        for what, each in self.seen.items():
            if what[0] == "label":
                found.setdefault(what[1], {})[what[2]] = each
        return found


class Association(NamedTuple):
    """How often an outcome is there with a group and without it."""

    group: str
    outcome: str
    members: Seen
    both: int
    others: int
    rest: int
    odds: float
    chance: float


def association(found: Counts, group: str, among: str, outcome: str) -> Association:
    """The four counts of a group and an outcome. Half a row is added to each for the odds, so
    that an empty one divides (Haldane and Anscombe)."""
    members = found.seen["named", group, among]
    both = found.rows("both", group, among, outcome)
    others = found.rows("outcome", among, outcome) - both
    rest = found.rows("among", among) - members.rows
    odds = (both + 0.5) * (rest - others + 0.5) / ((members.rows - both + 0.5) * (others + 0.5))
    chance = fisher(both, members.rows - both, others, rest - others)
    named = f"the label {quoted(outcome)}" if among == LABELLED else outcome
    return Association(group, named, members, both, others, rest, odds, chance)


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
