"""Every transform: rows are accounted for, the seed decides, a second pass changes nothing."""

from typing import Any

import pytest

from tunesmith.core.errors import DataError
from tunesmith.core.rows import Chat, Judged, Labelled, Message, Origin, Pair, Row, Text
from tunesmith.data.transforms.base import Account, Transform

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "deduplicate": [{}, {"match": "normalised"}],
    "sample": [{"rows": 1}, {"rows": 7}, {"rows": 1000}, {"per_class": 1}, {"per_class": 9}],
}
CASES = [(kind, settings) for kind, many in SETTINGS.items() for settings in many]


def row(line: int, prompt: str, answer: str, weight: float = 1.0) -> Chat:
    """A row read at a line."""
    messages = (Message("user", prompt), Message("assistant", answer))
    return Chat(messages, origin=Origin("rows.jsonl", line), source="rows.jsonl", weight=weight)


ROWS = [row(i, f"What is {i % 13}?", f"It is {i % 5}.", 1 + i / 10) for i in range(100)]


def made(kind: str, settings: dict[str, Any]) -> Transform:
    """A transform with these settings."""
    return Transform.members()[kind](**settings)  # type: ignore[return-value]


def applied(step: Transform, rows: list[Any], seed: int = 0) -> tuple[list[Any], Account]:
    """The rows that go on, and what happened to the others."""
    account = Account(step.kind)
    return list(step.apply(rows, account, seed)), account


def test_every_transform_is_tested() -> None:
    assert set(SETTINGS) == set(Transform.members())


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_rows_in_are_rows_kept_and_dropped(kind: str, settings: dict[str, Any]) -> None:
    kept, account = applied(made(kind, settings), ROWS)
    assert account.taken == len(ROWS)
    assert account.kept == len(kept) == account.taken - sum(account.dropped.values())


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_same_seed_same_rows_in_their_order(kind: str, settings: dict[str, Any]) -> None:
    kept, _ = applied(made(kind, settings), ROWS)
    assert kept == applied(made(kind, settings), ROWS)[0]
    lines = [r.origin.line for r in kept]
    assert lines == sorted(lines)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_a_second_pass_changes_nothing(kind: str, settings: dict[str, Any]) -> None:
    once, _ = applied(made(kind, settings), ROWS)
    twice, account = applied(made(kind, settings), once)
    assert twice == once and account.dropped == {} and account.changed == 0


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_origin_source_and_weight_stay_with_their_row(kind: str, settings: dict[str, Any]) -> None:
    before = {r.origin: (r.source, r.weight) for r in ROWS}
    kept, _ = applied(made(kind, settings), ROWS)
    assert all(before[r.origin] == (r.source, r.weight) for r in kept)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_nothing_in_nothing_out(kind: str, settings: dict[str, Any]) -> None:
    assert applied(made(kind, settings), []) == ([], Account(kind))


def test_exactly_the_repeated_rows_are_dropped() -> None:
    rows = [row(1, "a", "b"), row(2, "a", "c"), row(3, "a", "b", 5.0), row(4, " A ", "B")]
    kept, account = applied(made("deduplicate", {}), rows)
    assert [r.origin.line for r in kept] == [1, 2, 4]
    assert kept[0].weight == 1.0 and sum(account.dropped.values()) == 1


def test_normalised_looks_past_case_and_spaces_only() -> None:
    rows = [row(1, "Is it\n10?", "No"), row(2, " is  it 10?", "NO "), row(3, "is it 1 0?", "No")]
    kept, _ = applied(made("deduplicate", {"match": "normalised"}), rows)
    assert [r.origin.line for r in kept] == [1, 3]


def test_a_sample_has_the_size_asked_for_and_another_seed_chooses_others() -> None:
    rows = [row(i, str(i), "x") for i in range(400)]
    step = made("sample", {"rows": 50})
    first, second = applied(step, rows, seed=1)[0], applied(step, rows, seed=2)[0]
    assert len(first) == len(second) == 50
    assert 0 < len({r.origin for r in first} & {r.origin for r in second}) < 30
    assert min(r.origin.line for r in first) < 40 and max(r.origin.line for r in first) > 360


