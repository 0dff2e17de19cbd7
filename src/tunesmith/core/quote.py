"""Foreign text inside our sentences: short, on one line, with nothing a terminal would obey."""

from collections.abc import Iterable
from typing import Any

SHORT = 60
"""Characters of one foreign text that a sentence can carry."""


def printable(text: str) -> str:
    """`text` with control characters escaped, so that no row or path can move the cursor."""
    return "".join(c if c in "\n\t" or c.isprintable() else ascii(c)[1:-1] for c in text)


def visible(value: object) -> str:
    """A path or place as one line of printable characters."""
    return printable(str(value)).replace("\n", "\\n").replace("\t", "\\t")


def quoted(value: Any) -> str:
    """A value as a sentence shows it: in quotes, cut where it gets long."""
    text = visible(value)
    return f"'{text[:SHORT]}...'" if len(text) > SHORT else f"'{text}'"


def listed(names: Iterable[Any], most: int = 12) -> str:
    """Names in a row, and how many more there are."""
    names = list(names)
    shown = ", ".join(quoted(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"
