"""The classes that a row counts for: its labels, its last answer, or what a field says."""

from tunesmith.core.errors import DataError
from tunesmith.core.quote import quoted, visible
from tunesmith.core.rows import Chat, Labelled, Row

Class = tuple[str, str]
"""A class by the source that it means something in, and its name."""


def classes(row: Row, instead: str) -> tuple[str, ...]:
    """The classes by label; rows with an empty set of labels are one class of their own."""
    if isinstance(row, Labelled):
        return row.labels or ("no label",)
    if isinstance(row, Chat):
        return (row.answer(),)
    raise DataError(f"{visible(row.origin)}: a row of the kind {row.kind} has no label; {instead}")


def class_of(row: Row, by: str, setting: str) -> Class:
    """The one class of a row: by `label` (a set of labels is one), or by a field of its record."""
    if by == "label":
        return row.scope, " + ".join(classes(row, f"state a field of the records as {setting}"))
    value = row.fields.get(by)
    if value is None or value == "":
        raise DataError(
            f"{visible(row.origin)}: there is no value under {quoted(by)}, which {setting} names; "
            "give every record one, or name another field"
        )
    return "", str(value)
