"""Records out of Parquet: values as JSON has them, a few rows in memory at a time."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tunesmith.core import textfile
from tunesmith.core.errors import DataError, missing
from tunesmith.core.quote import quoted, visible
from tunesmith.core.strictjson import DEPTH
from tunesmith.core.textfile import NOT_UTF8, TOO_LONG, TextFile

ROWS = 16
"""Rows that are decoded at once: a compressed page may unfold each to the largest record."""
MAGIC = b"PAR1"
"""How a Parquet file begins and ends."""
PLAIN = (
    "is_null",
    "is_boolean",
    "is_integer",
    "is_float32",
    "is_float64",
    "is_string",
    "is_large_string",
    "is_string_view",
)
"""pyarrow's names for the types that are values of JSON."""
LISTS = ("is_list", "is_large_list", "is_fixed_size_list")


def parquet_rows(table: TextFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their number, from 1, in place of a line.

    Numbers, texts, true and false, null, lists and structs come as JSON would have them. Times,
    decimals, bytes and whatever else JSON has no value for are refused with the column's name:
    to write them as text is the user's choice. Needs pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing("pyarrow", "parquet") from error
    size, told, number = os.fstat(table.file.fileno()).st_size, 0, 0
    with damage_told(table, pyarrow):
        # Read in a stream, a page at a time, and not a whole column chunk ahead of need.
        file = parquet.ParquetFile(
            table.file.raw,
            pre_buffer=False,
            buffer_size=textfile.PIECE,
            page_checksum_verification=True,
        )
        check_columns(table, file.schema_arrow)
        for batch in file.iter_batches(ROWS, use_threads=False):
            yield from records(table, batch, number)
            number += batch.num_rows
            read = size * number // file.metadata.num_rows
            table.advance(read - told)
            told = read
    table.advance(size - told)


@contextmanager
def damage_told(table: TextFile, pyarrow: Any) -> Iterator[None]:
    """Inside, what pyarrow says of a broken file becomes one sentence."""
    try:
        yield
    except (pyarrow.ArrowException, ValueError, TypeError, MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # The disk, not the file.
        raise DataError(
            f"{visible(table.path)}: {state(table)}; get it again, or write it again"
        ) from None


def state(table: TextFile) -> str:
    """Which of the two a file that cannot be read is. pyarrow's own words are for its authors."""
    size = os.fstat(table.file.fileno()).st_size
    end = os.pread(table.file.fileno(), len(MAGIC), max(0, size - len(MAGIC)))
    if size < 2 * len(MAGIC) or end != MAGIC:
        return f"the Parquet file is cut short: its {size} bytes do not end as Parquet does"
    return "the Parquet file is damaged: its end is there, and what stands before it cannot be read"


def check_columns(table: TextFile, schema: Any) -> None:
    """Refuse columns that cannot be told apart, and those whose values JSON does not have."""
    for name in schema.names:
        why = refusal(schema.field(name).type) if schema.names.count(name) == 1 else TWICE
        if why:
            raise DataError(f"{visible(table.path)}: column {quoted(name)}: {why}")


TWICE = "two columns have this name; rename one of them"


def refusal(kind: Any, depth: int = 1) -> str:
    """Why values of this type are not read; empty if they are."""
    from pyarrow import types

    def has(names: tuple[str, ...]) -> bool:
        return any(getattr(types, name)(kind) for name in names)

    if depth > DEPTH:
        return f"more than {DEPTH} structs and lists inside each other; flatten it"
    if types.is_struct(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        if len({field.name for field in fields}) < len(fields):
            return "two fields of a struct have one name; rename one of them"
        return next((why for f in fields if (why := refusal(f.type, depth + 1))), "")
    if has(LISTS) or types.is_dictionary(kind):
        return refusal(kind.value_type, depth + 1)
    if has(PLAIN):
        return ""
    return f"holds values of the type {quoted(kind)}, which JSON does not have; write it as text"


def records(table: TextFile, batch: Any, before: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a batch, of which `before` come earlier in the file."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError:
        raise table.fault(before + first_unreadable(batch), f"a text {NOT_UTF8}") from None
    long = batch.nbytes > textfile.LIMIT
    for number, row in enumerate(rows):
        if long and batch.slice(number, 1).nbytes > textfile.LIMIT:
            raise table.fault(before + number + 1, TOO_LONG)
        for name, value in row.items():
            if not finite(value):
                what = f"column {quoted(name)} holds NaN or infinity, which JSON does not have"
                raise table.fault(before + number + 1, f"{what}; write null")
        yield before + number + 1, row


def first_unreadable(batch: Any) -> int:
    """Which row of a batch, from 1, holds a text that is none."""
    for number in range(batch.num_rows):
        try:
            batch.slice(number, 1).to_pylist()
        except UnicodeDecodeError:
            return number + 1
    return 1


def finite(value: Any) -> bool:
    """Whether no number in a value is NaN or infinite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(finite(item) for item in value)
    return all(finite(item) for item in value.values()) if isinstance(value, dict) else True
