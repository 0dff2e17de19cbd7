"""Rows as the model sees them, the trained tokens in colour."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from tunesmith.core.quote import printable
from tunesmith.core.records import Example
from tunesmith.core.rows import Row

if TYPE_CHECKING:
    from rich.text import Text

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
    """The first `n` rows as `encode` makes tokens of them, each under a line with its origin.

    Trained tokens are coloured. Where there are no colours, `marks` (such as "[[" and "]]") go
    around each trained stretch instead. Raises DataError for a row that cannot be trained on.
    """
    from rich.text import Text

    shown = Text()
    for row in islice(rows, n):
        shown.append_text(drawn(row, encode(row, tokenizer), tokenizer, marks))
    return shown


def drawn(row: Row, example: Example, tokenizer: Any, marks: tuple[str, str]) -> "Text":
    """One row."""
    from rich.text import Text

    from tunesmith.model.render import pieces

    tokens = pieces(example, tokenizer)
    count = sum(piece.trained for piece in tokens)
    weight = "" if row.weight == 1 else f", weight {row.weight:g}"
    heading = f"{row.origin}: {len(tokens)} tokens, {count} trained{weight}\n"
    text = Text().append(printable(heading), style=HEADING)
    trained = False
    for piece in tokens:
        if piece.trained != trained:
            text.append(marks[0] if piece.trained else marks[1], style=TRAINED)
            trained = piece.trained
        text.append(printable(piece.text), style=TRAINED if trained else QUIET)
    return text.append(marks[1] if trained else "", style=TRAINED).append("\n\n")
