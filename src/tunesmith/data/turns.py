"""A list of messages, checked turn by turn: the OpenAI form, which is also our own."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.quote import quoted
from tunesmith.core.rows import ROLES, Message
from tunesmith.data.fields import answer_text, kind, text

KNOWN = (
    "role",
    "content",
    "weight",
    "train",
    "name",
    "tool_calls",
    "tool_call_id",
    "reasoning_content",
)
"""Keys with a meaning here. Others go to the template as they are, unless they look misspelt."""

# What other tools write. A role is never mapped: the template would render another conversation.
ELSEWHERE = {
    "developer": "system",
    "human": "user",
    "bot": "assistant",
    "gpt": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "chatbot": "assistant",
    "function": "tool",
    "observation": "tool",
}


def turns(value: Any, where: str) -> tuple[Message, ...]:
    """The messages of a list; `where` is its field. Raises DataError naming what is wrong."""
    if not isinstance(value, list):
        raise DataError(f"{where} is {kind(value)}, not a list of messages; write [...] in JSONL")
    if not value:
        raise DataError(f"{where} is an empty list; write at least one message, or remove the row")
    return tuple(turn(item, f"{where}[{number}]") for number, item in enumerate(value))


def speaking(record: Mapping[str, Any]) -> Any:
    """The role that a message names."""
    return record.get("role")


def unanswered(
    value: Any, where: str, speaker: Callable[[Mapping[str, Any]], Any] = speaking
) -> Any:
    """A list of turns, unchecked, without the answer that may end it and is not looked at."""
    last = value[-1] if isinstance(value, list) and value else None
    if not isinstance(last, dict) or speaker(last) != "assistant":
        return value
    if len(value) == 1:
        raise DataError(f"{where} holds an answer alone; write what is asked before it")
    return value[:-1]


def answered(messages: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    """The same messages, once they end in an answer, some answer is trained, and none is empty."""
    last = messages[-1]
    if last.role != "assistant":
        raise DataError(
            f"{where} ends with a turn of {quoted(last.role)}; end it with an assistant turn, "
            f"which is the answer to learn"
        )
    if all(m.train is False for m in messages if m.role == "assistant"):
        raise DataError(f"{where} has no assistant turn with weight 1; nothing would be learnt")
    for number, message in enumerate(messages):
        silent = message.role == "assistant" and not message.content and not message.extra
        if silent and message.train is not False:
            raise DataError(
                f"{where}[{number}].content is empty; write the answer, remove the row, or set "
                f"weight to 0"
            )
    return messages


def side(record: Mapping[str, Any], key: str, role: str) -> tuple[Message, ...]:
    """The turns of a prompt or an answer: its messages, or its text as one turn of `role`."""
    if isinstance(record[key], list):
        return turns(record[key], key)
    taken = answer_text if role == "assistant" else text
    return (Message(role, taken(record, key)),)


def shown(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns of a prompt: those of an assistant carry no loss unless they say so."""
    return tuple(
        replace(m, train=False) if m.role == "assistant" and m.train is None else m
        for m in messages
    )


def turn(record: Any, where: str) -> Message:
    """One message."""
    if not isinstance(record, dict):
        raise DataError(f"{where} is {kind(record)}, not a message; write {{role, content}}")
    refuse_unclear_keys(record, where)
    role = checked_role(record.get("role"), where)
    calls = tool_calls(record.get("tool_calls"), role, where)
    # null says the same as a missing key, but a template that asks `is defined` would not agree
    extra = {
        key: value
        for key, value in record.items()
        if key not in ("role", "content", "weight", "train") and value is not None
    }
    return Message(
        role=role,
        content=content(record.get("content"), bool(calls), where),
        train=trained(record, role, where),
        extra=extra,
    )


def refuse_unclear_keys(record: Mapping[str, Any], where: str) -> None:
    """Refuse a key that looks like a known one misspelt: its meaning would be lost silently."""
    if record.get("function_call") is not None:
        raise DataError(f"{where}.function_call is OpenAI's old form; write tool_calls")
    for key in record:
        near = get_close_matches(key, KNOWN, n=1, cutoff=0.8)
        if key not in KNOWN and near:
            raise DataError(f"{where} has the key {quoted(key)}; did you mean {quoted(near[0])}?")


def checked_role(role: Any, where: str) -> str:
    """A role that chat templates know."""
    if isinstance(role, str) and role in ROLES:
        return role
    known = ", ".join(ROLES)
    if role is None:
        raise DataError(f"{where}.role is missing; write one of {known}")
    meant = ELSEWHERE.get(role.strip().lower()) if isinstance(role, str) else None
    advice = f"write {quoted(meant)} (known: {known})" if meant else f"write one of {known}"
    raise DataError(f"{where}.role is {quoted(role)}, which is not known; {advice}")


def content(value: Any, calls: bool, where: str) -> str | None:
    """The text of a turn; None only beside tool calls. Lists of text parts are joined."""
    if isinstance(value, str) or (value is None and calls):
        return value
    if isinstance(value, list) and value:
        return "".join(part(item, f"{where}.content[{i}]") for i, item in enumerate(value))
    if value is None:
        raise DataError(f"{where}.content is missing or null; write the text, or remove the row")
    what = "an empty list" if value == [] else kind(value)
    raise DataError(f"{where}.content is {what}, not text; put the text in quotes")


def part(value: Any, where: str) -> str:
    """The text of one part of a content."""
    if not isinstance(value, dict) or value.get("type") != "text":
        found = value.get("type") if isinstance(value, dict) else kind(value)
        raise DataError(f"{where} is {quoted(found)}, not a text part; only text can be learnt")
    if not isinstance(value.get("text"), str):
        raise DataError(f"{where}.text is {kind(value.get('text'))}, not text; write the text")
    if lost := [key for key in value if key not in ("type", "text")]:
        raise DataError(f"{where} has the key {quoted(lost[0])}, which would be lost; remove it")
    return str(value["text"])


def trained(record: Mapping[str, Any], role: str, where: str) -> bool | None:
    """Whether the turn carries loss, as `weight` (0 or 1) or `train` says; None if neither does."""
    weight, train = record.get("weight"), record.get("train")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        raise DataError(
            f"{where}.weight is {quoted(weight)}; a message weighs 0 or 1. To weigh the whole row, "
            f"write weight beside the messages"
        )
    if train is not None and not isinstance(train, bool):
        raise DataError(f"{where}.train is {quoted(train)}; write true or false")
    if weight is not None and train is not None and bool(weight) != train:
        raise DataError(f"{where}.weight and {where}.train contradict each other; keep one")
    said = train if weight is None else bool(weight)
    if said and role != "assistant":
        raise DataError(f"{where} is a turn of {quoted(role)}; only assistant turns are trained")
    return said if role == "assistant" else None


def tool_calls(value: Any, role: str, where: str) -> list[Any]:
    """The calls of an assistant turn, checked and left as they are."""
    if value is None or value == []:
        return []
    if role != "assistant":
        raise DataError(
            f"{where}.tool_calls stand in a turn of {quoted(role)}; only assistants call"
        )
    if not isinstance(value, list):
        raise DataError(f"{where}.tool_calls is {kind(value)}, not a list; write [{{...}}]")
    for number, item in enumerate(value):
        check_call(item, f"{where}.tool_calls[{number}]")
    return value


def check_call(value: Any, where: str) -> None:
    """Refuse a call that names no function, or whose arguments cannot be read."""
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError(f"{where} names no function; write {{function: {{name, arguments}}}}")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        raise DataError(f"{where}.function.arguments is not a JSON object; write {{...}}")
