"""`--fix`: a new data set in the form of the old one, every decision told, nothing left to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.planted import corpus
from tunesmith import door
from tunesmith.cli import app
from tunesmith.core.errors import DataError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.tables import read
from tunesmith.data import fix as module
from tunesmith.data import intake, large, shelf
from tunesmith.data.fix import fix
from tunesmith.data.stage import Data, prepare

STEPS: list[Any] = ["deduplicate", "normalise", "redact", {"kind": "deduplicate", "match": "near"}]


def lines(path: Path, records: list[dict[str, Any]]) -> str:
    """A file of records."""
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return str(path)


def fixed(home: Path, name: str = "x", **settings: Any) -> Path:
    """The folder of the new files."""
    spec = Data(**{"split": "none", **settings})
    folder = RunFolder(home / "runs" / name)
    folder.create()
    prepare(folder, spec, seed=0, log=Log(quiet=True))
    return fix(folder, spec, seed=0, log=Log(quiet=True))


def records(path: Path) -> list[dict[str, Any]]:
    """What is in a file."""
    return [record.fields for record in read(path)]


def decisions(folder: Path) -> list[dict[str, Any]]:
    """What was told of single rows."""
    return [json.loads(line) for line in (folder / "decisions.jsonl").read_text().splitlines()]


ALPACA = [
    {
        "id": 1,
        "instruction": "Say  hello to bob@example.org",
        "input": "",
        "output": "Hello  there",
    },
    {"id": 2, "instruction": "Say hello to bob@example.org", "input": "", "output": "Hello there"},
    {
        "id": 3,
        "instruction": "What is caf\u00c3\u00a9?",
        "input": "In  French",
        "output": "A place.",
    },
    {"id": 4, "instruction": "Name a city", "input": "", "output": "Oslo.", "mail": "x@y.org"},
]


def test_rows_keep_their_form_and_what_stands_beside_them(tmp_path: Path) -> None:
    source = lines(tmp_path / "rows.jsonl", ALPACA)
    before = Path(source).read_bytes()
    folder = fixed(tmp_path, source=source, transforms=STEPS)
    assert records(folder / "rows/rows.jsonl") == [
        {"id": 1, "instruction": "Say hello to [EMAIL]", "input": "", "output": "Hello there"},
        {"id": 3, "instruction": "What is caf\u00e9?", "input": "In French", "output": "A place."},
        {"id": 4, "instruction": "Name a city", "input": "", "output": "Oslo.", "mail": "[EMAIL]"},
    ]
    assert Path(source).read_bytes() == before


def test_every_decision_names_the_row_of_the_original(tmp_path: Path) -> None:
    folder = fixed(
        tmp_path,
        source=lines(tmp_path / "rows.jsonl", ALPACA),
        transforms=["deduplicate", "normalise", "redact"],
    )
    told = decisions(folder)
    assert {(d["pass"], d["step"], d["row"], d["did"]) for d in told} == {
        (1, "normalise", "rows.jsonl:1", "changed"),
        (1, "redact", "rows.jsonl:1", "changed"),
        (1, "redact", "rows.jsonl:2", "changed"),
        (1, "normalise", "rows.jsonl:3", "changed"),
        (2, "deduplicate", "rows.jsonl:2", "dropped"),
    }
    assert [d["other"] for d in told if d["did"] == "dropped"] == ["rows.jsonl:1"]
    found = json.loads((folder / "decisions.json").read_text())
    assert found["files"]["rows"] == {
        "form": "own",
        "from": str(tmp_path / "rows.jsonl"),
        "rows": 3,
    }
    page = (folder / "decisions.md").read_text()
    assert "rows.jsonl:2 (rows.jsonl:1)" in page and "| redact | 4 | 4 | 0 | 2 |" in page
    assert "bob@" not in page + json.dumps(told)


SHAPES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "columns": (
        {"format": {"kind": "columns", "user": "asks {q}", "assistant": "a"}},
        [{"q": f"why  {i}?", "a": f"since  {i}", "n": i} for i in range(6)],
    ),
    "labelled": ({}, [{"text": f"it is  {i}", "label": "ab"[i % 2]} for i in range(6)]),
    "labels by number": (
        {"format": {"kind": "labelled", "names": ["no  way", "yes"]}},
        [{"text": f"it is  {i}", "label": i % 2} for i in range(6)],
    ),
    "two texts": ({}, [{"text1": f"a  {i}", "text2": "b  c", "labels": ["x"]} for i in range(6)]),
    "preference": (
        {},
        [{"prompt": f"a  {i}", "chosen": "b  c", "rejected": "d"} for i in range(6)],
    ),
    "judged": ({}, [{"prompt": f"a  {i}", "completion": "b  c", "label": True} for i in range(6)]),
    "documents": ({}, [{"text": f"a  {i} \u00e2\u20ac\u2122 b"} for i in range(6)]),
    "talks": (
        {},
        [
            {
                "messages": [
                    {"role": "user", "content": f"a  {i}"},
                    {"role": "assistant", "content": "b", "weight": 0},
                    {"role": "user", "content": "and?"},
                    {"role": "assistant", "content": "c  d", "name": "bot"},
                ],
                "tools": [{"type": "function", "function": {"name": "f"}}],
            }
            for i in range(6)
        ],
    ),
    "weights": (
        {"transforms": ["normalise", {"kind": "balance", "how": "weights"}]},
        [{"text": f"it is  {i}", "label": "aab"[i % 3]} for i in range(6)],
    ),
    "a field beside": (
        {"transforms": ["normalise", {"kind": "balance", "by": "meta.of"}]},
        [{"text": f"it is  {i}", "meta": {"of": "aab"[i % 3]}} for i in range(6)],
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_second_fix_changes_nothing(tmp_path: Path, shape: str) -> None:
    settings, given = SHAPES[shape]
    settings = {"transforms": ["normalise", "deduplicate", "redact"], **settings}
    first = fixed(tmp_path, source=lines(tmp_path / "rows.jsonl", given), **settings)
    (passes,) = [json.loads((first / "decisions.json").read_text())]
    assert passes["files"]["rows"]["form"] == "own"
    again = fixed(tmp_path, "again", source=str(first / "rows/rows.jsonl"), **settings)
    assert (again / "rows/rows.jsonl").read_bytes() == (first / "rows/rows.jsonl").read_bytes()
    assert decisions(again) == []


def test_what_cannot_be_written_in_its_form_is_written_plainly(tmp_path: Path) -> None:
    given = [{"q": "a ", "of": "b", "a": f"{i}", "text": "x"} for i in range(4)]
    form = {"kind": "columns", "user": "{q}{of}", "assistant": "a"}
    source = lines(tmp_path / "rows.jsonl", given)
    folder = fixed(tmp_path, source=source, format=form, transforms=["normalise"])
    assert json.loads((folder / "decisions.json").read_text())["files"]["rows"]["form"] == "plain"
    found = records(folder / "rows/rows.jsonl")
    assert found[0]["messages"][0]["content"] == "a b" and found[0]["beside"] == {"text": "x"}
    again = fixed(
        tmp_path, "again", source=str(folder / "rows/rows.jsonl"), transforms=["normalise"]
    )
    assert decisions(again) == []


def test_several_sources_have_a_file_each(tmp_path: Path) -> None:
    one = lines(tmp_path / "one.jsonl", [{"prompt": f"a {i}", "completion": "b"} for i in range(3)])
    two = lines(tmp_path / "two.jsonl", [{"text": f"a {i}"} for i in range(3)])
    sources = [one, {"path": two, "name": "read", "replay": 0.2}]
    folder = fixed(tmp_path, source=sources, transforms=["deduplicate"])
    assert len(records(folder / "rows/one.jsonl")) == len(records(folder / "rows/read.jsonl")) == 3


def test_names_of_sources_collide_with_nothing(tmp_path: Path) -> None:
    """A source may be called like the log, or like another with the word for the other form."""
    names = ["decisions", "a", "a-plain", "work", "plain", "rows"]
    texts = {name: [{"text": f"{name}  {i}"} for i in range(3)] for name in names}
    sources = [
        {"path": lines(tmp_path / f"{i}.jsonl", texts[name]), "name": name}
        for i, name in enumerate(reversed(names))
    ]
    folder = fixed(tmp_path, source=sources, transforms=["normalise"])
    for name in names:
        found = [each["text"] for each in records(folder / "rows" / f"{name}.jsonl")]
        assert found == [f"{name} {i}" for i in range(3)]
    assert {told["did"] for told in decisions(folder)} == {"changed"}
    assert set(json.loads((folder / "decisions.json").read_text())["files"]) == set(names)


def test_rows_on_disk_are_fixed_like_rows_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = lines(tmp_path / "rows.jsonl", corpus(600, each=40, leaks=10).train)
    memory = fixed(tmp_path, "memory", source=source, transforms=STEPS)
    monkeypatch.setattr(intake, "LARGE", 0)
    monkeypatch.setattr(large, "FILE", 9999)
    monkeypatch.setattr(shelf, "FILE", 9999)
    disk = fixed(tmp_path, "disk", source=source, transforms=STEPS)
    names = ("rows/rows.jsonl", "decisions.json", "decisions.md")
    assert [(disk / n).read_bytes() for n in names[:2]] == [
        (memory / n).read_bytes() for n in names[:2]
    ]
    key = json.dumps
    assert sorted(map(key, decisions(disk))) == sorted(map(key, decisions(memory)))
    assert {p.name for p in disk.iterdir()} == {p.name for p in memory.iterdir()}


def test_steps_that_never_rest_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [{"text": f"it is {i}", "label": "aab"[i % 3]} for i in range(6)]
    source = lines(tmp_path / "rows.jsonl", given)
    steps = ["deduplicate", {"kind": "balance", "how": "up"}]
    with pytest.raises(DataError, match=r"after 5 passes .*\(deduplicate, balance\)"):
        fixed(tmp_path, source=source, transforms=steps)
    assert not (tmp_path / "runs" / "x" / "fixed").exists()
    assert module.MOST_PASSES == 5


def test_originals_that_changed_are_refused(tmp_path: Path) -> None:
    source = lines(tmp_path / "rows.jsonl", ALPACA)
    spec = Data(source=source, split="none")
    folder = RunFolder(tmp_path / "runs" / "x")
    folder.create()
    prepare(folder, spec, seed=0, log=Log(quiet=True))
    lines(tmp_path / "rows.jsonl", ALPACA[:2])
    with pytest.raises(DataError, match="changed since it was prepared"):
        fix(folder, spec, seed=0, log=Log(quiet=True))


def test_the_command_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "rows.jsonl", ALPACA)
    words = ["data", "rows.jsonl", "data.split=none", "--fix", "--json"]
    assert door.enter(app, words) == 0
    assert json.loads(capsys.readouterr().out)["fixed"] == "runs/rows/fixed"
    assert door.enter(app, words) == 0
    assert (tmp_path / "runs/rows/fixed/rows/rows.jsonl").exists()


def test_the_planted_corpus_is_clean_after_one_fix(tmp_path: Path) -> None:
    planted = corpus(1500, each=60, leaks=20)
    held = lines(tmp_path / "test.jsonl", planted.test)
    steps = ["normalise", {"kind": "decontaminate", "against": [held]}, *STEPS[3:]]
    folder = fixed(tmp_path, source=lines(tmp_path / "rows.jsonl", planted.train), transforms=steps)
    gone = {int(d["row"].split(":")[1]) for d in decisions(folder) if d["did"] == "dropped"}
    assert planted.leaks <= gone and planted.exact <= gone
    assert len(planted.near - gone) <= 0.05 * len(planted.near)
    assert gone == gone & (planted.leaks | planted.exact | planted.near)
    again = fixed(tmp_path, "again", source=str(folder / "rows/rows.jsonl"), transforms=steps)
    assert decisions(again) == []


@pytest.mark.parametrize("how", ["mask", "drop"])
def test_numbers_and_texts_that_nothing_reads_are_redacted_too(tmp_path: Path, how: str) -> None:
    beside = {"paid": [4111111111111111, 12.5, True], "mail": "x@y.org"}
    rows = [{"id": 7, "prompt": "Name a city", "completion": "Oslo.", "weight": 2, **beside}]
    step = {"kind": "redact", "how": how}
    source = lines(tmp_path / "rows.jsonl", rows)
    folder = fixed(tmp_path, source=source, transforms=[step])
    clean = {"paid": ["[CARD]", 12.5, True], "mail": "[EMAIL]"}
    assert records(folder / "rows" / "rows.jsonl") == [{**rows[0], **clean}]
