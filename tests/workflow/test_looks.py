"""A look costs nothing: not a trained model, not a folder, and rows of no kind are refused."""

import json
from pathlib import Path

import pytest

from tests.command import QUICK, Command, begun, finished, project, rows
from tests.tiny import tiny_model
from tunesmith.core.folders import RunFolder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model: no run is needed beside it."""
    home = tmp_path_factory.mktemp("home")
    tiny_model("llama", home / "tiny")
    return home


def lines(path: Path, *records: dict[str, object]) -> str:
    """A file of records; its name."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path.name


def labelled(path: Path, *names: str) -> str:
    """A file of 24 texts with these labels in turn."""
    made = [{"text": f"order {i}", "label": names[i % len(names)]} for i in range(24)]
    return lines(path, *made)


def everything(run: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = [path for path in sorted(run.rglob("*")) if path.is_file()]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def trained(home: Path, empty: Path, say: Command) -> Path:
    """The folder of a run that was trained, and nothing else, on 24 rows."""
    project(home, empty)
    assert say("train", "bot.yaml", *QUICK).code == 0
    return empty / "runs" / "bot"


# Rows that changed under a trained run


def test_a_look_at_changed_rows_leaves_the_trained_run_in_service(
    home: Path, empty: Path, say: Command
) -> None:
    run = trained(home, empty, say)
    before = everything(run)
    rows(empty / "rows.jsonl", 30)
    said = say("data", "bot.yaml", *QUICK, "--show", "1")
    assert said.code == 0 and everything(run) == before
    assert "rows: train 22, valid 4, test 4" in said.out and "[[" in said.out
    (line,) = [line for line in said.out.splitlines() if "stays as it is" in line]
    assert "its training (finished)" in line and "rows.jsonl (24 rows when it was read" in line
    assert f"`tunesmith train bot.yaml {' '.join(QUICK)}`" in line
    assert say("data", "bot.yaml", *QUICK, "--json").value["notes"] == [line]
    said = say("data", "bot.yaml", *QUICK, "--fix")
    assert said.code == 2 and "--fix" in said.err and everything(run) == before
    assert say("train", "bot.yaml", *QUICK).code == 0, "who asks for it gets it"
    assert len([*(run / "earlier").glob("*/train/MANIFEST.json")]) == 1


def test_a_look_with_other_settings_leaves_the_trained_run_too(
    home: Path, empty: Path, say: Command
) -> None:
    run = trained(home, empty, say)
    before = everything(run)
    said = say("data", "bot.yaml", *QUICK, "data.split=none")
    assert said.code == 0 and everything(run) == before
    assert "data.split" in said.out and "rows: train 24, valid 0, test 0" in said.out
    assert say("data", "bot.yaml", *QUICK, "data.split=none", "--restart").code == 0
    assert "train" not in finished(run), "who says so displaces it"


def test_a_look_leaves_a_training_that_was_stopped(stopped: Path, say: Command) -> None:
    run, content = stopped / "runs" / "bot", (stopped / "rows.jsonl").read_text()
    before = everything(run)
    rows(stopped / "rows.jsonl", 30)
    said = say("data", "bot.yaml", *QUICK)
    assert said.code == 0 and everything(run) == before
    assert "(stopped at step 1)" in said.out and f"{' '.join(QUICK)} --restart`" in said.out
    with RunFolder(run).lock():
        assert "(under way)" in say("data", "bot.yaml", *QUICK).out, "a look waits for nobody"
    (stopped / "rows.jsonl").write_text(content)
    said = say("train", "bot.yaml", *QUICK)
    assert said.code == 0 and "going on from step 1" in said.err


def test_a_training_that_was_stopped_is_not_called_trained(stopped: Path, say: Command) -> None:
    said = say("data", "bot.yaml", *QUICK)
    assert said.code == 0 and "trained:" not in said.out
    assert f"training: stopped at step 1: {Path('runs/bot/train')}" in said.out.splitlines()
    assert "trained" not in say("data", "bot.yaml", *QUICK, "--json").value
    assert say("train", "bot.yaml", *QUICK).code == 0
    assert "trained: " in say("data", "bot.yaml", *QUICK).out


# Rows that another goal would use


def test_a_look_at_labelled_rows_shows_them(home: Path, empty: Path, say: Command) -> None:
    name = labelled(empty / "odd.jsonl", "even", "odd")
    said = say("data", name, f"model={home / 'tiny'}", "data.split=none", "--show", "2")
    assert said.code == 0, said.err
    (line,) = [line for line in said.err.splitlines() if "train.objective" in line]
    assert "rows of kind labelled: train.objective=classify trains on such" in line
    assert "label 'even'" in said.out and "order 1" in said.out and "[[" not in said.out
    assert "trained" not in said.out
    said = say("train", name, f"model={home / 'tiny'}", *QUICK)
    assert said.code == 3 and "train.objective: sft trains on rows of kind chat" in said.err
    said = say("data", name, f"model={home / 'tiny'}", "train.objective=classify", "--show", "1")
    assert said.code == 0 and "train.objective" not in said.err and "label 'even'" in said.out


def test_a_look_needs_no_second_label(home: Path, empty: Path, say: Command) -> None:
    name = labelled(empty / "same.jsonl", "same")
    said = say("data", name, f"model={home / 'tiny'}", "data.split=none", "--show", "1")
    assert said.code == 0 and "label 'same'" in said.out


@pytest.mark.parametrize(
    ("record", "told", "shown"),
    [
        ({"text": "a red document"}, "train.objective=lm trains on such", "a red document"),
        (
            {"prompt": "say it", "chosen": "it", "rejected": "that"},
            "no objective of this version trains on such",
            "say it\nit\nthat",
        ),
        (
            {"prompt": "say it", "completion": "it", "label": True},
            "no objective of this version trains on such",
            "say it\nit",
        ),
    ],
    ids=["document", "preference", "judged"],
)
def test_a_look_shows_rows_of_every_kind(
    home: Path, empty: Path, say: Command, record: dict[str, object], told: str, shown: str
) -> None:
    name = lines(empty / "some.jsonl", record)
    words = ["data", name, f"model={home / 'tiny'}", "data.split=none", "--show", "1"]
    for more in ([], ["--dry-run"]):
        said = say(*words, *more)
        assert said.code == 0 and told in said.err and shown in said.out, said


# A model that is none

UNASKED = "is not in the cache, and the hub was not asked: the environment says to stay offline"
UNREACHED = "cannot be fetched from the hub"


@pytest.mark.parametrize(
    ("model", "code", "told"),
    [
        ("smolm2-135m-instruct", 2, ["Did you mean 'smollm2-135m-instruct'?"]),
        # Where the network is cut from outside, the client asks and fails.
        ("own/er", 5, [f"model.source: own/er: {why}" for why in (UNASKED, UNREACHED)]),
        ("runs/half", 2, ["nothing finished here"]),
    ],
)
@pytest.mark.parametrize(
    "words", [["train"], ["run"], ["train", "--dry-run"], ["data", "--show=1"]]
)
def test_a_model_that_is_none_is_refused_before_rows_are_read(
    empty: Path, say: Command, model: str, code: int, told: list[str], words: list[str]
) -> None:
    (empty / "rows.jsonl").write_text("{broken")
    (empty / "runs" / "half").mkdir(parents=True)
    (empty / "runs" / "half" / "run.yaml").write_text("data: {source: rows.jsonl}\n")
    said = say(words[0], "rows.jsonl", f"model={model}", *words[1:])
    assert said.code == code and any(each in said.err for each in told), said.err
    assert [path.name for path in (empty / "runs").iterdir()] == ["half"]


def test_a_model_that_is_none_is_told_with_its_place_in_the_file(empty: Path, say: Command) -> None:
    (empty / "bot.yaml").write_text("data: {source: rows.jsonl}\nmodel: smolm2-135m-instruct\n")
    for words in (["train"], ["run", "--dry-run"]):
        said = say(words[0], "bot.yaml", *words[1:])
        assert said.code == 2 and said.err.startswith("bot.yaml:2:8: model.source: 'smolm2"), said
    said = say("train", "bot.yaml", "model.source=smolm1-135m-instruct")
    assert "'model.source=smolm1-135m-instruct': model.source: 'smolm1" in said.err, said


def test_rows_are_prepared_without_a_model(empty: Path, say: Command) -> None:
    rows(empty / "rows.jsonl")
    assert say("data", "rows.jsonl", "model=own/er").code == 0


# What a dry run foretells


def test_a_dry_run_names_what_would_make_way(home: Path, empty: Path, say: Command) -> None:
    run = begun(home, empty, say)
    same = say("train", "bot.yaml", *QUICK, "--dry-run")
    assert same.code == 0 and "earlier" not in same.out, same
    assert "runs/bot/train: its training is finished and stays" in same.out, same
    for more, first in (
        (["train.lr=5e-4"], "train: finished in runs/bot, and would be done again, train.lr"),
        (["--restart"], "train: finished in runs/bot, and would be done again, as --restart says"),
        (["data.split=none"], "data: finished in runs/bot, and would be done again, data.split"),
    ):
        said = say("train", "bot.yaml", *QUICK, *more, "--dry-run")
        (line,) = [line for line in said.out.splitlines() if "earlier" in line]
        assert line.startswith(first), line
        assert all(name in line for name in ("evaluate", "deploy", "cards")), line
        assert line in say("train", "bot.yaml", *QUICK, *more, "--dry-run", "--json").value["notes"]
    assert len(finished(run)) == 4 and not (run / "earlier").exists()
    assert say("train", "bot.yaml", *QUICK, "data.split=none").code == 0
    (old,) = (run / "earlier").iterdir()
    gone = {path.name for path in old.iterdir()}
    assert gone == {"data", "train", "evaluate", "deploy", "cards"}
    assert all(name in line for name in gone), "foretold as it came"


def test_a_dry_run_of_data_names_what_would_make_way(empty: Path, say: Command) -> None:
    rows(empty / "rows.jsonl")
    assert say("data", "rows.jsonl").code == 0
    assert "earlier" not in say("data", "rows.jsonl", "--dry-run").out
    said = say("data", "rows.jsonl", "data.split=none", "--dry-run")
    assert "data: finished in runs/rows, and would be done again, data.split" in said.out
    assert not (empty / "runs" / "rows" / "earlier").exists()


def test_a_dry_run_says_which_setting_is_not_used(home: Path, empty: Path, say: Command) -> None:
    project(home, empty)
    said = say("train", "bot.yaml", *QUICK, "train.epochs=7", "--dry-run")
    assert "train.steps=3 says how long; train.epochs=7 is not used" in said.out.splitlines()
    assert "not used" not in say("train", "bot.yaml", "train.epochs=7", "--dry-run").out
    assert "not used" not in say("train", "bot.yaml", *QUICK, "--dry-run").out


def test_rows_that_can_prove_nothing_are_told_before_the_work(
    home: Path, empty: Path, say: Command
) -> None:
    project(home, empty)
    dry = ["evaluate", "bot.yaml", *QUICK, "--dry-run"]
    line = "evaluate: 5 test rows, and fewer than 6 prove nothing. Add rows"
    assert line in say(*dry, "data.split.test=5").out
    assert "prove nothing" not in say(*dry, "data.split.test=6").out
    assert "prove nothing. Raise evaluate.limit" in say(*dry, "evaluate.limit=3").out
    assert "prove nothing" not in say("train", "bot.yaml", "--dry-run", "data.split.test=5").out
    assert line in say("evaluate", "bot.yaml", *QUICK, "data.split.test=5").err


def test_a_dry_run_refuses_where_nothing_is_left_to_measure_by(
    home: Path, empty: Path, say: Command
) -> None:
    project(home, empty)
    both = [say("evaluate", "bot.yaml", "data.split=none", *more) for more in ([], ["--dry-run"])]
    assert [said.code for said in both] == [3, 3] and both[0].err.splitlines()[-1] in both[1].err
