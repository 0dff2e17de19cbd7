"""The same question in two parts: a score on it measures memory, not skill."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from tunesmith.core.findings import Finding
from tunesmith.core.quote import visible
from tunesmith.core.rows import Row
from tunesmith.data.audits.base import Audit
from tunesmith.data.prompts import asking, exact, leaking, normalised

PAIRS = (("train", "test"), ("train", "valid"), ("valid", "test"))


class Leakage(Audit):
    """Held-out prompts that an earlier part answers: exactly, or but for case and spaces.

    Exact ones are errors, the others warnings. Rows that only read alike are not looked for.
    """

    kind: Literal["leakage"] = "leakage"

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """One finding for each pair of parts that overlap, exact ones first."""
        known: set[tuple[int, str]] = set()
        asks = {part: asking(rows, exact) for part, rows in parts.items()}
        for first, second in PAIRS:
            if leaks := leaking(asks.get(first, ()), asks.get(second, ())):
                known.update((id(row), second) for row, _ in leaks)
                yield overlap(leaks, first, second)
        asks = {part: asking(rows, normalised) for part, rows in parts.items()}
        for first, second in PAIRS:
            leaks = leaking(asks.get(first, ()), asks.get(second, ()))
            if leaks := [pair for pair in leaks if (id(pair[0]), second) not in known]:
                yield likeness(leaks, first, second)


def overlap(leaks: Sequence[tuple[Row, Row]], first: str, second: str) -> Finding:
    """The finding for prompts that are equal to the byte."""
    return Finding(
        severity="error",
        what=f"rows of {first} that answer a prompt of {second}: {len(leaks)}",
        where=visible(leaks[0][0].origin),
        evidence=places(leaks),
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
        advice=f"remove these rows from {first}; they make the result on {second} look better",
    )


def places(leaks: Sequence[tuple[Row, Row]], most: int = 3) -> str:
    """Where the first pairs stand. Their texts stay out: they may be private."""
    shown = "; ".join(visible(f"{row.origin} and {other.origin}") for row, other in leaks[:most])
    return shown + (f"; and {len(leaks) - most} more" if len(leaks) > most else "")
