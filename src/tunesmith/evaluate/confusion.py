"""What each label was taken for: the part of a report that says where a model is wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluate.metrics.base import Judged


def confusion(arms: Mapping[str, Sequence[Judged]]) -> dict[str, Any]:
    """Of each arm: how each label was found and, where a row has one label, what it was taken for.

    `pairs` are [wanted, given, rows], the most frequent first; an answer that is no label is null.
    """
    first = next(iter(arms.values()))[0]
    return {
        "names": list(first.classes),
        "arms": {
            arm: {"each": each(rows)} | ({} if first.many else {"pairs": pairs(rows)})
            for arm, rows in arms.items()
        },
    }


def each(rows: Sequence[Judged]) -> dict[str, dict[str, float | int | None]]:
    """Rows, precision, recall and F1 by label, in percent; null where there is none to count."""
    wanted = Counter(name for row in rows for name in row.wanted)
    given = Counter(name for row in rows for name in row.given)
    both = Counter(name for row in rows for name in {*row.wanted} & {*row.given})
    return {
        name: {
            "rows": wanted[name],
            "precision": share(both[name], given[name]),
            "recall": share(both[name], wanted[name]),
            "f1": share(2 * both[name], given[name] + wanted[name]),
        }
        for name in rows[0].classes
    }


def share(part: int, whole: int) -> float | None:
    """In percent; None of nothing."""
    return 100 * part / whole if whole else None


def pairs(rows: Sequence[Judged]) -> list[list[str | int | None]]:
    """How often each label was taken for each."""
    known = set(rows[0].classes)
    counted = Counter(
        (row.wanted[0], row.given[0] if row.given and row.given[0] in known else None)
        for row in rows
    )
    ordered = sorted(counted.items(), key=lambda item: (-item[1], str(item[0])))
    return [[wanted, given, count] for (wanted, given), count in ordered]
