"""The readers give back what was written, and put the finger on the line of a fault."""

import csv
import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.core import textfile
from tunesmith.core.errors import DataError, ResourceError
from tunesmith.core.rows import Chat, Message, Origin
from tunesmith.core.tables import READERS, read, read_part, write_rows

QUICK = settings(max_examples=100, deadline=None)
SHARED = settings(QUICK, suppress_health_check=[HealthCheck.function_scoped_fixture])

cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
word = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
number = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
value = st.recursive(
    st.none() | st.booleans() | number | word,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(word, inner, max_size=3),
    max_leaves=4,
)


def read_bytes(folder: Path, name: str, content: bytes) -> list[dict[str, Any]]:
    """The rows of a file with this content."""
    path = folder / name
    path.write_bytes(content)
    return [record.fields for record in read(path)]


@SHARED
@given(st.lists(st.lists(cell, min_size=2, max_size=2), min_size=1), st.sampled_from(",\t"))
def test_what_csv_writes_is_read_to_the_byte(
    tmp_path: Path, rows: list[list[str]], mark: str
) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=mark).writerows([["a", "b"], *rows])
    name = "t.csv" if mark == "," else "t.tsv"
    found = read_bytes(tmp_path, name, buffer.getvalue().encode())
    assert [list(fields.values()) for fields in found] == rows


@SHARED
@given(
    st.lists(st.dictionaries(word, value, max_size=3), min_size=1, max_size=3),
    st.integers(1, 40),
    st.sampled_from([None, 1]),
)
def test_what_json_writes_is_read_back(
    tmp_path: Path, rows: list[dict[str, Any]], piece: int, indent: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textfile, "PIECE", piece)
        text = json.dumps(rows, indent=indent, ensure_ascii=False)
        assert read_bytes(tmp_path, "t.json", text.encode()) == rows
        lines = "\n".join(json.dumps(row) for row in rows)
        assert read_bytes(tmp_path, "t.jsonl", lines.encode()) == rows


@QUICK
@given(st.integers(0, 30), st.sampled_from(["jsonl", "json", "csv"]), st.integers(3, 200))
def test_the_line_of_a_single_fault_is_right(
    tmp_path_factory: pytest.TempPathFactory, place: int, ending: str, piece: int
) -> None:
    good = {"jsonl": '{"a": "x"}', "json": '{"a": "x"},', "csv": "x,y"}[ending]
    bad = {"jsonl": '{"a": x}', "json": '{"a": x},', "csv": "x,y,z"}[ending]
    lines = [good] * 31
    lines[place] = bad
    first = {"jsonl": [], "json": ["["], "csv": ["a,b"]}[ending]
    path = tmp_path_factory.mktemp("fault") / f"t.{ending}"
    path.write_text("\n".join([*first, *lines]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textfile, "PIECE", piece)
        with pytest.raises(DataError, match=rf"t\.{ending}:{place + 1 + len(first)}: "):
            list(read(path))


@QUICK
@given(st.binary(max_size=200), st.sampled_from(sorted(READERS)), st.booleans())
def test_any_bytes_are_rows_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / f"t{ending}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content) if packed else content)
    try:
        list(read(path))
    except DataError as error:
        assert str(error).startswith(f"{path}:") and "\n" not in str(error)


def test_the_first_row_comes_before_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\nbroken')
    rows = read(path)
    assert next(rows).fields == {"a": 1}


def test_progress_hears_every_byte(tmp_path: Path) -> None:
    for name, content in [("t.jsonl", '{"a":1}\n' * 9), ("t.json", '[{"a":1}]'), ("t.csv", "a\n1")]:
        path = tmp_path / name
        path.write_text(content)
        heard: list[int] = []
        list(read(path, advance=heard.append))
        assert sum(heard) == len(content)


def test_progress_of_a_compressed_file_is_in_its_own_bytes(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a":1}\n' * 10_000) * 2)
    heard: list[int] = []
    assert len(list(read(path, advance=heard.append))) == 20_000
    assert sum(heard) == path.stat().st_size


def test_progress_of_parquet_comes_to_its_bytes(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"a": list(range(1000))}), path)
    heard: list[int] = []
    rows = list(read(path, advance=heard.append))
    assert [(row.origin.line, row.fields["a"]) for row in rows] == [(n + 1, n) for n in range(1000)]
    assert sum(heard) == path.stat().st_size and len(heard) > 10


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and more")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ResourceError, match=r"pip install 'tunesmith\[parquet\]'"):
        list(read(tmp_path / "t.parquet"))


def fault(folder: Path, content: bytes) -> str:
    """What is said about a table, without its name."""
    with pytest.raises(DataError) as caught:
        read_bytes(folder, "t.csv", content)
    return str(caught.value).partition("t.csv:")[2]


@pytest.mark.parametrize("row", [b"1,2", b'"1",2', b'1,"2"', b'"1\n",2'])
def test_a_stray_carriage_return_before_the_line_end_is_refused(tmp_path: Path, row: bytes) -> None:
    line = 3 + row.count(b"\n")
    said = fault(tmp_path, b"a,b\r\n3,4\r\n" + row + b"\r\r\n5,6\r\n")
    assert said.startswith(f"{line}: a carriage return ends a line by itself")


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (b'"x\ny"z,2\n', 4),
        (b'"x\n\ny",z"z"\n', 5),
        (b'"x\ny"z,"2\n3"\n', 4),
        (b'1,"x\n""y"" \n" z\n', 5),
        (b'"x\ny",2,3\n', 3),
        (b'"x\n\xff",2\n', 4),
        (b'"x\n\0",2\n', 4),
    ],
)
def test_a_fault_in_a_row_of_several_lines_is_told_at_its_own(
    tmp_path: Path, row: bytes, line: int
) -> None:
    """But one of the whole row, as a cell too many, at the row's first."""
    assert fault(tmp_path, b"a,b\n1,2\n" + row + b"3,4\n").startswith(f"{line}: ")


def test_an_empty_line_is_an_empty_cell_where_there_is_one_column(tmp_path: Path) -> None:
    """Nothing tells the two apart, and a row may not vanish."""
    rows = read_bytes(tmp_path, "t.csv", b"\na\nx\n\n\r\ny\n")
    assert [row["a"] for row in rows] == ["x", "", "", "y"]
    rows = read_bytes(tmp_path, "t.csv", b"\na,b\nx,1\n\n\r\ny,2\n")
    assert [row["a"] for row in rows] == ["x", "y"]


def test_a_disk_that_fails_is_a_matter_of_resources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n')
    path.chmod(0o200)

    def fails(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(textfile.os, "open", fails)
    with pytest.raises(ResourceError, match=r"t\.jsonl: permission denied; .* run chmod u\+r"):
        list(read(path))


def test_rows_written_are_the_rows_read(tmp_path: Path) -> None:
    row = Chat(
        messages=(
            Message("user", "\u2028 caf\xe9"),
            Message("assistant", None, True, {"tool_calls": [{"id": "1"}]}),
        ),
        tools=({"name": "f"},),
        references=("r",),
        origin=Origin("a.jsonl", 7),
        source="a.jsonl",
        weight=0.5,
    )
    write_rows(tmp_path / "train.jsonl", [row.record(), row.record()])
    assert read_part(tmp_path, "train") == [row, row]
    assert read_part(tmp_path, "valid") == []
