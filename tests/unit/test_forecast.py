"""A forecast says no more than it knows, and the same from call to call."""

from itertools import chain, cycle

import pytest

from tunesmith import costs, forecast


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"),
        (59, "less than a minute"),
        (80, "about 1 minute"),
        (470, "about 8 minutes"),
        (490, "about 8 minutes"),
        (1380, "about 25 minutes"),
        (5400, "about 90 minutes"),
        (8000, "about 2.2 hours"),
        (100_000, "about 28 hours"),
    ],
)
def test_time_is_told_as_exactly_as_it_is_known(seconds: float, words: str) -> None:
    assert forecast.about(seconds) == words


def test_the_machine_is_known_by_its_best_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other programs take away from most of the products changes nothing."""
    ticks, now = chain([0.0], cycle([0.001, 0.09, 0.001, 0.004, 0.001, 0.2])), [0.0]

    def clock() -> float:
        now[0] += next(ticks)
        return now[0]

    monkeypatch.setattr(costs.time, "perf_counter", clock)
    assert costs.speed() == pytest.approx(2 * 512**3 / 0.004)
