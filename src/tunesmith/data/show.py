"""Rows as the model sees them, the trained tokens in colour."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice, repeat, takewhile
from typing import TYPE_CHECKING, Any

from tunesmith.core.quote import printable, quoted
from tunesmith.core.records import Example
from tunesmith.core.rows import Judged, Labelled, Row

if TYPE_CHECKING:
    from rich.text import Text

    from tunesmith.model.render import Piece

TRAINED = "black on green"
HEADING = "bold"
QUIET = "dim"
LONG = 200
"""Characters that rows begin with alike from which on they are shown once."""
WORD = 8
"""Tokens that a cut goes back at most, to where a word ends."""


def show(
    rows: Iterable[Row],
    n: int,
    tokenizer: Any,
    *,
    encode: Callable[[Any, Any], Example],
    marks: tuple[str, str] = ("", ""),
) -> "Text":
    """The first `n` rows as `encode` makes tokens of them, each under a line with its origin, and
    with its label or verdict where it has one.

    Trained tokens are coloured. Where there are no colours, `marks` (such as "[[" and "]]") go
    around each trained stretch instead. What all of them begin with is shown once, where it is
    long. Raises DataError for a row that cannot be trained on.
    """
    from rich.text import Text

    taken = [(row, encode(row, tokenizer)) for row in islice(rows, n)]
    lines = [sequences(example, tokenizer) for _, example in taken]
    said = chain([0], repeat(alike(list(chain.from_iterable(lines)))))
    shown = Text()
    for (row, example), own in zip(taken, lines, strict=True):
        shown.append(heading(row, example, own), style=HEADING)
        for line, skipped in zip(own, said, strict=False):
            shown.append_text(coloured(line, marks, skipped)).append("\n")
        shown.append("\n")
    return shown


def sequences(example: Example, tokenizer: Any) -> "list[list[Piece]]":
    """The tokens of each sequence of an example."""
    from tunesmith.model.render import pieces

    return [pieces(replace(example, sequences=(one,)), tokenizer) for one in example.sequences]


def alike(lines: "Sequence[Sequence[Piece]]") -> int:
    """How many tokens all lines begin with alike, up to the end of a word; 0 where that is not
    much to read, or there is one line alone."""
    same = takewhile(lambda each: each.count(each[0]) == len(each), zip(*lines, strict=False))
    count = sum(1 for _ in same) if len(lines) > 1 else 0
    ends = (count - back for back in range(min(count, WORD)) if parts(lines, count - back))
    count = next(ends, count)
    return count if letters(lines[0][:count] if lines else ()) >= LONG else 0


def parts(lines: "Sequence[Sequence[Piece]]", place: int) -> bool:
    """Whether in every line a word ends before this token."""
    around = (line[place - 1 : place + 1] for line in lines)
    return all(
        len(two) < 2 or two[0].text[-1:].isspace() or two[1].text[:1].isspace() for two in around
    )


def letters(tokens: "Iterable[Piece]") -> int:
    """Characters of a text."""
    return sum(len(piece.text) for piece in tokens)


def heading(row: Row, example: Example, lines: "Sequence[Sequence[Piece]]") -> str:
    """Where a row is from, how long it is, and what it says that is not in its tokens."""
    count = sum(piece.trained for line in lines for piece in line)
    weight = "" if row.weight == 1 else f", weight {row.weight:g}"
    trained = "" if example.label is not None or not count else f", {count} trained"
    said = f"{row.origin}: {sum(map(len, lines))} tokens{trained}{verdict(row)}{weight}"
    return printable(said) + "\n"


def verdict(row: Row) -> str:
    """What a row says that is not in its tokens: its label, or whether the answer was liked."""
    if isinstance(row, Labelled):
        return f", label {quoted(row.answer())}"
    if isinstance(row, Judged):
        return ", liked" if row.liked else ", not liked"
    return ""


def coloured(tokens: "Sequence[Piece]", marks: tuple[str, str], skipped: int = 0) -> "Text":
    """A sequence, with what is trained marked; of the `skipped` tokens only how much they say."""
    from rich.text import Text

    text, trained = Text(), False
    if skipped:
        count = letters(tokens[:skipped])
        text.append(f"... ({count:,} characters, the same in all rows shown)\n", style=HEADING)
    for piece in tokens[skipped:]:
        if piece.trained != trained:
            text.append(marks[0] if piece.trained else marks[1], style=TRAINED)
            trained = piece.trained
        text.append(printable(piece.text), style=TRAINED if trained else QUIET)
    return text.append(marks[1] if trained else "", style=TRAINED)
