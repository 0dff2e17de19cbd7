"""`prompt`, `completion` and `label`: an answer, and whether people liked it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tunesmith.core import rows
from tunesmith.data.fields import has, tools, verdict
from tunesmith.data.formats.base import Format
from tunesmith.data.turns import answered, shown, side


class Judged(Format):
    """Answers with a thumb up or down, as KTO learns from: {prompt, completion, label}.

    `label` is true where people liked the answer and false where they did not; in a table the
    words, in any case of letters. Prompt and completion are texts or lists of messages.
    """

    kind: Literal["judged"] = "judged"
    required: ClassVar[tuple[str, ...]] = ("prompt", "completion", "label")
    answer: ClassVar[tuple[str, ...]] = ("completion", "label")
    optional: ClassVar[tuple[str, ...]] = ("tools",)

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether there are a prompt, a completion and a verdict on it."""
        return has(record, *self.required)

    def row(self, record: Mapping[str, Any]) -> rows.Judged:
        """The answer and the verdict, texts untouched."""
        return rows.Judged(
            asked=shown(side(record, "prompt", "user")),
            answered=answered(side(record, "completion", "assistant"), "completion"),
            liked=verdict(record, "label"),
            tools=tools(record),
        )

    def question(self, record: Mapping[str, Any]) -> rows.Chat:
        """The prompt as a conversation."""
        return rows.Chat(shown(side(record, "prompt", "user")), tools=tools(record))
