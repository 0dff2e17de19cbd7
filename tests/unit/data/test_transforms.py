"""What single transforms promise beyond the contract: planted faults are found, clean rows stay."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.planted import corpus
from tunesmith.core.disk import Disk
from tunesmith.core.errors import DataError
from tunesmith.core.rows import Chat, Judged, Labelled, Message, Origin, Pair, Row, Text
from tunesmith.data.neighbours import gathered, meeting
from tunesmith.data.similar import HASHES, height, jaccard, shingles, sketch, sketched
from tunesmith.data.transforms.base import Account, Decision, Transform
from tunesmith.data.transforms.redact import key_in
from tunesmith.model import embedded


def left(kind: str, given: list[Any], **settings: Any) -> tuple[list[Any], list[Decision]]:
    """The rows that a step leaves, and what it told."""
    told: list[Decision] = []
    step: Any = Transform.members()[kind](kind=kind, **settings)
    return list(step.apply(given, Account(kind, tell=told.append), 0)), told


def documents(*texts: str) -> list[Text]:
    """Documents, a line each."""
    return [Text(text, origin=Origin("r", line)) for line, text in enumerate(texts, 1)]


def talk(line: int, ask: str, say: str) -> Chat:
    """A question and its answer."""
    turns = (Message("user", ask), Message("assistant", say))
    return Chat(turns, origin=Origin("r", line), source="r")


@pytest.mark.parametrize(
    ("text", "mend", "wanted"),
    [
        ("caf\u00c3\u00a9 \u00e2\u20ac\u201c yes", ["encoding"], "caf\u00e9 \u2013 yes"),
        ("\u00e9", ["encoding"], "\u00e9"),
        ("a\x00b\x1b[31mc", ["encoding"], "abc"),
        ("e\u0301", ["unicode"], "\u00e9"),
        ("\u201ca\u201d \u2018b\u2019", ["quotes"], "\"a\" 'b'"),
        ("\u201ca\u201d", ["encoding", "unicode", "spaces"], "\u201ca\u201d"),
        (" a  b\u00a0 c \r\n\r\n\r\n\r\n d\t", ["spaces"], "a b c\n\n d"),
        ("x = [\n    1,\n    2]", ["spaces"], "x = [\n    1,\n    2]"),
        ("do  this:\n```\na  =  1\n\n\n\nb\n```\nand  go", ["spaces"],
         "do this:\n```\na  =  1\n\n\n\nb\n```\nand go"),
        ("\U0001f468\u200d\U0001f469", ["spaces"], "\U0001f468\u200d\U0001f469"),
        ("<p>One<br>two</p> <b>three</b>&nbsp;&eacute;", ["markup", "spaces"],
         "One\ntwo\nthree \u00e9"),
        ("a < b, c > d: List<String> <name>", ["markup"], "a < b, c > d: List<String> <name>"),
        ("write &lt;b&gt; for bold, 1 &lt; 2", ["markup"], "write &lt;b> for bold, 1 < 2"),
        ("<script>var a = '<p>';</script>seen<!-- not -->", ["markup"], "seen"),
    ],
)  # fmt: skip
def test_texts_are_mended(text: str, mend: list[str], wanted: str) -> None:
    ((row,), _) = left("normalise", documents(text), mend=mend)
    assert row.text == wanted


def test_what_was_mended_is_told_and_an_emptied_answer_is_dropped() -> None:
    rows = [talk(1, "a  b", "caf\u00c3\u00a9"), talk(2, "a", "\u200b "), talk(3, "a", "b")]
    kept, told = left("normalise", rows)
    assert [row.origin.line for row in kept] == [1, 3]
    assert [(d.did, d.why) for d in told] == [
        ("changed", "spaces, encoding"),
        ("dropped", "nothing is left of a text"),
    ]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"min_words": 3}, [2, 3]),
        ({"max_characters": 21}, [1, 2]),
        ({"part": "prompt", "must_match": "^What"}, [2]),
        ({"part": "answer", "must_not_match": "(?i)blue"}, [2, 3]),
        ({"languages": ["en"]}, [1, 2]),
        ({"field": "of", "keep": ["7"]}, [1]),
        ({"field": "of", "drop": [""]}, [1]),
    ],
)
def test_rows_are_filtered(settings: dict[str, Any], kept: list[int]) -> None:
    rows = [
        replace(talk(1, "Hi", "Blue"), fields={"of": 7}),
        talk(2, "What is it?", "It is red"),
        talk(3, "Wo ist mein Paket geblieben?", "Das Paket liegt in der Filiale bereit."),
    ]
    found, _ = left("filter", rows, **settings)
    assert [row.origin.line for row in found] == kept


@pytest.mark.parametrize(
    "settings",
    [{}, {"field": "a"}, {"keep": ["a"]}, {"must_match": "("}, {"languages": ["english"]}],
)
def test_filters_that_cannot_be_meant_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        left("filter", [], **settings)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_nearly_the_same_is_found_and_what_is_only_like_it_stays(seed: int) -> None:
    planted = corpus(seed=seed)
    rows = documents(*(record["text"] for record in planted.train))
    _, told = left("deduplicate", rows, match="near")
    gone = {decision.row.line for decision in told}
    assert planted.exact <= gone
    assert len(planted.near & gone) >= 0.99 * len(planted.near)  # 0.998 of 600 in three seeds
    assert gone == gone & (planted.near | planted.exact)
    assert all(decision.other and decision.other.line < decision.row.line for decision in told)


def test_a_sketch_estimates_the_share_in_common() -> None:
    one, other = "abcdefghij" * 3 + "the parcel", "abcdefghij" * 3 + "the letter"
    words = shingles(one), shingles(other)
    exact = jaccard(*words)
    estimate = float((sketch(words[0]) == sketch(words[1])).mean())
    assert 0 < exact < 1 and abs(estimate - exact) < 4 * (exact * (1 - exact) / HASHES) ** 0.5
    assert height(0.8) == 8 and height(1.0) == 30 and height(0.5) < 8


def test_who_shares_a_band_meets() -> None:
    rows = documents("one and the same text", "quite another one", "one and the same text")
    pieces = (sketched(rows[:2]), sketched(rows[2:]))
    bands, marks = gathered(pieces, 8)
    found = dict(meeting(bands))
    assert set(found) == {0, 2} and found[0] == found[2] and len(found[0]) == HASHES // 8
    assert (marks[0] == marks[2]).all() and (marks[0] == marks[1]).mean() < 0.2


YES, NO = (Message("assistant", "yes"),), (Message("assistant", "no"),)
LONG = "The parcel was sent on Monday from the depot in Lima and is now two days late. " * 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (talk(1, LONG, "42"), talk(2, LONG, "43")),
        (Labelled((LONG,), ("a",)), Labelled((LONG + ".",), ("b",))),
        (Judged((Message("user", LONG),), (Message("assistant", "x"),), True),
         Judged((Message("user", LONG),), (Message("assistant", "x"),), False)),
        (Pair((Message("user", LONG),), YES, NO), Pair((Message("user", LONG),), NO, YES)),
    ],
)  # fmt: skip
def test_a_long_question_does_not_hide_another_answer(one: Row, other: Row) -> None:
    assert left("deduplicate", [one, other], match="near")[0] == [one, other]
    assert (
        len(left("deduplicate", [one, replace(one, origin=Origin("r", 9))], match="near")[0]) == 1
    )


def test_sources_are_compared_with_each_other_or_not() -> None:
    rows = [replace(talk(i, LONG, "yes"), source="ab"[i % 2]) for i in range(4)]
    for match in ("exact", "near"):
        assert len(left("deduplicate", rows, match=match)[0]) == 1
        assert len(left("deduplicate", rows, match=match, across=False)[0]) == 2


def test_many_rows_of_one_template_cost_no_square() -> None:
    words = LONG + "Number {} of them is the one that {} asked about on line {} of the form."
    rows = documents(*(words.format(i, i * 7919 % 10007, i * 104729) for i in range(2000)))
    kept, _ = left("deduplicate", rows, match="near", threshold=0.97)
    assert 0 < len(kept) <= 2000


def test_a_second_answer_to_a_question_goes_where_that_is_asked_for() -> None:
    rows = [talk(1, "Why?", "a"), talk(2, "why? ", "b"), talk(3, "How?", "a")]
    kept, told = left("deduplicate", rows, what="question", match="normalised")
    assert [row.origin.line for row in kept] == [1, 3] and told[0].why.startswith("asks what")


@pytest.mark.skipif(embedded.encoder() is None, reason="the bundled encoder is not installed")
def test_what_means_the_same_is_found_by_the_encoder() -> None:
    rows = documents(
        "The parcel has not arrived yet.",
        "A quick brown fox jumps over the lazy dog.",
        "The package has not arrived yet.",
        "The parcel has not arrived yet!",
    )
    kept, told = left("deduplicate", rows, match="meaning", threshold=0.75)
    assert [row.origin.line for row in kept] == [1, 2]
    assert left("deduplicate", kept, match="meaning", threshold=0.75)[0] == kept
    assert {d.other.line for d in told if d.other} == {1}


def labelled(line: int, label: str, **fields: Any) -> Labelled:
    """A labelled text."""
    return Labelled((f"text {line}",), (label,), origin=Origin("r", line), fields=fields)


UNEVEN = [labelled(i, "aaab"[i % 4], of="xy"[i % 3 > 0]) for i in range(48)]


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({}, {"a": 12, "b": 12}),
        ({"how": "up"}, {"a": 36, "b": 36}),
        ({"to": 20}, {"a": 20, "b": 12}),
        ({"how": "up", "to": 30}, {"a": 36, "b": 30}),
    ],
)
def test_classes_are_made_even(settings: dict[str, Any], sizes: dict[str, int]) -> None:
    kept, _ = left("balance", UNEVEN, **settings)
    assert {label: sum(row.answer() == label for row in kept) for label in "ab"} == sizes
    assert [row.origin.line for row in kept] == sorted(row.origin.line for row in kept)


def test_weights_of_classes_are_made_even_and_their_sum_stays() -> None:
    kept, _ = left("balance", UNEVEN, by="of", how="weights")
    sums = {of: sum(row.weight for row in kept if row.fields["of"] == of) for of in "xy"}
    assert sums["x"] == pytest.approx(sums["y"]) and sum(sums.values()) == pytest.approx(48)


def test_a_record_without_the_field_is_named() -> None:
    with pytest.raises(DataError, match=r"r:1: there is no value under 'of'"):
        left("balance", [labelled(1, "a")], by="of")


def probes(path: Path, *records: Any) -> str:
    """A file of them."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_rows_that_overlap_a_probe_are_dropped_whatever_its_form(tmp_path: Path) -> None:
    text = "the quick brown fox jumps over the lazy dog and then runs far away"
    path = probes(
        tmp_path / "p.jsonl",
        {"query": {"deep": [text]}, "gold": 3},
        {"query": "short one", "choices": ["Is it late?"]},
    )
    rows = documents(
        f"He said: {text.upper()}!", f"{text[:40]} and stops", "is it  late", "so, is it late?", "3"
    )
    kept, told = left("decontaminate", rows, against=[path])
    assert [row.origin.line for row in kept] == [2, 4, 5]
    assert [str(d.other).endswith(f"p.jsonl:{line}") for d, line in zip(told, (1, 2), strict=True)]
    kept, _ = left("decontaminate", rows, against=[path], words=6)
    assert [row.origin.line for row in kept] == [4, 5]


