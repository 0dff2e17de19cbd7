"""A row as what it asks: read by the format that training used, its answer missing or not."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.rows import Row
from tunesmith.core.tables import Record
from tunesmith.data.formats.base import Format
from tunesmith.data.source import check, detected

ANSWERS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("instruction",), ("output",)),
    (("prompt",), ("completion",)),
    (("text", "text1", "sentence1"), ("label", "labels")),
)
"""Keys of what a row asks, and beside them those of its answer."""
TURNS = {"messages": ("role", "content", "assistant"), "conversations": ("from", "value", "gpt")}
"""Keys of a conversation; how its turns name who speaks and what is said, and who answers."""
FILLER = "-"
"""What stands where an answer is missing; nobody sees it."""


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
    known = {name for key in form.required for name in form.spellings(key)}
    fields = with_answer(record.fields, known)
    fields |= {key: FILLER for key in form.answers if missing(fields, key)}
    try:
        check(form, fields, stated=stated)
        return replace(form.row(fields), origin=record.origin)
    except DataError as error:
        raise DataError(f"{record.origin}: {error}") from None


def with_answer(fields: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The fields, with something where the answer is missing: formats know whole rows only.

    `known` are the keys that the row's format reads.
    """
    for key, shape in TURNS.items():
        if key in known and isinstance(fields.get(key), list):
            return {**fields, key: with_turn(fields[key], *shape)}
    for asked, answered in ANSWERS:
        if any(key in fields and key in known for key in asked):
            if not all(missing(fields, key) for key in answered):
                return dict(fields)
            rest = {key: value for key, value in fields.items() if key not in answered}
            return {**rest, answered[0]: FILLER}
    return dict(fields)


def with_turn(turns: list[Any], who: str, what: str, answering: str) -> list[Any]:
    """The turns, with an answer at their end."""
    last = turns[-1] if turns and isinstance(turns[-1], dict) else {}
    said = last.get(who) in (answering, "assistant")
    if said and (last.get(what) or last.get("tool_calls")):
        return turns
    asked = turns[:-1] if said else turns
    return [*asked, {who: answering, what: FILLER}] if asked else turns


def missing(fields: Mapping[str, Any], key: str) -> bool:
    """Whether nothing is written under a key; false, zero and no label at all are something."""
    return fields.get(key) in (None, "")
