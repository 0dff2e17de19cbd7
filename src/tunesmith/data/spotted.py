"""Spans of some kind that a row holds, and what is told of them: counts and masks, no text."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from tunesmith.core.findings import Finding, Severity
from tunesmith.core.rows import Row
from tunesmith.data.found import MASKS, Seen, Sight, everything, report
from tunesmith.data.spans import Span


def spotted(row: Row, look: Callable[[str], Sequence[Span]]) -> Iterator[Sight]:
    """What `look` finds in all that a row carries, a sight for each kind of span."""
    found: dict[str, list[str]] = {}
    for text in everything(row):
        for span in look(text):
            masks = found.setdefault(span.kind, [])
            masks.append(masked(span.kind, text[span.start : span.end]))
    for kind, masks in found.items():
        yield Sight((kind,), len(masks), tuple(masks[:MASKS]))


def masked(kind: str, text: str) -> str:
    """What a report shows of a span: its kind and length, and no character of it."""
    return f"{kind} of {len(text)} characters"


def findings(
    part: str,
    found: Mapping[tuple[str, ...], Seen],
    severities: Mapping[str, Severity],
    names: Mapping[str, str],
    advice: str,
) -> Iterator[Finding]:
    """A finding for each kind that was spotted in a part, in the order of `names`."""
    for kind, name in names.items():
        if each := found.get((kind,)):
            yield from report(
                severities[kind],
                f"rows of {part} with {name}",
                each,
                advice,
                seen=", ".join(each.masks),
                counts={kind: each.count},
            )
