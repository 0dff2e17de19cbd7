"""What a mixture came to: the rows of each source in each part and in an epoch."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunesmith.core import mixing
from tunesmith.core.errors import DataError
from tunesmith.core.findings import Finding
from tunesmith.core.quote import quoted, visible
from tunesmith.core.rows import Row
from tunesmith.data.mix import Mix, Source, recipe

LONGEST = 10_000_000
"""Rows of an epoch: their order is held in memory."""


def mixture(
    sources: Sequence[Source], mix: Mix, parts: Mapping[str, Sequence[Row]]
) -> dict[str, Any]:
    """The recipe with the rows of each source: in each part and, where shares are of rows, in one
    epoch and left out of it. Training counts again what it draws: a row may be too long."""
    rule = recipe(sources, mix)
    counted = {part: Counter(row.source for row in rows) for part, rows in parts.items()}
    train = {each.name: counted["train"][each.name] for each in rule.sources}
    empty = [name for name, count in train.items() if not count]
    if empty:
        raise DataError(
            f"data.source: no row of {quoted(empty[0])} is left to train on; give it more rows, "
            "lower data.split, or leave the source out"
        )
    counts = rule.counts(train, train)
    if sum(counts.values()) > LONGEST:
        raise DataError(
            f"data.source: by these shares an epoch would be {sum(counts.values()):,} rows, until "
            "every row of the rarest source is seen; lower the other weights, or say "
            "data.mix.until=first"
        )
    epoch = counts if rule.by == "rows" else dict.fromkeys(train)
    found = rule.record()
    for each in found["sources"]:
        name = each["name"]
        drawn = epoch[name]
        each["rows"] = {part: count[name] for part, count in counted.items()}
        each["epoch"] = drawn
        each["left_out"] = None if drawn is None else max(0, train[name] - drawn)
    return found


def told(mixture: Mapping[str, Any] | None) -> Iterator[str]:
    """What an epoch holds of each source, a line each."""
    for each in (mixture or {}).get("sources", ()):
        rows = each["rows"]
        held = ", ".join(f"{part} {count}" for part, count in rows.items())
        drawn = each["epoch"]
        often = "" if drawn is None else f"; in an epoch {mixing.seen(rows['train'], drawn)}"
        yield f"source {visible(each['name'])}: {held}{often}"


def unmeasured(mixture: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Sources without a held-out row where others have one: nothing is known of them there."""
    sources = (mixture or {}).get("sources", ())
    measured = {part for each in sources for part, count in each["rows"].items() if count}
    for each in sources:
        for part, count in each["rows"].items():
            if not count and each["replay"] is None and part in measured:
                yield Finding(
                    "warning",
                    f"the source {quoted(each['name'])} has no {part} row, so it is not measured "
                    "by itself",
                    "data.source",
                    f"{each['rows']['train']} rows to train on",
                    f"Give it more rows, or a file of its own as {part}",
                )
