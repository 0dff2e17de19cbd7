"""`chosen` and `rejected`: two answers to one prompt, of which people preferred the first."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from tunesmith.core.errors import DataError
from tunesmith.core.rows import Pair, Turns
from tunesmith.data.fields import PREFERENCE, kind, one_of, there, tools
from tunesmith.data.formats.base import Format
from tunesmith.data.instructions import KEYS, instructed, system
from tunesmith.data.pairs import pair
from tunesmith.data.turns import side, turns

CHOSEN = ("chosen", "preferred_output")
REJECTED = ("rejected", "non_preferred_output")
UNREAD = tuple(key for key in PREFERENCE if key not in (*CHOSEN, *REJECTED))


class Preference(Format):
    """Pairs of answers: {prompt, chosen, rejected}, each a text or a list of messages.

    Where `chosen` and `rejected` are whole conversations, what they begin with alike is the
    prompt, and `prompt` may be left out. Instead of `prompt` there may be `instruction` with
    `input`, `system` and `history` as in alpaca. OpenAI's form {input: {messages},
    preferred_output, non_preferred_output} is read too. Equal answers are refused: they prefer
    nothing.
    """

    kind: Literal["preference"] = "preference"
    required: ClassVar[tuple[str, ...]] = (CHOSEN[0], REJECTED[0])
    also: ClassVar[Mapping[str, tuple[str, ...]]] = {
        CHOSEN[0]: CHOSEN[1:],
        REJECTED[0]: REJECTED[1:],
    }
    optional: ClassVar[tuple[str, ...]] = ("prompt", "instruction", *KEYS, "tools")

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether there is an answer that people preferred, or did not."""
        return there(record, (*CHOSEN, *REJECTED)) and not there(record, UNREAD)

    def row(self, record: Mapping[str, Any]) -> Pair:
        """Both answers and what they answer, texts untouched."""
        names = one_of(record, CHOSEN), one_of(record, REJECTED)
        chosen, rejected = (side(record, name, "assistant") for name in names)
        openai = names[0] == CHOSEN[1]
        asked = messages_of(record.get("input")) if openai else question(record)
        found = pair(asked, chosen, rejected, names)
        return replace(found, tools=tools(record["input"] if openai else record))


def question(record: Mapping[str, Any]) -> Turns:
    """The turns before the answers; none, or the system's alone, where the answers hold them."""
    keys = tuple(key for key in ("prompt", "instruction") if record.get(key) is not None)
    if not keys:
        return system(record)
    if one_of(record, keys) == "instruction":
        return instructed(record)
    return system(record) + side(record, "prompt", "user")


def messages_of(value: Any) -> Turns:
    """The messages of OpenAI's `input`."""
    if not isinstance(value, dict) or "messages" not in value:
        what = "an object without messages" if isinstance(value, dict) else kind(value)
        raise DataError(f"input is {what}; write {{messages: [...]}} beside preferred_output")
    return turns(value["messages"], "input.messages")
