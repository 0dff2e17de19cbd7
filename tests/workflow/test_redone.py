"""A stage done again takes along what was made from the old one; a refusal costs nothing."""

import json
from pathlib import Path

import pytest

from tests.command import QUICK, Command, begun, finished, project, rows
from tunesmith.core.disk import Disk
from tunesmith.model import layout
from tunesmith.model.bases import ModelSpec, resolve
from tunesmith.model.load import load_model


def test_what_was_made_from_the_old_weights_goes_with_them(
    home: Path, empty: Path, say: Command
) -> None:
    run = begun(home, empty, say)
    said = say("train", "bot.yaml", *QUICK, "train.lr=5e-4")
    assert said.code == 0, said.err
    (line,) = [line for line in said.err.splitlines() if "done again" in line]
    assert "train.lr null -> 0.0005" in line and "earlier/" in line
    assert all(name in line for name in ("evaluate", "deploy", "cards"))
    assert not any((run / name).exists() for name in ("evaluate", "deploy", "cards"))
    (old,) = (run / "earlier").iterdir()
    assert {path.name for path in old.iterdir()} == {"train", "evaluate", "deploy", "cards"}
    assert (old / "cards" / "model_card.md").exists() and "report" not in said.out
    (listed,) = say("runs", "--json").value
    assert (listed["state"], listed["metrics"]) == ("trained", {})
    assert "deploy" not in say("doctor", "bot").out
    assert say("run", "bot.yaml", *QUICK, "train.lr=5e-4").code == 0
    assert len(finished(run)) == 4


def test_the_same_rows_prepared_again_keep_what_was_made_of_them(
    home: Path, empty: Path, say: Command
) -> None:
    run = begun(home, empty, say)
    before = finished(run)
    said = say("data", "bot.yaml", *QUICK, "--restart")
    assert said.code == 0 and "the same as before" in said.err
    after = finished(run)
    assert after.pop("data") != before.pop("data") and after == before
    assert (run / "cards" / "model_card.md").exists()


def test_a_redone_stage_that_is_refused_leaves_the_finished_run(
    home: Path, empty: Path, say: Command
) -> None:
    run = begun(home, empty, say)
    before = finished(run)
    assert say("train", "bot.yaml", *QUICK, "train.length=8").code == 3
    (empty / "rows.jsonl").write_text("{broken")
    assert say("run", "bot.yaml", *QUICK).code == 3
    assert finished(run) == before and not (run / "earlier").exists()
    assert (run / "cards" / "model_card.md").exists()


def test_the_advice_of_a_refusal_can_be_followed(home: Path, empty: Path, say: Command) -> None:
    project(home, empty)
    with (empty / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "long", "completion": "word " * 150}) + "\n")
    words = ["train", "bot.yaml", *QUICK, "train.length=64", "data.split=none"]
    said = say(*words)
    assert said.code == 3 and "train.too_long=drop" in said.err
    assert not (empty / "runs" / "bot" / "train").exists()
    said = say(*words, "train.too_long=drop")
    assert said.code == 0, said.err


def test_an_attempt_that_saved_nothing_binds_nobody(
    home: Path, empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.core.errors import TrainError
    from tunesmith.train.progress import Progress

    def diverge(*_: object) -> None:
        raise TrainError("step 1: the gradient is not finite; lower train.lr")

    project(home, empty)
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "note", diverge)
        assert say("train", "bot.yaml", *QUICK).code == 6
    assert say("train", "bot.yaml", *QUICK, "train.lr=1e-5").code == 0


def test_advice_names_the_command_that_was_given(home: Path, empty: Path, say: Command) -> None:
    run = begun(home, empty, say)
    (run / "train" / "train.json").write_text("{}")
    said = say("run", "bot.yaml", *QUICK)
    assert said.code == 4 and f"`tunesmith train bot.yaml {' '.join(QUICK)} --restart`" in said.err


@pytest.mark.parametrize("command", ["data", "run"])
def test_a_refusal_leaves_no_folder(empty: Path, say: Command, command: str) -> None:
    (empty / "none.jsonl").write_text("")
    assert say(command, "none.jsonl").code == 3
    assert [path.name for path in empty.iterdir()] == ["none.jsonl"]


