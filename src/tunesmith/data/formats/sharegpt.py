"""`conversations` of {from, value}: the ShareGPT form, with its names for roles."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tunesmith.core.errors import DataError
from tunesmith.core.quote import quoted
from tunesmith.core.rows import Chat, Message, Turns
from tunesmith.data.fields import has, kind, references, text, tools
from tunesmith.data.formats.base import Format
from tunesmith.data.instructions import system
from tunesmith.data.turns import ELSEWHERE, answered, turn, unanswered

ROLES = {
    "human": "user",
    "gpt": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_call": "assistant",
    "user": "user",
    "assistant": "assistant",
}
"""Our role for each of the field's."""
NAMES = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}


class Sharegpt(Format):
    """Conversations as ShareGPT and LLaMA-Factory write them: `conversations` of {from, value}.

    `from` is human, gpt, system, tool, observation (what a tool said) or function_call (its value
    is JSON, {name, arguments} or a list of them); others are refused with the one to write.
    {role, content} is read as in chat. Beside the conversations: `system`, `tools` (a list, or
    JSON text), `references`. Every turn of the model is trained, unless its `weight` is 0 or its
    `train` is false.
    """

    kind: Literal["sharegpt"] = "sharegpt"
    required: ClassVar[tuple[str, ...]] = ("conversations",)
    optional: ClassVar[tuple[str, ...]] = ("system", "tools", "references")

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether there are conversations, and no answer that people did not want."""
        return has(record, *self.required)

    def row(self, record: Mapping[str, Any]) -> Chat:
        """The conversation, texts untouched."""
        before, said = talk(record, record["conversations"])
        return Chat(
            messages=before + answered(said, "conversations"),
            tools=tools({**record, "tools": listed_tools(record.get("tools"))}),
            references=references(record),
        )

    def question(self, record: Mapping[str, Any]) -> Chat:
        """The conversation up to the answer that may end it."""
        asked = unanswered(record["conversations"], "conversations", speaker)
        before, said = talk(record, asked)
        listed = tools({**record, "tools": listed_tools(record.get("tools"))})
        return Chat(messages=before + said, tools=listed)


def talk(record: Mapping[str, Any], value: Any) -> tuple[Turns, Turns]:
    """The system's turn that stands beside, where there is one, and the turns of `value`."""
    if not isinstance(value, list) or not value:
        what = "an empty list" if value == [] else kind(value)
        raise DataError(f"conversations is {what}; write [{{from, value}}] in JSONL")
    said = tuple(spoken(item, f"conversations[{i}]") for i, item in enumerate(value))
    before = system(record)
    if before and said[0].role == "system":
        raise DataError("system stands beside conversations that begin with one; keep one")
    return before, said


def speaker(item: Mapping[str, Any]) -> str | None:
    """Our role of a turn, None where its own is not known."""
    name = item.get("from", item.get("role"))
    return ROLES.get(name) if isinstance(name, str) else None


def spoken(item: Any, where: str) -> Message:
    """One turn, checked as one of chat is."""
    if not isinstance(item, dict):
        raise DataError(f"{where} is {kind(item)}, not a turn; write {{from, value}}")
    if "from" not in item and "role" in item:
        return turn(item, where)
    role = role_of(item.get("from"), where)
    if "value" not in item:
        raise DataError(f"{where}.value is missing; write the text")
    said: dict[str, Any] = {"role": role, "content": text(item, "value", where)}
    if item["from"] == "function_call":
        said = {"role": role, "content": None, "tool_calls": calls(item["value"], where)}
    rest = {key: value for key, value in item.items() if key not in ("from", "value")}
    made = turn(rest | said, where)
    if role == "assistant" and not item["value"] and made.train is not False:
        raise DataError(f"{where}.value is empty; write the answer, or remove the row")
    return made


def role_of(name: Any, where: str) -> str:
    """Our role for one of the field's."""
    if isinstance(name, str) and name in ROLES:
        return ROLES[name]
    if name is None:
        raise DataError(f"{where}.from is missing; write one of {', '.join(ROLES)}")
    low = name.strip().lower() if isinstance(name, str) else ""
    meant = low if low in ROLES else NAMES.get(ELSEWHERE.get(low, ""))
    advice = f"write {quoted(meant)}" if meant else f"write one of {', '.join(ROLES)}"
    raise DataError(f"{where}.from is {quoted(name)}, which is not known; {advice}")


def calls(value: str, where: str) -> list[dict[str, Any]]:
    """The calls that a turn of function_call writes as JSON, in the form of chat."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    found = found if isinstance(found, list) else [found]
    if not found or not all(isinstance(call, dict) and "name" in call for call in found):
        raise DataError(f"{where}.value is no call; write {{name, arguments}} as JSON")
    return [{"type": "function", "function": call} for call in found]


def listed_tools(value: Any) -> Any:
    """Tools as a list, also where they are the JSON text of one."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "null")
    except (ValueError, RecursionError):
        raise DataError("tools is text, and not JSON; write a list of objects") from None
