"""Answers that are JSON objects: read strictly, or not at all."""

from typing import Any

from tunesmith.core.rows import canonical
from tunesmith.core.strictjson import Malformed, parse


def fields_of(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is. None for anything else, an object with words around it too:
    what a program cannot read is no answer."""
    try:
        value = parse(text)
    except Malformed:
        return None
    return value if isinstance(value, dict) else None


def part_of(text: str, field: str | None) -> str:
    """`text`, or one field of the JSON object it is; empty when it has none."""
    if field is None:
        return text
    value = (fields_of(text) or {}).get(field)
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical(value)


def named(kind: str, field: str | None) -> str:
    """A measure's name: `rouge` of the field `summary` is `summary.rouge`."""
    return kind if field is None else f"{field}.{kind}"
