"""Two arms on the same rows: values, intervals, and what may be said of the difference.

A metric's value is a function of summed counts, so a bootstrap draw is a weighted sum of the rows'
vectors and all draws are one matrix product. Both arms and all metrics use the same draws: the
difference is paired, row by row.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.core import screen
from tunesmith.core.late import late
from tunesmith.evaluate.metrics.base import Judged, Metric

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")

LEAST_ROWS = 6
"""With fewer, even unanimous rows prove nothing at 95 % (2 / 2^5 > 0.05): no interval is given."""
LEVEL = 0.95
MOST = 100.0
"""The most that a mean over rows can be, and the least is 0; of a difference, -100."""
CHUNK = 2**24
"""Weights drawn at a time: 128 MB."""

Value = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Values by arm and name, and the differences tuned - base by name; all with intervals."""

    arms: Mapping[str, dict[str, Value]]
    difference: dict[str, Value]


def vectors(metric: Metric, judged: Sequence[Judged]) -> "np.ndarray":
    """The rows' counts, [row, count]."""
    return np.stack([metric.counts(row) for row in judged])


def compare(
    metrics: Sequence[Metric],
    arms: Mapping[str, Sequence[Judged]],
    *,
    draws: int,
    seed: int,
) -> Comparison:
    """Judge every arm with every metric; `arms` hold the same rows in the same order."""
    found: dict[str, dict[str, Value]] = {arm: {} for arm in arms}
    difference: dict[str, Value] = {}
    for metric in metrics:
        counted = {arm: vectors(metric, judged) for arm, judged in arms.items()}
        resampled = {arm: resample(metric, rows, draws, seed) for arm, rows in counted.items()}
        kind = {"higher_is_better": metric.higher_is_better, "percent": metric.percent}
        values = {arm: metric.values(rows.sum(axis=0)) for arm, rows in counted.items()}
        count = len(next(iter(counted.values())))
        for name in metric.names():
            for arm in arms:
                ends = interval(values[arm][name], resampled[arm][name])
                found[arm][name] = honest(ends, metric, count, least=0) | kind
            if arms.keys() >= {"base", "tuned"}:
                change = values["tuned"][name] - values["base"][name]
                spread = resampled["tuned"][name] - resampled["base"][name]
                moved = (counted["tuned"] != counted["base"]).any(axis=1)
                ends = interval(change, spread) | kind | {"differing": int(moved.sum())}
                apart = honest(ends, metric, count, least=-MOST)
                difference[name] = apart | {"better": better(apart)}
    return Comparison(found, difference)


