"""The command line, whole: a run from rows to exports, its doors, and how each failure ends."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests.command import QUICK, Command, Said, begun, finished, fresh, rows
from tests.tiny import tiny_model
from tunesmith import door
from tunesmith.core.errors import SettingsError

# The whole way


def test_a_run_leaves_what_is_promised(home: Path) -> None:
    run = home / "runs" / "bot"
    for name in (
        "run.yaml", "manifest.json", "events.jsonl", "data/findings.json", "data/account.json",
        "train/adapter_model.safetensors", "train/train.json", "evaluate/report.json",
        "evaluate/report.html", "deploy/adapter/adapter_config.json",
        "deploy/merged/model.safetensors", "cards/model_card.md",
    ):  # fmt: skip
        assert (run / name).is_file(), name
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["schema"] == 1 and manifest["seed"] == 0
    assert {"data", "base", "tokenizer", "template", "code", "environment"} <= set(manifest)
    report = json.loads((run / "evaluate" / "report.json").read_text())
    assert set(report["arms"]) == {"base", "tuned"}
    assert {"value", "low", "high"} <= set(report["arms"]["tuned"]["exact"])


def test_everything_is_for_its_owner_alone(home: Path) -> None:
    open_ones = [
        path
        for path in (home / "runs").rglob("*")
        if stat.S_IMODE(path.stat().st_mode) & 0o077 and path.is_file()
    ]
    assert open_ones == []


def test_a_second_call_has_nothing_to_do(there: Path, say: Command) -> None:
    def marks() -> dict[Path, int]:
        found = (there / "runs" / "bot").rglob("MANIFEST.json")
        return {path: path.stat().st_mtime_ns for path in found}

    before = marks()
    said = say("run", "bot.yaml", *QUICK, "--json")
    assert said.code == 0
    assert said.value["stages"] == ["data", "train", "evaluate", "deploy"]
    assert marks() == before


def test_the_kept_run_file_says_the_same_run(there: Path, say: Command) -> None:
    assert say("run", "runs/bot", "--json").code == 0
    assert not (there / "runs" / "bot" / "earlier").exists()


@pytest.mark.parametrize("run", ["bot", "runs/bot", "runs/bot/run.yaml", "bot.yaml"])
def test_every_command_that_takes_a_run_takes_it_by_any_of_its_names(
    there: Path, say: Command, run: str
) -> None:
    settings = QUICK if run == "bot.yaml" else []
    before = finished(there / "runs" / "bot")
    for command in ("data", "train", "evaluate", "deploy", "run"):
        said = say(command, run, *settings, "--json")
        assert said.code == 0 and said.value["run"] == "bot", said.out
    assert finished(there / "runs" / "bot") == before
    assert "files of deploy" in {c["what"] for c in say("doctor", run, "--json").value}
    assert say("predict", run, "rows.jsonl", "--dry-run", "--json").value == {"rows": 24}
    assert tunesmith.load(run).folder.path.resolve() == (there / "runs" / "bot").resolve()


def test_a_project_s_folder_means_the_run_that_was_made_of_it(empty: Path, say: Command) -> None:
    assert say("init", "bot").code == 0 and say("data", "bot").code == 0
    said = say("doctor", "bot")
    assert said.code == 0 and "files of data" in said.out


def test_a_run_that_is_not_there_is_told_with_what_is(there: Path, say: Command) -> None:
    said = say("evaluate", "bott")
    assert said.code == 2 and "no run of this name; did you mean bot" in said.err
    said = say("doctor", "bott")
    assert said.code == 2 and "bott: no run of this name; known here: bot" in said.err
    said = say("predict", "rows.jsonl", "rows.jsonl")
    assert said.code == 2 and "rows.jsonl: its run would be runs/rows, which is not" in said.err


def test_a_changed_input_does_a_stage_again(home: Path, empty: Path, say: Command) -> None:
    text = "model: tiny\ndata: {source: rows.jsonl, split: {valid: 4, test: 4}}\n"
    (empty / "bot.yaml").write_text(text)
    (empty / "tiny").symlink_to(home / "tiny")
    rows(empty / "rows.jsonl")
    assert say("train", "bot.yaml", *QUICK).code == 0
    first = (empty / "runs" / "bot" / "train" / "adapter_model.safetensors").read_bytes()
    assert say("train", "bot.yaml", *QUICK, "seed=7").code == 0
    run = empty / "runs" / "bot"
    assert (run / "train" / "adapter_model.safetensors").read_bytes() != first
    (old,) = (run / "earlier").glob("*/train/adapter_model.safetensors")
    assert old.read_bytes() == first
    assert "seed: 7  # command line 'seed=7'" in (run / "run.yaml").read_text()


def test_the_same_seed_gives_the_same_adapter(home: Path, empty: Path, say: Command) -> None:
    rows(empty / "rows.jsonl")
    found = []
    for name in ("a", "b"):
        words = [f"name={name}", f"model={home / 'tiny'}", "data.split={valid: 4, test: 4}"]
        assert say("train", "rows.jsonl", *words, *QUICK).code == 0
        path = empty / "runs" / name / "train" / "adapter_model.safetensors"
        found.append(path.read_bytes())
    assert found[0] == found[1]


def test_a_dry_run_writes_nothing(home: Path, empty: Path, say: Command) -> None:
    rows(empty / "rows.jsonl")
    said = say("train", "rows.jsonl", f"model={home / 'tiny'}", *QUICK, "--dry-run", "--json")
    assert said.code == 0
    assert said.value["steps"] == 3 and said.value["rows"]["train"] > 0
    assert said.value["memory_bytes"] > 0 and said.value["tokens"] > 0
    assert [p.name for p in empty.iterdir()] == ["rows.jsonl"]
    assert say("data", "rows.jsonl", "--dry-run").code == 0
    assert [p.name for p in empty.iterdir()] == ["rows.jsonl"]


def test_an_interrupted_run_goes_on(home: Path, empty: Path) -> None:
    rows(empty / "rows.jsonl")
    words = ["train", "rows.jsonl", f"model={home / 'tiny'}", "train.steps=120", "train.probes=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tunesmith", *words],
        cwd=empty,
        stderr=subprocess.PIPE,
        text=True,
    )
    events = empty / "runs" / "rows" / "events.jsonl"
    for _ in range(600):
        if events.exists() and '"held_out"' in events.read_text():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error and "same command" in error
    refused = fresh(*words, "train.lr=1e-3", cwd=empty)
    assert refused.returncode == 2
    assert "train.lr" in refused.stderr and "--accept-change" in refused.stderr
    went_on = fresh(*words[:3], "train.steps=120", "train.probes=0", cwd=empty)
    assert went_on.returncode == 0, went_on.stderr
    assert "going on from step" in went_on.stderr


def test_a_run_without_rows_to_measure_by_is_exported_and_says_so(
    home: Path, empty: Path, say: Command
) -> None:
    run = begun(home, empty, say)
    said = say("run", "bot.yaml", *QUICK, "data.split=none")
    assert said.code == 0 and "no test rows, so nothing is measured" in said.err
    assert (run / "deploy" / "adapter" / "adapter_model.safetensors").exists()
    assert not (run / "evaluate" / "report.json").exists(), "that was another model's"
    card = (run / "cards" / "model_card.md").read_text()
    rows_told = [line for line in card.splitlines() if line.startswith("| rows ")]
    assert any("held out to judge | 0 |" in line for line in rows_told), rows_told
    assert not any("not measured" in line for line in rows_told), rows_told
    for text in (card, (run / "evaluate" / "report.html").read_text()):
        assert "Nothing was measured: whether tuning helped or harmed is not known" in text
        assert "hold some out by data.split" in text
    assert "Only rows like those were measured" not in card and "the same rows" not in card


def test_an_evaluation_without_rows_is_refused_before_training(
    home: Path, empty: Path, say: Command
) -> None:
    (empty / "tiny").symlink_to(home / "tiny")
    rows(empty / "rows.jsonl")
    said = say("evaluate", "rows.jsonl", "model=tiny", *QUICK, "data.split=none")
    assert said.code == 3 and "data.split.test" in said.err
    assert not (empty / "runs" / "rows" / "train").exists()


def test_full_exports_a_model_and_an_adapter_is_refused_before_training(
    home: Path, empty: Path, say: Command
) -> None:
    run = begun(home, empty, say, "train.method=full")
    assert (run / "deploy" / "merged" / "model.safetensors").exists()
    assert say("run", "runs/bot").code == 0, "the kept run file says the same"
    before = finished(run)
    said = say(
        "run", "bot.yaml", *QUICK, "train.method=full", "train.lr=9", "deploy.exports=[adapter]"
    )
    assert said.code == 2 and "exports: [merged]" in said.err
    assert finished(run) == before and "lr: 9" not in (run / "run.yaml").read_text()


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="the absent device is here")
def test_a_device_that_is_not_here_is_refused_before_training(
    home: Path, empty: Path, say: Command
) -> None:
    (empty / "tiny").symlink_to(home / "tiny")
    rows(empty / "rows.jsonl")
    said = say("run", "rows.jsonl", "model=tiny", *QUICK, "evaluate.device=mps")
    assert said.code == 5 and "evaluate.device: mps is not available" in said.err
    assert not (empty / "runs" / "rows" / "train").exists()


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="the absent device is here")
def test_predict_uses_the_device_of_the_evaluation(there: Path, say: Command) -> None:
    question = ["predict", "bot", "rows.jsonl"]
    assert say(*question, "evaluate.device=cpu").code == 0
    said = say(*question, "evaluate.device=mps")
    assert said.code == 5 and "evaluate.device: mps is not available" in said.err


def test_a_missing_library_is_said_before_training(
    home: Path, empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.evaluate.metrics.perplexity import Perplexity

    def note(self: Perplexity) -> str:
        raise ModuleNotFoundError("No module named 'far'", name="far")

    run = begun(home, empty, say)
    monkeypatch.setattr(Perplexity, "note", note)
    said = say("run", "bot.yaml", *QUICK, "train.lr=9")
    assert said.code == 5 and "far" in said.err and "tunesmith[eval]" in said.err
    assert "lr: 9" not in (run / "run.yaml").read_text() and len(finished(run)) == 4


def test_restart_redoes_what_was_asked_for(home: Path, empty: Path, say: Command) -> None:
    run = begun(home, empty, say)
    first = finished(run)
    assert say("train", "bot.yaml", *QUICK, "--restart").code == 0
    second = finished(run)
    assert second["data"] == first["data"] and second["train"] != first["train"]
    assert say("run", "bot.yaml", *QUICK, "--restart").code == 0
    third = finished(run)
    assert len(third) == 4 and all(time != second.get(name) for name, time in third.items())


def test_the_advice_for_a_damaged_stage_works(home: Path, empty: Path, say: Command) -> None:
    run = begun(home, empty, say)
    (run / "train" / "train.json").write_text("{}")
    said = say("run", "bot.yaml", *QUICK)
    assert said.code == 4 and "`tunesmith train bot.yaml " in said.err
    assert say("train", "bot.yaml", *QUICK, "--restart").code == 0
    (run / "train" / "train.json").write_text("{}")
    assert say("evaluate", "bot.yaml", *QUICK, "--restart").code == 0


def test_settings_are_kept_of_the_stages_that_were_done(
    home: Path, empty: Path, say: Command
) -> None:
    run = begun(home, empty, say)
    manifest = run / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"cores"', '"kernels"'))
    assert say("data", "bot.yaml", *QUICK, "train.lr=9").code == 0
    assert "lr: 9" not in (run / "run.yaml").read_text()
    assert say("run", "bot.yaml", *QUICK, "evaluate.bootstrap=123").code == 0
    assert "bootstrap: 123" in (run / "run.yaml").read_text()
    assert "bootstrap: 123" in (run / "evaluate" / "report.html").read_text()
    assert '"kernels"' in manifest.read_text(), "recorded again, and nothing was trained"


def test_a_project_that_moved_is_not_trained_again(
    home: Path, empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty / "old").mkdir()
    monkeypatch.chdir(empty / "old")
    run = begun(home, empty / "old", say)
    assert str(empty) not in (run / "data" / "train.jsonl").read_text()
    before = finished(run)
    (empty / "old").rename(empty / "new")
    monkeypatch.chdir(empty / "new")
    assert say("run", "bot.yaml", *QUICK).code == 0
    assert finished(empty / "new" / "runs" / "bot") == before


def test_a_change_that_no_stage_knows_is_refused(home: Path, empty: Path, say: Command) -> None:
    begun(home, empty, say)
    said = say("train", "bot.yaml", *QUICK, "--accept-change", "digest of the daat")
    assert said.code == 2 and "did you mean 'digest of the data'?" in said.err
    assert say("train", "bot.yaml", *QUICK, "--accept-change", "train.lr").code == 0


def test_a_run_in_use_is_refused(there: Path) -> None:
    from tunesmith.core.folders import RunFolder

    with RunFolder(there / "runs" / "bot").lock():
        done = fresh("train", "bot.yaml", *QUICK, cwd=there)
    assert done.returncode == 5
    assert str(os.getpid()) in done.stderr and len(done.stderr.strip().splitlines()) == 1


# Using a model


def test_predict_adds_to_each_row_and_keeps_their_order(
    there: Path, say: Command, tmp_path: Path
) -> None:
    asked = tmp_path / "asked.jsonl"
    found = [{"prompt": "say 3 twice " * (5 - i), "id": i, "note": "\u00e4"} for i in range(5)]
    asked.write_text("".join(json.dumps(row) + "\n" for row in found))
    said = say("predict", "bot", str(asked), *QUICK[3:], "evaluate.batch=2")
    assert said.code == 0, said.err
    records = [json.loads(line) for line in said.out.splitlines()]
    assert [list(record) for record in records] == [["prompt", "id", "note", "predicted"]] * 5
    assert [{k: v for k, v in r.items() if k != "predicted"} for r in records] == found
    assert {"answer", "stopped", "tokens", "by"} == set(records[0]["predicted"])
    bot = tunesmith.load("bot")
    for record in records:
        assert record["predicted"]["answer"].startswith(bot.answer(record["prompt"])[:5])


def test_predict_goes_on_where_it_broke_off(there: Path, say: Command, tmp_path: Path) -> None:
    asked, out = rows(tmp_path / "asked.jsonl", 5), tmp_path / "answers.jsonl"
    words = ["predict", "bot", str(asked), "--out", str(out), *QUICK[3:]]
    assert say(*words, "--json").value["written"] == 5
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    for torn in (9, 60, len(lines[3]) - 1):
        out.write_bytes(b"".join(lines[:3]) + lines[3][:torn])
        assert say(*words, "--dry-run", "--json").value["rows"] == 2
        assert say(*words, "--json").value["written"] == 2
        assert out.read_bytes() == whole
    assert say(*words, "--json").value["written"] == 0
    rows(asked, 7)
    assert say(*words, "--json").value["written"] == 2, "rows that were added since"
    assert out.read_bytes().startswith(whole)


def test_predict_says_that_nothing_is_left(there: Path, say: Command, tmp_path: Path) -> None:
    asked, out = rows(tmp_path / "asked.jsonl", 2), tmp_path / "answers.jsonl"
    words = ["predict", "bot", str(asked), "--out", str(out)]
    assert say(*words).out == f"{out}: 2 rows added\n"
    for again in (words, [*words, "--dry-run"]):
        assert say(*again).out == f"nothing to do: all 2 rows are answered in {out}\n"


def test_predict_does_not_mix_the_answers_to_two_files(
    there: Path, say: Command, tmp_path: Path
) -> None:
    asked, out = rows(tmp_path / "asked.jsonl", 3), tmp_path / "answers.jsonl"
    words = ["predict", "bot", str(asked), "--out", str(out), *QUICK[3:]]
    assert say(*words).code == 0
    before = out.read_bytes()
    rows(asked, 2)
    said = say(*words)
    assert said.code == 3 and "more lines" in said.err
    asked.write_text(json.dumps({"prompt": "another"}) + "\n")
    said = say(*words)
    assert said.code == 3 and f"{out}:1: is no answer to {asked}:1" in said.err
    assert out.read_bytes() == before


@pytest.mark.parametrize("ending", ["csv", "tsv", "json"])
def test_predict_reads_what_training_reads(
    there: Path, say: Command, tmp_path: Path, ending: str
) -> None:
    asked, mark = tmp_path / f"asked.{ending}", {"csv": ",", "tsv": "\t"}.get(ending)
    if mark:
        asked.write_text(f"prompt{mark}id\nsay 3 twice{mark}007\n")
    else:
        asked.write_text('[{"prompt": "say 3 twice", "id": "007"}]')
    (line,) = say("predict", "bot", str(asked), *QUICK[3:]).out.splitlines()
    assert json.loads(line)["id"] == "007" and json.loads(line)["predicted"]["answer"] is not None


def test_rows_that_fail_are_named_and_keep_their_place(
    there: Path, say: Command, tmp_path: Path
) -> None:
    asked, out = tmp_path / "asked.jsonl", tmp_path / "answers.jsonl"
    bad = [{"prompt": "say it twice " * 3000}, {"promt": "misspelt"}, {"prompt": 7}]
    lines = [{"prompt": "say 3 twice"}, *bad, {"prompt": "say 4 twice"}]
    asked.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["predict", "bot", str(asked), "--out", str(out), *QUICK[3:]]
    said = say(*words)
    named = [line for line in said.err.splitlines() if line.startswith(str(asked))]
    assert said.code == 3 and [line.split(":")[1] for line in named] == ["2", "3", "4"]
    found = [json.loads(line)["predicted"] for line in out.read_text().splitlines()]
    assert ["failed" in each for each in found] == [False, True, True, True, False]
    again = say(*words)
    assert again.code == 3 and again.err.splitlines()[-3:] == said.err.splitlines()[-3:]


def test_a_row_that_holds_an_answer_of_ours_is_refused_before_any_work(
    there: Path, say: Command, tmp_path: Path
) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "say 3 twice"}\n{"prompt": "x", "predicted": 1}\n')
    said = say("predict", "bot", str(asked))
    assert said.code == 3 and f"{asked}:2: " in said.err and not said.out


def test_predict_holds_few_rows_at_a_time(there: Path) -> None:
    from tunesmith import answers
    from tunesmith.core.rows import Origin
    from tunesmith.core.tables import Record
    from tunesmith.data.asked import asker
    from tunesmith.predict import WINDOW, answering, predicted

    settings = ["evaluate.sampling.max_tokens=2", "evaluate.batch=2"]
    model, how = answers.load("bot", settings), answering("bot", settings, "tuned")
    taken, given, most = 0, 0, 0

    def records() -> Iterator[Record]:
        nonlocal taken
        for number in range(200):
            taken += 1
            prompt = "" if 50 < number < 150 else f"say {number}"
            yield Record(Origin("rows.jsonl", number + 1), {"prompt": prompt})

    def emit(record: Record, found: Any) -> None:
        nonlocal given, most
        given, most = given + 1, max(most, taken - given)

    ask = asker(None, Record(Origin("rows.jsonl", 1), {"prompt": "x"}), how.kinds)
    predicted(model, records(), ask, emit, how)
    assert given == 200 and most <= 3 * WINDOW * 2


def test_predict_does_not_touch_a_file_that_is_not_its_own(
    there: Path, say: Command, tmp_path: Path
) -> None:
    asked, out = rows(tmp_path / "asked.jsonl", 2), tmp_path / "diary.txt"
    out.write_text("dear diary\n")
    assert say("predict", "bot", str(asked), "--out", str(out)).code == 3
    assert out.read_text() == "dear diary\n"


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ("asked.jsonl", "is the file of rows itself"),
        ("../{here}/asked.jsonl", "is the file of rows itself"),
        ("folder", "is a folder"),
        ("none/answers.jsonl", "there is no folder"),
    ],
)
def test_a_place_that_takes_no_answers_is_refused_before_any_work(
    there: Path, say: Command, tmp_path: Path, out: str, why: str
) -> None:
    asked = rows(tmp_path / "asked.jsonl", 2)
    before = asked.read_bytes()
    (tmp_path / "folder").mkdir()
    words = ["predict", "bot", str(asked), "--out", f"{tmp_path}/{out.format(here=tmp_path.name)}"]
    for dry in ([], ["--dry-run"]):
        said = say(*words, *dry)
        assert said.code == 2 and one_line(said) and why in said.err and "bytes" not in said.err
    assert asked.read_bytes() == before and not (tmp_path / "none").exists()


def test_answers_do_not_go_among_the_rows(there: Path, say: Command, tmp_path: Path) -> None:
    rows(tmp_path / "asked.jsonl", 2)
    said = say("predict", "bot", str(tmp_path), "--out", str(tmp_path / "answers.jsonl"))
    assert said.code == 2 and "lies in the folder of rows" in said.err


@pytest.mark.parametrize("other", [["--base"], ["evaluate.sampling.temperature=0.5"], ["seed=7"]])
def test_predict_does_not_mix_two_models_in_a_file(
    there: Path, say: Command, tmp_path: Path, other: list[str]
) -> None:
    asked, out = rows(tmp_path / "asked.jsonl", 2), tmp_path / "answers.jsonl"
    words = ["predict", "bot", str(asked), "--out", str(out), *QUICK[3:]]
    assert say(*words).code == 0
    before = out.read_bytes()
    said = say(*words, *other)
    assert said.code == 2 and str(out) in said.err and "another --out" in said.err
    assert out.read_bytes() == before


def test_a_dry_run_of_predict_leaves_the_file_as_it_is(
    there: Path, say: Command, tmp_path: Path
) -> None:
    asked, out = rows(tmp_path / "asked.jsonl", 2), tmp_path / "answers.jsonl"
    out.write_text('{"prompt": "say 0 tw')
    assert say("predict", "bot", str(asked), "--out", str(out), "--dry-run").code == 0
    assert out.read_text() == '{"prompt": "say 0 tw'
    out.write_text("a diary without an end of line")
    assert say("predict", "bot", str(asked), "--out", str(out)).code == 3
    assert out.read_text() == "a diary without an end of line"


def test_predict_honours_the_format_of_the_run_and_takes_empty_answers(tmp_path: Path) -> None:
    from tunesmith.core.rows import Chat
    from tunesmith.core.tables import read
    from tunesmith.data.asked import asker
    from tunesmith.data.formats.completion import Completion

    table = tmp_path / "asked.csv"
    table.write_text("instruction,prompt,completion\nnot this,say 3 twice,\n")
    (record,) = read(table)
    asked = asker(Completion(), record, (Chat,))(record)
    assert isinstance(asked, Chat)
    assert [m.content for m in asked.messages] == ["say 3 twice"]
    assert str(asked.origin) == f"{table}:{record.origin.line}"
    chat = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}]
    chat.write_text(json.dumps({"messages": turns}) + "\n")
    (record,) = read(chat)
    assert asker(None, record, (Chat,))(record).texts() == ("hi",)


def test_python_sets_its_surroundings_like_the_door(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.umask(0o022)
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    tunesmith.load("bot")
    assert os.environ["DO_NOT_TRACK"] == "true"
    assert os.umask(0o077) == 0o077


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_no_memory_is_no_fault_of_ours(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*_: Any, **__: Any) -> None:
        raise error

    assert door.enter(command, []) == 5
    assert capsys.readouterr().err.startswith("out of memory; ")


def test_an_empty_stop_text_is_refused(there: Path, say: Command) -> None:
    said = say("predict", "bot", "rows.jsonl", 'evaluate.sampling.stop=[""]')
    assert said.code == 2 and "evaluate.sampling.stop" in said.err and "empty" in said.err


def test_a_dry_run_measures_only_the_rows_that_are_trained(
    there: Path, say: Command, tmp_path: Path
) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"prompt": "word " * 300, "completion": "x"}) + "\n")
    words = ["train", "bot.yaml", f"data.test={test}", "data.split={valid: 4}", "train.length=64"]
    said = say(*words, "--dry-run", "--json")
    assert said.code == 0, said.out
    narrow = say(*words, "model.dtype=bfloat16", "--dry-run", "--json")
    assert narrow.value["memory_bytes"] < said.value["memory_bytes"]


def test_a_dry_run_counts_the_head(home: Path, empty: Path, say: Command) -> None:
    lines = [{"text": f"order {i}", "label": "odd" if i % 2 else "even"} for i in range(24)]
    (empty / "odd.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["train", "odd.jsonl", f"model={home / 'tiny'}", "train.objective=classify"]
    words += ["train.method=frozen", "train.epochs=1"]
    foreseen = say(*words, "--dry-run", "--json").value
    assert say(*words).code == 0
    found = json.loads((empty / "runs" / "odd" / "train" / "train.json").read_text())
    assert foreseen["moving_parameters"] == found["trainable_parameters"] > 0
    assert foreseen["parameters"] == found["parameters"]


def test_the_prompt_of_predict_is_that_of_training(there: Path, tmp_path: Path) -> None:
    from tunesmith.core.rows import Chat
    from tunesmith.core.tables import read
    from tunesmith.data.asked import asker
    from tunesmith.data.source import detected

    both = tmp_path / "both.jsonl"
    both.write_text(
        '{"instruction": "translate", "input": "Hallo"}\n'
        '{"instruction": "translate", "input": "Hallo", "output": "Hello"}\n'
    )
    without, with_answer = read(both)
    trained = detected(with_answer.fields).row(with_answer.fields)
    assert isinstance(trained, Chat)
    ask = asker(None, without, (Chat,))
    assert {row.digest for row in map(ask, (without, with_answer))} == {trained.prompt().digest}


def test_chat(there: Path) -> None:
    words = ["chat", "bot", *QUICK[3:], "--json"]
    done = fresh(*words, cwd=there, input="say 3 twice\n\nand again\n/quit\nnever read\n")
    assert done.returncode == 0, done.stderr
    assert [set(json.loads(line)) for line in done.stdout.splitlines()] == [{"answer"}] * 2


def test_chat_remembers_what_was_said_until_told_to_forget(there: Path) -> None:
    words = ["chat", "bot", *QUICK[3:], "--json", "--both"]
    typed = "say 3 twice\nsay 3 twice\n/new\nsay 3 twice\n/system Be brief.\nsay 3 twice\n"
    done = fresh(*words, cwd=there, input=typed)
    assert done.returncode == 0, done.stderr
    first, second, third, fourth = (json.loads(line) for line in done.stdout.splitlines())
    assert set(first) == {"base", "tuned"} and first["base"] != first["tuned"]
    assert first == third != second and fourth != first
    alone = fresh(*words[:-1], "--base", "--system", "Be brief.", cwd=there, input="say 3 twice\n")
    assert json.loads(alone.stdout) == {"answer": fourth["base"]}


def test_a_conversation_that_grew_too_long_goes_on(there: Path) -> None:
    typed = "say it twice " * 3000 + "\nsay 3 twice\n"
    done = fresh("chat", "bot", *QUICK[3:], "--json", cwd=there, input=typed)
    assert done.returncode == 0 and "/new" in done.stderr and len(done.stdout.splitlines()) == 1


def test_ctrl_c_ends_a_conversation_quietly(there: Path) -> None:
    words = [sys.executable, "-m", "tunesmith", "chat", "bot", *QUICK[3:]]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, cwd=there, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("say 3 twice\n")
    process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert process.stderr is not None and "Traceback" not in process.stderr.read()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


def test_python(there: Path, empty: Path, home: Path) -> None:
    asked = [{"role": "user", "content": "say 3 twice"}]
    bot = tunesmith.load(home / "runs" / "bot")
    assert bot.answer("say 3 twice") == bot.answer(asked)
    settings = {"model": str(home / "tiny"), "data": {"source": str(rows(empty / "r.jsonl"))}}
    tuned = tunesmith.train(settings, train={"steps": 2, "probes": 0}, name="mine")
    assert isinstance(tuned.answer("say 3 twice"), str)
    assert (empty / "runs" / "mine" / "train" / "MANIFEST.json").exists()


# Looking around


def test_runs(there: Path, say: Command) -> None:
    (record,) = say("runs", "--json").value
    assert record["name"] == "bot" and record["bytes"] > record["spare"] > 0
    assert record["state"] == "finished" and record["from"] == {}
    assert set(record["metrics"]["exact"]) == {"base", "tuned"}
    assert "exact" in record["in_percent"] and "perplexity" not in record["in_percent"]
    assert "bot" in say("runs").out and "finished" in say("runs").out


def test_prune_says_what_can_go_and_removes_only_that(
    home: Path, empty: Path, say: Command
) -> None:
    run = begun(home, empty, say)
    assert say("train", "bot.yaml", *QUICK, "--restart").code == 0
    before = {p for p in run.rglob("*") if p.is_file()}
    said = say("runs", "--prune")
    assert "checkpoints: " in said.out and "earlier: " in said.out and "--yes" in said.out
    assert {p for p in run.rglob("*") if p.is_file()} == before
    found = say("runs", "--prune", "--yes", "--json").value
    assert [each["removed"] for each in found] == [True, True]
    assert not (run / "train" / "checkpoints").exists() and not (run / "earlier").exists()
    assert say("doctor", "bot").code == 0 and "nothing to remove" in say("runs", "--prune").out
    assert say("runs", "--yes").code == 2


def test_prune_leaves_what_may_still_be_needed(home: Path, empty: Path, say: Command) -> None:
    from tunesmith.core.folders import RunFolder

    run = begun(home, empty, say)
    checkpoints = run / "train" / "checkpoints"
    with RunFolder(run).lock():
        assert say("runs", "--json").value[0]["state"] == "running"
        busy = fresh("runs", "--prune", "--yes", "--json", cwd=empty)
    assert "in use by process" in json.loads(busy.stdout)[0]["kept"] and checkpoints.exists()
    (run / "train" / "train.json").write_text("{}")
    (found,) = say("runs", "--prune", "--yes", "--json").value
    assert "train.json" in found["kept"] and checkpoints.exists()
    (run / "train" / "MANIFEST.json").unlink()
    assert say("runs", "--prune", "--yes", "--json").value == [] and checkpoints.exists()
    assert say("runs", "--json").value[0]["state"] == "stopped in train"


def test_prune_follows_no_link(home: Path, empty: Path, say: Command) -> None:
    run = begun(home, empty, say)
    (empty / "mine").mkdir()
    (empty / "mine" / "photo").write_text("dear")
    (run / "train" / "checkpoints" / "link").symlink_to(empty / "mine")
    (run / "earlier").symlink_to(empty / "mine")
    kept = [each for each in say("runs", "--prune", "--yes", "--json").value if "kept" in each]
    assert [Path(each["path"]).name for each in kept] == ["earlier"]
    assert (empty / "mine" / "photo").read_text() == "dear"
    assert not (run / "train" / "checkpoints").exists()


def test_runs_of_an_empty_folder(empty: Path, say: Command) -> None:
    assert say("runs", "--json").value == []
    assert "no runs" in say("runs").out


def test_doctor_finds_a_changed_file(home: Path, empty: Path, say: Command) -> None:
    import shutil

    (empty / "tiny").symlink_to(home / "tiny")
    shutil.copytree(home / "runs", empty / "runs")
    shutil.copy(home / "rows.jsonl", empty)
    assert say("doctor", "bot", "--json").code == 0
    adapter = empty / "runs" / "bot" / "train" / "adapter_model.safetensors"
    content = bytearray(adapter.read_bytes())
    content[-1] ^= 1
    adapter.write_bytes(content)
    said = say("doctor", "bot", "--json")
    assert said.code == 4
    (broken,) = [check for check in said.value if not check["passed"]]
    assert "adapter_model.safetensors" in broken["said"] and "--restart" in broken["fix"]


def test_doctor_of_this_machine(empty: Path, say: Command) -> None:
    found = {check["what"]: check for check in say("doctor", "--json").value}
    assert found["two training steps"]["passed"], found["two training steps"]
    assert found["processor"]["said"].startswith("train.arithmetic")
    assert [p for p in empty.iterdir() if p.name != "runs"] == []


def test_doctor_names_the_command_for_a_missing_library(
    empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith import environment

    monkeypatch.setattr(environment, "installed", lambda name: None if name == "peft" else "1")
    said = say("doctor")
    assert said.code == 5
    assert "FAIL  peft: not installed" in said.out
    assert "run: pip install 'tunesmith[train]'" in said.out


def test_explain_and_schema(empty: Path, say: Command) -> None:
    assert "learning rate" in say("explain", "train.lr").out
    assert say("explain", "train.method.lora", "--json").value["path"] == "train.method.lora"
    schema = say("schema").value
    assert schema["properties"]["data"] and "data" in schema["required"]
    assert say("explain", "train.rl").code == 2
    assert say("explain", "lora").out == say("explain", "train.method.lora").out
    assert say("explain", "method").out == say("explain", "train.method").out


def test_init_writes_a_run_that_can_be_run(empty: Path, say: Command, home: Path) -> None:
    assert say("init", "bot", "--dry-run", "--json").value["written"] == []
    assert list(empty.iterdir()) == []
    assert say("init", "bot", "--json").value["written"] == ["bot/run.yaml", "bot/rows.jsonl"]
    text = (empty / "bot" / "run.yaml").read_text()
    assert "#" in text and len([ln for ln in text.splitlines() if ":" in ln.split("#")[0]]) <= 25
    assert say("data", "bot/run.yaml", "--json").value["run"] == "bot"
    assert say("init", "bot").code == 2
    rows(empty / "mine.jsonl")
    assert say("init", "mine.jsonl", "--json").value["written"] == ["mine.yaml"]
    assert say("data", "mine.yaml", "--dry-run").code == 0
    assert say("init", "nothing.csv").code == 2


# How it ends


def one_line(said: Said) -> bool:
    """One line on stderr, no traceback, nothing on stdout."""
    return len(said.err.strip().splitlines()) == 1 and not said.out and "Traceback" not in said.err


def test_settings_end_with_2(empty: Path, say: Command) -> None:
    said = say("train", "none.yaml")
    assert said.code == 2 and one_line(said)
    (empty / "a.yaml").write_text("data: {source: x}\nsede: 1\ntrain: {lr: fast}\n")
    said = say("train", "a.yaml")
    assert said.code == 2 and len(said.err.splitlines()) == 2
    assert say("trian").code == 2 and say("train", "--fast").code == 2 and say("train").code == 2
    assert not (empty / "runs").exists()


def test_data_ends_with_3(empty: Path, say: Command) -> None:
    (empty / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    said = say("train", "rows.jsonl")
    assert said.code == 3 and one_line(said) and "rows.jsonl:2" in said.err
    (empty / "missing.yaml").write_text("data: {source: missing.jsonl}\n")
    for words in (["missing.jsonl"], ["missing.yaml"], ["row.jsonl"], ["rows.jsonll"]):
        said = say("data", *words)
        assert said.code == 3 and one_line(said) and "init" not in said.err, said.err
    assert "did you mean 'rows.jsonl'?" in said.err


def test_a_dangerous_model_ends_with_4(empty: Path, say: Command) -> None:
    rows(empty / "rows.jsonl")
    tiny_model("llama", empty / "tiny")
    (empty / "tiny" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    said = say("train", "rows.jsonl", "model=tiny", *QUICK)
    assert said.code == 4 and "pytorch_model.bin" in said.err


def test_a_folder_without_rights_ends_with_5(empty: Path, say: Command) -> None:
    rows(empty / "rows.jsonl")
    (empty / "runs").write_text("a file where a folder must be")
    said = say("data", "rows.jsonl")
    assert said.code == 5 and one_line(said)


def test_our_own_fault_ends_with_7_and_a_file(
    there: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith import pipeline

    def broken(*_: object) -> None:
        raise ZeroDivisionError("with hf_abcdefghijklmnopqrstuvwxyz in it")

    monkeypatch.setattr(pipeline, "carry_out", broken)
    said = say("train", "bot.yaml", *QUICK)
    assert said.code == 7 and one_line(said)
    (crash,) = (there / "runs" / "bot").glob("crash-*.txt")
    trace = crash.read_text()
    assert "Traceback" in trace and "ZeroDivisionError" in trace
    assert "hf_abcdefghijklmnopqrstuvwxyz" not in trace + said.err
    assert stat.S_IMODE(crash.stat().st_mode) == 0o600
    crash.unlink()


def test_errors_as_json(empty: Path, say: Command) -> None:
    said = say("train", "none.yaml", "--json")
    assert said.code == 2 and not said.err
    assert said.value["error"]["code"] == 2 and said.value["error"]["problems"]
    assert say("trian", "--json").value["error"]["kind"] == "SettingsError"


def test_secrets_of_the_environment_are_not_shown(
    empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "canary-7f3a9b2c")
    said = say("train", "canary-7f3a9b2c.yaml")
    assert said.code == 2 and "canary" not in said.err


def test_a_reader_that_leaves_is_no_error(there: Path) -> None:
    command = f"{sys.executable} -m tunesmith schema | head -c 10"
    words = ["bash", "-c", f"set -o pipefail; {command}"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=there)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_terminal_that_knows_ascii_only(empty: Path) -> None:
    ascii_only = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = fresh("train", "caf\u00e9.yaml", cwd=empty, env=ascii_only)
    assert done.returncode == 2 and "caf\\xe9.yaml" in done.stderr


def test_version_and_help(say: Command) -> None:
    assert say("--version").out.strip() == tunesmith.__version__
    assert say("train", "--help").code == 0


def test_without_a_word_there_is_the_help_and_nothing_else(say: Command) -> None:
    said = say()
    assert said.code == 2 and said.out == say("--help").out and not said.err


# The demo


def test_the_demo_ends_with_a_table_answers_and_a_page(
    empty: Path, home: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith import demo

    quick = empty / "quick.yaml"
    settings = demo.RUN.read_text().replace("smollm2-135m-instruct", str(home / "tiny"))
    settings = settings.replace("support/", f"{demo.RUN.parent}/support/")
    settings = settings.replace("epochs: 1", "steps: 2")
    quick.write_text(settings.replace("max_tokens: 72", "max_tokens: 4"))
    monkeypatch.setattr(demo, "RUN", quick)
    said = say("demo")
    assert said.code == 0, said.err
    assert "field_accuracy" in said.out and "difference" in said.out
    assert said.out.count("wanted") == 3
    assert "runs/demo/evaluate/report.html" in said.out
    started = time.perf_counter()
    assert say("demo", "--json").value["report"]["rows"] == 120
    assert time.perf_counter() - started < 20


def test_a_copied_run_is_not_taken_for_the_one_it_names(
    say: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows(tmp_path / "rows.jsonl")
    assert say("data", "rows.jsonl").code == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs" / "rows").rglob("*")}
    shutil.copytree("runs/rows", "runs/copy")
    for given in ("runs/copy", "runs/copy/run.yaml", "copy"):
        said = say("data", given)
        assert said.code == 2 and "runs/copy: its run.yaml says name: rows" in said.err
    with pytest.raises(SettingsError, match=r"runs/copy: its run\.yaml says name: rows"):
        tunesmith.train("runs/copy")
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "runs" / "rows").rglob("*")}
    assert say("data", "runs/rows").code == 0
    assert say("data", "runs/copy", "name=copy").code == 0
    assert say("data", "rows", "name=other").code == 0
    assert (tmp_path / "runs" / "other" / "data" / "MANIFEST.json").is_file()


def test_a_dry_run_refuses_what_the_policy_and_the_device_would(
    say: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = rows(tmp_path / "rows.jsonl").read_text()
    talk = {"prompt": "My key is ghp_" + "a1B2" * 9, "completion": "Noted."}
    (tmp_path / "rows.jsonl").write_text(lines + json.dumps(talk) + "\n")
    model = f"model={tiny_model('llama', tmp_path / 'model')}"
    words = ("train", "rows.jsonl", model, "--dry-run", "data.audits=[secrets]")
    said = say(*words, "policy.secrets=refuse")
    assert said.code == 3 and "policy.secrets: refuse forbids to train" in said.err
    assert say(*words).code == 0
    if not torch.cuda.is_available():
        assert say(*words, "train.device=cuda").code == 5
    assert not (tmp_path / "runs").exists()
