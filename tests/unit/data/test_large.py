"""Rows that stay on disk are prepared like rows in memory, by several processes, and go on after a
kill where they were."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.planted import stream
from tunesmith.core.errors import DataError, ResourceError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.tables import pieces_of, read, read_piece
from tunesmith.data import crew, intake, large, room, shelf, stage
from tunesmith.data.audits import secrets
from tunesmith.data.stage import Data, prepare

STEPS: list[Any] = [
    "normalise",
    {"kind": "filter", "min_words": 5},
    {"kind": "deduplicate", "match": "near"},
    {"kind": "filter", "max_words": 160},
    {"kind": "balance", "by": "region", "how": "up"},
    {"kind": "sample", "rows": 700},
]
ROWS = 900


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of rows, with blank lines and a field beside them."""
    path = tmp_path / "rows.jsonl"
    with path.open("w") as out:
        for number, record in enumerate(stream(ROWS)):
            out.write(json.dumps({**record, "region": "ab"[number % 3 > 0], "n": number}) + "\n")
            out.write("\n" * (number % 100 == 7))
    return path


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every source is large, and its pieces are small."""
    monkeypatch.setattr(intake, "LARGE", 0)
    monkeypatch.setattr(large, "FILE", 40_000)
    monkeypatch.setattr(shelf, "FILE", 40_000)


def prepared(home: Path, name: str, **settings: Any) -> dict[str, str]:
    """The files of a data stage by name, with what is in them."""
    folder = RunFolder(home / "runs" / name)
    folder.create()
    prepare(folder, Data(**settings), seed=0, log=Log(quiet=True))
    inside = folder.path / "data"
    kept = {p.relative_to(inside).as_posix(): p for p in inside.rglob("*") if p.is_file()}
    hidden = ("MANIFEST.json", "inputs.json")
    found = {name: path.read_text() for name, path in kept.items() if name not in hidden}
    told = found["steps/decisions.jsonl"].splitlines()
    return {**found, "steps/decisions.jsonl": "\n".join(sorted(told))}


@pytest.mark.parametrize("rule", [{"test": 0.1, "near": 0.8}, {"stratify": "region"}])
def test_rows_on_disk_give_the_files_that_rows_in_memory_give(
    tmp_path: Path, source: Path, rule: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    settings = {"source": str(source), "transforms": STEPS, "split": rule}
    held_out = tmp_path / "valid.jsonl"
    lines = source.read_text().splitlines()
    held_out.write_text("\n".join(lines[:5]) + "\n")
    settings |= {"valid": str(held_out), "leaks": "drop"}
    memory = prepared(tmp_path, "memory", **settings)
    request.getfixturevalue("on_disk")
    disk = prepared(tmp_path, "disk", **settings)
    assert disk == memory
    account = json.loads(disk["account.json"])
    assert account["files"][0]["rows"] == ROWS and account["files"][0]["unused"] == ["n"]
    assert [step["kind"] for step in account["steps"]][:2] == ["normalise", "filter"]
    assert any(step["changed"] for step in account["steps"])


AUDITS: list[Any] = [
    {"kind": "leakage", "near": 0.8, "by": "ticket-[0-9]+"},
    {"kind": "quality", "languages": ["en"]},
    "pii",
    "secrets",
    "poisoning",
    "sensitive",
    {"kind": "representation", "least": 5},
]
SAID = [
    "Write to jane@example.org or bill@example.org, ticket-7.",
    "PASSWORD=hunter2hunter2",
    "I have diabetes, she said, ticket-7.",
    "He is a terrible teacher.",
    "in\u200bvisible",
    "Der Hund und die Katze schlafen heute sehr lange in der warmen Sonne.",
]


def test_audits_find_the_same_on_disk_as_in_memory(
    tmp_path: Path, source: Path, request: pytest.FixtureRequest
) -> None:
    lines = source.read_text().splitlines()
    rows = [json.loads(line) for line in lines if line]
    for number, row in enumerate(rows):
        row["prompt"] += f" {SAID[number % 60]}" if number % 60 < len(SAID) else ""
    rows += [{**row, "completion": "Another one."} for row in rows[:50]]
    held_out = [{**row, "prompt": row["prompt"].upper()} for row in rows[50:60]]
    held_out += [{**row, "prompt": row["prompt"].replace(".", "!", 2)} for row in rows[60:70]]
    for path, some in ((source, rows), (tmp_path / "test.jsonl", held_out)):
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
    settings = {"source": str(source), "test": str(tmp_path / "test.jsonl"), "transforms": []}
    settings["audits"] = AUDITS
    memory = prepared(tmp_path, "memory", **settings)
    request.getfixturevalue("on_disk")
    assert prepared(tmp_path, "disk", **settings) == memory
    found = json.loads(memory["findings.json"])
    kinds = {audit if isinstance(audit, str) else audit["kind"] for audit in AUDITS}
    assert {each["audit"] for each in found} == kinds
    (mail,) = [f for f in found if "train with an e-mail" in f["what"]]
    assert mail["counts"]["email"] == 2 * mail["counts"]["rows"] > 20


def test_what_audits_saw_is_not_looked_for_again(
    tmp_path: Path, source: Path, on_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"source": str(source), "transforms": [], "audits": ["pii"]}
    wanted = prepared(tmp_path, "whole", **settings)

    def stop(*found: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(stage, "write", stop)
        prepared(tmp_path, "again", **settings)
    kept = sorted((tmp_path / "runs/again/data/work").rglob("*.pii-*"))
    kept[0].write_bytes(b"")  # As a power loss leaves it.
    when = {path: path.stat().st_mtime_ns for path in kept}

    def look(*found: Any, **more: Any) -> Any:
        after = {path: path.stat().st_mtime_ns for path in kept}
        assert {path for path in kept if after[path] != when[path]} == {kept[0]}

    monkeypatch.setattr(stage, "summarise", look)
    assert len(kept) > 5 and prepared(tmp_path, "again", **settings) == wanted


def interrupted(home: Path, name: str, **settings: Any) -> list[Path]:
    """A stage that ends before its files are written: what is kept of its work."""

    def stop(*found: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(stage, "write", stop)
        prepared(home, name, **settings)
    return sorted((home / "runs" / name / "data/work").rglob("*.*"))


def test_what_another_version_of_the_rules_saw_is_looked_for_again(
    tmp_path: Path, source: Path, on_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"source": str(source), "transforms": [], "audits": ["secrets"]}
    source.write_text(source.read_text().replace('"prompt": "', '"prompt": "PASSWORD=hunter2hun '))
    monkeypatch.setattr(crew, "cores", lambda: 1)  # In this process rules can be changed.
    with monkeypatch.context() as before:
        before.setattr(secrets, "secret", lambda text: [])
        before.setattr(room, "code_digest", lambda: "of an earlier version")
        assert interrupted(tmp_path, "upgraded", **settings)
    found = json.loads(prepared(tmp_path, "upgraded", **settings)["findings.json"])
    assert [each["audit"] for each in found] == ["secrets"] * 3


@pytest.mark.parametrize("left", [0, -1])
def test_a_table_that_is_not_whole_is_made_again(
    tmp_path: Path, source: Path, on_disk: None, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    monkeypatch.setattr(crew, "cores", lambda: 1)
    settings = {"source": str(source), "transforms": [], "audits": ["quality"]}
    wanted = prepared(tmp_path, "whole", **settings)
    kept = [path for path in interrupted(tmp_path, "cut", **settings) if path.suffix == ".claims"]
    kept[1].write_bytes(kept[1].read_bytes()[:left])  # As a power loss leaves it.
    assert len(kept) > 5 and prepared(tmp_path, "cut", **settings) == wanted


def test_functions_of_one_name_keep_their_tables_apart() -> None:
    places = {shelf.beside(Path("0.jsonl"), f"tunesmith.data.{each}:made") for each in "ab"}
    assert len(places) == 2 and {place.stem.split(".")[0] for place in places} == {"0"}


def test_pieces_of_a_file_are_its_rows_with_their_lines(source: Path) -> None:
    whole = list(read(source))
    for size in (100, 5_000, 10**9):
        assert size == 10**9 or len(pieces_of(source, size)) > source.stat().st_size / size / 20
        found = pieces_of(source, size)
        rows = [record for piece in found for record in read_piece(piece, lambda n: None)]
        assert rows == whole
        assert sum(piece.size for piece in found) == source.stat().st_size


@pytest.mark.parametrize("line", [3, 450, 899])
def test_a_fault_is_told_with_its_line_and_the_first_one_counts(
    source: Path, tmp_path: Path, on_disk: None, line: int
) -> None:
    lines = [text for text in source.read_text().splitlines() if text]
    lines[line - 1] = '{"prompt": "x"}'
    lines[-1] = "{"
    source.write_text("\n".join(lines) + "\n")
    where = rf"rows\.jsonl:{min(line, 900)}: "
    with pytest.raises(DataError, match=where):
        prepared(tmp_path, "x", source=str(source))
    assert not (tmp_path / "runs" / "x" / "data").exists()


def test_a_blank_file_has_no_rows(tmp_path: Path, on_disk: None) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_text('{"text": "a b"}\n' * 3)
    (tmp_path / "rows" / "b.jsonl").write_text("\n" * 10)
    with pytest.raises(DataError, match=r"b\.jsonl:1: there is no row"):
        prepared(tmp_path, "x", source=str(tmp_path / "rows"))


KILLED = """
import json, sys
from pathlib import Path
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.data import intake, large, shelf, stage
intake.LARGE, large.FILE, shelf.FILE = 0, 40_000, 40_000
folder = RunFolder(Path("runs/killed"))
folder.create()
stage.prepare(folder, stage.Data(**json.loads(sys.argv[1])), seed=0, log=Log())
"""


def moments(folder: Path, process: subprocess.Popen[bytes]) -> Iterator[list[Path]]:
    """What is done so far, again and again."""
    while process.poll() is None:
        found: list[Path] = []
        with suppress(FileNotFoundError):  # A folder may go while it is looked through.
            found = sorted(folder.rglob("*.done")) + sorted(folder.rglob("done.json"))
        yield found
        time.sleep(0.002)


def test_a_killed_stage_goes_on_and_does_nothing_twice(
    tmp_path: Path, source: Path, on_disk: None
) -> None:
    redact = {"kind": "redact", "how": "pseudonym", "key": str(tmp_path / "my.key")}
    records = [json.loads(line) for line in source.read_text().splitlines() if line]
    lines = [{**r, "prompt": f"u{n}@example.org: {r['prompt']}"} for n, r in enumerate(records)]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {"source": str(source), "transforms": [*STEPS, redact]}
    wanted = prepared(tmp_path, "never-killed", **settings)
    assert "[EMAIL-" in wanted["train.jsonl"] and "@example.org" not in wanted["train.jsonl"]
    command = [sys.executable, "-c", KILLED, json.dumps(settings)]
    work = tmp_path / "runs" / "killed" / "data" / "work"
    kept: dict[Path, int] = {}
    for _ in range(40):
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
        before: set[Path] = set()
        for done in moments(work, process):
            before = before or {*done}
            if len({*done} - before) >= 3:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
        there = {p: p.stat().st_mtime_ns for p in work.rglob("*.done")} if work.exists() else {}
        again = {p for p, when in kept.items() if p in there and there[p] != when}
        assert not again, "a finished piece was done a second time"
        kept |= there
        if process.returncode == 0:
            break
    assert process.returncode == 0
    folder = tmp_path / "runs" / "killed" / "data"
    assert not work.exists()
    for name in ("train.jsonl", "valid.jsonl", "test.jsonl", "account.json", "findings.json"):
        assert (folder / name).read_text() == wanted[name]


def test_a_damaged_piece_is_done_again(
    tmp_path: Path, source: Path, on_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"source": str(source), "transforms": ["normalise"]}
    wanted = prepared(tmp_path, "whole", **settings)

    def stop(*found: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(stage, "parted", stop)
        prepared(tmp_path, "damaged", **settings)
    pieces = sorted((tmp_path / "runs/damaged/data/work").rglob("*.jsonl"))
    pieces[1].write_bytes(pieces[1].read_bytes()[:-10])
    assert len(pieces) > 3 and prepared(tmp_path, "damaged", **settings) == wanted


def test_a_crew_answers_in_order_and_raises_what_was_raised() -> None:
    with crew.Crew(2) as hands:
        jobs = [{"file": "x"} for _ in range(3)]
        with pytest.raises(RuntimeError, match="unexpected keyword"):
            list(hands.each(crew.cores, jobs))
        assert list(hands.each(crew.cores, [{}, {}, {}])) == [crew.cores()] * 3


def test_no_file_of_the_working_directory_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue.py").write_text("raise SystemExit(3)\n")
    with crew.Crew(2) as hands:
        assert list(hands.each(crew.cores, [{}, {}])) == [crew.cores()] * 2


def test_what_is_done_stays_where_memory_ran_out(
    tmp_path: Path, source: Path, on_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*found: Any, **more: Any) -> Any:
        raise ResourceError("a process was killed")

    monkeypatch.setattr(stage, "parted", short)
    with pytest.raises(ResourceError):
        prepared(tmp_path, "x", source=str(source), transforms=["normalise"])
    assert [*(tmp_path / "runs/x/data/work").rglob("*.done")]
