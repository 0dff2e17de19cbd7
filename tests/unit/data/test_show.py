"""What `tunesmith data --show` draws: every token once, the trained ones marked and coloured."""

import re
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import pytest

from tunesmith.core.records import Example, Sequence
from tunesmith.core.rows import Chat, Judged, Labelled, Message, Origin, Row, Text
from tunesmith.data.show import LONG, TRAINED, show


@dataclass
class Piece:
    """A token as the renderer gives it."""

    text: str
    id: int
    trained: bool


@pytest.fixture(autouse=True)
def _pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renderer whose token ids are places in `SAID`; what an assistant said is trained."""
    render = ModuleType("tunesmith.model.render")

    def pieces(example: Example, tokenizer: Any) -> list[Piece]:
        (sequence,) = example.sequences
        return [Piece(SAID[i].content or "", i, SAID[i].role == "assistant") for i in sequence.ids]

    vars(render)["pieces"] = pieces
    monkeypatch.setitem(__import__("sys").modules, "tunesmith.model.render", render)


SAID: list[Message] = []


def itself(row: Row, tokenizer: Any) -> Example:
    """One token a turn, one sequence a row."""
    first = len(SAID)
    SAID.extend(row.dialogue())
    sequence = Sequence(tuple(range(first, len(SAID))), ())
    return Example((sequence,), row.digest, row.origin)


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


def test_a_label_and_a_verdict_stand_in_the_heading() -> None:
    place, ask, say = Origin("rows.jsonl", 3), Message("user", "q"), Message("assistant", "a")
    rows: list[Row] = [
        Labelled(("q",), ("card\n lost",), origin=place),
        Labelled(("q",), ("a", "b"), True, origin=place),
        Judged((ask,), (say,), False, origin=place),
        Text("q", origin=place),
    ]
    drawn = show(rows, 9, None, encode=itself).plain
    headings = [line for line in drawn.splitlines() if line.startswith("rows.jsonl:3")]
    ends = ["label 'card\\n lost'", 'label \'["a","b"]\'', "not liked", "1 trained"]
    assert [line.endswith(end) for line, end in zip(headings, ends, strict=True)] == [True] * 4


def test_a_row_with_a_label_trains_no_token_and_says_none() -> None:
    def labelled(row: Labelled, tokenizer: Any) -> Example:
        return replace(itself(row, tokenizer), label=1)

    rows = [Labelled(("q",), ("lost",), origin=Origin("rows.jsonl", 3))]
    heading = show(rows, 1, None, encode=labelled).plain.splitlines()[0]
    assert "trained" not in heading and heading.endswith("tokens, label 'lost'")


def test_two_answers_stand_apart() -> None:
    def both(row: Chat, tokenizer: Any) -> Example:
        one, two = itself(row, tokenizer), itself(row, tokenizer)
        return Example(one.sequences + two.sequences, row.digest, row.origin)

    text = show([row("answer")], 1, None, encode=both, marks=("[[", "]]"))
    assert text.plain.startswith("rows.jsonl:3: 4 tokens, 2 trained, weight 2\n")
    assert text.plain.count("q [bold][[answer]]\n") == 2


def in_tokens(row: Chat, tokenizer: Any) -> Example:
    """Up to three letters a token, the same ones under the same id."""
    ids = []
    for message in row.dialogue():
        for part in re.findall(r"\s*\S{1,3}", message.content or ""):
            token = Message(message.role, part)
            if token not in SAID:
                SAID.append(token)
            ids.append(SAID.index(token))
    return Example((Sequence(tuple(ids), ()),), row.digest, row.origin)


def asked(*questions: str, before: str = "") -> list[Row]:
    """A row for each question; what is said before it is the same in all."""
    return [
        Chat((Message("user", before + q), Message("assistant", f" {n}")))
        for n, q in enumerate(questions)
    ]


RULES = "Answer in one word. " * 20
"""What a prompt says in every row."""


def test_a_long_beginning_that_all_rows_share_is_shown_once() -> None:
    rows = asked("Where is it?", "Who is it?", "And why?", before=RULES)
    drawn = show(rows, 3, None, encode=in_tokens, marks=("[[", "]]")).plain
    assert drawn.count("Answer in one word.") == 20, "whole in the first row"
    said = f"... ({len(RULES.strip())} characters, the same in all rows shown)\n"
    assert drawn.count(said) == 2 and f"{said} Who is it?[[ 1]]" in drawn
    counts = [int(n) for n in re.findall(r": (\d+) tokens", drawn)]
    assert min(counts) > len(RULES) // 4, "the cut tokens count all the same"


def test_a_beginning_is_cut_where_a_word_ends() -> None:
    rows = asked("parcels come", "partners go", before=RULES)
    assert "shown)\n partners go" in show(rows, 2, None, encode=in_tokens).plain


@pytest.mark.parametrize(
    "rows",
    [
        asked("Where is it?", before=RULES),
        asked("Where?", "Who?", before=RULES[: LONG - 10]),
        [*asked("Where?", before=RULES), *asked("Who?", before="But " + RULES)],
    ],
    ids=["one row", "a short beginning", "another beginning"],
)
def test_nothing_else_is_cut(rows: list[Row]) -> None:
    drawn = show(rows, 3, None, encode=in_tokens).plain
    assert "the same in all rows" not in drawn
    assert drawn.count("Answer in") == sum(str(row.texts()).count("Answer in") for row in rows)
