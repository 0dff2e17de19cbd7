"""Shares and counts of a mixture are what the formula says, to the row."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.mixing import Ingredient, Recipe, divided, recipe, seen

sizes = st.lists(st.integers(1, 5000), min_size=1, max_size=6)
weights = st.floats(0.01, 100)


def made(count: int, **settings: object) -> Recipe:
    """A recipe of so many sources of which nothing is said."""
    found = tuple(Ingredient(str(number)) for number in range(count))
    return Recipe(found, **settings)  # type: ignore[arg-type]


def rows_of(counts: list[int]) -> dict[str, int]:
    return {str(number): count for number, count in enumerate(counts)}


@given(sizes)
def test_where_nothing_is_said_an_epoch_holds_each_row_once(counts: list[int]) -> None:
    rows = rows_of(counts)
    for until in ("all", "first"):
        assert made(len(counts), until=until).counts(rows, rows) == rows


@given(sizes, st.floats(1, 50))
def test_a_temperature_gives_each_source_its_size_to_one_over_it(
    counts: list[int], temperature: float
) -> None:
    rows = rows_of(counts)
    rule = made(len(counts), temperature=temperature)
    powers = [count ** (1 / temperature) for count in counts]
    shares = rule.shares(rows)
    assert list(shares.values()) == pytest.approx([power / sum(powers) for power in powers])
    scale = max(count / power for count, power in zip(counts, powers, strict=True))
    for found, count, power in zip(rule.counts(rows, rows).values(), counts, powers, strict=True):
        assert abs(found - scale * power) <= 0.5 + 1e-6 * found
        assert found >= count


@given(st.lists(st.tuples(st.integers(1, 5000), weights), min_size=1, max_size=6))
def test_weights_are_shares_and_all_rows_are_seen_or_none_twice(
    given: list[tuple[int, float]],
) -> None:
    rows = rows_of([count for count, _ in given])
    sources = tuple(Ingredient(str(n), weight=weight) for n, (_, weight) in enumerate(given))
    total = sum(weight for _, weight in given)
    for until in ("all", "first"):
        counts = Recipe(sources, until=until).counts(rows, rows)  # type: ignore[arg-type]
        ends = [count * total / weight for count, weight in given]
        whole = max(ends) if until == "all" else min(ends)
        for name, (count, weight) in zip(rows, given, strict=True):
            assert abs(counts[name] - max(1, whole * weight / total)) <= 0.5 + 1e-6 * counts[name]
            assert counts[name] >= count if until == "all" else counts[name] <= count


@given(sizes, st.integers(1, 5000), st.floats(0.01, 0.9))
def test_replay_has_its_share_and_the_task_keeps_every_row(
    counts: list[int], general: int, share: float
) -> None:
    rows = {**rows_of(counts), "general": general}
    sources = (*made(len(counts)).sources, Ingredient("general", replay=share))
    found = Recipe(sources).counts(rows, rows)
    assert {name: n for name, n in found.items() if name != "general"} == rows_of(counts)
    wanted = max(1, share * sum(counts) / (1 - share))
    assert abs(found["general"] - wanted) <= 0.5 + 1e-6 * wanted


def test_shares_of_tokens_make_up_for_the_length_of_rows() -> None:
    rule = Recipe((Ingredient("task"), Ingredient("general", replay=0.2)), by="tokens")
    counts = rule.counts({"task": 400, "general": 50}, {"task": 4000, "general": 5000})
    assert counts == {"task": 400, "general": 10}  # 10 x 100 of 5000 tokens


@given(st.integers(0, 500), sizes)
def test_a_number_is_divided_whole_and_nearly_in_proportion(total: int, counts: list[int]) -> None:
    found = divided(total, counts)
    assert sum(found) == total and min(found) >= 0
    if total >= len(counts):
        assert min(found) > 0


@settings(max_examples=50)
@given(sizes, st.floats(1, 9))
def test_a_recipe_survives_being_written(counts: list[int], temperature: float) -> None:
    rule = made(len(counts), temperature=temperature, until="first", by="tokens")
    assert recipe({**rule.record(), "more": 1}) == rule


def test_how_often_is_said_in_words() -> None:
    assert seen(10, 10) == "once each"
    assert seen(10, 30) == "3 times each"
    assert seen(10, 4) == "4 of them once, 6 left out"
    assert seen(10, 23) == "2 times each, 3 of them once more"
