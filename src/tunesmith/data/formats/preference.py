"""`chosen` and `rejected`: two answers to one prompt, of which people preferred the first."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from tunesmith.core.errors import DataError
from tunesmith.core.rows import Chat, Pair, Turns
from tunesmith.data.fields import PREFERENCE, empty, kind, one_of, there, tools
from tunesmith.data.formats.base import Format
from tunesmith.data.instructions import KEYS, instructed, system
from tunesmith.data.pairs import pair
from tunesmith.data.turns import shown, side, turns

CHOSEN = ("chosen", "preferred_output")
REJECTED = ("rejected", "non_preferred_output")
UNREAD = tuple(key for key in PREFERENCE if key not in (*CHOSEN, *REJECTED))


class Preference(Format):
    """Pairs of answers: {prompt, chosen, rejected}, each a text or a list of messages.

    Where `chosen` and `rejected` are whole conversations, what they begin with alike is the
    prompt, and `prompt` may be left out. Instead of `prompt` there may be `instruction` with
    `input`, `system` and `history` as in alpaca. OpenAI's form {input: {messages},
    preferred_output, non_preferred_output} is read too. Equal answers prefer nothing; the
    quality audit tells of them.
    """

    kind: Literal["preference"] = "preference"
    required: ClassVar[tuple[str, ...]] = (CHOSEN[0], REJECTED[0])
    answer: ClassVar[tuple[str, ...]] = required
    also: ClassVar[Mapping[str, tuple[str, ...]]] = {
        CHOSEN[0]: CHOSEN[1:],
        REJECTED[0]: REJECTED[1:],
    }
    optional: ClassVar[tuple[str, ...]] = ("prompt", "instruction", *KEYS, "tools")

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether there is an answer that people preferred, or did not."""
        return there(record, (*CHOSEN, *REJECTED)) and not there(record, UNREAD)

    def asks(self, record: Mapping[str, Any]) -> bool:
        """Whether there is an answer that people preferred, or did not, or else a prompt."""
        prompt = there(record, ("prompt", "instruction")) or openai(record)
        return self.matches(record) or (prompt and not there(record, UNREAD))

    def row(self, record: Mapping[str, Any]) -> Pair:
        """Both answers and what they answer, texts untouched."""
        names = one_of(record, CHOSEN), one_of(record, REJECTED)
        chosen, rejected = (side(record, name, "assistant") for name in names)
        theirs = names[0] == CHOSEN[1]
        asked = messages_of(record.get("input")) if theirs else prompted(record)
        found = pair(asked, chosen, rejected, names)
        return replace(found, tools=tools(record["input"] if theirs else record))

    def question(self, record: Mapping[str, Any]) -> Chat:
        """The turns before the answers; where the answers hold them, both must be there."""
        if not any(all(empty(record, key) for key in side) for side in (CHOSEN, REJECTED)):
            return self.row(record).question()
        if openai(record):
            return Chat(shown(messages_of(record["input"])), tools=tools(record["input"]))
        asked = prompted(record)
        if not asked or asked[-1].role == "system":
            raise DataError(
                "the prompt is missing; write prompt, or whole conversations as chosen and rejected"
            )
        return Chat(shown(asked), tools=tools(record))


def openai(record: Mapping[str, Any]) -> bool:
    """Whether `input` holds messages."""
    return isinstance(record.get("input"), dict)


def prompted(record: Mapping[str, Any]) -> Turns:
    """The turns before the answers; none, or the system's alone, where the answers hold them."""
    keys = tuple(key for key in ("prompt", "instruction") if record.get(key) is not None)
    if keys and one_of(record, keys) == "instruction":
        return instructed(record)
    for key in ("input", "history"):
        if record.get(key):
            raise DataError(f"{key} is read beside instruction only; remove it, or rename prompt")
    return system(record) + (side(record, "prompt", "user") if keys else ())


def messages_of(value: Any) -> Turns:
    """The messages of OpenAI's `input`."""
    if not isinstance(value, dict) or "messages" not in value:
        what = "an object without messages" if isinstance(value, dict) else kind(value)
        raise DataError(f"input is {what}; write {{messages: [...]}} beside preferred_output")
    return turns(value["messages"], "input.messages")
