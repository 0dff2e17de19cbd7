"""The order of a mixture: a function of seed and step, every row as often as any of its source."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rows import examples
from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.mixing import Ingredient, Recipe
from tunesmith.core.records import Example
from tunesmith.train.batches import Groups, step_rows, steps_in
from tunesmith.train.mixture import Mixture, Stock, account, mixed, whole


def stocks(given: list[tuple[int, int]]) -> Mixture:
    """A mixture of sources with so many examples, of which so many are drawn an epoch."""
    made, start = [], 0
    for number, (count, drawn) in enumerate(given):
        made.append(Stock(str(number), range(start, start + count), drawn))
        start += count
    return Mixture(tuple(made))


mixtures = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 60)), min_size=1, max_size=4)


@given(mixtures, st.integers(0, 9), st.integers(1, 5))
def test_an_epoch_holds_the_counts_and_no_row_runs_ahead(
    given: list[tuple[int, int]], seed: int, epochs: int
) -> None:
    mixture = stocks(given)
    times = {place: 0 for stock in mixture.stocks for place in stock.places}
    for epoch in range(epochs):
        order = mixture.order(epoch, seed)
        for stock in mixture.stocks:
            assert sum(place in stock.places for place in order) == stock.drawn
        for place in order:
            times[place] += 1
        for stock in mixture.stocks:
            seen = [times[place] for place in stock.places]
            least = (epoch + 1) * stock.drawn // len(stock.places)
            assert min(seen) == least and max(seen) <= least + 1


@given(mixtures, st.integers(0, 9), st.integers(1, 7), st.integers(0, 40))
def test_what_is_counted_is_what_is_drawn(
    given: list[tuple[int, int]], seed: int, rows: int, steps: int
) -> None:
    mixture = stocks(given)
    counted = mixture.times(rows, seed, steps)
    for step in range(steps):
        counted.subtract(step_rows(mixture, rows, seed, step))
    assert not any(counted.values())


def test_one_source_seen_whole_is_in_the_order_it_always_was() -> None:
    places = list(range(50))
    random.Random("order 3 2").shuffle(places)
    assert whole(50).order(2, 3) == places


def sourced(lengths: list[int], source: str) -> list[Example]:
    return [replace(e, source=source, row=f"{source} {e.row}") for e in examples(lengths, 300)]


RULE = Recipe((Ingredient("a"), Ingredient("b", replay=0.25)))


def test_a_stream_goes_on_in_the_middle_and_does_not_depend_on_micro_batches() -> None:
    rows = [*sourced([9] * 12, "a"), *sourced([20] * 7, "b")]
    mixture = mixed(rows, RULE)
    assert mixture.size == 16 and steps_in(mixture.size, 3) == 6

    def groups(tokens: int, start: int) -> Groups:
        mixture = mixed(rows, RULE)
        return Groups(
            rows, mixture=mixture, rows=3, tokens=tokens, seed=1, device="cpu", start=start
        )

    stream, later, small = groups(500, 0), groups(500, 8), groups(10, 0)
    for step in range(14):
        group, cut = next(stream), next(small)
        wanted = sorted(rows[place].row for place in step_rows(mixture, 3, 1, step))
        assert sorted(r for batch in group for r in batch.rows) == wanted
        assert sorted(r for batch in cut for r in batch.rows) == wanted
        assert all(r.startswith(s) for b in group for r, s in zip(b.rows, b.sources, strict=True))
        if step >= 8:
            assert [batch.rows for batch in next(later)] == [batch.rows for batch in group]


def test_the_account_says_how_often_and_what_is_left_out() -> None:
    rows = [*sourced([9] * 12, "a"), *sourced([20] * 7, "b")]
    mixture = mixed(rows, RULE)
    found = account(mixture, rows, mixture.times(4, 0, 4))
    assert (found["a"]["least"], found["a"]["most"], found["a"]["left_out"]) == (1, 1, 0)
    assert (found["b"]["drawn"], found["b"]["left_out"], found["b"]["share"]) == (4, 3, 0.25)
    assert found["a"]["share_of_tokens"] + found["b"]["share_of_tokens"] == 1


def test_a_mixture_without_a_task_or_without_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="none of the task"):
        mixed(sourced([9], "b"), RULE)
    silent = [
        replace(e, sequences=tuple(replace(s, targets=(-100,) * len(s.ids)) for s in e.sequences))
        for e in sourced([5], "a")
    ]
    with pytest.raises(SettingsError, match="mix.by=rows"):
        mixed(silent, replace(RULE, by="tokens"))
