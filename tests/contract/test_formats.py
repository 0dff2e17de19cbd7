"""Every format: it knows its own records only, and its rows survive the way to disk and back."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tunesmith.core.errors import DataError
from tunesmith.core.rows import (
    Chat,
    Judged,
    Labelled,
    Message,
    Origin,
    Pair,
    Row,
    Text,
    row_from,
)
from tunesmith.core.tables import Record
from tunesmith.data.asked import asker, form_of
from tunesmith.data.formats.base import Format
from tunesmith.data.source import Reading, detectable, detected, rows

ASK = {"role": "user", "content": "Who?"}
SAY = {"role": "assistant", "content": "Me."}
HUMAN = {"from": "human", "value": "Who?"}
GPT = {"from": "gpt", "value": "Me."}


def made(kind: str, **settings: Any) -> Format:
    """A format with these settings."""
    return Format.members()[kind](**settings)  # type: ignore[return-value]


RECORDS: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {"messages": [ASK, SAY]},
        {"messages": [{"role": "system", "content": ""}, ASK, SAY, ASK, {**SAY, "weight": 0}]},
        {
            "messages": [
                ASK,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "content": "7", "tool_call_id": "1"},
                {**SAY, "train": True, "reasoning_content": "hm"},
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
    ],
    "completion": [
        {"prompt": "Who?", "completion": "Me."},
        {"prompt": [ASK, SAY, ASK], "completion": [SAY], "references": ["I."]},
    ],
    "alpaca": [
        {"instruction": "Who?", "output": "Me."},
        {
            "instruction": "Who?",
            "input": "Me or you",
            "output": "Me.",
            "system": "Be short.",
            "history": [["Hi", "Hello"]],
        },
    ],
    "sharegpt": [
        {"conversations": [HUMAN, GPT]},
        {
            "conversations": [
                HUMAN,
                {"from": "function_call", "value": '{"name": "f", "arguments": {"n": 1}}'},
                {"from": "observation", "value": "7"},
                GPT,
                HUMAN,
                {"from": "function_call", "value": '[{"name": "f", "arguments": "{}"}]'},
                {"from": "tool", "value": "8"},
                {**GPT, "weight": 0},
                {**HUMAN, "markdown": None},
                GPT,
            ],
            "system": "Be short.",
            "tools": '[{"name": "f"}]',
        },
        {"conversations": [{"from": "system", "value": ""}, ASK, SAY], "references": ["I."]},
    ],
    "text": [{"text": "Me. It is a long story."}],
    "labelled": [
        {"text": "Me.", "label": "who"},
        {"text": "Me.", "text_pair": "Me?", "label": 3},
        {"text1": "Me.", "text2": "", "label": True},
        {"sentence1": "Me.", "sentence2": "I.", "labels": ["b", "a", "b", 0]},
        {"text": "Me.", "labels": []},
    ],
    "preference": [
        {"prompt": "Who?", "chosen": "Me.", "rejected": "You."},
        {"prompt": [ASK, SAY, ASK], "chosen": [SAY], "rejected": [{**SAY, "content": "You."}]},
        {
            "chosen": [ASK, SAY, ASK, SAY],
            "rejected": [ASK, SAY, ASK, {**SAY, "content": "You."}],
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
        {"instruction": "Who?", "input": "", "chosen": "Me.", "rejected": "You.", "system": "S"},
        {
            "input": {"messages": [ASK], "tools": []},
            "preferred_output": [SAY],
            "non_preferred_output": [{**SAY, "content": "You."}],
        },
    ],
    "judged": [
        {"prompt": "Who?", "completion": "Me.", "label": True},
        {"prompt": [ASK], "completion": [SAY], "label": False},
        {"prompt": "Who?", "completion": "Me.", "label": "False"},
    ],
    "columns": [
        {"q": "Who?", "a": "Me.", "of": "Rome", "good": "TRUE", "bad": "You.", "is": 1, "all": [1]},
        {"q": [ASK], "a": [SAY], "of": "", "good": False, "bad": "You.", "is": "x", "all": []},
    ],
}
COLUMNS: list[dict[str, Any]] = [
    {"user": "q", "assistant": "a"},
    {"user": "q", "assistant": "a", "system": "You live in {of}."},
    {"user": "q", "assistant": "a", "liked": "good"},
    {"user": "q", "chosen": "a", "rejected": "bad"},
    {"text": "{of}: {bad}"},
    {"text": "bad", "text_pair": "of", "label": "is"},
    {"text": "bad", "labels": "all", "names": ["no", "yes"]},
]
"""A statement for each kind of row that columns can make."""
FORMATS = [member for kind, member in Format.members().items() if kind != "columns"]
CASES: list[tuple[Format, dict[str, Any]]] = [
    (made(kind), record)
    for kind, records in RECORDS.items()
    if kind != "columns"
    for record in records
] + [(made("columns", **stated), r) for stated in COLUMNS for r in RECORDS["columns"]]


def rows_of(tmp_path: Path, *records: dict[str, Any], **stated: Any) -> list[Any]:
    """The rows of a file with these records."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return [row for _, row in rows(Reading(path, **stated))]


