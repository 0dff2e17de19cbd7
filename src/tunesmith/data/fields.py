"""Fields of a record, each taken out with a sentence for what can be wrong with it."""

import re
from collections.abc import Mapping
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.quote import quoted

NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
PREFERENCE = ("chosen", "rejected", "rejected_response", "preferred_output", "kto_tag")
"""Keys of rows that hold answers people did not want: no row to imitate."""


def has(record: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    """Whether the record has all the keys and is not a preference."""
    return all(key in record for key in keys) and not any(key in record for key in PREFERENCE)


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "null" if value is None else kinds.get(type(value), "a number")


def text(record: Mapping[str, Any], key: str) -> str:
    """A text that must be there; it may be empty."""
    value = record[key]
    if not isinstance(value, str):
        advice = "write the text, or remove the row" if value is None else "put it in quotes"
        raise DataError(f"{key} is {kind(value)}, not text; {advice}")
    return value


def answer_text(record: Mapping[str, Any], key: str) -> str:
    """The text of an answer, which may not be empty: an empty one teaches to say nothing."""
    value = text(record, key)
    if not value:
        raise DataError(f"{key} is empty; write the answer, or remove the row")
    return value


def optional_text(record: Mapping[str, Any], key: str) -> str:
    """A text that may be missing or null; then it is empty."""
    return "" if record.get(key) is None else text(record, key)


def references(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Further right answers: a list of texts, or nothing."""
    value = record.get("references")
    if value is None or value == "":
        return ()
    if not isinstance(value, list):
        raise DataError(f"references is {kind(value)}, not a list of texts; write [...] in JSONL")
    for number, item in enumerate(value):
        if not isinstance(item, str):
            raise DataError(f"references[{number}] is {kind(item)}, not text; put it in quotes")
    return tuple(value)


def tools(record: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The tools a conversation may call: a list of objects, or nothing."""
    for old in ("functions", "function_call"):
        if record.get(old) is not None:
            raise DataError(f"{old} is OpenAI's old form; write tools and tool_calls")
    value = record.get("tools")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DataError(f"tools is {kind(value)}, not a list of objects; write [{{...}}]")
    for number, item in enumerate(value):
        if not isinstance(item, dict):
            raise DataError(f"tools[{number}] is {kind(item)}, not an object; write {{...}}")
    return tuple(value)


def weight(record: Mapping[str, Any]) -> float:
    """How much the row counts: a number above 0, by default 1. Cells of a CSV hold it as text."""
    value = record.get("weight")
    if value is None:
        return 1.0
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number and not (isinstance(value, str) and NUMBER.fullmatch(value)):
        raise DataError(f"weight is {quoted(value)}, not a number; write one above 0, such as 1.0")
    if not 0 < float(value) < 1e6:
        raise DataError(
            f"weight is {quoted(value)}, not between 0 and 1000000; "
            f"write a number in between, or remove the row"
        )
    return float(value)
