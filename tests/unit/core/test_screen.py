"""Figures with digits that tell, and tables no wider than the terminal."""

import os
import shutil

import pytest
from rich.table import Table
from rich.text import Text

from tunesmith.core import screen


@pytest.mark.parametrize(
    ("value", "plain", "percent"),
    [
        (83.46, "83.5", "83.5 %"),
        (0.01234, "0.0123", "0.0 %"),
        (1.956, "1.96", "2.0 %"),
        (99.96, "100", "100.0 %"),
        (1234.5, "1,234", "1234.5 %"),
    ],
)
def test_three_digits_count(value: float, plain: str, percent: str) -> None:
    assert screen.figure(value, percent=False) == plain
    assert screen.figure(value, percent=True) == percent
    assert screen.signed(value, percent=False) == f"+{plain}"
    assert screen.signed(-value, percent=False) == f"-{plain}"


def test_two_losses_that_differ_look_different() -> None:
    assert screen.figure(0.512, percent=False) != screen.figure(0.534, percent=False)


@pytest.mark.parametrize(("there", "wide"), [(80, 80), (200, 100), (20, 60)])
def test_a_table_fits_the_terminal(there: int, wide: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda _: os.terminal_size((there, 24)))
    table = Table(box=None, pad_edge=False)
    table.add_column("word")
    table.add_row(Text("word " * 60))
    lines = screen.drawn(table).splitlines()
    assert wide - 5 <= max(map(len, lines)) <= wide
    assert all(line == line.rstrip() for line in lines) and "\x1b" not in "".join(lines)
