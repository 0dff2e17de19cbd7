"""`prompt` and `completion`, each a text or a list of messages."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tunesmith.core.rows import Chat
from tunesmith.data.fields import has, references, tools
from tunesmith.data.formats.base import Format
from tunesmith.data.turns import answered, shown, side


class Completion(Format):
    """A prompt and the completion to learn.

    A text prompt becomes the user's turn and a text completion the assistant's, in the model's
    chat template. Either may be a list of messages instead. Only the completion is trained:
    assistant turns in a prompt are shown, not learnt, unless they say `train: true`. `references`
    may list further right answers, for metrics.
    """

    kind: Literal["completion"] = "completion"
    required: ClassVar[tuple[str, ...]] = ("prompt", "completion")
    answer: ClassVar[tuple[str, ...]] = ("completion",)
    optional: ClassVar[tuple[str, ...]] = ("tools", "references")

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether both keys are there, and no `label`, which would make the row a judgement."""
        return has(record, *self.required) and "label" not in record

    def row(self, record: Mapping[str, Any]) -> Chat:
        """Prompt and completion as one conversation, texts untouched."""
        before = shown(side(record, "prompt", "user"))
        after = answered(side(record, "completion", "assistant"), "completion")
        return Chat(messages=before + after, tools=tools(record), references=references(record))

    def question(self, record: Mapping[str, Any]) -> Chat:
        """The prompt as a conversation."""
        return Chat(shown(side(record, "prompt", "user")), tools=tools(record))