def message(tmp_path: Path, *records: dict[str, Any], **stated: Any) -> str:
    """What is said about records that are refused."""
    with pytest.raises(DataError) as caught:
        rows_of(tmp_path, *records, **stated)
    return str(caught.value)


def test_every_format_is_tested() -> None:
    assert set(RECORDS) == set(Format.members())


@pytest.mark.parametrize("kind", [kind for kind in RECORDS if kind != "columns"])
def test_a_record_is_detected_as_its_own_format_only(kind: str) -> None:
    for record in RECORDS[kind]:
        assert [form.kind for form in detectable() if form.matches(record)] == [kind]


def test_columns_are_never_found_out() -> None:
    assert "columns" not in {form.kind for form in detectable()}


CONTAINS = {"judged": "completion", "labelled": "text"}
"""Formats whose records are those of another with a word more: never two at once."""


@pytest.mark.parametrize("kind", [kind for kind in RECORDS if kind != "columns"])
@pytest.mark.parametrize("other", [kind for kind in RECORDS if kind != "columns"])
def test_a_record_of_two_formats_is_refused_naming_both(kind: str, other: str) -> None:
    record = RECORDS[kind][0] | RECORDS[other][0]
    if kind == other or CONTAINS.get(kind) == other or CONTAINS.get(other) == kind:
        return
    if "preference" in (kind, other):
        # An answer that people did not want is never to be imitated, whatever stands beside it.
        assert detected(record).kind == "preference"
        return
    with pytest.raises(DataError) as caught:
        detected(record)
    _, _, said = str(caught.value).partition(" fit the formats ")
    named = {*said.partition(";")[0].split(" and ")}
    assert {kind, other} <= named | {CONTAINS.get(name, name) for name in named}
    assert "data.format" in said


@pytest.mark.parametrize(("form", "record"), CASES)
def test_a_row_survives_the_way_to_disk_and_back(
    tmp_path: Path, form: Format, record: dict[str, Any]
) -> None:
    (row,) = rows_of(tmp_path, record | {"weight": 0.25}, format=form)
    again = row_from(json.loads(json.dumps(row.record())))
    assert again == row and again.digest == row.digest
    assert row.origin == Origin(str(tmp_path / "rows.jsonl"), 1)
    assert row.source == "rows.jsonl" and row.weight == 0.25


@pytest.mark.parametrize(("form", "record"), CASES)
def test_no_text_of_a_record_is_altered(
    tmp_path: Path, form: Format, record: dict[str, Any]
) -> None:
    odd = " Me.\\u00a0\\n\\t<|im_end|> "
    (plain,) = rows_of(tmp_path, record, format=form)
    (row,) = rows_of(tmp_path, json.loads(json.dumps(record).replace("Me.", odd)), format=form)
    wanted = [text.replace("Me.", " Me.\xa0\n\t<|im_end|> ") for text in plain.texts()]
    assert list(row.texts()) == wanted
    assert wanted != list(plain.texts()) or "Me." not in json.dumps([*plain.texts()])


