"""JSON as its standard says and no more: what Python's own reader lets pass is refused here."""

import json
import math
from collections.abc import Iterable
from typing import Any

from tunesmith.core.quote import quoted

DEPTH = 32
"""Levels of objects and lists inside each other."""
DIGITS = 400
"""Digits of one number."""
LONGEST_WORD = 12
"""Characters of the longest thing that the end of a text may cut: an escaped surrogate pair."""


class Malformed(ValueError):
    """Why a text is not acceptable JSON, and the offset in the text where that shows.

    `unfinished` says that more text could still make it right.
    """

    def __init__(self, what: str, at: int = 0, *, unfinished: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.at = at
        self.unfinished = unfinished


def parse(text: str) -> Any:
    """The one value in `text`. Raises Malformed."""
    start = len(text) - len(text.lstrip(" \t\r\n"))
    value, end = decode(text, start)
    rest = text[end:].lstrip(" \t\r\n")
    if rest:
        raise Malformed(
            "more text follows the value; write one value a line", len(text) - len(rest)
        )
    return value


def decode(text: str, start: int) -> tuple[Any, int]:
    """The value that begins at `start`, and the offset behind it. Raises Malformed."""
    try:
        value, end = DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        open_text = error.msg.startswith("Unterminated string")
        unfinished = open_text or error.pos >= len(text) - LONGEST_WORD
        raise Malformed(explained(text, error), error.pos, unfinished=unfinished) from None
    except RecursionError:
        raise Malformed(TOO_DEEP, start) from None
    except Malformed as error:
        raise Malformed(error.what, start) from None
    inspect(text[start:end], value, start)
    return value, end


def inspect(text: str, value: Any, start: int) -> None:
    """Refuse nesting that is too deep and halves of surrogate pairs, looked for only on suspicion.

    Both need many brackets or an escape in the text, which almost no row has.
    """
    if text.count("{") + text.count("[") > DEPTH and deeper(value, DEPTH):
        raise Malformed(TOO_DEEP, start)
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise Malformed(
                "an escape \\ud800-\\udfff stands alone, which is half a character; "
                "write the character itself",
                start,
            ) from None


def deeper(value: Any, limit: int) -> bool:
    """Whether `value` nests more than `limit` levels."""
    if not isinstance(value, dict | list):
        return False
    below: Iterable[Any] = value.values() if isinstance(value, dict) else value
    return limit == 0 or any(deeper(item, limit - 1) for item in below)


def explained(text: str, error: json.JSONDecodeError) -> str:
    """A sentence for the mistakes people make, and Python's words for the others."""
    rest = text[error.pos : error.pos + 5]
    for start, sentence in HINTS.items():
        if rest.startswith(start):
            return sentence
    if error.msg.startswith("Invalid control character"):
        return f"{quoted(rest[:1])} stands raw inside a text; write \\n, \\t or \\u00.. instead"
    if error.msg.startswith("Unterminated string"):
        return "a text is not closed; end it with a double quote on the same line"
    if error.msg.startswith("Invalid \\escape"):
        return "a backslash escape that JSON does not have; double the backslash"
    if not rest.strip():
        return "the value is not finished; look for a missing bracket, or a file cut short"
    return f"this is not JSON ({error.msg[0].lower()}{error.msg[1:]}); correct it at {quoted(rest)}"


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys occur once: Python's reader would keep the last and forget the rest."""
    record = dict(pairs)
    if len(record) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Malformed(f"the key {quoted(twice)} occurs twice in one object; keep one of them")
    return record


def integer(text: str) -> int:
    """A whole number of a sane length."""
    if len(text) > DIGITS:
        raise Malformed(f"a number of {len(text)} digits; write it as text in quotes")
    return int(text)


def decimal(text: str) -> float:
    """A finite number: 1e999 would become infinity."""
    value = float(text)
    if not math.isfinite(value):
        raise Malformed(f"the number {quoted(text)} is too large; write it as text in quotes")
    return value


def constant(text: str) -> float:
    """NaN and Infinity, which Python reads and JSON does not have."""
    raise Malformed(f"{text} is not JSON; leave the key out, or write null")


TOO_DEEP = f"more than {DEPTH} objects and lists inside each other; flatten the record"
HINTS = {
    "'": "single quotes are Python's, not JSON's; write the file with json.dumps",
    "None": "None is Python's, not JSON's; write null",
    "True": "True is Python's, not JSON's; write true",
    "False": "False is Python's, not JSON's; write false",
    "//": "JSON has no comments; delete it",
    "#": "JSON has no comments; delete it",
    "}": "a comma too many, or a value missing, before '}'; correct it",
    "]": "a comma too many, or a value missing, before ']'; correct it",
    "\N{LEFT DOUBLE QUOTATION MARK}": "curly quotes are not JSON's; write straight ones",
    "\N{BYTE ORDER MARK}": "a byte order mark inside the file; delete it",
}
DECODER = json.JSONDecoder(
    object_pairs_hook=unique, parse_int=integer, parse_float=decimal, parse_constant=constant
)
