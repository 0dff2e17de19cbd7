"""What `tunesmith data --show` draws: every token once, the trained ones marked and coloured."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from tunesmith.core.rows import Chat, Message, Origin
from tunesmith.data.show import TRAINED, show


@dataclass
class Piece:
    """A token as the renderer gives it."""

    text: str
    id: int
    trained: bool


@pytest.fixture(autouse=True)
def _pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renderer of one token a turn."""
    render = ModuleType("tunesmith.model.render")

    def pieces(row: Chat, tokenizer: Any) -> list[Piece]:
        return [
            Piece(m.content or "", i, m.role == "assistant") for i, m in enumerate(row.messages)
        ]

    vars(render)["pieces"] = pieces
    monkeypatch.setitem(__import__("sys").modules, "tunesmith.model.render", render)


def itself(row: Any, tokenizer: Any) -> Any:
    """What this file's renderer takes."""
    return row


def row(answer: str) -> Chat:
    """A row of one question."""
    messages = (Message("user", "q [bold]"), Message("assistant", answer))
    return Chat(messages, origin=Origin("rows.jsonl", 3), weight=2.0)


def test_trained_tokens_are_coloured_and_no_others() -> None:
    text = show([row("answer"), row("more")], 1, None, encode=itself)
    assert text.plain == "rows.jsonl:3: 2 tokens, 1 trained, weight 2\nq [bold]answer\n\n"
    coloured = [text.plain[s.start : s.end] for s in text.spans if s.style == TRAINED]
    assert "".join(coloured) == "answer"
    assert text.style == "", "a style of the whole text would colour every token"


def test_without_colours_marks_stand_around_what_is_trained() -> None:
    assert (
        "q [bold]{{answer}}\n"
        in show([row("answer")], 3, None, encode=itself, marks=("{{", "}}")).plain
    )


def test_a_row_cannot_write_to_the_terminal() -> None:
    assert "\x1b" not in show([row("\x1b[2Jgone\x9b")], 1, None, encode=itself).plain
    assert "\\x1b[2Jgone" in show([row("\x1b[2Jgone")], 1, None, encode=itself).plain