@pytest.mark.parametrize("value", [None, 7, -1, 0.5, {}, [], [7], [{}], "", True])
@pytest.mark.parametrize(("form", "record"), CASES)
def test_any_value_is_a_row_or_a_sentence(form: Format, record: dict[str, Any], value: Any) -> None:
    required = (name for key in form.required for name in form.spellings(key))
    for key in {*required, *form.optional, *record}:
        try:
            form.row(record | {key: value})
        except DataError as error:
            said = str(error)
            assert key in said or (key == "instruction" and "the prompt" in said)
            assert "\n" not in said and "; " in said


# --- records that only ask -------------------------------------------------------------------


ANSWERS = (
    "output",
    "completion",
    "label",
    "labels",
    "chosen",
    "rejected",
    "a",
    "good",
    "is",
    "all",
)
"""Keys of the records above that hold answers."""


def without_answer(form: Format, record: dict[str, Any]) -> dict[str, Any] | None:
    """The record as somebody writes it who only asks; None where its answer holds the question."""
    gone = {*ANSWERS, "preferred_output", "non_preferred_output", "references"}
    if form.kind == "columns":
        gone |= {"bad"} & {getattr(form, "rejected", None)}
    elif "chosen" in record and not {"prompt", "instruction"} & {*record}:
        return None
    left = {key: value for key, value in record.items() if key not in gone}
    for key in {"messages", "conversations"} & {*left}:
        left[key] = left[key][:-1]
    return left


@pytest.mark.parametrize(("form", "record"), CASES)
def test_a_record_without_its_answer_asks_what_it_asks_with_it(
    form: Format, record: dict[str, Any]
) -> None:
    asked = form.row(record).question()
    assert form.question(record) == asked
    left = without_answer(form, record)
    assert left is None or form.question(left) == asked


@pytest.mark.parametrize("key", ANSWERS)
@pytest.mark.parametrize(("form", "record"), CASES)
def test_an_empty_answer_is_none(form: Format, record: dict[str, Any], key: str) -> None:
    left = without_answer(form, record)
    if left is None or (form.kind == "columns" and key == getattr(form, "text", None)):
        return
    for nothing in ("", None):
        assert form.question(left | {key: nothing}) == form.row(record).question()


@pytest.mark.parametrize("value", [None, 7, [], [7], [{}], [SAY], [GPT], {}, ""])
@pytest.mark.parametrize(("form", "record"), CASES)
def test_any_value_is_a_question_or_a_sentence(
    form: Format, record: dict[str, Any], value: Any
) -> None:
    for key in {*form.optional, *record}:
        with suppress(DataError):
            assert isinstance(form.question(record | {key: value}), Row)


@pytest.mark.parametrize(
    ("fields", "kinds", "kind"),
    [
        ({"prompt": "Who?"}, (Chat,), "completion"),
        ({"prompt": "Who?", "label": ""}, (Chat,), "judged"),
        ({"instruction": "Who?"}, (Chat,), "alpaca"),
        ({"input": {"messages": [ASK]}}, (Chat,), "preference"),
        ({"prompt": "Who?", "rejected": ""}, (Chat,), "preference"),
        ({"messages": [ASK]}, (Chat,), "chat"),
        ({"conversations": [HUMAN]}, (Chat,), "sharegpt"),
        ({"text": "Me."}, (Chat, Text), "text"),
        ({"text": "Me."}, (Labelled,), "labelled"),
        ({"sentence1": "Me.", "sentence2": "I.", "labels": []}, (Labelled,), "labelled"),
    ],
)
def test_the_format_of_a_question_is_found_by_its_keys(
    fields: dict[str, Any], kinds: Any, kind: str
) -> None:
    record = Record(Origin("rows.jsonl", 1), fields)
    assert form_of(record, kinds).kind == kind
    assert asker(None, record, kinds)(record).origin == record.origin


