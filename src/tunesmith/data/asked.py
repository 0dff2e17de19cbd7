"""A row as what it asks: read by the format that training used, its answer missing or not."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.rows import Row
from tunesmith.core.tables import Record
from tunesmith.data.formats.base import Format
from tunesmith.data.source import check, detected

ANSWERS = {"instruction": "output", "prompt": "completion", "text": "label"}
"""The key of a row's answer beside the key of what it asks."""


def asker(stated: Format | None, first: Record) -> Callable[[Record], Row]:
    """What makes questions of a file's records. Without a stated format, the first one tells."""
    form = stated or form_of(first)
    return lambda record: question(record, form, stated=stated is not None)


def form_of(record: Record) -> Format:
    """The format that a record's keys tell."""
    try:
        return detected(with_answer(record.fields, record.fields))
    except DataError as error:
        raise DataError(f"{record.origin}: {error}") from None


def question(record: Record, form: Format | None = None, *, stated: bool = True) -> Row:
    """The row of a record whose answer may be missing or empty: then something stands for it.

    A `stated` format takes records with further keys.
    """
    form = form or form_of(record)
    fields = with_answer(record.fields, form.required)
    try:
        check(form, fields, stated=stated)
        return replace(form.row(fields), origin=record.origin)
    except DataError as error:
        raise DataError(f"{record.origin}: {error}") from None


def with_answer(fields: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The fields, with something where the answer is missing: formats know whole rows only."""
    known = set(known)
    turns = fields.get("messages") if "messages" in known else None
    if isinstance(turns, list) and turns:
        last = turns[-1]
        said = isinstance(last, dict) and last.get("role") == "assistant"
        if said and (last.get("content") or last.get("tool_calls")):
            return dict(fields)
        asked = turns[:-1] if said else turns
        return {**fields, "messages": [*asked, {"role": "assistant", "content": "-"}]}
    for asked_by, answered_by in ANSWERS.items():
        if asked_by in fields and asked_by in known:
            return {**fields, answered_by: fields.get(answered_by) or "-"}
    return dict(fields)
