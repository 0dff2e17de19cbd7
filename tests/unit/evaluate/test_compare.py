"""Intervals that cover the truth, and winners only where the interval leaves 0 out."""

from dataclasses import replace

import numpy as np
import pytest

from tunesmith.evaluate.compare import (
    MOST,
    Comparison,
    better,
    compare,
    honest,
    interval,
    resample,
    verdict,
)
from tunesmith.evaluate.metrics.base import Judged
from tunesmith.evaluate.metrics.exact import Exact
from tunesmith.evaluate.metrics.perplexity import Perplexity


def rows(right: "list[bool] | np.ndarray", nll: float = 1.0) -> list[Judged]:
    return [
        Judged(str(i), "", "yes" if good else "no", ("yes",), nll=nll * (1 + i % 3), tokens=3)
        for i, good in enumerate(right)
    ]


def of(base: "list[bool] | np.ndarray", tuned: "list[bool] | np.ndarray") -> Comparison:
    arms = {"base": rows(base), "tuned": rows(tuned, nll=0.5)}
    return compare([Exact(), Perplexity()], arms, draws=1000, seed=0)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(4)
    covered = 0
    for trial in range(500):
        hits = (generator.random(150) < 0.6).astype(float)
        counts = np.stack([hits, np.ones(150)], axis=1)
        found = interval(0.0, resample(Exact(), counts, 400, trial)["exact"])
        covered += found["low"] <= 60 <= found["high"]
    assert 0.93 <= covered / 500 <= 0.97


def test_the_same_seed_gives_the_same_interval() -> None:
    right = np.arange(50) % 3 > 0
    first, again = of(right, ~right), of(right, ~right)
    assert first == again
    other = compare([Exact()], {"tuned": rows(right)}, draws=1000, seed=1)
    assert other.arms["tuned"]["exact"] != first.arms["base"]["exact"]


def test_the_difference_is_paired() -> None:
    """Two arms that differ in two rows of a hundred: far less spread than either arm has."""
    base = np.arange(100) % 2 == 0
    tuned = base.copy()
    tuned[[1, 3]] = True
    found = of(base, tuned)
    spread = found.difference["exact"]["high"] - found.difference["exact"]["low"]
    alone = found.arms["base"]["exact"]["high"] - found.arms["base"]["exact"]["low"]
    assert found.difference["exact"]["value"] == pytest.approx(2)
    assert 0 < spread < alone / 2


@pytest.mark.parametrize(
    ("base", "tuned", "winner", "words"),
    [
        (
            [False] * 40,
            [True] * 30 + [False] * 10,
            "tuned",
            "Tuning improved exact from 0.0 %",
        ),
        (
            [True] * 30 + [False] * 10,
            [False] * 40,
            "base",
            "Tuning made exact worse: from",
        ),
        ([True] * 20 + [False] * 20, [True] * 21 + [False] * 19, None, "No difference is proven"),
        ([True] * 20, [True] * 20, None, "No difference is proven"),
        ([False] * 5, [True] * 5, None, "No difference is proven"),
    ],
)
def test_no_winner_unless_the_interval_leaves_0_out(
    base: list[bool], tuned: list[bool], winner: str | None, words: str
) -> None:
    found = of(base, tuned)
    assert better(found.difference["exact"]) == found.difference["exact"]["better"] == winner
    said = verdict(found, "exact", len(base))
    assert said["headline"].startswith(words)
    few = len(base) < 6
    assert ("fewer than 6 prove nothing" in said["detail"]) == few
    assert ("The interval holds 0" in said["detail"]) == (winner is None and not few)


@pytest.mark.parametrize("count", [6, 20, 300])
def test_rows_that_came_out_alike_leave_room_for_others(count: int) -> None:
    """The bounds of Clopper and Pearson, as scipy's `binomtest(n, n).proportion_ci(0.95, 'exact')`
    gives them."""
    lowest = {6: 54.07, 20: 83.16, 300: 98.78}[count]
    found = of([False] * count, [True] * count)
    base, tuned = (found.arms[arm]["exact"] for arm in ("base", "tuned"))
    assert (tuned["low"], tuned["high"]) == (pytest.approx(lowest, abs=0.01), 100)
    assert (base["low"], base["high"]) == (0, pytest.approx(100 - lowest, abs=0.01))
    apart = found.difference["exact"]
    assert (apart["low"], apart["high"]) == (pytest.approx(2 * lowest - 100, abs=0.02), 100)
    assert apart["low"] > 0 and apart["better"] == better(apart) == "tuned"
    same = of([True] * count, [True] * count).difference["exact"]
    assert same["low"] == -same["high"] == pytest.approx(lowest - 100, abs=0.01)
    assert same["better"] is None


def test_a_difference_alike_in_all_of_few_rows_proves_nothing_unless_it_is_large() -> None:
    """The winner is named by the interval that is shown, not by the one of no width."""
    ends = {"value": 50.0, "low": 50.0, "high": 50.0, "higher_is_better": True, "percent": True}
    ends["differing"] = 8
    shown = honest(ends, Exact(), 8, least=-MOST)
    assert shown["low"] < 0 < shown["high"] and better(shown) is None
    assert better(honest(ends, Exact(), 300, least=-MOST)) == "tuned"


@pytest.mark.parametrize(("count", "winner"), [(3, None), (5, None), (6, "tuned"), (8, "tuned")])
def test_few_rows_that_differ_prove_nothing_however_many_are_alike(
    count: int, winner: str | None
) -> None:
    """All of 5 rows turn out better by chance one time in 16, whatever the interval says."""
    found = of([False] * count + [True] * 40, [True] * (count + 40))
    change = found.difference["exact"]
    assert change["differing"] == count and change["better"] == winner
    said = verdict(found, "exact", count + 40)["detail"]
    assert (f"differ on {count}, and fewer than 6" in said) == (
        winner is None and change["low"] > 0
    )


def test_alike_rows_of_a_measure_that_is_no_mean_have_no_interval() -> None:
    alike = [replace(row, nll=1.0) for row in rows([True] * 8)]
    found = compare([Perplexity()], {"base": alike, "tuned": alike}, draws=200, seed=0)
    assert (found.arms["base"]["perplexity"]["low"], found.difference["perplexity"]["high"]) == (
        None,
        None,
    )
    said = verdict(found, "perplexity", 8)
    assert said["headline"].startswith("No difference is proven")
    assert "no interval, all rows came out alike" in said["detail"]


def test_lower_perplexity_wins() -> None:
    found = of([True] * 12, [True] * 12)
    assert found.difference["perplexity"]["value"] < 0
    assert better(found.difference["perplexity"]) == "tuned"
    said = verdict(found, "perplexity", 12)
    assert said["headline"] == "Tuning improved perplexity from 1.95 to 1.4"
    assert "95 % interval -" in said["detail"] and "on 12 held-out rows" in said["detail"]


def test_a_measure_that_is_no_number_proves_nothing() -> None:
    arms = {"base": rows([True] * 8), "tuned": rows([True] * 8, nll=float("nan"))}
    said = verdict(compare([Perplexity()], arms, draws=100, seed=0), "perplexity", 8)
    assert said["headline"].startswith("Nothing is proven") and "not a number" in said["detail"]


def test_many_rows_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.stack([np.arange(40) % 2, np.ones(40)], axis=1).astype(float)
    whole = resample(Exact(), counts, 300, 0)["exact"]
    monkeypatch.setattr("tunesmith.evaluate.compare.CHUNK", 1000)
    assert np.array_equal(resample(Exact(), counts, 300, 0)["exact"], whole)
