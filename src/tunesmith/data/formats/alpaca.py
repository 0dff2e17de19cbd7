"""`instruction`, `input` and `output`, with `system` and `history` where they are given."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from tunesmith.core.errors import DataError
from tunesmith.core.rows import Chat, Message
from tunesmith.data.fields import answer_text, has, kind, optional_text, references, text
from tunesmith.data.formats.base import Format


class Alpaca(Format):
    """Instructions in the Alpaca form.

    The user's turn is the instruction, then, where there is an `input`, an empty line and the
    input. `system` becomes a system turn. `history` is a list of [question, answer] pairs that
    came before; its answers are trained like the last one.
    """

    kind: Literal["alpaca"] = "alpaca"
    required: ClassVar[tuple[str, ...]] = ("instruction", "output")
    optional: ClassVar[tuple[str, ...]] = ("input", "system", "history", "references")

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether there are an instruction and an output."""
        return has(record, self.required)

    def row(self, record: Mapping[str, Any]) -> Chat:
        """The instruction as a conversation, texts untouched."""
        system = optional_text(record, "system")
        asked = (text(record, "instruction"), optional_text(record, "input"))
        return Chat(
            messages=(
                *([Message("system", system)] if system else ()),
                *history(record.get("history")),
                Message("user", "\n\n".join(part for part in asked if part)),
                Message("assistant", answer_text(record, "output")),
            ),
            references=references(record),
        )


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
