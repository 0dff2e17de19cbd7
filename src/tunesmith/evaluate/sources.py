"""Every measure of each source by itself, beside those of all rows together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.core.mixing import names, recipe_of
from tunesmith.evaluate import compare
from tunesmith.evaluate.labels import Labels
from tunesmith.evaluate.metrics.base import Judged, Metric
from tunesmith.evaluate.questions import HeldOut


def apart(
    rows: Sequence[HeldOut],
    judged: Mapping[str, Sequence[Judged]],
    metrics: Sequence[Metric],
    *,
    known: Sequence[str],
    labels: Labels | None,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """By source: its rows, the values of both arms and their difference, all with intervals, and a
    note where there are too few rows to prove anything. Empty where all rows are of one source."""
    met = names(row.source for row in rows)
    listed = [*known, *(name for name in met if name not in known)] if {*known} & {*met} else met
    if len(listed) < 2:
        return {}
    found: dict[str, Any] = {}
    for name in listed:
        places = [place for place, row in enumerate(rows) if row.source == name]
        own = {arm: [within(all_[p], name, labels) for p in places] for arm, all_ in judged.items()}
        found[name] = measured(own, metrics, draws=draws, seed=seed)
    return found


def tasks_of(data: Path) -> list[str]:
    """The sources of prepared rows that can be measured: what is replayed has no held-out rows."""
    recipe = recipe_of(data)
    return [e.name for e in recipe.sources if e.name not in recipe.replayed] if recipe else []


def within(judged: Judged, source: str, labels: Labels | None) -> Judged:
    """A row as its own source sees it: with a head for each source, among its own labels."""
    if labels is None or not labels.tasks:
        return judged
    own = [place for place, task in enumerate(labels.tasks) if task == source]
    return replace(
        judged,
        labels=tuple(judged.labels[place] for place in own),
        chances=tuple(judged.chances[place] for place in own) if judged.chances else (),
    )


def measured(
    judged: Mapping[str, Sequence[Judged]], metrics: Sequence[Metric], *, draws: int, seed: int
) -> dict[str, Any]:
    """One source's part of the report."""
    count = len(next(iter(judged.values())))
    if not count:
        return {"rows": 0, "note": "no row of it was asked, so nothing is known of it"}
    found = compare.compare(metrics, judged, draws=draws, seed=seed)
    said = {"rows": count, "arms": dict(found.arms), "difference": found.difference}
    if count < compare.LEAST_ROWS:
        said["note"] = f"fewer than {compare.LEAST_ROWS} rows prove nothing: no intervals"
    return said
