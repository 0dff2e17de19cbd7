"""Rows in which spans of some kind were spotted, by kind, as findings without their text."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tunesmith.core.findings import Finding, Severity
from tunesmith.core.rows import Row
from tunesmith.data.found import everything, report
from tunesmith.data.spans import Span, masked


@dataclass
class Spotted:
    """The rows that hold a kind of span, how often it is there, and the first ones masked."""

    rows: list[Row] = field(default_factory=list)
    count: int = 0
    masks: list[str] = field(default_factory=list)


def spotted(rows: Iterable[Row], look: Callable[[str], Sequence[Span]]) -> dict[str, Spotted]:
    """What `look` finds in all that the rows carry, by kind of span."""
    found: dict[str, Spotted] = {}
    for row in rows:
        kinds: Counter[str] = Counter()
        for text in everything(row):
            for span in look(text):
                kinds[span.kind] += 1
                if len(masks := found.setdefault(span.kind, Spotted()).masks) < 3:
                    masks.append(masked(span.kind, text[span.start : span.end]))
        for kind, count in kinds.items():
            found[kind].rows.append(row)
            found[kind].count += count
    return found


def findings(
    part: str,
    found: Mapping[str, Spotted],
    severities: Mapping[str, Severity],
    names: Mapping[str, str],
    advice: str,
) -> Iterator[Finding]:
    """A finding for each kind that was spotted in a part, in the order of `names`."""
    for kind, name in names.items():
        if kind in found:
            each = found[kind]
            yield from report(
                severities[kind],
                f"rows of {part} with {name}",
                each.rows,
                advice,
                seen=", ".join(each.masks),
                counts={kind: each.count},
            )
