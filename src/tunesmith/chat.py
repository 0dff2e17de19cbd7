"""A conversation with a run's model in the terminal, or with both of its arms side by side."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from tunesmith.answers import Arm, Tuned, load
from tunesmith.core.errors import DataError, Interrupted
from tunesmith.core.quote import printable

Turn = dict[str, str]
Speak = Callable[[dict[str, str]], None]

QUIT, NEW, SYSTEM, HELP = "/quit", "/new", "/system", "/help"
EXPLAINED = {
    NEW: "forget what was said",
    f"{SYSTEM} TEXT": "start over under a system prompt",
    HELP: "this",
    QUIT: "end, as Ctrl-D and Ctrl-C do",
}


def arms(*, base: bool, both: bool) -> list[Arm]:
    """Who is asked: the tuned model, the base, or either."""
    return ["base", "tuned"] if both else ["base" if base else "tuned"]


def hold(
    run: str,
    overrides: Iterable[str],
    arms: Sequence[Arm],
    speak: Speak,
    *,
    system: str | None = None,
) -> None:
    """Answer line after line, each arm with its own conversation in mind, until `/quit`."""
    overrides = list(overrides)
    talks = [Talk(arm, load(run, overrides, arm), system) for arm in arms]
    for talk in talks:
        talk.model.decoder()  # Raises, before anybody types, where the run writes nothing.
    hint(f"{HELP} for commands")
    try:
        for said in lines():
            if said.startswith("/"):
                obey(said, talks)
            else:
                answer(said, talks, speak)
    except Interrupted:
        hint("")  # The prompt's line ends, and so does the conversation.


class Talk:
    """What one arm was told and has said."""

    def __init__(self, arm: Arm, model: Tuned, system: str | None) -> None:
        self.arm, self.model = arm, model
        self.start(system)

    def start(self, system: str | None) -> None:
        """Begin from nothing but a system prompt."""
        self.system = system
        self.turns: list[Turn] = [{"role": "system", "content": system}] if system else []

    def reply(self, said: str) -> str:
        """The arm's answer, remembered; what cannot be read is not."""
        asked = [*self.turns, {"role": "user", "content": said}]
        found = self.model.answer(asked)
        self.turns = [*asked, {"role": "assistant", "content": found}]
        return found


def answer(said: str, talks: Sequence[Talk], speak: Speak) -> None:
    """Every arm's answer, or why there is none: the conversation goes on either way."""
    try:
        speak({talk.arm: talk.reply(said) for talk in talks})
    except DataError as error:
        hint(f"{error}; or forget what was said: {NEW}")


def obey(said: str, talks: Sequence[Talk]) -> None:
    """A command of the conversation itself."""
    word, _, rest = said.partition(" ")
    if word not in (NEW, SYSTEM):
        hint("\n".join(f"{name}: {what}" for name, what in EXPLAINED.items()))
        return
    for talk in talks:
        talk.start(rest.strip() or None if word == SYSTEM else talk.system)


def lines() -> Iterator[str]:
    """What the person types, or what is piped in, until the end or `/quit`."""
    if typed := sys.stdin.isatty():
        import readline  # noqa: F401 (gives the arrow keys, and what was typed before)
    while True:
        try:
            said = (input("> ") if typed else piped()).strip()
        except EOFError:
            return
        if said == QUIT:
            return
        if said:
            yield said


def piped() -> str:
    """A line that nobody types."""
    said = sys.stdin.readline()
    if not said:
        raise EOFError
    return said


def hint(text: str) -> None:
    """Something about the conversation, beside it."""
    print(printable(text), file=sys.stderr, flush=True)


def as_text(answers: dict[str, str]) -> None:
    """Answers for a reader; who says what, where there are two."""
    for arm, text in answers.items():
        print(f"{arm}: {text}" if len(answers) > 1 else text, flush=True)


def as_json(answers: dict[str, str]) -> None:
    """Answers for a program: `answer`, or one by the name of each arm."""
    found = answers if len(answers) > 1 else {"answer": next(iter(answers.values()))}
    print(json.dumps(found, ensure_ascii=True), flush=True)