def test_a_row_more_changes_a_sample_by_one_row() -> None:
    rows = [row(i, str(i), "x") for i in range(400)]
    step = made("sample", {"rows": 50})
    before = {r.origin for r in applied(step, rows)[0]}
    after = {r.origin for r in applied(step, [row(999, "new", "x"), *rows])[0]}
    assert len(before - after) <= 1


def labelled(line: int, text: str, *labels: str, many: bool = False) -> Labelled:
    """A labelled row read at a line."""
    return Labelled((text,), labels, many, origin=Origin("rows.jsonl", line))


def test_few_shots_are_k_of_each_label() -> None:
    rows = [labelled(i, f"text {i}", "abc"[i % 3]) for i in range(90)]
    kept, account = applied(made("sample", {"per_class": 4}), rows)
    assert sorted(r.answer() for r in kept) == list("aaaabbbbcccc")
    assert account.dropped == {"not in the sample": 78} and account.notes == []
    others, _ = applied(made("sample", {"per_class": 4}), rows, seed=1)
    assert {r.origin for r in others} != {r.origin for r in kept}


def test_the_class_of_a_conversation_is_its_last_answer() -> None:
    rows = [row(i, f"Q {i}", ("yes", "no")[i % 2]) for i in range(20)]
    kept, _ = applied(made("sample", {"per_class": 3}), rows)
    assert sorted(r.answer() for r in kept) == ["no"] * 3 + ["yes"] * 3


def test_a_class_with_fewer_rows_is_kept_whole_and_named() -> None:
    rows = [labelled(i, f"text {i}", "big") for i in range(9)] + [labelled(9, "x", "small")]
    kept, account = applied(made("sample", {"per_class": 4}), rows)
    assert [r.origin.line for r in kept][-1] == 9 and len(kept) == 5
    assert account.notes == ["1 of 2 classes have fewer than 4 rows, all kept: 'small'"]


def test_a_row_of_several_labels_counts_for_each() -> None:
    rows = [
        labelled(i, f"text {i}", *labels, many=True) for i, labels in enumerate(["ab", "a", ""])
    ]
    for seed in range(8):  # whichever row of the label a is drawn
        kept, account = applied(made("sample", {"per_class": 1}), rows, seed)
        assert rows[0] in kept and rows[2] in kept, "the only rows with b and without a label"
        assert account.taken == 3 == account.kept + sum(account.dropped.values())


def test_a_row_more_changes_a_few_shot_sample_in_its_own_class_only() -> None:
    rows = [labelled(i, f"text {i}", "ab"[i % 2]) for i in range(80)]
    step = made("sample", {"per_class": 10})
    before = {r.origin for r in applied(step, rows)[0]}
    after = {r.origin for r in applied(step, [labelled(999, "new", "a"), *rows])[0]}
    assert len(before - after) <= 1
    assert all(origin.line % 2 == 0 for origin in before - after)


def test_documents_have_no_class() -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:7: .*state rows instead of per_class"):
        applied(made("sample", {"per_class": 1}), [Text("a", origin=Origin("rows.jsonl", 7))])


ASK, YES, NO = (Message(r, t) for r, t in (("user", "A"), ("assistant", "Y"), ("assistant", "N")))
KINDS: list[tuple[Row, Row, Row]] = [
    # a row, the same but for case and spaces, another
    (Text("A b"), Text("a  B "), Text("A c")),
    (Labelled(("A", "B"), ("x",)), Labelled((" a", "b"), ("x",)), Labelled(("A", "B"), ("X",))),
    (
        Pair((ASK,), (YES,), (NO,)),
        Pair((ASK.mapped(str.lower),), (YES,), (NO,)),
        Pair((ASK,), (NO,), (YES,)),
    ),
    (
        Judged((ASK,), (YES,), True),
        Judged((ASK,), (YES.mapped(str.lower),), True),
        Judged((ASK,), (YES,), False),
    ),
]


@pytest.mark.parametrize(("one", "alike", "other"), KINDS)
def test_every_kind_of_row_is_compared_by_what_it_says(one: Row, alike: Row, other: Row) -> None:
    rows = [one, alike, one, other]
    assert applied(made("deduplicate", {}), rows)[0] == [one, alike, other]
    assert applied(made("deduplicate", {"match": "normalised"}), rows)[0] == [one, other]