@pytest.mark.parametrize(
    ("fields", "kinds", "says"),
    [
        ({"promt": "Who?"}, (Chat,), "no format has the keys 'promt'"),
        ({"prompt": "Who?", "instruction": "Why?"}, (Chat,), "state which one"),
        ({"messages": [ASK]}, (Labelled,), "of kind chat, and this run answers rows of kind lab"),
        ({"text": "Who?"}, (Chat, Chat), "this run answers rows of kind chat; "),
        ({"messages": [SAY]}, (Chat,), "messages holds an answer alone"),
    ],
)
def test_what_asks_nothing_is_refused_by_its_place(
    fields: dict[str, Any], kinds: Any, says: str
) -> None:
    record = Record(Origin("rows.jsonl", 7), fields)
    with pytest.raises(DataError, match=f"rows.jsonl:7: .*{says}"):
        asker(None, record, kinds)(record)


def test_a_stated_format_of_another_kind_is_refused() -> None:
    record = Record(Origin("rows.jsonl", 7), {"messages": [ASK]})
    with pytest.raises(DataError, match="rows.jsonl:7: .* of kind chat, and this run"):
        asker(made("chat"), record, (Labelled,))(record)


def test_a_new_format_asks_what_its_rows_ask() -> None:
    """One that says nothing of questions still reads them from whole records."""

    class Lines(Format):
        required = ("said",)

        def matches(self, record: Any) -> bool:
            return "said" in record

        def row(self, record: Any) -> Chat:
            return Chat((Message("user", record["said"]), Message("assistant", record["so"])))

    assert Lines(kind="lines").question({"said": "a", "so": "b"}) == Chat((Message("user", "a"),))


def test_roles_weights_and_tools_of_chat(tmp_path: Path) -> None:
    told, shown, both = rows_of(tmp_path, *RECORDS["chat"][:2], RECORDS["chat"][2])
    assert told.messages == (Message("user", "Who?"), Message("assistant", "Me."))
    assert [m.train for m in shown.messages] == [None, None, None, None, False]
    assert both.messages[1].content is None
    assert both.messages[3].train is True
    assert both.messages[3].extra == {"reasoning_content": "hm"}
    assert both.tools == tuple(RECORDS["chat"][2]["tools"])


