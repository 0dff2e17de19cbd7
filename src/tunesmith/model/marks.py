"""What in a rendering is the template's and what is the row's, shown by marks and proven."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import DataError, TunesmithError
from tunesmith.core.quote import quoted
from tunesmith.core.rows import Chat
from tunesmith.model.template import visible
from tunesmith.model.tokenizer import Tokenizer

MARKS = range(0xF0000, 0x10FFFE)
"""Private code points: a row's texts are marked with those it does not use itself."""
MARK = re.compile(f"[{chr(MARKS.start)}-{chr(MARKS.stop - 1)}]")


@dataclass(frozen=True)
class Region:
    """Text of the row inside a rendering. `turn` is its message's number, None for tools."""

    start: int
    end: int
    turn: int | None


def rendered(
    chat: Chat, tokenizer: Tokenizer, *, prompting: bool = False
) -> tuple[str, list[Region]]:
    """The conversation as text, and where in it the row's own texts stand, in order."""
    messages = [visible(message.rendered()) for message in chat.messages]
    tools = [dict(tool) for tool in chat.tools]
    text = tokenizer.chat.render(messages, tools, prompting=prompting)
    for wrap, deep in ((around, True), (within, True), (around, False), (within, False)):
        marker = Marker(wrap, deep, (text, messages, tools))
        marked = marker.render(tokenizer, messages, tools, prompting=prompting)
        regions = None if marked is None else marker.regions(marked, text)
        if regions is not None:
            for words in marker.left:
                refuse_forgery(words, tokenizer)
            return text, regions
    raise DataError(
        "the template rewrites the texts of this conversation (a control tag inside a text, or "
        "one it splits or reformats), so its answers cannot be told apart; put reasoning into "
        "reasoning_content, or take the tag out"
    )


def around(text: str, opening: str, closing: str) -> str:
    """The whole text between marks."""
    return opening + text + closing


def within(text: str, opening: str, closing: str) -> str:
    """Marks inside the space at both ends, for templates that trim; nothing around nothing."""
    core = text.strip()
    if not core:
        return text
    head, tail = text.split(core, 1)
    return head + opening + core + closing + tail


class Marker:
    """One way to put marks around the texts of a row. `deep` marks tools and calls as well;
    else those stay unmarked in `left`, and must not hold what could become a control string."""

    def __init__(self, wrap: Callable[[str, str, str], str], deep: bool, row: Any) -> None:
        self.wrap, self.deep = wrap, deep
        text = json.dumps(row, ensure_ascii=False, default=str)
        used = set() if text.isascii() else set(text)
        self.free = (chr(code) for code in MARKS if chr(code) not in used)
        self.opened: dict[str, tuple[int | None, frozenset[str]]] = {}
        self.closed: dict[str, str] = {}
        self.left: list[str] = []

    def render(
        self, tokenizer: Tokenizer, messages: Any, tools: Any, *, prompting: bool
    ) -> str | None:
        """The marked rendering; None where the template will not have it."""
        marked = [self.message(message, turn) for turn, message in enumerate(messages)]
        shelf = [self.leaves(tool, None) for tool in tools]
        try:
            return tokenizer.chat.render(marked, shelf, prompting=prompting)
        except TunesmithError:
            return None

    def message(self, message: Mapping[str, Any], turn: int) -> dict[str, Any]:
        """A message with its texts marked."""
        marked = {}
        for key, value in message.items():
            if key == "content" and isinstance(value, str):
                marked[key] = self.text(value, turn, exact=True)
            else:
                marked[key] = value if key == "role" else self.leaves(value, turn)
        return marked

    def leaves(self, value: Any, turn: int | None) -> Any:
        """Every text inside `value`; keys and what a template compares stay as they are."""
        if isinstance(value, Mapping):
            self.left += [key for key in value if isinstance(key, str)]
            return {
                key: self.kept(each) if key == "type" else self.leaves(each, turn)
                for key, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.leaves(each, turn) for each in value]
        if not isinstance(value, str):
            return value
        return self.text(value, turn) if self.deep else self.kept(value)

    def kept(self, value: Any) -> Any:
        """A value that stays unmarked."""
        self.left += [value] if isinstance(value, str) else []
        return value

    def text(self, text: str, turn: int | None, *, exact: bool = False) -> str:
        """A text between two marks of its own; it must come out the same, or as JSON has it."""
        opening, closing = next(self.free), next(self.free)
        marked = self.wrap(text, opening, closing)
        core = marked[marked.find(opening) + 1 : marked.find(closing)]
        forms = {core} if exact else {core, json.dumps(core, ensure_ascii=False)[1:-1]}
        self.opened[opening] = turn, frozenset(forms)
        self.closed[closing] = opening
        return marked

    def regions(self, marked: str, text: str) -> list[Region] | None:
        """Where the marks stand in `text`; None unless `marked` is `text` with whole pairs, and
        between each pair stands what was put there."""
        found: list[Region] = []
        plain: list[str] = []
        at = begin = start = 0
        opening: str | None = None
        for match in MARK.finditer(marked):
            position, letter = match.start(), match.group()
            if letter not in self.opened and letter not in self.closed:
                continue
            plain.append(marked[begin:position])
            at, begin = at + position - begin, position + 1
            if opening is None and letter in self.opened:
                opening, start = letter, at
            elif opening is not None and self.closed.get(letter) == opening:
                turn, forms = self.opened[opening]
                if text[start:at] not in forms:
                    return None
                found.append(Region(start, at, turn))
                opening = None
            else:
                return None
        plain.append(marked[begin:])
        return found if opening is None and "".join(plain) == text else None


def refuse_forgery(words: str, tokenizer: Tokenizer) -> None:
    """A text that could not be marked must not hold a control string, nor half of one."""
    if tokenizer.pattern.search(words) or any(
        words.endswith(text[:size]) or words.startswith(text[-size:])
        for text in tokenizer.controls
        for size in range(min(2, len(text) - 1) or 1, len(text))
    ):
        raise DataError(
            f"{quoted(words)} holds a control string (or part of one) of the tokenizer where the "
            "template gives no way to keep it text; take it out"
        )
