"""A conversation with a run's model in the terminal."""

import json
import sys
from collections.abc import Callable, Iterable

from tunesmith.answers import Arm, load

Speak = Callable[[str], None]


def hold(run: str, overrides: Iterable[str], arm: Arm, speak: Speak) -> None:
    """Answer line after line, the conversation so far in mind, until an empty one."""
    model = load(run, overrides, arm)
    turns: list[dict[str, str]] = []
    for said in lines():
        turns.append({"role": "user", "content": said})
        turns.append({"role": "assistant", "content": model.answer(turns)})
        speak(turns[-1]["content"])


def lines() -> Iterable[str]:
    """What the person types, or what is piped in."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        print(prompt, end="", file=sys.stderr, flush=True)
        said = sys.stdin.readline().rstrip("\n")
        if not said:
            return
        yield said


def as_text(answer: str) -> None:
    """An answer for a reader."""
    print(answer, flush=True)


def as_json(answer: str) -> None:
    """An answer for a program."""
    print(json.dumps({"answer": answer}, ensure_ascii=True), flush=True)
