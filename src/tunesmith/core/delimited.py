"""Records out of tables with a mark between the cells: .csv and .tsv, by RFC 4180 to the letter."""

import re
from collections.abc import Iterator

from tunesmith.core import textfile
from tunesmith.core.quote import quoted
from tunesmith.core.textfile import OLD_MAC, TextFile, lines

Found = Iterator[tuple[int, dict[str, str]]]
"""Records, each with the line it begins at."""
GOOD = re.compile(r'"[^"]*(?:""[^"]*)*"|[^"\r\n]*')
"""As much of a cell as can be meant, where the whole cannot."""


def comma_separated(table: TextFile) -> Found:
    """Cells divided by commas."""
    return delimited(table, ",")


def tab_separated(table: TextFile) -> Found:
    """Cells divided by tabs."""
    return delimited(table, "\t")


def delimited(table: TextFile, mark: str) -> Found:
    """Rows of RFC 4180, with `mark` between cells: the first row names the columns."""
    rows = cells(table, mark)
    number, names = next(rows, (1, []))
    if names:
        check_header(table, number, names, mark)
    for number, row in rows:
        if len(row) != len(names):
            raise table.fault(
                number,
                f"{len(row)} cells under {len(names)} columns; put quotes around a cell "
                f"that holds {quoted(mark)}, or fill the row up",
            )
        yield number, dict(zip(names, row, strict=True))


def check_header(table: TextFile, number: int, names: list[str], mark: str) -> None:
    """Refuse columns that cannot be told apart, and a file that another mark divides."""
    others = [other for other in ",;\t|" if other != mark and other in names[0]]
    if len(names) == 1 and others:
        raise table.fault(
            number,
            f"the first line is one column, {quoted(names[0])}; it looks divided by "
            f"{quoted(others[0])}. Save the file with {quoted(mark)} between the cells",
        )
    for name in names:
        if not name.strip() or name != name.strip():
            what = f"the column name {quoted(name)} is empty or has spaces around it"
            raise table.fault(number, f"{what}; correct the first line")
        if names.count(name) > 1:
            raise table.fault(number, f"two columns are named {quoted(name)}; rename one of them")


def cells(table: TextFile, mark: str) -> Iterator[tuple[int, list[str]]]:
    """Rows as lists of cells, with the line each begins at.

    A row goes on over line ends as long as a quote is open. In a well-formed file a quote is open
    exactly when the number of quotes so far is odd.
    """
    cell = re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^"{mark}\r\n]*))({mark}|\Z)')
    source = lines(table)
    columns = 0
    for number, text in source:
        whole = joined(table, number, text, source) if text.count('"') % 2 else text
        row = whole.removesuffix("\n").removesuffix("\r")
        if not row and columns != 1:
            continue
        if '"' in row:
            found = quoted_cells(table, number, row, cell, mark)
        elif "\r" in row:
            raise table.fault(number, OLD_MAC)
        else:
            found = row.split(mark)
        columns = columns or len(found)
        yield number, found


def joined(table: TextFile, number: int, text: str, source: Iterator[tuple[int, str]]) -> str:
    """A row and the lines its open quote goes on over."""
    parts, size = [text], len(text)
    for _, following in source:
        parts.append(following)
        size += len(following)
        if size > textfile.LIMIT:
            break
        if following.count('"') % 2:
            return "".join(parts)
    raise table.fault(number, "a quote is opened in this row and never closed; close or double it")


def quoted_cells(
    table: TextFile, number: int, row: str, cell: re.Pattern[str], mark: str
) -> list[str]:
    """The cells of a row that has quotes in it."""
    found: list[str] = []
    at = 0
    while match := cell.match(row, at):
        inside, bare, end = match.groups()
        found.append(bare if inside is None else inside.replace('""', '"'))
        if not end:
            return found
        at = match.end()
    good = GOOD.match(row, at)
    at = good.end() if good else at
    what = (
        OLD_MAC
        if row.startswith("\r", at)
        else f"a quote in cell {len(found) + 1} does not stand around the whole cell; put quotes "
        "around all of it and double those inside"
    )
    raise table.fault(number + row.count("\n", 0, at), what)
