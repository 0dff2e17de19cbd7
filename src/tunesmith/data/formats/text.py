"""`text`: documents as they are."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tunesmith.core import rows
from tunesmith.data.fields import answer_text, has, there
from tunesmith.data.formats.base import Format

LABELLED = ("label", "labels", "text2", "text_pair")
"""Keys that make a text the subject of a label."""


class Text(Format):
    """Documents, for continued pre-training: `text` holds one, to be learnt whole.

    Nothing is added to it and nothing taken away. Empty documents are refused.
    """

    kind: Literal["text"] = "text"
    required: ClassVar[tuple[str, ...]] = ("text",)
    asked: ClassVar[type[rows.Row]] = rows.Text

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether there is a text, and nothing that labels it."""
        return has(record, *self.required) and not there(record, LABELLED)

    def row(self, record: Mapping[str, Any]) -> rows.Text:
        """The document, untouched."""
        return rows.Text(answer_text(record, "text"))
