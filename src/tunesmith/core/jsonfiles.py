"""Records out of JSON: one object a line (.jsonl), or one list of objects (.json)."""

import codecs
import re
from collections.abc import Iterator
from typing import Any

from tunesmith.core import textfile
from tunesmith.core.strictjson import Malformed, decode, parse
from tunesmith.core.textfile import NOT_UTF8, NUL, OLD_MAC, TOO_LONG, TextFile, lines

Found = Iterator[tuple[int, dict[str, Any]]]
"""Records, each with the line it begins at."""
SPACE = re.compile(r"[ \t\r\n]*")
CUT_SHORT = "the list is not closed: the file is cut short; write the closing ']'"
KINDS = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def json_lines(table: TextFile) -> Found:
    """One object a line. Blank lines are passed over."""
    for number, text in lines(table):
        if not text.strip(" \t\r\n"):
            continue
        try:
            value = parse(text)
        except Malformed as error:
            raise table.fault(number, json_fault(text, error)) from None
        if not isinstance(value, dict):
            advice = (
                "rename the file to .json if all of it is one list"
                if isinstance(value, list)
                else "write {...}"
            )
            raise table.fault(number, f"the line is {KINDS[type(value)]}, not an object; {advice}")
        yield number, value


def json_fault(text: str, error: Malformed) -> str:
    """The sentence for a line of JSON, with hints that only a whole line can give."""
    if text.lstrip().startswith("[") and error.at >= len(text.rstrip()):
        return "a list begins here, and this is a .jsonl file; rename it to .json"
    if text[: error.at].endswith("\r"):
        return OLD_MAC
    return f"column {error.at + 1}: {error.what}"


class Window:
    """The part of a JSON list that is in memory: text, a place in it, and the line of that place.

    A list may be one line of many gigabytes, so it is read in pieces, never by lines.
    """

    def __init__(self, table: TextFile) -> None:
        self.table = table
        self.text = ""
        self.at = 0
        self.counted = (1, 0)  # the line number at an offset, so that no line is counted twice
        self.size = textfile.PIECE
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()

    def line(self, at: int | None = None) -> int:
        """The line number of a place in the text, by default the current one."""
        line, offset = self.counted
        if at is not None:
            return line + self.text.count("\n", offset, at)
        self.counted = (line + self.text.count("\n", offset, self.at), self.at)
        return self.counted[0]

    def more(self) -> bool:
        """Drop what is done with and read a piece. False at the end of the file."""
        raw = self.table.file.read(self.size)
        self.table.advance(len(raw))
        self.counted, self.text, self.at = (self.line(), 0), self.text[self.at :], 0
        if b"\0" in raw:
            clean = raw[: raw.index(b"\0")].decode("utf-8", "replace")
            raise self.table.fault(self.line(len(self.text)) + clean.count("\n"), NUL)
        try:
            self.text += self.decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].count(b"\n")
            number = self.line(len(self.text)) + before
            raise self.table.fault(number, f"the line holds a byte that {NOT_UTF8}") from None
        return bool(raw)

    def next(self) -> str:
        """The next character that is not space, without taking it; empty at the end."""
        while True:
            match = SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self) -> Any:
        """Take one whole value. Text that ends in the middle of it is read on, up to the limit."""
        self.size = textfile.PIECE
        while True:
            try:
                value, self.at = decode(self.text, self.at)
                return value
            except Malformed as error:
                what, number = error.what, self.line(error.at)
                if error.unfinished and len(self.text) - self.at > textfile.LIMIT:
                    what, number = TOO_LONG, self.line()
                elif error.unfinished and self.more():
                    self.size *= 2  # so that a long record is not decoded again for each piece
                    continue
                raise self.table.fault(number, what) from None


def json_list(table: TextFile) -> Found:
    """The objects of one list."""
    window = Window(table)
    first = window.next()
    if not first:
        return
    if first != "[":
        what = "a .json file holds one list of objects; begin it with '['"
        lines_of_objects = (
            "an object begins here, and a .json file holds one list of objects; if each line is "
            "an object, rename the file to .jsonl"
        )
        raise table.fault(window.line(), lines_of_objects if first == "{" else what)
    window.at += 1
    if window.next() == "]":
        window.at += 1
    else:
        yield from items(window)
    if window.next():
        raise table.fault(window.line(), "text follows the closing ']'; delete it")


def items(window: Window) -> Found:
    """The objects up to and with the closing bracket of a list."""
    while True:
        first, number = window.next(), window.line()
        if first != "{":
            what = "an item of the list is not an object; write {...}"
            raise window.table.fault(number, what if first else CUT_SHORT)
        yield number, window.value()
        mark = window.next()
        if mark not in (",", "]"):
            what = "a comma is missing between two objects; write it"
            raise window.table.fault(window.line(), what if mark else CUT_SHORT)
        window.at += 1
        if mark == "]":
            return