def test_text_parts_are_joined(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Who"}, {"type": "text", "text": "?"}]
    (row,) = rows_of(tmp_path, {"messages": [{**ASK, "content": parts}, SAY]})
    assert row.messages[0].content == "Who?"


def test_null_means_absent(tmp_path: Path) -> None:
    say = SAY | {"tool_calls": None, "name": None, "weight": None, "train": None}
    (row,) = rows_of(tmp_path, {"messages": [ASK, say], "tools": None, "weight": None})
    assert row.messages[1] == Message("assistant", "Me.")


def test_answers_in_a_prompt_are_shown_and_not_learnt(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, RECORDS["completion"][1])
    assert [m.train for m in row.messages] == [None, False, None, None]
    assert row.references == ("I.",)


def test_alpaca_in_the_order_of_a_conversation(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, RECORDS["alpaca"][1])
    assert [(m.role, m.content) for m in row.messages] == [
        ("system", "Be short."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Who?\n\nMe or you"),
        ("assistant", "Me."),
    ]


def test_a_csv_weighs_in_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("instruction,input,output,history,weight\nWho?,,Me.,,2.5\n")
    ((_, row),) = rows(Reading(path))
    assert row.weight == 2.5 and row.messages[0].content == "Who?"


def test_a_stated_format_goes_before_the_keys(tmp_path: Path) -> None:
    record = {"prompt": "Who?", "completion": "Me.", "label": False}
    assert isinstance(rows_of(tmp_path, record)[0], Judged)
    (row,) = rows_of(tmp_path, record, format=made("completion"))
    assert isinstance(row, Chat) and row.answer() == "Me."


def test_the_sentence_about_unknown_keys_says_how_to_go_on(tmp_path: Path) -> None:
    said = message(tmp_path, {"question": "Who?", "answer": "Me."})
    for word in ("rows.jsonl:1: ", "'question', 'answer'", "alpaca (instruction, output)"):
        assert word in said
    assert "data.format" in said


def test_keys_that_nothing_reads_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(RECORDS["completion"][0] | {"id": 1, "weight": 2}) + "\n")
    reading = Reading(path)
    list(rows(reading))
    assert list(reading.unused) == ["id"] and reading.rows == 1


def test_origin_and_weight_are_no_part_of_a_rows_identity(tmp_path: Path) -> None:
    first, second = rows_of(tmp_path, {"messages": [ASK, SAY]}, {"messages": [ASK, SAY]})
    assert first != second
    assert first.digest == second.digest == replace(first, weight=2.0).digest


# --- the kinds of row ------------------------------------------------------------------------


def test_sharegpt_in_our_roles(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, RECORDS["sharegpt"][1])
    roles = "system user assistant tool assistant user assistant tool assistant user assistant"
    assert [m.role for m in row.messages] == roles.split()
    assert [m.train for m in row.messages if m.role == "assistant"] == [None] * 3 + [False, None]
    called = row.messages[2]
    assert called.content is None
    assert called.extra["tool_calls"][0]["function"] == {"name": "f", "arguments": {"n": 1}}
    assert row.tools == ({"name": "f"},)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("bot", "'gpt'"), ("GPT", "'gpt'"), ("developer", "'system'"), ("narrator", "one of human")],
)
def test_an_unknown_speaker_is_refused_with_the_one_to_write(
    tmp_path: Path, name: str, meant: str
) -> None:
    said = message(tmp_path, {"conversations": [HUMAN, {"from": name, "value": "Me."}]})
    assert "conversations[1].from" in said and f"write {meant}" in said


