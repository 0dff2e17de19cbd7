"""Rows as a finding: how many, where the first few are, and none of their text."""

from collections.abc import Iterator, Mapping, Sequence

from tunesmith.core.findings import Finding, Severity
from tunesmith.core.quote import visible
from tunesmith.core.rows import Chat, Judged, Message, Pair, Row, canonical


def report(
    severity: Severity,
    what: str,
    rows: Sequence[Row],
    advice: str,
    *,
    seen: str = "",
    counts: Mapping[str, int] | None = None,
    most: int = 5,
) -> Iterator[Finding]:
    """A finding for the rows, or nothing when there are none. Texts stay out: may be private.

    `seen` is further evidence, masked by who gives it.
    """
    if not rows:
        return
    places = ", ".join(visible(row.origin) for row in rows[:most])
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    first = visible(rows[0].origin)
    evidence = places + more + (f": {seen}" if seen else "")
    yield Finding(
        severity,
        f"{what}: {len(rows)}",
        first,
        evidence,
        advice,
        {"rows": len(rows)} | dict(counts or {}),
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
