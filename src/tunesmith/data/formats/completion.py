"""`prompt` and `completion`, each a text or a list of messages."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from tunesmith.core.rows import Chat, Message
from tunesmith.data.fields import answer_text, has, references, text, tools
from tunesmith.data.formats.base import Format
from tunesmith.data.turns import answered, turns


class Completion(Format):
    """A prompt and the completion to learn.

    A text prompt becomes the user's turn and a text completion the assistant's, in the model's
    chat template. Either may be a list of messages instead. Only the completion is trained:
    assistant turns in a prompt are shown, not learnt, unless they say `train: true`. `references`
    may list further right answers, for metrics.
    """

    kind: Literal["completion"] = "completion"
    required: ClassVar[tuple[str, ...]] = ("prompt", "completion")
    optional: ClassVar[tuple[str, ...]] = ("tools", "references")

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether both keys are there, and no verdict (`label`) that would make it a judgement."""
        return has(record, self.required) and not isinstance(record.get("label"), bool)

    def row(self, record: Mapping[str, Any]) -> Chat:
        """Prompt and completion as one conversation, texts untouched."""
        before = tuple(shown(m) for m in side(record, "prompt", "user"))
        after = answered(side(record, "completion", "assistant"), "completion")
        return Chat(messages=before + after, tools=tools(record), references=references(record))


def side(record: Mapping[str, Any], key: str, role: str) -> tuple[Message, ...]:
    """The turns of one side: its messages, or its text as a turn of `role`."""
    if isinstance(record[key], list):
        return turns(record[key], key)
    taken = answer_text if role == "assistant" else text
    return (Message(role, taken(record, key)),)


def shown(message: Message) -> Message:
    """A turn of the prompt: an assistant's carries no loss unless it says so."""
    if message.role == "assistant" and message.train is None:
        return replace(message, train=False)
    return message
