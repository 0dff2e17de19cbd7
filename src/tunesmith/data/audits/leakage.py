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
        looked = {pair: answered(*(parts.get(part, ()) for part in pair)) for pair in PAIRS}
        for pair, (letter, _) in looked.items():
            yield from shared(letter, parts, pair, LETTER)
        for pair, (_, loosely) in looked.items():
            yield from shared(loosely, parts, pair, LOOSELY)
        for pair in PAIRS:
            rows, held_out = (parts.get(part, ()) for part in pair)
            if self.near is not None:
                known = {row for leaks in looked[pair] for row, _ in leaks}
                found = nearly(rows, held_out, self.near)
                yield from shared([p for p in found if p[0] not in known], parts, pair, NEARLY)
            if self.by is not None:
                yield from shared(grouped(rows, held_out, self.by), parts, pair, GROUPED)


class Words(NamedTuple):
    """A kind of leak: how it is told, and what to do."""

    severity: Severity
    what: str
    advice: str


LETTER = Words(
    "error",
    "rows of {} that answer a prompt of {}",
    "state data.leaks: drop, or remove these rows from {}",
)
LOOSELY = Words(
    "warning",
    "rows of {} that answer a prompt of {} but for case and spaces",
    "remove these rows from {}; they make the result on {} look better",
)
NEARLY = Words(
    "warning",
    "rows of {} that nearly ask what a row of {} asks",
    "remove these rows from {}, or state data.transforms: [decontaminate]",
)
GROUPED = Words(
    "warning",
    "rows of {} of a group that {} has rows of too",
    "keep a group in one part: state data.split.by, or make the files of {} so",
)
SHOWN = 3
"""Pairs whose places are told. Their texts stay out: they may be private."""


def shared(
    leaks: Leaks, parts: Mapping[str, Sequence[Row]], pair: tuple[str, str], words: Words
) -> Iterator[Finding]:
    """The finding for rows of the first part that leak from the second; none for none."""
    if not leaks:
        return
    rows, held_out = (parts[part] for part in pair)
    shown = [(rows[one].origin, held_out[other].origin) for one, other in leaks[:SHOWN]]
    places = "; ".join(visible(f"{one} and {other}") for one, other in shown)
    yield Finding(
        words.severity,
        f"{words.what.format(*pair)}: {len(leaks)}",
        visible(shown[0][0]),
        places + (f"; and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else ""),
        words.advice.format(*pair),
        {"rows": len(leaks)},
    )
