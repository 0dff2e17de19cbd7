"""What a row is called: names, whether a table holds names, numbers, or true and false."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.quote import quoted
from tunesmith.data.fields import kind


def name_of(value: Any, where: str, names: Sequence[str] = ()) -> str:
    """A label as a name. With `names`, a whole number is a place among them, counted from 0."""
    if isinstance(value, bool):
        value = "true" if value else "false"
    if isinstance(value, int):
        return numbered(value, where, names)
    if not isinstance(value, str) or not value.strip():
        what = "empty" if isinstance(value, str) else kind(value)
        raise DataError(
            f"{where} is {what}, not a label; write a name, a whole number, or true or false"
        )
    if names and value not in names:
        if value.isascii() and value.isdigit():
            return numbered(int(value), where, names)
        near = get_close_matches(value, names, n=1)
        hint = f"did you mean {quoted(near[0])}?" if near else "add it to names"
        raise DataError(f"{where} is {quoted(value)}, which is not among the names; {hint}")
    return value


def numbered(value: int, where: str, names: Sequence[str]) -> str:
    """The name of a label that is a number; its digits where there are no names."""
    if value < 0:
        raise DataError(
            f"{where} is {value}, which stands for a row without a label; remove the row"
        )
    if names and value >= len(names):
        raise DataError(
            f"{where} is {value}, and names holds {len(names)}, counted from 0; add the others"
        )
    return names[value] if names else str(value)


def set_of(value: Any, where: str, names: Sequence[str] = ()) -> tuple[str, ...]:
    """A list of labels as a set: each once, in order of their names; it may be empty."""
    if not isinstance(value, list):
        raise DataError(f"{where} is {kind(value)}, not a list of labels; write [...] in JSONL")
    return tuple(
        sorted({name_of(item, f"{where}[{number}]", names) for number, item in enumerate(value)})
    )