def test_a_refusal_removes_nothing_that_was_there(empty: Path, say: Command) -> None:
    (empty / "none.jsonl").write_text("")
    (empty / "runs" / "none").mkdir(parents=True)
    assert say("data", "none.jsonl").code == 3
    assert (empty / "runs" / "none").is_dir()


def test_a_dry_run_refuses_what_the_command_would(stopped: Path, say: Command) -> None:
    assert say("train", "bot.yaml", *QUICK, "--dry-run").code == 0
    changed = ["train", "bot.yaml", *QUICK, "train.lr=5e-4"]
    real, dry = say(*changed), say(*changed, "--dry-run")
    assert real.code == dry.code == 2
    assert "train.lr was" in real.err and real.err.splitlines()[-1] == dry.err.splitlines()[-1]
    assert say(*changed, "--dry-run", "--accept-change", "train.lr").code == 0
    assert say(*changed, "--dry-run", "--restart").code == 0


def test_rows_that_changed_under_a_stopped_training_are_refused_and_left_alone(
    stopped: Path, say: Command
) -> None:
    data = stopped / "runs" / "bot" / "data"
    before = (data / "train.jsonl").read_bytes(), (data / "MANIFEST.json").read_bytes()
    lines = (stopped / "rows.jsonl").read_text()
    rows(stopped / "rows.jsonl", 30)
    said = say("train", "bot.yaml", *QUICK)
    assert said.code == 2 and "rows.jsonl (24 rows when it was read" in said.err, said.err
    assert "Put them back" in said.err and not (stopped / "runs" / "bot" / "earlier").exists()
    assert ((data / "train.jsonl").read_bytes(), (data / "MANIFEST.json").read_bytes()) == before
    (stopped / "rows.jsonl").write_text(lines)
    said = say("train", "bot.yaml", *QUICK)
    assert said.code == 0 and "going on from step" in said.err


def test_changed_rows_may_be_gone_on_with(stopped: Path, say: Command) -> None:
    rows(stopped / "rows.jsonl", 30)
    said = say("train", "bot.yaml", *QUICK, "--accept-change", "digest of the data")
    assert said.code == 0 and "going on from step" in said.err


def test_settings_that_leave_nothing_to_gain_are_refused_before_any_work(
    home: Path, empty: Path, say: Command
) -> None:
    project(home, empty, "train: {method: frozen, arithmetic: bytes, objective: classify}\n")
    said = say("train", "bot.yaml")
    assert said.code == 2 and said.err.startswith("bot.yaml:3:37: train.arithmetic: bytes cannot")
    assert not (empty / "runs").exists()


