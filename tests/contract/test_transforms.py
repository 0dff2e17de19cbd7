"""Every transform: rows are accounted for, the seed decides, a second pass changes nothing."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as options
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.core.rows import Chat, Judged, Labelled, Message, Origin, Pair, Row, Text
from tunesmith.data.transforms.base import Account, Decision, Transform
from tunesmith.data.transforms.decontaminate import probes

PROBES = {"prompt": "What is 3?", "completion": "It is the first odd prime number of them all."}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "balance": [
        {},
        {"how": "up"},
        {"how": "weights"},
        {"to": 3},
        {"how": "up", "to": 30},
        {"by": "region"},
        {"by": "region", "how": "weights"},
    ],
    "decontaminate": [{"against": ["probes.jsonl"]}, {"against": ["probes.jsonl"], "words": 4}],
    "deduplicate": [
        {},
        {"match": "normalised"},
        {"what": "question", "match": "normalised"},
        {"match": "near"},
        {"match": "near", "threshold": 0.5, "across": False},
    ],
    "filter": [
        {"min_words": 3, "max_words": 12},
        {"part": "answer", "min_characters": 1, "max_characters": 40},
        {"part": "prompt", "must_match": "[0-9]", "must_not_match": "7"},
        {"field": "region", "keep": ["north"]},
        {"field": "region", "drop": ["north", ""]},
        {"languages": ["en"]},
    ],
    "normalise": [{}, {"mend": ["encoding", "markup", "unicode", "quotes", "spaces"]}],
    "redact": [
        {},
        {"how": "drop"},
        {"how": "pseudonym", "key": "my.key"},
        {"find": ["secrets"], "spare": ["token"]},
    ],
    "sample": [{"rows": 1}, {"rows": 7}, {"rows": 1000}, {"per_class": 1}, {"per_class": 9}],
}
CASES = [(kind, settings) for kind, many in SETTINGS.items() for settings in many]


def row(line: int, prompt: str, answer: str, weight: float = 1.0, **fields: Any) -> Chat:
    """A row read at a line."""
    messages = (Message("user", prompt), Message("assistant", answer))
    place = Origin("rows.jsonl", line)
    return Chat(messages, origin=place, source="rows.jsonl", weight=weight, fields=fields)


DIRT = (
    "",
    " \t\n",
    "The caf\u00c3\u00a9 on the corner \u00e2\u20ac\u201c it is open until late every day.",
    "<p>Hello&nbsp;there</p><br/>a &lt;b&gt; tag, a &lt; b, x < y",
    "a  b\u00a0c \n\n\n\n d \u200b",
    "\u201cquoted\u201d e\u0301 ```\n  code  here\n```",
    "Der Hund lief \u00fcber die Stra\u00dfe und niemand hat ihn dabei gesehen.",
    "It is the first odd prime number of them all, as everybody knows by now.",
    "Write to Max.Mustermann@example.org or call +49 30 1234567, card 4111 1111 1111 1111.",
    "The key is AKIAIOSFODNN7EXAMPLE, password: hunter2hunter2, on 10.1.2.3 and http://x.org/a?b=1",
)
ROWS = [
    row(
        i,
        f"What is {i % 13}?",
        f"It is {i % 5}.",
        1 + i / 10,
        region=("north", "south", "")[i % 3] or "x",
    )
    for i in range(100)
] + [row(100 + i, f"Say {text}", text, region="north") for i, text in enumerate(DIRT * 2)]


@pytest.fixture(autouse=True)
def _probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that training rows must not overlap."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "probes.jsonl").write_text(json.dumps(PROBES) + "\n")
    probes.cache_clear()


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
    dropped = sum(account.dropped.values())
    assert account.kept == len(kept) == account.taken + account.added - dropped


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_every_decision_is_told_with_its_row(kind: str, settings: dict[str, Any]) -> None:
    told: list[Decision] = []
    account = Account(kind, tell=told.append)
    kept = list(made(kind, settings).apply(ROWS, account, 0))
    did = Counter(decision.did for decision in told)
    dropped = Counter(decision.why for decision in told if decision.did == "dropped")
    assert dict(dropped) == account.dropped
    assert (did["changed"], did["added"]) == (account.changed, account.added)
    gone = {decision.row for decision in told if decision.did == "dropped"}
    assert gone == {r.origin for r in ROWS} - {r.origin for r in kept}
    before = {r.origin: r for r in ROWS}
    changed = {r.origin for r in kept if r != before[r.origin]}
    assert changed == {decision.row for decision in told if decision.did == "changed"}


@pytest.mark.parametrize("kind", [kind for kind in SETTINGS if Transform.members()[kind].alone])
def test_a_step_over_rows_alone_may_be_done_in_pieces(kind: str) -> None:
    for settings in SETTINGS[kind]:
        whole, account = applied(made(kind, settings), ROWS)
        pieces = [applied(made(kind, settings), ROWS[i : i + 7]) for i in range(0, len(ROWS), 7)]
        assert whole == [r for kept, _ in pieces for r in kept]
        joined = Account(kind)
        for _, each in pieces:
            joined.join(each)
        assert joined == account


WORDS = st.sampled_from(["a", "\u00e9", "<p>", "&amp;", "\u00c3\u00a9", " ", "\n", "7", "```", "B"])
TEXTS = st.lists(WORDS | st.text(max_size=4), max_size=8).map("".join)


@pytest.mark.parametrize(("kind", "settings"), CASES)
@options(max_examples=30, deadline=None, suppress_health_check=[*HealthCheck])
@given(texts=st.lists(st.tuples(TEXTS, TEXTS), max_size=12), seed=st.integers(0, 3))
def test_any_rows_are_counted_and_a_second_pass_changes_nothing(
    kind: str, settings: dict[str, Any], texts: list[tuple[str, str]], seed: int
) -> None:
    rows = [row(i, *both, region=both[0] or "x") for i, both in enumerate(texts)]
    once, account = applied(made(kind, settings), rows, seed)
    assert account.taken + account.added == account.kept + sum(account.dropped.values())
    assert account.taken == len(rows) and account.kept == len(once)
    twice, again = applied(made(kind, settings), once, seed)
    assert twice == once and not (again.dropped or again.changed or again.added)


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
    assert twice == once and account.dropped == {} and account.changed == account.added == 0


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_origin_source_and_weight_stay_with_their_row(kind: str, settings: dict[str, Any]) -> None:
    before = {r.origin: (r.source, r.weight) for r in ROWS}
    kept, _ = applied(made(kind, settings), ROWS)
    weighs = settings.get("how") == "weights"
    assert all(before[r.origin] == (r.source, r.weight) for r in kept if not weighs)
    assert all(before[r.origin][0] == r.source for r in kept)


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
    assert account.notes == ["classes with fewer than 4 rows, all kept: 1 of 2 ('small')"]


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
