"""One text or two, and a label or a list of them."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tunesmith.core import rows
from tunesmith.core.errors import DataError
from tunesmith.data.fields import has, one_of, text
from tunesmith.data.formats.base import Format
from tunesmith.data.labels import name_of, set_of

FIRST = ("text", "text1", "sentence1")
LABEL = ("label", "labels")
SECOND = ("text_pair", "text2", "sentence2")


class Labelled(Format):
    """Texts and what they are: {text, label}, or two texts that are judged together.

    Two texts are {text, text_pair}, {text1, text2} or {sentence1, sentence2}. `label` is one
    name; `labels` is a list, of which any number may be true of the text. Whole numbers, true and
    false become names, their digits and words; with `names`, a number is a place among them.
    An empty label and a negative number, which many data sets write where there is none, are
    refused.
    """

    kind: Literal["labelled"] = "labelled"
    required: ClassVar[tuple[str, ...]] = (FIRST[0], LABEL[0])
    answer: ClassVar[tuple[str, ...]] = (LABEL[0],)
    asked: ClassVar[type[rows.Row]] = rows.Labelled
    also: ClassVar[Mapping[str, tuple[str, ...]]] = {FIRST[0]: FIRST[1:], LABEL[0]: LABEL[1:]}
    optional: ClassVar[tuple[str, ...]] = SECOND
    names: tuple[str, ...] = ()
    """Names of the labels 0, 1, 2 and so on, where the rows hold numbers."""

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether there are a text and a label."""
        return has(record, FIRST, LABEL)

    def row(self, record: Mapping[str, Any]) -> rows.Labelled:
        """The texts, untouched, under their labels."""
        key = one_of(record, LABEL)
        if key == "labels":
            return rows.Labelled(given(record), set_of(record[key], key, self.names), many=True)
        return rows.Labelled(given(record), (name_of(record[key], key, self.names),))

    def question(self, record: Mapping[str, Any]) -> rows.Labelled:
        """The texts alone."""
        return rows.Labelled(given(record), ())


def given(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts of a row, one or two."""
    first = one_of(record, FIRST)
    second = tuple(key for key in SECOND if record.get(key) is not None)
    if not second and first != "text":
        missing = first.replace("1", "2")
        raise DataError(f"{missing} is missing beside {first}; write it, or rename {first} to text")
    both = (first, one_of(record, second)) if second else (first,)
    return tuple(text(record, key) for key in both)
