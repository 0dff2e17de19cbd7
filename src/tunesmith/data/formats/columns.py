"""Any table, by naming its columns: each kind of row from the columns that make one."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal

from pydantic import model_validator

from tunesmith.core import rows
from tunesmith.core.errors import DataError
from tunesmith.core.quote import listed, quoted
from tunesmith.core.rows import Message, Turns
from tunesmith.data.fields import empty, text, verdict
from tunesmith.data.formats.base import Format
from tunesmith.data.labels import name_of, set_of
from tunesmith.data.pairs import pair
from tunesmith.data.turns import answered, shown, side

PLACE = re.compile(r"\{([^{}]+)\}")
"""A column inside a text."""


class Columns(Format):
    """Any table, by naming its columns. Never found out: it must be stated.

    State the columns of one kind of row: `user` and `assistant` for a conversation, and `liked`
    for a judged one; `user`, `chosen` and `rejected` for a preference; `text` for a document, and
    `label` or `labels` for a labelled one. Each is the name of a column, or a text with columns
    in braces, such as `"{title}: {body}"`. Numbers in a column are read as they are written.
    A column of messages stands for its turns.
    """

    kind: Literal["columns"] = "columns"
    user: str | None = None
    """What is asked: a column, or a text with columns in braces."""
    assistant: str | None = None
    """The answer: a column, or a text with columns in braces."""
    system: str | None = None
    """The system's turn, a text; columns stand in braces: `"You speak {language}."`."""
    chosen: str | None = None
    """The answer that was preferred."""
    rejected: str | None = None
    """The answer that was not."""
    liked: str | None = None
    """The column that says, true or false, whether people liked the answer."""
    text: str | None = None
    """A document, or the text that a label is about: a column, or a text with columns."""
    text_pair: str | None = None
    """The second text, where a label is about two."""
    label: str | None = None
    """The column of the label: a name, a whole number, or true or false."""
    labels: str | None = None
    """The column of a list of labels, of which any number may be true."""
    names: tuple[str, ...] = ()
    """Names of the labels 0, 1, 2 and so on, where the column holds numbers."""

    @model_validator(mode="after")
    def name_one_kind_of_row(self) -> "Columns":
        """Columns that make no row, or more than one kind of it, cannot be meant."""
        if self.shape is None:
            known = "; ".join(", ".join(shape.needs) for shape in SHAPES)
            raise ValueError(f"name the columns of one kind of row: {known}")
        return self

    @cached_property
    def stated(self) -> dict[str, str]:
        """The settings that name columns, as they were stated."""
        return self.model_dump(exclude={"kind", "names"}, exclude_none=True)

    @cached_property
    def shape(self) -> "Shape | None":
        """The kind of row that the stated columns make."""
        said = {*self.stated, *(["names"] if self.names else [])}
        fits = (s for s in SHAPES if {*s.needs} <= said <= {*s.needs, *s.may})
        return next(fits, None)

    @cached_property
    def named(self) -> frozenset[str]:
        """The columns that are named, alone or inside a text."""
        return frozenset(
            column for name, said in self.stated.items() for column in columns(said, name)
        )

    def reads(self, key: str) -> bool:
        """Whether the settings name a column."""
        return key in self.named

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether every column is there."""
        return self.named <= record.keys()

    def row(self, record: Mapping[str, Any]) -> rows.Row:
        """The row, texts untouched."""
        assert self.shape is not None, "settings that make no row were refused"
        return self.shape.make(Cells(record, self.stated, self.names))

    def question(self, record: Mapping[str, Any]) -> rows.Row:
        """What the row asks; the columns of its answer are not looked at."""
        assert self.shape is not None, "settings that make no row were refused"
        return self.shape.ask(Cells(record, self.stated, self.names))


def columns(said: str, setting: str) -> list[str]:
    """The columns that a setting names."""
    found = PLACE.findall(said)
    return found if found or setting == "system" else [said]


@dataclass(frozen=True)
class Cells:
    """A record, seen through the settings."""

    record: Mapping[str, Any]
    stated: Mapping[str, str]
    names: tuple[str, ...]

    def cell(self, column: str) -> Any:
        """What stands in a column."""
        if column not in self.record:
            near = get_close_matches(column, [str(name) for name in self.record], n=1)
            hint = f"did you mean {quoted(near[0])}?" if near else "correct data.format"
            raise DataError(
                f"there is no column {quoted(column)} (columns here: {listed(self.record)}); {hint}"
            )
        return self.record[column]

    def written(self, column: str) -> str:
        """The text in a column; a number as JSON writes it."""
        value = self.cell(column)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return json.dumps(value)
        return text(self.record, column)

    def text(self, setting: str) -> str:
        """The text of a setting: its column, or its own with columns filled in."""
        said = self.stated[setting]
        if setting != "system" and not PLACE.search(said):
            return self.written(said)
        return PLACE.sub(lambda place: self.written(place[1]), said)

    def turns(self, setting: str, role: str) -> Turns:
        """The turns of a setting: its column's messages, or its text as one. An answer says
        something."""
        said = self.stated[setting]
        if isinstance(self.record.get(said), list):
            return side(self.record, said, role)
        words = self.text(setting)
        if role == "assistant" and not words:
            raise DataError(f"{said} is empty; write the answer, or remove the row")
        return (Message(role, words),)

    def asked(self) -> Turns:
        """The turns before the answer."""
        before = (Message("system", self.text("system")),) if "system" in self.stated else ()
        return before + shown(self.turns("user", "user"))

    def answer(self) -> Turns:
        """The turns of the one answer."""
        return answered(self.turns("assistant", "assistant"), self.stated["assistant"])

    def given(self) -> tuple[str, ...]:
        """The texts that a label is about."""
        return tuple(self.text(name) for name in ("text", "text_pair") if name in self.stated)


def chat(cells: Cells) -> rows.Row:
    """A question and its answer."""
    return rows.Chat(cells.asked() + cells.answer())


def judged(cells: Cells) -> rows.Row:
    """An answer and its verdict."""
    column = cells.stated["liked"]
    cells.cell(column)
    return rows.Judged(cells.asked(), cells.answer(), verdict(cells.record, column))


def preferred(cells: Cells) -> rows.Row:
    """Two answers to one question, or two whole conversations."""
    asked = cells.asked() if "user" in cells.stated else ()
    chosen, rejected = (cells.turns(name, "assistant") for name in ("chosen", "rejected"))
    return pair(asked, chosen, rejected, (cells.stated["chosen"], cells.stated["rejected"]))


def document(cells: Cells) -> rows.Row:
    """A document."""
    said = cells.text("text")
    if not said:
        raise DataError(f"{cells.stated['text']} is empty; write the text, or remove the row")
    return rows.Text(said)


def one_label(cells: Cells) -> rows.Row:
    """A text and its label."""
    column = cells.stated["label"]
    return rows.Labelled(cells.given(), (name_of(cells.cell(column), column, cells.names),))


def many_labels(cells: Cells) -> rows.Row:
    """A text and its set of labels."""
    column = cells.stated["labels"]
    found = set_of(cells.cell(column), column, cells.names)
    return rows.Labelled(cells.given(), found, many=True)


def prompt(cells: Cells) -> rows.Row:
    """The turns before an answer."""
    return rows.Chat(cells.asked())


def prompt_of_two(cells: Cells) -> rows.Row:
    """The turns before two answers, which may hold them."""
    sides = (cells.stated[name] for name in ("chosen", "rejected"))
    if "user" in cells.stated and any(empty(cells.record, side) for side in sides):
        return prompt(cells)
    return preferred(cells).question()


def texts(cells: Cells) -> rows.Row:
    """The texts that a label is about, alone."""
    return rows.Labelled(cells.given(), ())


@dataclass(frozen=True)
class Shape:
    """A kind of row: the settings it needs, those it may have, how it is made, and how it is asked
    where its answer may be missing."""

    needs: tuple[str, ...]
    may: tuple[str, ...]
    make: Callable[[Cells], rows.Row]
    ask: Callable[[Cells], rows.Row]


SHAPES = (
    Shape(("user", "assistant"), ("system",), chat, prompt),
    Shape(("user", "assistant", "liked"), ("system",), judged, prompt),
    Shape(("user", "chosen", "rejected"), ("system",), preferred, prompt_of_two),
    Shape(("chosen", "rejected"), (), preferred, prompt_of_two),
    Shape(("text",), (), document, document),
    Shape(("text", "label"), ("text_pair", "names"), one_label, texts),
    Shape(("text", "labels"), ("text_pair", "names"), many_labels, texts),
)
