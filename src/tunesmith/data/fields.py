"""Fields of a record, each taken out with a sentence for what can be wrong with it."""

import re
from collections.abc import Mapping
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.quote import quoted

NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
VERDICTS = {"true": True, "false": False}
"""How a cell of a table says whether people liked an answer, in any case of letters."""
PREFERENCE = ("chosen", "rejected", "rejected_response", "preferred_output", "kto_tag")
"""Keys of rows that hold answers people did not want: no row to imitate."""


def there(record: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    """Whether the record has one of the keys."""
    return any(name in record for name in names)


def has(record: Mapping[str, Any], *keys: str | tuple[str, ...]) -> bool:
    """Whether the record has all the keys, of several in a tuple one, and is not a preference."""
    wanted = ((key,) if isinstance(key, str) else key for key in keys)
    return all(there(record, names) for names in wanted) and not there(record, PREFERENCE)


def one_of(record: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The one of several names of a key that the record uses; one is there, and two are refused."""
    found = [name for name in names if name in record]
    if len(found) > 1:
        raise DataError(f"{found[0]} and {found[1]} are both here and mean the same; keep one")
    return found[0]


def empty(record: Mapping[str, Any], key: str) -> bool:
    """Whether nothing is written under a key; false, zero and no label at all are something."""
    return record.get(key) in (None, "")


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "null" if value is None else kinds.get(type(value), "a number")


def text(record: Mapping[str, Any], key: str, where: str = "") -> str:
    """A text that must be there; it may be empty. `where` is what the key belongs to."""
    value = record[key]
    if not isinstance(value, str):
        advice = "write the text, or remove the row" if value is None else "put it in quotes"
        place = f"{where}.{key}" if where else key
        raise DataError(f"{place} is {kind(value)}, not text; {advice}")
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


def verdict(record: Mapping[str, Any], key: str) -> bool:
    """Whether people liked the answer: true or false, in a table as text."""
    value = record[key]
    said = value.lower() if isinstance(value, str) else None
    if isinstance(value, bool) or said in VERDICTS:
        return VERDICTS[said] if said is not None else value
    raise DataError(
        f"{key} is {quoted(value)}, not true or false; write true where people liked the answer "
        f"and false where not, or state another data.format where {key} means something else"
    )


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
