"""Every format in every container that can hold it: what was written is what is read."""

import csv
import gzip
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tests.rows import records
from tunesmith.core import textfile
from tunesmith.core.tables import PACKED, READERS, STARTS, read
from tunesmith.data.formats.base import Format
from tunesmith.data.source import detectable, detected

TEXTS = tuple(end for end in READERS if end not in STARTS)
CONTAINERS = (*READERS, *(end + PACKED for end in TEXTS))
DOCUMENTS = (".txt", ".md")
PIECES = (
    *("a", "Who?", "007", "NA", "null", "1e5", " ", "  ", "\t", "\n", "\r", "\r\n", '"', '""', ","),
    *(";", "'", "\\", "\\n", "{", "}", "[", "]", "\ufeff", "\u2028", "\x85", "\x0b", "\x1c"),
    *("e\u0301", "\xe9", "\u202e", "\U0001f468\u200d\U0001f469", "\U0010ffff", "\ufffd", "\x1f"),
    "<|im_end|>",
    *("=1+1", "-0.0", "2024-01-05", "\x7f", "#", "//", "%s", "PAR1"),
)
BATCH = 25
"""Rows in one file."""


def text(draw: random.Random) -> str:
    """A text with something in it, made of what readers stumble over."""
    return "".join(draw.choices(PIECES, k=draw.randint(0, 5))) + draw.choice("x\xe9\U0001f600")


def holds(end: str, record: dict[str, Any]) -> bool:
    """Whether a container has a place for all of a record."""
    end = end.removesuffix(PACKED)
    if end in DOCUMENTS:
        return list(record) == ["text"]
    return end not in (".csv", ".tsv") or all(isinstance(v, str) for v in record.values())


PAIRS = [
    (kind, end) for kind, r in records(lambda: "x").items() for end in CONTAINERS if holds(end, r)
]


def content(end: str, rows: list[dict[str, Any]], draw: random.Random) -> bytes:
    """The rows as a file of this ending."""
    plain = draw.random() < 0.5
    lines = [json.dumps(row, ensure_ascii=plain) for row in rows]
    mark = draw.choice(["", "\ufeff"])
    if end == ".jsonl":
        written = mark + draw.choice(["\n", "\r\n", "\n\n"]).join(lines)
    elif end == ".json":
        written = mark + "[" + draw.choice([",", ",\n", " , "]).join(lines) + "]"
    elif end in DOCUMENTS:
        written = "\ufeff" + rows[0]["text"]
    elif end == ".parquet":
        return packed(rows, draw)
    else:
        buffer = io.StringIO()
        # With \n between rows, Python's writer leaves a cell with \r in it bare: not CSV.
        quoting, line_end = draw.choice(
            [(csv.QUOTE_ALL, "\n"), (csv.QUOTE_ALL, "\r\n"), (csv.QUOTE_MINIMAL, "\r\n")]
        )
        table = csv.writer(
            buffer,
            delimiter="," if end == ".csv" else "\t",
            quoting=quoting,
            lineterminator=line_end,
        )
        table.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
        written = mark + buffer.getvalue()
    return written.encode()


def packed(rows: list[dict[str, Any]], draw: random.Random) -> bytes:
    """The rows as Parquet."""
    buffer = io.BytesIO()
    parquet.write_table(
        pyarrow.Table.from_pylist(rows),
        buffer,
        row_group_size=draw.choice([1, 7, BATCH]),
        compression=draw.choice(["none", "snappy", "zstd", "gzip"]),
        use_dictionary=draw.random() < 0.5,
        data_page_version=draw.choice(["1.0", "2.0"]),
    )
    return buffer.getvalue()


def compressed(plain: bytes, draw: random.Random) -> bytes:
    """As gzip, in one member or two."""
    cut = draw.choice([0, len(plain), draw.randint(0, len(plain))])
    return gzip.compress(plain[:cut], 1) + gzip.compress(plain[cut:], 1)


def exact(value: Any, nulls: bool) -> str:
    """A value so that equal means the same to the byte: 1, 1.0 and true differ.

    Parquet gives every row every field, null where the row has none: there, `nulls` are left out.
    """
    return json.dumps(value if nulls else without_null(value), sort_keys=True)