def test_what_the_form_of_a_test_shares_is_no_overlap(tmp_path: Path) -> None:
    form = "choose the one best answer to the question below and write its letter alone please"
    path = probes(tmp_path / "p.jsonl", *({"q": f"{form} {i}"} for i in range(30)))
    kept, _ = left("decontaminate", documents(f"{form} today"), against=[path])
    assert len(kept) == 1


MAIL = "Write to Bob.Smith@example.org or bob.smith@EXAMPLE.org, not to al@example.org."


def test_pseudonyms_are_the_same_for_the_same_and_need_the_key(tmp_path: Path) -> None:
    key = str(tmp_path / "a.key")
    ((row,), told) = left("redact", documents(MAIL), how="pseudonym", key=key)
    first, second, third = (part.split("]")[0] for part in row.text.split("[")[1:])
    assert first == second != third and first.startswith("EMAIL-")
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600 and len(told) == 1
    ((again,), _) = left("redact", documents(MAIL), how="pseudonym", key=key)
    assert again.text == row.text
    ((other,), _) = left("redact", documents(MAIL), how="pseudonym", key=str(tmp_path / "b.key"))
    assert other.text != row.text
    (tmp_path / "short.key").write_text("abc")
    with pytest.raises(DataError, match=r"short\.key: a key of at least"):
        key_in(tmp_path / "short.key")


