"""The same question in two parts: a score on it measures memory, not skill."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator

from tunesmith.core.findings import Finding, Severity
from tunesmith.core.quote import visible
from tunesmith.core.rows import Row
from tunesmith.data.audits.base import Audit
from tunesmith.data.leaks import Leaks, answered, grouped, nearly

PAIRS = (("train", "test"), ("train", "valid"), ("valid", "test"))


class Leakage(Audit):
    """Held-out prompts that an earlier part answers: exactly, but for case and spaces, or nearly;
    and groups (one patient's rows, one ticket's) of which both have rows.

    Exact ones are errors, the others warnings.
    """

    kind: Literal["leakage"] = "leakage"
    near: Annotated[float, Field(gt=0, lt=1)] | None = None
    """How alike prompts must be, of 5-character stretches (Jaccard), to be told as nearly the
    same: 0.8 is usual. Not looked for without it."""
    by: str | None = None
    """A pattern (a regular expression): what it matches in a row's texts is the row's group, such
    as `ticket-[0-9]+`. Rows of one group should be in one part."""

    @field_validator("by")
    @classmethod
    def _a_pattern(cls, by: str | None) -> str | None:
        try:
            re.compile(by or "")
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from None
        return by

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """One finding for each pair of parts that overlap, exact ones first."""
        found = {pair: list(self.leaks(*(parts.get(part, ()) for part in pair))) for pair in PAIRS}
        for ways in ((LETTER,), (LOOSELY,), (NEARLY, GROUPED)):
            for pair, leaks in found.items():
                for way, each in leaks:
                    if way in ways:
                        yield from shared(each, parts, pair, way)

    def leaks(self, rows: Sequence[Row], held_out: Sequence[Row]) -> Iterator[tuple["Way", Leaks]]:
        """The rows that leak from what is held out, in each way that is looked for."""
        letter, loosely = answered(rows, held_out)
        yield LETTER, letter
        yield LOOSELY, loosely
        if self.near is not None:
            known = {row for row, _ in letter + loosely}
            found = nearly(rows, held_out, self.near)
            yield NEARLY, [pair for pair in found if pair[0] not in known]
        if self.by is not None:
            yield GROUPED, grouped(rows, held_out, self.by)


class Way(NamedTuple):
    """A kind of leak: how it is told, what to do, and why such a row is dropped."""

    severity: Severity
    what: str
    advice: str
    why: str


LETTER = Way(
    "error",
    "rows of {} that answer a prompt of {}",
    "state data.leaks: drop, or remove these rows from {}",
    "answers a held-out prompt",
)
LOOSELY = Way(
    "warning",
    "rows of {} that answer a prompt of {} but for case and spaces",
    "state data.leaks: drop, or remove these rows from {}",
    "answers a held-out prompt but for case and spaces",
)
NEARLY = Way(
    "warning",
    "rows of {} that nearly ask what a row of {} asks",
    "keep them in one part: state data.split.near, or data.leaks: drop with files of your own",
    "nearly asks a held-out prompt",
)
GROUPED = Way(
    "warning",
    "rows of {} of a group that {} has rows of too",
    "keep a group in one part: state data.split.by, or data.leaks: drop with files of your own",
    "is of a group that is held out",
)
SHOWN = 3
"""Pairs whose places are told. Their texts stay out: they may be private."""


def shared(
    leaks: Leaks, parts: Mapping[str, Sequence[Row]], pair: tuple[str, str], way: Way
) -> Iterator[Finding]:
    """The finding for rows of the first part that leak from the second; none for none."""
    if not leaks:
        return
    rows, held_out = (parts[part] for part in pair)
    shown = [(rows[one].origin, held_out[other].origin) for one, other in leaks[:SHOWN]]
    places = "; ".join(visible(f"{one} and {other}") for one, other in shown)
    yield Finding(
        way.severity,
        f"{way.what.format(*pair)}: {len(leaks)}",
        visible(shown[0][0]),
        places + (f"; and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else ""),
        way.advice.format(*pair),
        {"rows": len(leaks)},
    )