@pytest.mark.parametrize(
    ("label", "names", "name"),
    [
        ("who", (), "who"),
        (7, (), "7"),
        ("7", (), "7"),
        (False, (), "false"),
        (1, ("no", "yes"), "yes"),
        ("0", ("no", "yes"), "no"),
        ("yes", ("no", "yes"), "yes"),
        ("1", ("1", "0"), "1"),
    ],
)
def test_a_label_is_a_name(label: Any, names: tuple[str, ...], name: str) -> None:
    assert made("labelled", names=names).row({"text": "a", "label": label}) == Labelled(
        ("a",), (name,)
    )


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (2, "names holds 2"),
        ("2", "names holds 2"),
        (-1, "without a label"),
        ("yess", "did you mean 'yes'"),
        ("", "empty"),
        (None, "null"),
        (1.0, "a number, not a label"),
    ],
)
def test_what_is_no_label_is_refused(label: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        made("labelled", names=("no", "yes")).row({"text": "a", "label": label})


def test_a_set_of_labels_has_no_order_and_no_repeats() -> None:
    first, second = (
        made("labelled").row({"text": "a", "labels": labels})
        for labels in (["b", "a", "b"], ["a", "b"])
    )
    assert first == second == Labelled(("a",), ("a", "b"), many=True)


def test_texts_and_labels_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("sentence1,sentence2,label\nA,B,1\n")
    ((_, row),) = rows(Reading(path))
    assert (row.texts(), row.content()["labels"]) == (("A", "B"), ["1"])
    path.write_text("prompt,completion,label\nA,B,True\nA,C,false\n")
    assert [row.content()["liked"] for _, row in rows(Reading(path))] == [True, False]


PAIRS = ["prompt", "messages", "whole", "instruction", "openai"]


@pytest.mark.parametrize("record", RECORDS["preference"], ids=PAIRS)
def test_every_form_of_a_preference_is_the_same_pair(record: dict[str, Any]) -> None:
    row = made("preference").row(record)
    assert isinstance(row, Pair)
    assert row.asked[-1] == Message("user", "Who?")
    assert (row.chosen, row.rejected) == (
        (Message("assistant", "Me."),),
        (Message("assistant", "You."),),
    )
    assert all(m.train is False for m in row.asked if m.role == "assistant")


def test_a_prompt_beside_whole_conversations_is_theirs(tmp_path: Path) -> None:
    """The form of UltraFeedback: the prompt is said again in both."""
    system = {"role": "system", "content": "S"}
    worse = {**SAY, "content": "You."}
    record = {"prompt": "Who?", "chosen": [system, ASK, SAY], "rejected": [system, ASK, worse]}
    (row,) = rows_of(tmp_path, record)
    assert [m.role for m in row.asked] == ["system", "user"]
    assert "is not in what" in message(tmp_path, record | {"prompt": "Why?"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": None}, "the prompt is missing"),
        ({"prompt": None, "system": "S"}, "the prompt is missing"),
        ({"chosen": [ASK, SAY]}, "part"),
        ({"chosen": [ASK, SAY], "rejected": [ASK, SAY, ASK, SAY]}, "nothing more at [2]"),
        ({"chosen": [ASK, SAY], "rejected": [{**ASK, "content": "?"}, SAY]}, "part"),
        ({"rejected": ""}, "rejected is empty"),
        ({"preferred_output": "Me."}, "chosen and preferred_output are both here"),
        ({"instruction": "Who?"}, "prompt and instruction are both here"),
        ({"input": "Me or you"}, "input is read beside instruction only"),
    ],
)
def test_what_prefers_nothing_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    assert says in message(tmp_path, RECORDS["preference"][0] | change)


@pytest.mark.parametrize("label", [1, 0, "1", "good", None])
def test_a_verdict_is_true_or_false(tmp_path: Path, label: Any) -> None:
    said = message(tmp_path, RECORDS["judged"][0] | {"label": label})
    assert "label is" in said and "not true or false" in said


def test_columns_make_each_kind_of_row(tmp_path: Path) -> None:
    found = [made("columns", **stated).row(RECORDS["columns"][0]) for stated in COLUMNS]
    ask, say = Message("user", "Who?"), Message("assistant", "Me.")
    assert found == [
        Chat((ask, say)),
        Chat((Message("system", "You live in Rome."), ask, say)),
        Judged((ask,), (say,), True),
        Pair((ask,), (say,), (Message("assistant", "You."),)),
        Text("Rome: You."),
        Labelled(("You.", "Rome"), ("1",)),
        Labelled(("You.",), ("yes",), many=True),
    ]


def test_columns_that_are_not_used_are_named_and_those_inside_a_text_are_used(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("title,body,id\nA,B,7\n")
    reading = Reading(path, made("columns", text="{title}\n{body}"))
    assert [row.texts() for _, row in rows(reading)] == [("A\nB",)]
    assert list(reading.unused) == ["id"]


def test_a_column_that_is_not_there_is_told_with_a_near_one(tmp_path: Path) -> None:
    form = made("columns", user="question", assistant="{replys}")
    said = message(tmp_path, {"question": "Who?", "reply": "Me."}, format=form)
    assert "rows.jsonl:1: there is no column 'replys'" in said and "did you mean 'reply'" in said


def test_numbers_in_columns_are_texts_as_written() -> None:
    row: Row = made("columns", user="{a} + {b}?", assistant="c").row({"a": 1, "b": 0.5, "c": 1.5})
    assert row.texts() == ("1 + 0.5?", "1.5")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"user": "q"},
        {"user": "q", "assistant": "a", "text": "t"},
        {"text": "t", "label": "l", "labels": "m"},
        {"text": "t", "names": ["a"]},
        {"chosen": "a", "rejected": "b", "system": "S"},
    ],
)
def test_columns_that_make_no_row_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="name the columns of one kind of row"):
        made("columns", **settings)
