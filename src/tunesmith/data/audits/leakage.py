"""The same question in two parts: a score on it measures memory, not skill."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator

from tunesmith.core.findings import Finding
from tunesmith.core.quote import visible
from tunesmith.core.rows import Origin, Row, Text
from tunesmith.data.audits.base import Audit
from tunesmith.data.prompts import asking, exact, leaking, normalised

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
        known: set[tuple[Origin, str]] = set()
        asks = {part: asking(rows, exact) for part, rows in parts.items()}
        for first, second in PAIRS:
            if leaks := leaking(asks.get(first, ()), asks.get(second, ())):
                known.update((row.origin, second) for row, _ in leaks)
                yield overlap(leaks, first, second)
        asks = {part: asking(rows, normalised) for part, rows in parts.items()}
        for first, second in PAIRS:
            leaks = leaking(asks.get(first, ()), asks.get(second, ()))
            if leaks := [pair for pair in leaks if (pair[0].origin, second) not in known]:
                known.update((row.origin, second) for row, _ in leaks)
                yield likeness(leaks, first, second)
        for first, second in PAIRS:
            rows, held_out = parts.get(first, ()), parts.get(second, ())
            if self.near is not None:
                leaks = [
                    p
                    for p in nearly(rows, held_out, self.near)
                    if (p[0].origin, second) not in known
                ]
                yield from shared(leaks, first, second, NEARLY)
            if self.by is not None:
                yield from shared(grouped(rows, held_out, self.by), first, second, GROUPED)


def overlap(leaks: Sequence[tuple[Row, Row]], first: str, second: str) -> Finding:
    """The finding for prompts that are equal to the byte."""
    return Finding(
        severity="error",
        what=f"rows of {first} that answer a prompt of {second}: {len(leaks)}",
        where=visible(leaks[0][0].origin),
        evidence=places(leaks),
        counts={"rows": len(leaks)},
        advice=f"state data.leaks: drop, or remove these rows from {first}",
    )


def likeness(leaks: Sequence[tuple[Row, Row]], first: str, second: str) -> Finding:
    """The finding for prompts that differ in case or spaces."""
    return Finding(
        severity="warning",
        what=f"rows of {first} that answer a prompt of {second} but for case and spaces: "
        f"{len(leaks)}",
        where=visible(leaks[0][0].origin),
        evidence=places(leaks),
        counts={"rows": len(leaks)},
        advice=f"remove these rows from {first}; they make the result on {second} look better",
    )


NEARLY = (
    "that nearly ask what a row of {} asks",
    "remove these rows from {}, or state data.transforms: [decontaminate]",
)
GROUPED = (
    "of a group that {} has rows of too",
    "keep a group in one part: state data.split.by, or make the files of {} so",
)


def nearly(rows: Sequence[Row], held_out: Sequence[Row], threshold: float) -> list[tuple[Row, Row]]:
    """Rows whose prompt is nearly one that is held out, each beside it."""
    from tunesmith.data.neighbours import repeats

    both = [*held_out, *rows]
    asked = [Text("\n".join(row.question().texts())) for row in both]
    pairs = repeats(asked, threshold) if held_out and rows else ()
    size = len(held_out)
    return [(both[mine], both[other]) for mine, other in pairs if mine >= size > other]


def grouped(rows: Sequence[Row], held_out: Sequence[Row], by: str) -> list[tuple[Row, Row]]:
    """Rows that share a group with one that is held out, each beside it."""
    pattern = re.compile(by)

    def groups(row: Row) -> set[str]:
        return {match[0] for text in row.texts() for match in pattern.finditer(text) if match[0]}

    known = {group: row for row in held_out for group in groups(row)}
    found = ((row, known[g]) for row in rows for g in sorted(groups(row) & known.keys())[:1])
    return list(found)


def shared(
    leaks: Sequence[tuple[Row, Row]], first: str, second: str, words: tuple[str, str]
) -> Iterator[Finding]:
    """The finding for rows that are alike or belong together; none for none."""
    what, advice = words
    if leaks:
        yield Finding(
            severity="warning",
            what=f"rows of {first} {what.format(second)}: {len(leaks)}",
            where=visible(leaks[0][0].origin),
            evidence=places(leaks),
            advice=advice.format(first),
            counts={"rows": len(leaks)},
        )


def places(leaks: Sequence[tuple[Row, Row]], most: int = 3) -> str:
    """Where the first pairs stand. Their texts stay out: they may be private."""
    shown = "; ".join(visible(f"{row.origin} and {other.origin}") for row, other in leaks[:most])
    return shown + (f"; and {len(leaks) - most} more" if len(leaks) > most else "")
