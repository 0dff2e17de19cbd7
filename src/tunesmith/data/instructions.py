"""An instruction with its input, system and history: how the Alpaca form asks."""

from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.rows import Message
from tunesmith.data.fields import kind, optional_text, text

KEYS = ("input", "system", "history")
"""What may stand beside `instruction`."""


def instructed(record: Mapping[str, Any]) -> tuple[Message, ...]:
    """The turns before the answer: the system's, the history, the instruction with its input."""
    asked = (text(record, "instruction"), optional_text(record, "input"))
    return (
        *system(record),
        *history(record.get("history")),
        Message("user", "\n\n".join(part for part in asked if part)),
    )


def system(record: Mapping[str, Any]) -> tuple[Message, ...]:
    """The system's turn, where there is one."""
    said = optional_text(record, "system")
    return (Message("system", said),) if said else ()


def history(value: Any) -> Iterator[Message]:
    """Earlier turns from [question, answer] pairs."""
    if value is None or value == "":
        return
    if not isinstance(value, list):
        raise DataError(f"history is {kind(value)}, not a list of pairs; write [[...]] in JSONL")
    for number, pair in enumerate(value):
        if not (isinstance(pair, list) and [type(side) for side in pair] == [str, str]):
            raise DataError(f"history[{number}] is not a pair of texts; write [question, answer]")
        if not pair[1]:
            raise DataError(f"history[{number}] has an empty answer; write it, or leave it out")
        yield Message("user", pair[0])
        yield Message("assistant", pair[1])
