"""Files as rows: their format found or stated, every row with its origin, source and weight."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunesmith.core.errors import DataError
from tunesmith.core.quote import listed, quoted, visible
from tunesmith.core.rows import Row
from tunesmith.core.tables import Record, read
from tunesmith.data.fields import there, weight
from tunesmith.data.formats.base import Format

MOST_NAMES = 50
"""Unused keys worth remembering: a file whose every record has other keys must not fill memory."""


@dataclass
class Reading:
    """What was found in a file or a folder. `format` is known once the first row is read.

    `source` is the name that rows have it by; the path's own where there is none.
    """

    path: Path
    format: Format | None = None
    source: str = ""
    rows: int = 0
    unused: dict[str, None] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    """What rows keep of their records beside what the format reads."""


def rows(
    reading: Reading, *, advance: Callable[[int], object] = lambda size: None
) -> Iterator[tuple[Record, Row]]:
    """The rows of the files beside the records they were made of; counted in `reading`.

    The first record decides the format, unless one is stated; every other must have it too.
    """
    yield from made(reading, read(reading.path, advance=advance), reading.format is not None)


def made(reading: Reading, records: Iterable[Record], stated: bool) -> Iterator[tuple[Record, Row]]:
    """The rows of records, whose format is `stated` or was found."""
    for record in records:
        try:
            if reading.format is None:
                reading.format = detected(record.fields)
            form = reading.format
            check(form, record.fields, stated=stated)
            row = replace(
                form.row(record.fields),
                origin=record.origin,
                source=reading.source or reading.path.name,
                weight=weight(record.fields),
                fields=named(record.fields, reading.keys),
            )
        except DataError as error:
            raise DataError(f"{visible(record.origin)}: {error}") from None
        note_unused(reading, form, record.fields)
        reading.rows += 1
        yield record, row


def detected(record: Mapping[str, Any]) -> Format:
    """The one format that the record is in."""
    known = detectable()
    found = [form for form in known if form.matches(record)]
    if len(found) == 1:
        return found[0]
    if found:
        raise several(found, record)
    keys = listed(record)
    shapes = "; ".join(f"{form.kind} ({', '.join(form.required)})" for form in known)
    raise DataError(
        f"no format has the keys {keys}; known: {shapes}. Rename the keys, or name the columns in "
        f"the run file, for example data.format: {{kind: columns, user: ..., assistant: ...}}"
    )


def several(found: Sequence[Format], record: Mapping[str, Any]) -> DataError:
    """The refusal of a record that may be in any of these formats."""
    names = " and ".join(form.kind for form in found)
    return DataError(
        f"the keys {listed(record)} fit the formats {names}; state which one in the run file, "
        f"for example data.format: {found[0].kind}"
    )


@cache
def detectable() -> tuple[Format, ...]:
    """Every format that needs no settings, by name."""
    found = []
    for _, member in sorted(Format.members().items()):
        with suppress(ValidationError):  # one that must be told its columns
            found.append(member.model_validate({}))
    return tuple(part for part in found if isinstance(part, Format))


def check(form: Format, record: Mapping[str, Any], *, stated: bool) -> None:
    """Refuse a record that is not in the format of its file."""
    refuse_missing(form, record, form.required)
    if not stated and not form.matches(record):
        raise unlike(form, record)


def refuse_missing(form: Format, record: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Refuse a record without one of these keys of its format."""
    for key in keys:
        if not there(record, form.spellings(key)):
            near = get_close_matches(key, [str(name) for name in record], n=1)
            advice = f"rename {quoted(near[0])}" if near else "add it, or state data.format"
            raise DataError(
                f"{quoted(key)} is missing, which the format {form.kind} needs (keys here: "
                f"{listed(record)}); {advice}"
            )


def unlike(form: Format, record: Mapping[str, Any]) -> DataError:
    """The refusal of a record that has not the keys of those before it."""
    return DataError(
        f"the keys {listed(record)} do not fit the format {form.kind} of the rows before; "
        f"put rows of one kind into one file, or state data.format: {form.kind}"
    )


def named(record: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The values under keys or paths (`metadata.case`) that are there, and are no lists or
    objects."""
    found = {}
    for key in keys:
        value: Any = record
        for part in [key] if key in record else key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, Mapping | list):
            found[key] = value
    return found


def note_unused(reading: Reading, form: Format, record: Mapping[str, Any]) -> None:
    """Remember the keys that nothing reads, so that the summary can name them."""
    for key in record:
        if not form.reads(key) and key != "weight" and key not in reading.keys:
            if len(reading.unused) >= MOST_NAMES:
                return
            reading.unused[key] = None
