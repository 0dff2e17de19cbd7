"""Rows written back as records: in the form they came in where that can be done, else in the plain
form of their kind."""

from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.rows import Chat, Judged, Labelled, Origin, Pair, Row, Text, Turns, written
from tunesmith.data.fields import weight
from tunesmith.data.formats.base import Format
from tunesmith.data.transforms.base import Account, Transform

Change = Callable[[str], str]


def in_own_form(
    record: Mapping[str, Any], row: Row, form: Format, change: Change
) -> dict[str, Any] | None:
    """The record with its texts changed as the row's were; none where that gives another row.

    Texts that nothing reads are changed too: what was taken out of a row must not stand beside it.
    """
    labels = row.labels if isinstance(row, Labelled) else ()
    found: dict[str, Any] = changed(record, lambda text: text if text in labels else change(text))
    if row.weight != weight(record):
        found["weight"] = row.weight
    return found if says(found, row, form) else None


def in_plain_form(
    record: Mapping[str, Any], row: Row, form: Format, change: Change
) -> dict[str, Any]:
    """The record of the row's kind, and under `beside` what the format did not read."""
    found = plain(row)
    beside = {key: value for key, value in record.items() if not form.reads(key)}
    beside.pop("weight", None)
    if beside:
        found["beside"] = changed(beside, change)
    if row.weight != 1:
        found["weight"] = row.weight
    return found


def says(record: Mapping[str, Any], row: Row, form: Format) -> bool:
    """Whether a record is read as this row."""
    try:
        return form.row(record).digest == row.digest and weight(record) == row.weight
    except DataError:
        return False


def changed(value: Any, change: Change) -> Any:
    """A value of JSON with its texts changed, and its numbers where their digits are."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        told = str(value)
        found = change(told)
        return value if found == told else found
    if isinstance(value, Mapping):
        return {key: changed(each, change) for key, each in value.items()}
    return [changed(each, change) for each in value] if isinstance(value, list) else value


def change_of(steps: Sequence[Transform], seed: int) -> Change:
    """What the steps that change texts make of one text by itself."""
    alone = [step.for_texts() for step in steps if step.alone]

    def change(text: str) -> str:
        row = Text(text, origin=Origin("", 0))
        for step in alone:
            left = list(step.apply([row], Account(step.kind), seed))
            row = next((each for each in left if isinstance(each, Text)), row)
        return row.text

    return change


@singledispatch
def plain(row: Row) -> dict[str, Any]:
    """The record of a row in the plain form of its kind."""
    raise TypeError(f"{row.kind} has no plain form")


@plain.register
def _(row: Chat) -> dict[str, Any]:
    found: dict[str, Any] = {"messages": written(row.messages)}
    if row.references:
        found["references"] = list(row.references)
    return tooled(found, row.tools)


@plain.register
def _(row: Text) -> dict[str, Any]:
    return {"text": row.text}


@plain.register
def _(row: Labelled) -> dict[str, Any]:
    names = ("text",) if len(row.given) == 1 else ("text1", "text2")
    label = {"labels": list(row.labels)} if row.many else {"label": row.labels[0]}
    return {**dict(zip(names, row.given, strict=True)), **label}


@plain.register
def _(row: Pair) -> dict[str, Any]:
    sides = {"prompt": row.asked, "chosen": row.chosen, "rejected": row.rejected}
    return tooled(sided(sides), row.tools)


@plain.register
def _(row: Judged) -> dict[str, Any]:
    found = sided({"prompt": row.asked, "completion": row.answered})
    return tooled({**found, "label": row.liked}, row.tools)


def sided(sides: Mapping[str, Turns]) -> dict[str, Any]:
    """Turns under their keys."""
    return {key: written(turns) for key, turns in sides.items()}


def tooled(record: dict[str, Any], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record with the tools it may call, if any."""
    return {**record, "tools": [dict(tool) for tool in tools]} if tools else record
