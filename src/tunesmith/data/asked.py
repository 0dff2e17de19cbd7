"""A record as what it asks: read by the format that training used, its answer missing or not."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.rows import Origin, Row
from tunesmith.core.tables import Record
from tunesmith.data.fields import there
from tunesmith.data.formats.base import Format
from tunesmith.data.source import detectable, detected, refuse_missing, several, unlike

Kinds = tuple[type[Row], ...]
"""The kinds of question that a run can answer."""


def asker(stated: Format | None, first: Record, kinds: Kinds) -> Callable[[Record], Row]:
    """What makes questions of a file's records. Without a stated format, the first one tells."""
    form = stated or form_of(first, kinds)
    return lambda record: question(record, form, kinds, stated=stated is not None)


def form_of(record: Record, kinds: Kinds) -> Format:
    """The format whose questions are of these kinds and which lacks the fewest of its keys."""
    try:
        found = [form for form in detectable() if form.asks(record.fields)]
        if not found:
            return detected(record.fields)  # Raises, with the formats that there are.
        fitting = [form for form in found if issubclass(form.asked, kinds)]
        if not fitting:
            raise other_kind(found[0].asked, kinds)
        least = min(lacking(form, record.fields) for form in fitting)
        nearest = [form for form in fitting if lacking(form, record.fields) == least]
        if len(nearest) > 1:
            raise several(nearest, record.fields)
        return nearest[0]
    except DataError as error:
        raise placed(error, record.origin) from None


def lacking(form: Format, fields: Mapping[str, Any]) -> int:
    """How many keys of whole records are not there."""
    return sum(not there(fields, form.spellings(key)) for key in form.required)


def question(record: Record, form: Format, kinds: Kinds, *, stated: bool) -> Row:
    """What the record asks. A `stated` format takes records with further keys."""
    fields = record.fields
    try:
        refuse_missing(form, fields, [key for key in form.required if key not in form.answer])
        if not stated and not form.asks(fields):
            raise unlike(form, fields)
        row = form.question(fields)
        if not isinstance(row, kinds):
            raise other_kind(type(row), kinds)
        return replace(row, origin=record.origin)
    except DataError as error:
        raise placed(error, record.origin) from None


def other_kind(found: type[Row], kinds: Kinds) -> DataError:
    """The refusal of a row that the run was not trained to answer."""
    known = " or ".join(dict.fromkeys(kind.kind for kind in kinds))
    return DataError(
        f"the row asks as one of kind {found.kind}, and this run answers rows of kind {known}; "
        "write it like the rows that the run was trained on"
    )


def placed(error: DataError, origin: Origin) -> DataError:
    """The error with the place of its row."""
    return DataError(f"{origin}: {error}")
