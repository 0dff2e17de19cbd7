"""Rows as a finding: how many, where the first few are, and none of their text."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tunesmith.core.findings import Finding, Severity
from tunesmith.core.quote import visible
from tunesmith.core.rows import Chat, Judged, Message, Pair, Row, canonical

PLACES, MASKS = 20, 3
"""Places and masked texts that are kept of what is seen; counts are of all."""


class Sight(NamedTuple):
    """Something that a row shows by itself: what, how often, and the first of it, masked."""

    what: tuple[str, ...]
    times: int = 1
    masks: tuple[str, ...] = ()


@dataclass
class Seen:
    """How many rows show something, how often it is there, and where it is first."""

    rows: int = 0
    count: int = 0
    places: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)

    def add(self, row: Row, count: int = 1, masks: Iterable[str] = ()) -> None:
        """One row more."""
        self.join(Seen(1, count, [str(row.origin)], list(masks)))

    def join(self, other: "Seen") -> None:
        """Rows that come behind these."""
        self.rows += other.rows
        self.count += other.count
        self.places += other.places[: PLACES - len(self.places)]
        self.masks += other.masks[: MASKS - len(self.masks)]

    def record(self) -> list[Any]:
        """As plain JSON."""
        return [self.rows, self.count, self.places, self.masks]


def of(rows: Iterable[Row]) -> Seen:
    """These rows."""
    found = Seen()
    for row in rows:
        found.add(row)
    return found


def report(
    severity: Severity,
    what: str,
    found: Seen | None,
    advice: str,
    *,
    seen: str = "",
    counts: Mapping[str, int] | None = None,
    most: int = 5,
) -> Iterator[Finding]:
    """A finding for what was found, or nothing for none. Texts stay out: they may be private.

    `seen` is further evidence, masked by who gives it.
    """
    if found is None or not found.rows:
        return
    shown = [visible(place) for place in found.places[:most]]
    more = f" and {found.rows - most} more" if found.rows > most else ""
    evidence = ", ".join(shown) + more + (f": {seen}" if seen else "")
    yield Finding(
        severity,
        f"{what}: {found.rows}",
        shown[0],
        evidence,
        advice,
        {"rows": found.rows} | dict(counts or {}),
    )


def everything(row: Row) -> tuple[str, ...]:
    """All text that a row carries: what people wrote, calls of tools, tools themselves, labels."""
    content = row.content()
    hidden = [canonical(dict(m.extra)) for m in turns(row) if m.extra]
    hidden += [canonical(tool) for tool in content.get("tools", ())]
    named = [content[key] for key in ("references", "labels") if key in content]
    return (*row.texts(), *hidden, *(text for texts in named for text in texts))


def turns(row: Row) -> tuple[Message, ...]:
    """Every turn of a row, of both sides where it has two; documents and labels have none."""
    if isinstance(row, Pair):
        return (*row.asked, *row.chosen, *row.rejected)
    return row.dialogue() if isinstance(row, Chat | Judged) else ()
