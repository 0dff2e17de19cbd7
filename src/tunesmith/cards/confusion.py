"""Where labels were confused: every cell where labels are few, the worst of them where many."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FEW = 10
"""Up to so many labels a matrix can be read."""
WORST = 10
"""Lines of a list of the worst."""
NONE = "(no label)"
"""An answer that is none of the labels."""


@dataclass(frozen=True)
class Table:
    """Numbers side by side, and the keys of the report that they were read from."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    keys: Sequence[tuple[str, ...]]


def tables(report: Mapping[str, Any]) -> list[Table]:
    """What the report says of labels; nothing where it judged none."""
    found = report.get("labels")
    if not found:
        return []
    few, arms = len(found["names"]) <= FEW, found["arms"]
    shown = [] if "pairs" not in arms["tuned"] else [*matrices(found)] if few else [mistakes(found)]
    return [*shown, labels(found, few)]


def matrices(found: Mapping[str, Any]) -> Iterator[Table]:
    """Of each arm, how often each label was taken for each."""
    for arm, values in found["arms"].items():
        pairs = {(wanted, given): count for wanted, given, count in values["pairs"]}
        given = [*found["names"], *([None] if any(name is None for _, name in pairs) else [])]
        yield Table(
            f"What the {arm} model took each label for: a line for each label, a column for each "
            "answer",
            ["label", *(NONE if name is None else name for name in given)],
            [
                [wanted, *(str(pairs.get((wanted, name), 0)) for name in given)]
                for wanted in found["names"]
            ],
            [("labels", "arms", arm, "pairs", str(i), "2") for i in range(len(values["pairs"]))],
        )


def mistakes(found: Mapping[str, Any]) -> Table:
    """The pairs that the tuned model confused most, and how often the base did."""
    before = {(wanted, given): n for wanted, given, n in found["arms"]["base"]["pairs"]}
    tuned = found["arms"]["tuned"]
    wrong = [(i, *pair) for i, pair in enumerate(tuned["pairs"]) if pair[0] != pair[1]][:WORST]
    return Table(
        "The most frequent mistakes of the tuned model",
        ["label", "taken for", "rows", "of all its rows", "by the base"],
        [
            [
                wanted,
                NONE if given is None else given,
                str(count),
                str(tuned["each"][wanted]["rows"]),
                str(before.get((wanted, given), 0)),
            ]
            for _, wanted, given, count in wrong
        ],
        [("labels", "arms", "tuned", "pairs", str(i), "2") for i, *_ in wrong],
    )


def labels(found: Mapping[str, Any], few: bool) -> Table:
    """How each label was found, in their order; of many those that were found worst."""
    base, tuned = (found["arms"][arm]["each"] for arm in ("base", "tuned"))
    names = [name for name in found["names"] if tuned[name]["f1"] is not None]
    if not few:
        names = sorted(names, key=lambda name: tuned[name]["f1"])[:WORST]
    columns = ("precision", "recall", "f1")
    return Table(
        "Each label" if few else "The labels that the tuned model finds worst",
        ["label", "rows", "precision", "recall", "F1", "F1 of the base"],
        [
            [
                name,
                str(tuned[name]["rows"]),
                *(percent(tuned[name][column]) for column in columns),
                percent(base[name]["f1"]),
            ]
            for name in names
        ],
        [
            *(("labels", "arms", "tuned", "each", n, c) for n in names for c in ("rows", *columns)),
            *(("labels", "arms", "base", "each", name, "f1") for name in names),
        ],
    )


def percent(value: float | None) -> str:
    """A share as shown; a dash where there was nothing to count."""
    return "-" if value is None else f"{value:.1f} %"
