"""Rows as the model sees them, the trained tokens in colour."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
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
    around each trained stretch instead. Raises DataError for a row that cannot be trained on.
    """
    from rich.text import Text

    shown = Text()
    for row in islice(rows, n):
        shown.append_text(drawn(row, encode(row, tokenizer), tokenizer, marks))
    return shown


def drawn(row: Row, example: Example, tokenizer: Any, marks: tuple[str, str]) -> "Text":
    """One row: a heading, then each of its sequences."""
    from rich.text import Text

    from tunesmith.model.render import pieces

    sequences = [replace(example, sequences=(one,)) for one in example.sequences]
    tokens = [pieces(one, tokenizer) for one in sequences]
    count = sum(piece.trained for line in tokens for piece in line)
    weight = "" if row.weight == 1 else f", weight {row.weight:g}"
    trained = "" if example.label is not None or not count else f", {count} trained"
    heading = f"{row.origin}: {sum(map(len, tokens))} tokens{trained}{verdict(row)}{weight}"
    text = Text().append(printable(heading) + "\n", style=HEADING)
    for line in tokens:
        text.append_text(coloured(line, marks)).append("\n")
    return text.append("\n")


def verdict(row: Row) -> str:
    """What a row says that is not in its tokens: its label, or whether the answer was liked."""
    if isinstance(row, Labelled):
        return f", label {quoted(row.answer())}"
    if isinstance(row, Judged):
        return ", liked" if row.liked else ", not liked"
    return ""


def coloured(tokens: "Iterable[Piece]", marks: tuple[str, str]) -> "Text":
    """A sequence, with what is trained marked."""
    from rich.text import Text

    text, trained = Text(), False
    for piece in tokens:
        if piece.trained != trained:
            text.append(marks[0] if piece.trained else marks[1], style=TRAINED)
            trained = piece.trained
        text.append(printable(piece.text), style=TRAINED if trained else QUIET)
    return text.append(marks[1] if trained else "", style=TRAINED)
