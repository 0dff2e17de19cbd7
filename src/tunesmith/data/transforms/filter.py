"""Keep rows by their length, their language, a pattern, or a field of the record."""

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from tunesmith.core.errors import missing
from tunesmith.core.quote import quoted
from tunesmith.core.rows import Row
from tunesmith.data.transforms.base import Account, Transform

LETTERS = 20
"""Fewer letters do not tell a language."""


def compiled(value: str) -> str:
    """Refuse what is no regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"this is no regular expression: {error}") from None
    return value


Pattern = Annotated[str, AfterValidator(compiled)]
Size = Annotated[int, Field(ge=0)]


class Filter(Transform):
    """Drop rows that are too short or too long, in another language, or that a pattern or a field
    rules out. What is not stated rules out nothing; the first reason is the one counted."""

    kind: Literal["filter"] = "filter"
    alone: ClassVar[bool] = True
    part: Literal["all", "prompt", "answer"] = "all"
    """The texts that are looked at: all of a row together, what it asks, or its last answer (of
    labelled rows, the label)."""
    min_words: Size | None = None
    """Fewest words."""
    max_words: Size | None = None
    """Most words."""
    min_characters: Size | None = None
    """Fewest characters."""
    max_characters: Size | None = None
    """Most characters."""
    languages: tuple[Annotated[str, Field(pattern="^[a-z]{2}$")], ...] = ()
    """Codes of languages to keep, such as en; texts with fewer than 20 letters are kept."""
    must_match: Pattern | None = None
    """A regular expression that is found somewhere in the text."""
    must_not_match: Pattern | None = None
    """A regular expression that is found nowhere in the text."""
    field: str | None = None
    """Key of the records (`status`, `metadata.status`) whose value decides; see keep and drop."""
    keep: tuple[str, ...] = ()
    """Values of the field that are kept; all where none is stated."""
    drop: tuple[str, ...] = ()
    """Values of the field that are dropped; records without a value have an empty one."""

    @model_validator(mode="after")
    def say_something(self) -> "Filter":
        """A filter that rules out nothing was meant otherwise."""
        if (self.field is None) != (not self.keep and not self.drop):
            raise ValueError("field goes with keep or drop, such as {field: status, keep: [done]}")
        stated = self.model_dump(exclude={"kind", "part", "field"})
        if not any(value not in (None, ()) for value in stated.values()):
            raise ValueError("state what rules a row out, such as {kind: filter, min_words: 3}")
        return self

    def fields(self) -> tuple[str, ...]:
        """The key whose value decides."""
        return () if self.field is None else (self.field,)

    def apply(self, rows: Iterable[Row], account: Account, seed: int) -> Iterator[Row]:
        """The rows that nothing rules out."""
        for row in rows:
            account.taken += 1
            reason = next(self.against(row), None)
            if reason is not None:
                account.drop(reason, row)
                continue
            account.kept += 1
            yield row

    def against(self, row: Row) -> Iterator[str]:
        """The reasons to drop a row."""
        text = "\n".join(looked_at(row, self.part))
        yield from outside(len(text.split()), self.min_words, self.max_words, "words")
        yield from outside(len(text), self.min_characters, self.max_characters, "characters")
        if self.field is not None:
            yield from self.ruled_out(self.field, said(row.fields.get(self.field)))
        if self.must_match and not re.search(self.must_match, text):
            yield "without what must match"
        if self.must_not_match and re.search(self.must_not_match, text):
            yield "with what must not match"
        if self.languages and sum(map(str.isalpha, text)) >= LETTERS:
            found = language(text)
            if found not in self.languages:
                yield f"language {found}"

    def ruled_out(self, field: str, value: str) -> Iterator[str]:
        """The reason that a field's value gives. Only what the settings say is told: what a record
        says may be private, and each value would be a reason of its own."""
        if value in self.drop:
            yield f"{field} is {quoted(value)}"
        elif self.keep and value not in self.keep:
            yield f"{field} is not one to keep"


def outside(count: int, least: int | None, most: int | None, what: str) -> Iterator[str]:
    """The reason that a length gives."""
    if least is not None and count < least:
        yield f"fewer than {least} {what}"
    if most is not None and count > most:
        yield f"more than {most} {what}"


def looked_at(row: Row, part: Literal["all", "prompt", "answer"]) -> tuple[str, ...]:
    """The texts that decide."""
    if part == "all":
        return row.texts()
    turns = row.dialogue()
    last = max(index for index, turn in enumerate(turns) if turn.role == "assistant")
    chosen = turns[:last] if part == "prompt" else turns[last:]
    return tuple(turn.content or "" for turn in chosen)


def said(value: Any) -> str:
    """A value of a record as a run file would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def language(text: str) -> str:
    """The code of the language that a text is most likely in."""
    try:
        from py3langid import classify
    except ImportError:
        raise missing("py3langid", "data") from None
    return str(classify(text)[0])
