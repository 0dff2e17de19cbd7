"""`instruction`, `input` and `output`, with `system` and `history` where they are given."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tunesmith.core.rows import Chat, Message
from tunesmith.data.fields import answer_text, has, references
from tunesmith.data.formats.base import Format
from tunesmith.data.instructions import KEYS, instructed


class Alpaca(Format):
    """Instructions in the Alpaca form.

    The user's turn is the instruction, then, where there is an `input`, an empty line and the
    input. `system` becomes a system turn. `history` is a list of [question, answer] pairs that
    came before; its answers are trained like the last one.
    """

    kind: Literal["alpaca"] = "alpaca"
    required: ClassVar[tuple[str, ...]] = ("instruction", "output")
    answer: ClassVar[tuple[str, ...]] = ("output",)
    optional: ClassVar[tuple[str, ...]] = (*KEYS, "references")

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether there are an instruction and an output."""
        return has(record, *self.required)

    def row(self, record: Mapping[str, Any]) -> Chat:
        """The instruction as a conversation, texts untouched."""
        answer = Message("assistant", answer_text(record, "output"))
        return Chat((*instructed(record), answer), references=references(record))

    def question(self, record: Mapping[str, Any]) -> Chat:
        """The turns before the answer."""
        return Chat(instructed(record))
