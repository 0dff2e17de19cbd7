"""A file of answered rows, held against its rows line by line: what is there, what is still to do.

A line is its row with one more key, `predicted`. So nothing but the two files is needed to go on
after a kill, and neither is ever held in memory.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.core.disk import disk_errors
from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.jsonlines import append_line
from tunesmith.core.tables import Record, read

PREDICTED = "predicted"
"""The key that a line has beyond its row's."""
NAMED = 10
"""Rows without an answer that are named one by one; the rest are counted."""


@dataclass
class Failed:
    """Rows that have no answer: the first few by name, all of them by number."""

    named: list[str] = field(default_factory=list)
    count: int = 0

    def note(self, why: str) -> None:
        """One more."""
        self.count += 1
        if self.count <= NAMED:
            self.named.append(why)

    def told(self) -> None:
        """A DataError with their names, if there are any."""
        if self.count:
            more = [f"and {self.count - NAMED} rows more"] if self.count > NAMED else []
            raise DataError("\n".join([*self.named, *more]))


@dataclass
class Asked:
    """A file of rows to answer, and how much of it `out` answers already."""

    rows: Path
    total: int
    done: int = 0
    size: int = 0
    """Bytes of the whole lines in `out`."""
    failed: Failed = field(default_factory=Failed)

    @property
    def left(self) -> int:
        """Rows that are still to be answered."""
        return self.total - self.done

    def told(self, out: Path | None, what: str) -> str:
        """`what` there is to say of the rows that were left, or that none were."""
        if self.left:
            return what
        return f"nothing to do: all {self.total} rows are answered in {out}"


def opening(record: Record) -> bytes:
    """How the line of a row begins: the row itself, and the key of its answer."""
    fields = json.dumps(record.fields, ensure_ascii=True)[:-1]
    comma = ", " if record.fields else ""
    return f'{fields}{comma}"{PREDICTED}": '.encode("ascii")


def put(out: Path | None, line: bytes) -> None:
    """A line to where it belongs, at once."""
    if out is None:
        print(line.decode("ascii"), end="", flush=True)
        return
    with disk_errors(out, "write"):
        append_line(out, line)


def compare(asked: Asked, out: Path, by: Mapping[str, Any]) -> None:
    """Hold `out` against the rows, and note how far it goes; a torn line at its end is none.

    Raises DataError for a file that is not ours or answers other rows, SettingsError for the
    answers of another model, or of this one asked in another way.
    """
    with disk_errors(out, "read"), out.open("rb") as lines:
        for number, (record, line) in enumerate(zip(read(asked.rows), lines, strict=False), 1):
            start, whole = opening(record), line.endswith(b"\n")
            if not (line.startswith(start) or (not whole and start.startswith(line))):
                raise not_ours(out, number, record)
            if whole:
                note(asked, out, number, record, line, by)
        if asked.done == asked.total and lines.read(1):
            raise DataError(f"{out}: holds more lines than {asked.rows}; name another --out")


def note(
    asked: Asked, out: Path, number: int, record: Record, line: bytes, by: Mapping[str, Any]
) -> None:
    """One line that is there already."""
    try:
        found = json.loads(line)[PREDICTED]
        then = found["by"]
        other = [name for name in {**by, **then} if by.get(name) != then.get(name)]
    except (ValueError, KeyError, TypeError):
        raise not_ours(out, number, record) from None
    if other:
        raise SettingsError(
            f"{out}: holds answers with another {' and '.join(other)}; name another --out, "
            "or ask as before"
        )
    if "failed" in found:
        asked.failed.note(found["failed"])
    asked.done += 1
    asked.size += len(line)


def not_ours(out: Path, number: int, record: Record) -> DataError:
    """The error for a line that is no answer to the row at its place."""
    return DataError(f"{out}:{number}: is no answer to {record.origin}; name another --out")


def mend(out: Path, size: int) -> None:
    """Cut off the torn line of a call that was killed. No link is followed."""
    if not out.exists():
        return
    with disk_errors(out, "mend"):
        file = os.open(out, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(file).st_size > size:
                os.ftruncate(file, size)
        finally:
            os.close(file)