def test_who_asks_for_what_made_way_is_told_where_it_is(
    home: Path, empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.core.errors import Interrupted
    from tunesmith.train.session import Session

    run = begun(home, empty, say)
    rows(empty / "rows.jsonl", 30)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_build", lambda _: (_ for _ in ()).throw(Interrupted("stopped")))
        assert say("evaluate", "bot.yaml", *QUICK).code != 0
    (earlier,) = (run / "earlier").iterdir()
    said = say("predict", "bot", "rows.jsonl")
    assert said.code == 2 and f"is kept in runs/bot/earlier/{earlier.name}" in said.err, said.err


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_dry_run_counts_parameters_as_training_does(
    home: Path, empty: Path, say: Command, method: str
) -> None:
    project(home, empty)
    words = ["train", "bot.yaml", *QUICK, f"train.method={method}"]
    told = say(*words, "--dry-run", "--json").value
    assert say(*words).code == 0
    facts = json.loads((empty / "runs" / "bot" / "train" / "train.json").read_text())
    assert told["parameters"] == facts["parameters"]
    assert told["moving_parameters"] == facts["trainable_parameters"]


def test_a_forecast_knows_of_blocks_that_are_computed_again(
    home: Path, empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith import costs
    from tunesmith.model import devices

    project(home, empty)
    monkeypatch.setattr(costs, "speed", lambda: 1e6)
    words = ["train", "bot.yaml", *QUICK, "--dry-run", "--json"]
    plain = say(*words, "train.gradient_checkpointing=off").value
    again = say(*words, "train.gradient_checkpointing=1").value
    assert (plain["blocks_again"], again["blocks_again"]) == (0, plain["blocks"])
    assert again["memory_bytes"] < plain["memory_bytes"]
    # At most every product of the way there once more: two of four, where the base stands still.
    assert 1.2 < again["train_seconds"] / plain["train_seconds"] <= 1.5
    assert say(*words).value["blocks_again"] == 0
    monkeypatch.setattr(devices, "free_bytes", lambda device: plain["memory_bytes"])
    assert say(*words).value["blocks_again"] > 0, "SPARE of it must do"


def test_a_forecast_counts_copies_in_bfloat16_and_names_what_would_be_faster(
    home: Path, empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.model import coarse

    project(home, empty)
    words = ["train", "bot.yaml", *QUICK, "--dry-run", "--json"]
    monkeypatch.setattr(coarse, "multiplies", lambda kind: True)
    plain = say(*words).value
    rounded = say(*words, "train.arithmetic=bfloat16").value
    advice = [note for note in plain["notes"] if note.startswith("train.arithmetic=bfloat16 would")]
    assert advice and not [n for n in rounded["notes"] if n.startswith("train.arithmetic")]
    model = load_model(resolve(ModelSpec(source=str(home / "tiny"))))
    layers = [*layout.linears(model).values(), layout.head(model)]
    more = 2 * sum(layer.weight.numel() for layer in layers)
    assert rounded["memory_bytes"] - plain["memory_bytes"] == more
    monkeypatch.setattr(coarse, "multiplies", lambda kind: False)
    assert not [n for n in say(*words).value["notes"] if n.startswith("train.arithmetic")]


def test_a_forecast_knows_that_tokens_of_long_rows_look_back_further(
    home: Path, empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith import costs

    project(home, empty)
    monkeypatch.setattr(costs, "speed", lambda: 1e3)
    told = {}
    for words in (8, 64):
        answers = [" ".join(f"word{n + place}" for place in range(words)) for n in range(16)]
        rows = [{"prompt": f"row {n}", "completion": text} for n, text in enumerate(answers)]
        (empty / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = say("train", "bot.yaml", *QUICK, "train.epochs=1", "--dry-run", "--json").value
        told[words] = found["train_seconds"] / found["tokens"]
    assert told[64] > 1.1 * told[8]


def test_a_forecast_knows_what_dropout_and_a_frozen_model_change(
    home: Path, empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith import costs

    project(home, empty)
    texts = ["always the same words before it " * 8 + str(n) for n in range(24)]
    monkeypatch.setattr(costs, "speed", lambda: 1e3)

    def seconds(records: list[dict[str, str]], *words: str) -> float:
        (empty / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
        said = say("train", "bot.yaml", "train.probes=0", *words, "--dry-run", "--json")
        assert said.code == 0, said.err
        return said.value["train_seconds"]  # type: ignore[no-any-return]

    asked = [{"prompt": text, "completion": "x"} for text in texts]
    apart = seconds(asked, "train.method.dropout=0.1")
    assert apart > 1.5 * seconds(asked), "no beginning is read once for all"
    chosen = [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(texts)]
    labels = ["train.objective=classify", "train.epochs=1"]
    still = seconds(chosen, *labels, "train.method=frozen")
    assert still < 0.6 * seconds(chosen, *labels), "a model that stays is read forward only"


def test_a_disk_too_small_for_a_checkpoint_is_refused_before_the_first_step(
    home: Path, empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(home, empty)
    monkeypatch.setattr(Disk, "free", lambda *_: 20_000)
    said = say("train", "bot.yaml", *QUICK)
    assert said.code == 5, said.err
    assert "bytes are needed, 20000 bytes are free" in said.err
    assert not (empty / "runs" / "bot" / "train").exists(), "no step was made"