def resample(metric: Metric, rows: "np.ndarray", draws: int, seed: int) -> "dict[str, np.ndarray]":
    """The metric's values in `draws` samples of the rows with replacement, by name, [draw].

    The same seed and number of rows give the same samples, whatever the metric and the arm.
    """
    size = len(rows)
    if size < LEAST_ROWS:
        return {name: np.zeros(0) for name in metric.names()}
    generator = np.random.default_rng(seed)
    found: list[dict[str, float]] = []
    while len(found) < draws:
        wanted = min(draws - len(found), max(1, CHUNK // size))
        weights = generator.multinomial(size, np.full(size, 1 / size), size=wanted)
        found += [metric.values(total) for total in weights @ rows]
    return {name: np.array([values[name] for values in found]) for name in metric.names()}


def interval(value: float, draws: "np.ndarray") -> Value:
    """A value with its 95 % percentile interval; null where a number cannot be given."""
    ends: list[float | None] = [None, None]
    if len(draws) and np.isfinite(draws).all():
        tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
        ends = [float(end) for end in np.quantile(draws, tails)]
    known = float(value) if math.isfinite(value) else None
    return {"value": known, "low": ends[0], "high": ends[1]}


def honest(ends: Value, metric: Metric, rows: int, *, least: float) -> Value:
    """An interval that resampling gave, where the rows came out alike: of no width, since it knows
    no other row.

    A mean over rows gets one of `least` to MOST instead: when all n rows are of one kind, at least
    (a/2)^(1/n) of all rows are (Clopper and Pearson 1934), and the others may be anything. Of other
    measures nothing is known: null.
    """
    if ends["low"] is None or ends["low"] != ends["high"]:
        return ends
    if not metric.mean_of_rows:
        return ends | {"low": None, "high": None}
    alike = ((1 - LEVEL) / 2) ** (1 / rows)
    known, others = alike * ends["value"], 1 - alike
    return ends | {
        "low": max(known + others * least, least),
        "high": min(known + others * MOST, MOST),
    }


def too_few(part: str, rows: int, limit: int | None) -> str:
    """That nothing can be proven by the rows of a part, of which `limit` are asked at most, however
    it comes out; or ""."""
    asked = min(rows, limit or rows)
    if not 0 < asked < LEAST_ROWS:
        return ""
    more = f"Add rows, hold more out by data.split, or name a file as data.{part}"
    advice = more if asked == rows else "Raise evaluate.limit, or leave it out"
    count = f"{asked} {part} row{'s' if asked > 1 else ''}"
    return f"evaluate: {count}, and fewer than {LEAST_ROWS} prove nothing. {advice}"


def better(difference: Value) -> str | None:
    """The arm that is proven better; None when the interval holds 0 or there is none, or when so
    few rows differ that all of them might by chance: of 5, one time in 16."""
    low, high = difference["low"], difference["high"]
    if low is None or high is None or low <= 0 <= high or difference["differing"] < LEAST_ROWS:
        return None
    return "tuned" if (low > 0) == difference["higher_is_better"] else "base"


def stood_in(found: Comparison, stand_ins: Mapping[str, str]) -> Comparison:
    """The same, in which each value of an arm that something else answered for says what."""
    arms = {
        arm: {name: value | {"stand_in": stand_ins[arm]} for name, value in values.items()}
        for arm, values in found.arms.items()
        if arm in stand_ins
    }
    return Comparison({**found.arms, **arms}, found.difference)


def verdict(found: Comparison, name: str, rows: int) -> dict[str, str]:
    """What the measure `name` says of the two arms: a headline, and the numbers behind it."""
    before, after = (shown(found.arms[arm][name]) for arm in ("base", "tuned"))
    change, label = found.difference[name], name.replace("_", " ").replace(".", " ")
    if change["value"] is None:
        return {
            "headline": f"Nothing is proven: {label} is not a number for both arms",
            "detail": f"It was {before} before and {after} after, on {rows} held-out rows.",
        }
    headline = {
        "tuned": f"Tuning improved {label} from {before} to {after}",
        "base": f"Tuning made {label} worse: from {before} to {after}",
        None: f"No difference is proven: {label} {before} before, {after} after",
    }[change["better"]]
    return {"headline": headline, "detail": detail(change, rows)}


def detail(change: Value, rows: int) -> str:
    """A difference with its interval, and what follows from it."""
    said = f"Difference {signed(change, 'value')}"
    on = f"on {rows} held-out rows"
    if change["low"] is None:
        why = f"fewer than {LEAST_ROWS} prove nothing"
        if rows >= LEAST_ROWS:
            why = "all rows came out alike, or some samples of them give no number"
        return f"{said}, {on}: no interval, {why}."
    spread = f"{signed(change, 'low')} to {signed(change, 'high')}"
    return f"{said}, 95 % interval {spread}, {on}.{doubt(change)}"


def doubt(change: Value) -> str:
    """Why neither is called better, where neither is."""
    if change["better"]:
        return ""
    if change["low"] <= 0 <= change["high"]:
        return " The interval holds 0, so neither is called better."
    few = f"the two differ on {change['differing']}, and fewer than {LEAST_ROWS} prove nothing"
    return f" Neither is called better: {few}."


def shown(value: Value) -> str:
    """A value in its unit, and what answered in the place of its arm."""
    if value["value"] is None:
        return "not a number"
    said = screen.figure(value["value"], percent=value["percent"])
    return f"{said} ({value['stand_in']})" if "stand_in" in value else said


def signed(change: Value, key: str) -> str:
    """A difference, or an end of its interval, with its sign."""
    return screen.signed(change[key], percent=change["percent"])
