"""A split leaks nothing, has the sizes asked for, and does not depend on the order of a file."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.planted import corpus
from tunesmith.core.errors import DataError
from tunesmith.core.rows import Chat, Judged, Labelled, Message, Origin, Pair, Row, Text
from tunesmith.data.leaks import answered
from tunesmith.data.neighbours import repeats
from tunesmith.data.prompts import asked
from tunesmith.data.split import Split, group_of, split


def row(line: int, *turns: str, shown: int = 0) -> Chat:
    """A conversation that begins with a user; the first `shown` answers are not trained."""
    messages = []
    for i, text in enumerate(turns):
        role = ("user", "assistant")[i % 2]
        messages.append(Message(role, text, False if i % 2 and i // 2 < shown else None))
    return Chat(tuple(messages), origin=Origin("r", line))


def lines(parts: dict[str, list[Row]]) -> dict[str, list[int]]:
    """The parts as line numbers."""
    return {part: [r.origin.line for r in rows] for part, rows in parts.items()}


PLAIN = [row(i, f"question {i}", "answer") for i in range(200)]
TENTHS = {"test": 0.1, "valid": 0.1}

texts = st.sampled_from(["a", "A ", "b", "c", " B", "d", "e", "f", "g", "h"])
talks = st.lists(texts, min_size=2, max_size=6).filter(lambda turns: len(turns) % 2 == 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(talks, min_size=4, max_size=40), st.integers(0, 5))
def test_no_prompt_of_one_part_is_answered_in_another(talks: list[list[str]], seed: int) -> None:
    rows = [row(i, *turns) for i, turns in enumerate(talks)]
    try:
        parts = split(rows, {"test": 0.3, "valid": 0.2}, Split(), seed)
    except DataError:
        return
    for first, second in (("train", "test"), ("train", "valid"), ("valid", "test")):
        one, other = parts[first], parts[second]
        assert answered(one, other) == answered(other, one) == ([], [])
    assert sorted(sum(lines(parts).values(), [])) == list(range(len(rows)))


def test_the_sizes_are_those_asked_for() -> None:
    assert {k: len(v) for k, v in split(PLAIN, TENTHS, Split(), 0).items()} == {
        "train": 160,
        "test": 20,
        "valid": 20,
    }
    counts = split(PLAIN, {"test": 7, "valid": 3}, Split(), 0)
    assert len(counts["test"]) == 7 and len(counts["valid"]) == 3
    few = split(PLAIN[:3], TENTHS, Split(), 0)
    assert [len(rows) for rows in few.values()] == [1, 1, 1]


def test_the_seed_decides_and_the_order_of_the_file_does_not() -> None:
    first = lines(split(PLAIN, TENTHS, Split(), 0))
    assert first == lines(split(PLAIN, TENTHS, Split(), 0))
    assert first["test"] != lines(split(PLAIN, TENTHS, Split(), 1))["test"]
    mixed = random.Random(0).sample(PLAIN, len(PLAIN))
    assert {p: sorted(v) for p, v in lines(split(mixed, TENTHS, Split(), 0)).items()} == first


def test_prompts_that_differ_in_case_and_spaces_stay_together_and_in_digits_do_not() -> None:
    assert asked(row(0, "Is it\n 10?", "x")).prompt == asked(row(1, "is IT 10? ", "y")).prompt
    assert asked(row(0, "is it 10?", "x")).prompt != asked(row(1, "is it 11?", "x")).prompt


def test_shared_examples_before_every_row_do_not_make_one_group() -> None:
    rows = [row(i, "2+2?", "4", f"{i}+1?", str(i + 1)) for i in range(50)]
    assert len(split(rows, TENTHS, Split(), 0)["test"]) == 5


def test_an_answer_that_is_not_trained_ties_nothing() -> None:
    talks = [row(i, "hello", "hi", f"{i}?", "x", shown=1) for i in range(20)]
    greeting = row(99, "hello", "hi")
    parts = split([*talks, greeting], {"test": 0.2}, Split(), 0)
    assert len(parts["test"]) == 4
    with pytest.raises(DataError, match="stay together"):
        split(
            [*[row(i, "hello", "hi", f"{i}?", "x") for i in range(20)], greeting],
            TENTHS,
            Split(),
            0,
        )


def test_groups_stay_together_with_what_ties_their_rows() -> None:
    rows = [replace(r, fields={"customer": f"c{r.origin.line // 10}"}) for r in PLAIN]
    parts = split(rows, {"test": 0.2, "valid": 0.1}, Split(by="customer"), 0)
    seen = [{r.fields["customer"] for r in found} for found in parts.values()]
    assert sum(len(s) for s in seen) == len(set.union(*seen)) == 20
    assert len(parts["test"]) == 40


def test_a_group_larger_than_a_part_stays_in_training() -> None:
    rows = [row(i, "same", str(i)) for i in range(60)] + PLAIN[:40]
    parts = split(rows, TENTHS, Split(), 0)
    assert sum(r.messages[0].content == "same" for r in parts["train"]) == 60
    assert len(parts["test"]) == len(parts["valid"]) == 10


@pytest.mark.parametrize(
    ("rows", "sizes", "says"),
    [
        (PLAIN[:1], TENTHS, "nothing is left to train on"),
        (PLAIN[:10], {"test": 10}, "nothing is left to train on"),
        ([row(i, "same", str(i)) for i in range(50)], TENTHS, "stay together"),
    ],
)
def test_a_split_that_leaves_a_part_empty_is_refused(
    rows: list[Chat], sizes: dict[str, float], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        split(rows, sizes, Split(), 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"valid": 1.0},
        {"test": 1.5},
        {"valid": -1},
        {"test": -0.1},
        {"valid": 0.5, "test": 0.5},
        {"valid": False},
        {"test": True},
    ],
)
def test_sizes_that_cannot_be_meant_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Split(**settings)


def test_whole_numbers_are_rows_and_fractions_are_shares() -> None:
    said = Split(valid=1, test=0.25)
    assert (said.valid, said.test, said.by) == (1, 0.25, None)
    assert isinstance(Split(valid=1).valid, int)


def test_a_group_is_a_key_or_a_path_and_must_be_there() -> None:
    record = {"customer": 7, "metadata": {"case": "a"}, "a.b": "c"}
    assert group_of(record, "customer") != group_of({"customer": "7"}, "customer")
    assert group_of(record, "metadata.case").endswith("a")
    assert group_of(record, "a.b").endswith("c")
    for by in ("nobody", "metadata", "metadata.nobody", "customer.x"):
        with pytest.raises(DataError, match="data.split.by"):
            group_of(record, by)


def of_a_kind(kind: type[Row], line: int, text: str, answer: str) -> Row:
    """A row of a kind that asks `text`."""
    place, ask, say = Origin("r", line), Message("user", text), Message("assistant", answer)
    made: dict[type[Row], Row] = {
        Text: Text(text, origin=place),
        Labelled: Labelled((text, "other"), (answer,), origin=place),
        Pair: Pair((ask,), (say,), (Message("assistant", f"not {answer}"),), origin=place),
        Judged: Judged((ask,), (say,), True, origin=place),
    }
    return made[kind]


@pytest.mark.parametrize("kind", [Text, Labelled, Pair, Judged])
def test_rows_of_every_kind_that_ask_the_same_stay_in_one_part(kind: type[Row]) -> None:
    rows = [of_a_kind(kind, i, f"{' ' * (i % 3)}What {i % 20}", f"x {i}") for i in range(60)]
    parts = split(rows, TENTHS, Split(), 0)
    seen = [{row.origin.line % 20 for row in found} for found in parts.values()]
    assert [len(found) for found in parts.values()] == [48, 6, 6]
    assert sum(len(s) for s in seen) == len(set.union(*seen)) == 20


def dated(line: int, when: object, text: str = "", **fields: object) -> Chat:
    """A row that says when it was."""
    return replace(row(line, text or f"question {line}", "a"), fields={"at": when, **fields})


def test_the_latest_rows_are_held_out_and_training_is_no_later() -> None:
    rows = [dated(i, f"2026-{1 + i * 7 % 12:02}-{1 + i % 28:02}") for i in range(100)]
    parts = split(rows, TENTHS, Split(time="at"), 0)
    times = {part: [r.fields["at"] for r in found] for part, found in parts.items()}
    assert {part: len(found) for part, found in parts.items()} == {
        "train": 80,
        "test": 10,
        "valid": 10,
    }
    assert max(times["train"]) <= min(times["valid"]) <= max(times["valid"]) <= min(times["test"])


def test_a_group_is_as_late_as_its_latest_row_and_none_is_skipped() -> None:
    rows = [dated(i, i, who="a" if i % 2 else f"b{i}") for i in range(20)]
    with pytest.raises(DataError, match="no row is left for test"):
        split(rows, {"test": 1}, Split(time="at", by="who"), 0)
    late = [*rows, dated(20, 20, who="late")]
    parts = split(late, {"test": 5}, Split(time="at", by="who"), 0)
    assert [r.origin.line for r in parts["test"]] == [20]


def test_late_rows_of_a_source_that_no_part_takes_are_passed_over() -> None:
    """Replayed text may be of today: it is all for training, and ends no part."""
    rows = [replace(dated(i, i), source="task") for i in range(50)]
    rows += [replace(dated(100 + i, i * 2), source="read") for i in range(50)]
    for sizes in (TENTHS, {"test": 5, "valid": 5}):
        parts = split(rows, sizes, Split(time="at"), 0, kept={"read": {"test", "valid"}})
        assert sorted(lines(parts)["test"]) == [45, 46, 47, 48, 49]
        assert sorted(lines(parts)["valid"]) == [40, 41, 42, 43, 44]


def test_times_that_cannot_be_told_are_refused_with_their_row() -> None:
    with pytest.raises(DataError, match=r"r:1: there is no time under 'at'"):
        split([dated(0, 1), row(1, "x", "y")], TENTHS, Split(time="at"), 0)
    with pytest.raises(DataError, match="some values under 'at' are texts"):
        split([dated(i, ("1", 1)[i % 2]) for i in range(9)], TENTHS, Split(time="at"), 0)
    with pytest.raises(ValidationError, match="contradict"):
        Split(time="at", stratify="label")


@pytest.mark.parametrize("by", ["label", "topic"])
def test_every_part_has_its_share_of_each_class(by: str) -> None:
    rows = [
        Labelled((f"text {i}",), ("abbbbbbbbb"[i % 10],), origin=Origin("r", i),
                 fields={"topic": "abbbbbbbbb"[i % 10]})
        for i in range(200)
    ]  # fmt: skip
    parts = split(rows, TENTHS, Split(stratify=by), 0)
    rare = {part: sum(r.answer() == "a" for r in found) for part, found in parts.items()}
    assert rare == {"train": 16, "test": 2, "valid": 2}
    assert len(parts["test"]) == len(parts["valid"]) == 20


def test_rows_that_ask_nearly_the_same_stay_in_one_part_chained_or_not() -> None:
    words = "the parcel that was sent on Monday from the depot in Lima is two days late by now"
    chain = [words]
    for place in range(0, 60, 6):  # each is near the one before; the last is far from the first
        chain.append(chain[-1][:place] + "#" + chain[-1][place + 1 :])
    rows = [row(i, text, str(i)) for i, text in enumerate(chain)]
    rows += [row(100 + i, f"question {i} of quite another kind {i * 7919}", "x") for i in range(60)]
    for seed in range(5):
        parts = split(rows, {"test": 0.3}, Split(near=0.8), seed)
        sides = {part for part, found in parts.items() for r in found if r.origin.line < 100}
        assert len(sides) == 1
    apart = [split(rows, {"test": 0.3}, Split(), seed) for seed in range(5)]
    assert any(
        len({part for part, found in parts.items() for r in found if r.origin.line < 100}) == 2
        for parts in apart
    )


@pytest.mark.parametrize("seed", range(2))
def test_the_planted_near_duplicates_are_never_parted(seed: int) -> None:
    planted = corpus(1200, each=100, leaks=10, seed=seed)
    rows = [Text(r["text"], origin=Origin("r", i)) for i, r in enumerate(planted.train, 1)]
    parts = split(rows, TENTHS, Split(near=0.8), seed)
    side = {r.origin.line: part for part, found in parts.items() for r in found}
    pairs = [(rows[one], rows[other]) for one, other in repeats(rows, 0.8)]
    assert len(pairs) >= 195
    assert all(side[one.origin.line] == side[other.origin.line] for one, other in pairs)
