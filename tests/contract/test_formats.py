"""Every format: it knows its own records only, and its rows survive the way to disk and back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import DataError
from tunesmith.core.rows import Chat, Message, Origin, row_from
from tunesmith.data.formats.base import Format
from tunesmith.data.source import Reading, detected, rows

ASK = {"role": "user", "content": "Who?"}
SAY = {"role": "assistant", "content": "Me."}

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
}
CASES = [(kind, record) for kind, records in RECORDS.items() for record in records]


def rows_of(tmp_path: Path, *records: dict[str, Any], **stated: Any) -> list[Chat]:
    """The rows of a file with these records."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return [row for _, row in rows(Reading(path, **stated))]


def message(tmp_path: Path, *records: dict[str, Any]) -> str:
    """What is said about records that are refused."""
    with pytest.raises(DataError) as caught:
        rows_of(tmp_path, *records)
    return str(caught.value)


def test_every_format_is_tested() -> None:
    assert set(RECORDS) == set(Format.members())


@pytest.mark.parametrize(("kind", "record"), CASES)
def test_a_record_is_detected_as_its_own_format_only(kind: str, record: dict[str, Any]) -> None:
    assert detected(record).kind == kind


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("other", RECORDS)
def test_a_record_of_two_formats_is_refused_naming_both(kind: str, other: str) -> None:
    if kind == other:
        return
    with pytest.raises(DataError) as caught:
        detected(RECORDS[kind][0] | RECORDS[other][0])
    assert all(word in str(caught.value) for word in (kind, other, "data.format"))


@pytest.mark.parametrize(("kind", "record"), CASES)
def test_a_row_survives_the_way_to_disk_and_back(
    tmp_path: Path, kind: str, record: dict[str, Any]
) -> None:
    (row,) = rows_of(tmp_path, record | {"weight": 0.25})
    again = row_from(json.loads(json.dumps(row.record())))
    assert again == row and again.digest == row.digest
    assert row.origin == Origin(str(tmp_path / "rows.jsonl"), 1)
    assert row.source == "rows.jsonl" and row.weight == 0.25


@pytest.mark.parametrize(("kind", "record"), CASES)
def test_no_text_of_a_record_is_altered(tmp_path: Path, kind: str, record: dict[str, Any]) -> None:
    odd = json.loads(json.dumps(record).replace("Me.", " Me.\\u00a0\\n\\t<|im_end|> "))
    (row,) = rows_of(tmp_path, odd)
    assert row.answer() == " Me.\xa0\n\t<|im_end|> "


@pytest.mark.parametrize("member", Format.members().values())
@pytest.mark.parametrize("value", [None, 7, {}, [], [7], "", True])
def test_any_value_is_a_row_or_a_sentence(member: type[Format], value: Any) -> None:
    form = member()  # type: ignore[call-arg]
    keys = (*form.required, *form.optional)
    base = {key: "x" for key in form.required} | {"messages": [ASK, SAY]}
    for key in keys:
        try:
            form.row(base | {key: value})
        except DataError as error:
            assert key in str(error) and "\n" not in str(error)


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
    assert "no format" in message(tmp_path, record)
    stated = Format.members()["completion"]()  # type: ignore[call-arg]
    (row,) = rows_of(tmp_path, record, format=stated)
    assert row.answer() == "Me."


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