def test_a_kill_while_a_key_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> int:
        raise SystemExit

    key_in.cache_clear()
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Disk, "write", killed)
        key_in(tmp_path / "my.key")
    assert not (tmp_path / "my.key").exists()
    found = key_in(tmp_path / "my.key")
    assert len(found) >= 32 and [path.name for path in tmp_path.iterdir()] == ["my.key"]


def test_of_several_that_make_a_key_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes the key after this one has seen that there is none."""
    key_in.cache_clear()
    path, write = tmp_path / "my.key", Disk.write

    def and_another(self: Disk, file: int, content: memoryview) -> int:
        path.write_text("the other's key, which is long enough")
        return write(self, file, content)

    monkeypatch.setattr(Disk, "write", and_another)
    assert key_in(path) == path.read_bytes() == b"the other's key, which is long enough"


def test_values_are_masked_spared_or_drop_their_row() -> None:
    text = f"{MAIL} See http://example.org/a?b=1 with AKIAIOSFODNN7EXAMPLE."
    ((masked,), _) = left("redact", documents(text))
    assert "@" not in masked.text and "[EMAIL]" in masked.text and "[TOKEN]" in masked.text
    ((spared,), _) = left("redact", documents(text), spare=["url"])
    assert "http://example.org/a?b=1" in spared.text
    assert left("redact", documents(text, "clean"), how="drop")[0] == documents(text, "clean")[1:]
    with pytest.raises(ValidationError, match="key goes with"):
        left("redact", [], how="pseudonym")


def test_a_call_that_holds_something_drops_its_row() -> None:
    calls = [{"function": {"name": "send", "arguments": '{"to": "al@example.org"}'}}]
    turns = (Message("user", "Send"), Message("assistant", None, extra={"tool_calls": calls}))
    kept, told = left("redact", [Chat(turns, origin=Origin("r", 1))])
    assert kept == [] and told[0].why == "holds email"


@pytest.mark.parametrize("place", ["rejected", "tools"])
def test_what_stands_beside_the_texts_of_a_pair_drops_it_too(place: str) -> None:
    calls = {"tool_calls": [{"function": {"arguments": '{"to": "al@example.org"}'}}]}
    tool = {"function": {"name": "send", "description": "as al@example.org"}}
    asked = (Message("user", "Send"),)
    row = Pair(asked, YES, NO, origin=Origin("r", 1))
    rows = {
        "rejected": replace(row, rejected=(Message("assistant", None, extra=calls),)),
        "tools": replace(row, tools=(tool,)),
    }
    kept, told = left("redact", [rows[place], row])
    assert kept == [row] and told[0].why == "holds email"


@pytest.mark.parametrize("settings", [{"regions": ["PL"]}, {"spare": ["adress"]}])
def test_regions_and_kinds_that_nobody_knows_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"known: .*(US|email)"):
        left("redact", [], **settings)


def test_a_value_of_a_field_is_told_only_where_the_settings_name_it() -> None:
    rows = [replace(row, fields={"who": row.text}) for row in documents("al@example.org", "bot")]
    _, told = left("filter", rows, field="who", keep=["x"])
    assert {decision.why for decision in told} == {"who is not one to keep"}
    _, told = left("filter", rows, field="who", keep=["x"], drop=["bot"])
    assert [decision.why for decision in told] == ["who is not one to keep", "who is 'bot'"]


@pytest.mark.parametrize("by", ["label", "who"])
def test_a_class_is_told_only_where_it_is_a_label(by: str) -> None:
    said = ["al@example.org"] * 3 + ["bo@example.org"]
    rows: list[Row] = [
        replace(talk(i, "Who?", who), fields={"who": who}) for i, who in enumerate(said)
    ]
    account = Account("balance")
    step: Any = Transform.members()["balance"](kind="balance", by=by)
    assert len(list(step.apply(rows, account, 0))) == 2
    assert account.notes == ["2 classes, from 1 rows to 3"]
    account = Account("balance")
    list(step.apply([labelled(i, "aab"[i], who="aab"[i]) for i in range(3)], account, 0))
    told = {
        "label": "2 classes, from 1 rows ('b') to 2 ('a')",
        "who": "2 classes, from 1 rows to 2",
    }
    assert account.notes == [told[by]]
