"""`messages` with roles: the OpenAI form, with tools and weights."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tunesmith.core.rows import Chat as Row
from tunesmith.data.fields import has, references, tools
from tunesmith.data.formats.base import Format
from tunesmith.data.turns import answered, turns, unanswered


class Chat(Format):
    """Conversations as OpenAI writes them: `messages` of {role, content}.

    Roles: system, user, assistant, tool; `developer` and others are refused with the one to write.
    The last turn is an assistant's. `content` is text, or a list of text parts, which are joined;
    it is null only beside `tool_calls`. Every assistant turn is trained unless its `weight` is 0
    or its `train` is false. Beside the messages: `tools`, `references` (further right answers,
    for metrics) and `weight` (how much the row counts).
    """

    kind: Literal["chat"] = "chat"
    required: ClassVar[tuple[str, ...]] = ("messages",)
    optional: ClassVar[tuple[str, ...]] = ("tools", "references")

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether there are messages, and no answer that people did not want."""
        return has(record, *self.required)

    def row(self, record: Mapping[str, Any]) -> Row:
        """The conversation, texts untouched."""
        return Row(
            messages=answered(turns(record["messages"], "messages"), "messages"),
            tools=tools(record),
            references=references(record),
        )

    def question(self, record: Mapping[str, Any]) -> Row:
        """The conversation up to the answer that may end it."""
        asked = unanswered(record["messages"], "messages")
        return Row(messages=turns(asked, "messages"), tools=tools(record))