def without_null(value: Any) -> Any:
    """A value without the keys that hold nothing."""
    if isinstance(value, dict):
        return {k: without_null(v) for k, v in value.items() if v is not None}
    return [without_null(item) for item in value] if isinstance(value, list) else value


def round_trip(path: Path, kind: str, rows: list[dict[str, Any]], draw: random.Random) -> int:
    """Write the rows, read them, and refuse any difference. How many there were."""
    plain = content(path.suffixes[0], rows, draw)
    path.write_bytes(compressed(plain, draw) if path.suffix == PACKED else plain)
    found = [record.fields for record in read(path)]
    nulls = path.suffix != ".parquet"
    assert [exact(row, nulls) for row in found] == [exact(row, nulls) for row in rows]
    if kind in Format.members():
        for before, after in zip(rows, found, strict=True):
            form = detected(after)
            assert form.kind == kind and form.row(after) == form.row(before)
    return len(rows)


def fuzz(folder: Path, cases: int, seed: int) -> Iterator[int]:
    """Rows of every pair in turn until there were enough."""
    draw, done = random.Random(seed), 0
    while done < cases:
        for kind, end in PAIRS:
            count = 1 if end.removesuffix(PACKED) in DOCUMENTS else BATCH
            rows = [records(lambda: text(draw))[kind] for _ in range(count)]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(textfile, "PIECE", draw.choice([7, 64, 4096, 2**20]))
                done += round_trip(folder / f"rows{end}", kind, rows, draw)
        yield done


def test_every_format_has_an_example() -> None:
    assert {form.kind for form in detectable()} <= set(records(lambda: "x"))


@pytest.mark.parametrize(("kind", "end"), PAIRS, ids=lambda value: value.strip("."))
def test_a_format_in_a_container_comes_back(tmp_path: Path, kind: str, end: str) -> None:
    draw = random.Random(f"{kind}{end}")
    rows = [records(lambda: text(draw))[kind]]
    assert round_trip(tmp_path / f"rows{end}", kind, rows, draw) == 1


def test_ten_thousand_rows_come_back(tmp_path: Path) -> None:
    assert max(fuzz(tmp_path, 10_000, seed=0)) >= 10_000


@pytest.mark.evidence
def test_a_million_rows_come_back(tmp_path: Path) -> None:
    assert max(fuzz(tmp_path, 1_000_000, seed=1)) >= 1_000_000


def test_a_folder_gives_the_rows_of_all_its_files(tmp_path: Path) -> None:
    """In the order of their names, each row with its own file and line."""
    draw = random.Random(3)
    rows = [records(lambda: text(draw))["completion"] for _ in READERS]
    wanted = []
    (tmp_path / "rows" / "below").mkdir(parents=True)
    ends = [end for end in CONTAINERS if end.removesuffix(PACKED) not in DOCUMENTS]
    for number, (end, row) in enumerate(zip(ends, rows, strict=False)):
        path = tmp_path / "rows" / ("below" if number % 2 else "") / f"{9 - number}{end}"
        plain = content(path.suffixes[0], [row, row], draw)
        path.write_bytes(compressed(plain, draw) if path.suffix == PACKED else plain)
        wanted += [(path.relative_to(tmp_path / "rows").as_posix(), row)] * 2
    for passed_over in (".hidden.jsonl", "README.md", "dataset_infos.json", "picture.png"):
        (tmp_path / "rows" / passed_over).write_bytes(b"\0")
    (tmp_path / "rows" / ".cache").mkdir()
    (tmp_path / "rows" / ".cache" / "rows.jsonl").write_bytes(b"\0")
    found = list(read(tmp_path / "rows"))
    names = [Path(r.origin.file).relative_to(tmp_path / "rows").as_posix() for r in found]
    wanted.sort(key=lambda pair: pair[0])
    assert list(zip(names, (r.fields for r in found), strict=True)) == wanted


def test_a_folder_of_documents_is_a_document_a_file(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfOne.\r\n\r\nStill one.\n\n")
    (tmp_path / "a.md").write_text("# Two\n")
    found = list(read(tmp_path))
    assert [r.fields["text"] for r in found] == ["# Two\n", "One.\r\n\r\nStill one.\n\n"]
    assert [r.origin.line for r in found] == [1, 1]
