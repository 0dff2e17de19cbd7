"""What a format promises: it knows its own records and makes rows of them."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from tunesmith.core.parts import Part
from tunesmith.core.rows import Chat, Row


class Format(Part):
    """A shape of record that users have files in."""

    required: ClassVar[tuple[str, ...]] = ()
    """Keys that a record of this format must have, each by its usual name."""
    also: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Other names of required keys."""
    answer: ClassVar[tuple[str, ...]] = ()
    """Those of the required keys that hold the answer: a record that only asks may lack them."""
    asked: ClassVar[type[Row]] = Chat
    """The kind of row that its questions are."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Keys that it may have; all others are named in the summary as not used."""

    def reads(self, key: str) -> bool:
        """Whether a key means something here."""
        return key in self.optional or any(key in self.spellings(usual) for usual in self.required)

    def spellings(self, key: str) -> tuple[str, ...]:
        """The names of a required key, the usual one first."""
        return (key, *self.also.get(key, ()))

    @abstractmethod
    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether the record has this format's keys. No two formats may match one record."""

    def asks(self, record: Mapping[str, Any]) -> bool:
        """Whether the record has this format's keys, those of the answer left out or not."""
        return self.matches({**dict.fromkeys(self.answer), **record})

    @abstractmethod
    def row(self, record: Mapping[str, Any]) -> Row:
        """The row, without origin. Raises DataError with the field ("messages[3].content is ...")
        and what to do; the caller adds file and line."""

    def question(self, record: Mapping[str, Any]) -> Row:
        """What the record asks. Formats whose records may lack the answer read one without it, to
        the same question; here, the question is that of the whole row. Raises as `row` does."""
        return self.row(record).question()
