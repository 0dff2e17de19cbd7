"""A first run file: what it says of which rows, where it is put, and what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tunesmith import starter
from tunesmith.core.errors import DataError, SettingsError
from tunesmith.run import Run, load


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a name that a file beside it would show."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def put(path: str, record: Mapping[str, Any], count: int = 20) -> None:
    """A file of equal rows."""
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text(f"{json.dumps(record)}\n" * count)


CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def made(where: str) -> Run:
    """The run that a new run file for `where` says; it must be valid."""
    (path,) = starter.init(Path(where))
    return load(path)


@pytest.mark.parametrize(
    ("record", "objective", "model", "metrics", "exports"),
    [
        (CHAT, "sft", "smollm2-135m-instruct", "exact rouge perplexity", "adapter merged"),
        (
            {"prompt": "a", "completion": "b"},
            *("sft", "smollm2-135m-instruct", "exact rouge perplexity", "adapter merged"),
        ),
        (
            {"text": "a", "label": "b"},
            *("classify", "all-minilm-l6-v2", "accuracy f1 calibration", "merged"),
        ),
        ({"text": "a"}, "lm", "smollm2-135m-instruct", "perplexity", "adapter merged"),
    ],
    ids=["chat", "completion", "labelled", "text"],
)
def test_the_run_file_fits_the_rows(
    home: Path, record: dict[str, Any], objective: str, model: str, metrics: str, exports: str
) -> None:
    put("rows.jsonl", record)
    run = made("rows.jsonl")
    assert (run.train.objective.kind, run.model.source) == (objective, model)
    assert [metric.kind for metric in run.evaluate.metrics] == metrics.split()
    assert [export.kind for export in run.deploy.exports] == exports.split()
    assert run.data.source == str(home / "rows.jsonl")


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": "a", "completion": "b", "label": True},
    ],
    ids=["preference", "judged"],
)
def test_rows_that_nothing_trains_on_are_refused_with_that_reason(
    home: Path, record: dict[str, Any]
) -> None:
    put("rows.jsonl", record)
    for act in (starter.init, starter.planned):
        with pytest.raises(DataError, match="no objective of this version trains on them"):
            act(Path("rows.jsonl"))
    assert not Path("rows.yaml").exists()


def test_keys_without_a_format_are_named_where_the_columns_are_to_be_said(home: Path) -> None:
    put("rows.jsonl", {"frage": "a", "antwort": "b"})
    assert made("rows.jsonl").train.objective.kind == "sft"
    text = Path("rows.yaml").read_text()
    assert "# No format has the keys 'frage', 'antwort'" in text and "kind: columns" in text


def test_only_the_first_row_is_read(home: Path) -> None:
    put("rows.jsonl", {"text": "a", "label": "b"}, count=1)
    with Path("rows.jsonl").open("a") as file:
        file.write("{broken\n")
    assert made("rows.jsonl").train.objective.kind == "classify"


def test_rows_that_cannot_be_read_are_refused_and_nothing_is_written(home: Path) -> None:
    Path("rows.jsonl").write_text("{broken\n")
    with pytest.raises(DataError, match=r"rows.jsonl:1: "):
        starter.init(Path("rows.jsonl"))
    assert [path.name for path in home.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("spelt", ["handbook", "handbook/", "./handbook", "handbook/../handbook"])
def test_a_folder_of_rows_gets_its_run_file_beside_it(home: Path, spelt: str) -> None:
    (home / "handbook" / "more").mkdir(parents=True)
    for name in ("a.md", "more/b.md"):
        (home / "handbook" / name).write_text("One chapter.\n")
    run = made(spelt)
    assert (run.name, run.train.objective.kind) == ("handbook", "lm")
    assert run.data.source == str(home / "handbook")
    assert sorted(path.name for path in home.iterdir()) == ["handbook", "handbook.yaml"]
    assert load("handbook").data.source == str(home / "handbook"), "it still means its rows"


def test_the_current_folder_means_its_one_file_of_rows(home: Path) -> None:
    put("mine.jsonl", {"text": "a", "label": "b"})
    assert made(".").data.source == str(home / "mine.jsonl")
    assert Path("mine.yaml").is_file() and not Path("../home.yaml").exists()
    put("other.jsonl", {"text": "a"})
    with pytest.raises(SettingsError, match="several files of rows: 'mine.jsonl', 'other.jsonl'"):
        starter.init(Path("."))


@pytest.mark.parametrize(
    ("said", "near"),
    [
        ("rows.csvv", "rows.csv"),
        ("row.csv", "rows.csv"),
        ("rows", "rows.csv"),
        ("row", "rows.csv"),
        ("handbok", "handbook"),
        ("letters.csv", ""),
        ("letters.doc", ""),
        ("none/letters.csv", ""),
    ],
)
def test_a_slip_of_the_pen_makes_no_project(home: Path, said: str, near: str) -> None:
    Path("rows.csv").write_text("text,label\na,b\n")
    put("handbook/one.jsonl", {"text": "a"})
    with pytest.raises(SettingsError, match=f"did you mean {near}\\?" if near else "no such file"):
        starter.init(Path(said))
    assert sorted(path.name for path in home.iterdir()) == ["handbook", "rows.csv"]


def test_a_new_name_makes_an_example_project(home: Path) -> None:
    assert starter.init(Path("bot")) == [Path("bot/run.yaml"), Path("bot/rows.jsonl")]
    assert load("bot/run.yaml").name == "bot"
    assert starter.init(Path("bot2"))[0] == Path("bot2/run.yaml"), "near a project is no slip"
    Path("bare").mkdir()
    assert starter.init(Path("bare"))[0] == Path("bare/run.yaml")
    for again in ("bot", "bare"):
        with pytest.raises(SettingsError, match="is there already"):
            starter.init(Path(again))


def test_another_run_file_of_the_same_rows(home: Path) -> None:
    put("rows.jsonl", {"text": "a", "label": "b"})
    starter.init(Path("rows.jsonl"))
    for number in (2, 3):
        advice = rf"already; .* name another: tunesmith init rows\.jsonl rows-{number}\.yaml$"
        with pytest.raises(SettingsError, match=advice):
            starter.init(Path("rows.jsonl"))
        starter.init(Path("rows.jsonl"), Path(f"rows-{number}.yaml"))
    starter.init(Path("."), Path("runs/deep/mine.yaml"))
    assert load("runs/deep/mine.yaml").data.source == str(home / "rows.jsonl")
    assert load("runs/deep/mine.yaml").name == "mine"


@pytest.mark.parametrize(
    ("where", "to", "why"),
    [
        ("rows.jsonl", "there.yaml", "is there already"),
        ("rows.jsonl", "mine", "is no name of a run file"),
        ("rows.json", "mine.yaml", "did you mean rows.jsonl"),
        ("new", "mine.yaml", "there are no such rows"),
        ("there.yaml", "mine.yaml", "is no file of rows"),
    ],
)
def test_a_run_file_elsewhere_is_of_rows_that_are_there(
    home: Path, where: str, to: str, why: str
) -> None:
    put("rows.jsonl", {"text": "a", "label": "b"})
    Path("there.yaml").touch()
    with pytest.raises(SettingsError, match=why):
        starter.init(Path(where), Path(to))
    assert sorted(path.name for path in home.iterdir()) == ["rows.jsonl", "there.yaml"]


def test_a_file_of_another_kind_is_no_rows(home: Path) -> None:
    Path("letter.doc").write_text("x")
    with pytest.raises(SettingsError, match="is no file of rows"):
        starter.init(Path("letter.doc"))


def test_columns_that_say_what_they_hold_are_taken_at_their_word(home: Path) -> None:
    (home / "faq.csv").write_text("Question,answer,note\nWhere?,Here.,x\n")
    run, *_ = starter.init(home / "faq.csv")
    text = run.read_text()
    assert "\n  format: {kind: columns, user: Question, assistant: answer}\n" in text
    load(run)
    (home / "two.csv").write_text("question,answer,reply\nWhere?,Here.,There.\n")
    assert "# format:" in starter.init(home / "two.csv")[0].read_text()
