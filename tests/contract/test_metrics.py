"""What every metric promises, over the whole family."""

import itertools
import math
import random
from typing import Any, cast

import numpy as np
import pytest

from tunesmith.evaluate.compare import vectors
from tunesmith.evaluate.metrics.base import Judged, Metric

SETTINGS: dict[str, dict[str, Any]] = {"json_fields": {"fields": ["name", "stars"]}}
"""Settings of members that cannot be made without."""

REFERENCES = [
    f'{{"name": "{name} of the old town", "stars": {stars}}}'
    for name, stars in itertools.product(("Eagle", "Crown", "Cocum", "Golden Palace"), range(3))
]


def members() -> list[Metric]:
    found = Metric.members()
    return [cast(Metric, part(**SETTINGS.get(kind, {}))) for kind, part in sorted(found.items())]


UNKNOWN = REFERENCES[-1]
"""The label that means none of the others."""
LABELS = tuple(REFERENCES[:-1])


def judged(answers: list[str], nll: float) -> list[Judged]:
    """Rows whose answers are labels too; the model is as sure as it can be of each."""
    return [
        Judged(
            str(i),
            "what?",
            answer,
            (wanted,),
            nll=nll,
            tokens=5,
            wanted=(wanted,),
            given=(answer,),
            labels=LABELS,
            chances=sure(answer),
            unknown=UNKNOWN,
        )
        for i, (answer, wanted) in enumerate(zip(answers, REFERENCES, strict=True))
    ]


def sure(answer: str) -> tuple[float, ...]:
    """All on one label; even where the answer is none."""
    if answer not in LABELS:
        return (1 / len(LABELS),) * len(LABELS)
    return tuple(float(label == answer) for label in LABELS)


def several(given: list[set[str]]) -> list[Judged]:
    """Rows that may have several labels: each its own and the next."""
    return [
        Judged(
            str(i),
            "what?",
            "",
            ("",),
            wanted=(LABELS[i], LABELS[i + 1]),
            given=tuple(given[i]),
            labels=LABELS,
            chances=tuple(float(label in given[i]) for label in LABELS),
            many=True,
        )
        for i in range(len(given))
    ]


def values(metric: Metric, rows: list[Judged]) -> dict[str, float]:
    return metric.values(vectors(metric, rows).sum(axis=0))


every = pytest.mark.parametrize("metric", members(), ids=lambda metric: metric.kind)


def test_the_family_is_whole() -> None:
    kinds = {"exact", "json_fields", "bleu", "chrf", "rouge", "perplexity"}
    kinds |= {"accuracy", "f1", "calibration", "scope"}
    assert kinds <= {metric.kind for metric in members()}


@every
def test_perfect_is_best(metric: Metric) -> None:
    perfect = values(metric, judged(REFERENCES, nll=0.0))
    worse = values(metric, judged([*REFERENCES[1:], "no idea"], nll=3.0))
    for name in metric.names():
        assert math.isfinite(perfect[name]) and math.isfinite(worse[name])
        better = perfect[name] > worse[name]
        assert better == metric.higher_is_better and perfect[name] != worse[name], name
        if metric.percent:
            assert perfect[name] == pytest.approx(100)


@every
def test_empty_answers_do_not_crash(metric: Metric) -> None:
    found = values(metric, judged([""] * len(REFERENCES), nll=2.0))
    assert set(found) == set(metric.names())
    assert all(math.isfinite(value) for value in found.values())
    if metric.needs == "answers":
        assert all(value == pytest.approx(0, abs=1e-9) for value in found.values())


@every
def test_order_does_not_matter(metric: Metric) -> None:
    rows = judged([*REFERENCES[2:], "", "Eagle of the old"], nll=1.5)
    shuffled = random.Random(0).sample(rows, len(rows))
    assert values(metric, shuffled) == pytest.approx(values(metric, rows), abs=1e-9)


@every
def test_no_rows_is_no_number(metric: Metric) -> None:
    empty = np.zeros_like(vectors(metric, judged(REFERENCES, nll=1.0))[0])
    assert all(math.isnan(value) for value in metric.values(empty).values())


@every
def test_the_best_of_several_references_counts(metric: Metric) -> None:
    if metric.needs != "answers":
        pytest.skip("it reads no answers")
    rows = [
        Judged(row.row, row.prompt, row.answer, ('{"name": "x", "stars": 9}', *row.references))
        for row in judged(REFERENCES, nll=0.0)
    ]
    assert values(metric, rows)[metric.names()[0]] == pytest.approx(100)


@every
def test_rows_with_several_labels(metric: Metric) -> None:
    if metric.needs not in ("labels", "chances") or metric.kind == "scope":
        pytest.skip("it reads no labels, or one alone")
    right = [{LABELS[i], LABELS[i + 1]} for i in range(8)]
    perfect, worse = values(metric, several(right)), values(metric, several([set(), *right[:7]]))
    for name in metric.names():
        assert (perfect[name] > worse[name]) == metric.higher_is_better, name
        if metric.percent:
            assert perfect[name] == pytest.approx(100)
    half = values(metric, several([{LABELS[i]} for i in range(8)]))
    assert half[metric.names()[0]] != perfect[metric.names()[0]]
