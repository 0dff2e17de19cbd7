"""What a person is shown of numbers: figures with sensible digits, tables that fit the terminal."""

import shutil
from typing import Any

WIDEST = 100
"""Columns that a table takes where nobody says how many there are, and at most."""
NARROWEST = 60
"""Columns below which a table would be a heap of letters: a narrower terminal breaks its lines."""


def figure(value: float, *, percent: bool) -> str:
    """A value in its unit: a decimal of a percentage, three digits of anything else."""
    return f"{value:.1f} %" if percent else digits(value)


def signed(value: float, *, percent: bool) -> str:
    """A difference with its sign, in points where the measure is in percent."""
    return f"{value:+.1f}" if percent else digits(value, "+")


def digits(value: float, sign: str = "") -> str:
    """Three digits that count; all that are before the point, thousands apart."""
    return f"{value:{sign},.0f}" if abs(value) >= 100 else f"{value:{sign}.3g}"


def columns() -> int:
    """How wide a table may be here."""
    there = shutil.get_terminal_size((WIDEST, 24)).columns
    return max(NARROWEST, min(WIDEST, there))


def drawn(*things: Any, width: int | None = None) -> str:
    """Tables of rich as lines of text, without colours and without spaces at their ends."""
    from io import StringIO

    from rich.console import Console

    paper = StringIO()
    wide = columns() if width is None else width
    console = Console(file=paper, width=wide, force_terminal=False, highlight=False)
    for thing in things:
        console.print(thing)
    return "\n".join(line.rstrip() for line in paper.getvalue().splitlines())
