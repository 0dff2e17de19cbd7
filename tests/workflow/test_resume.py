"""Stopping a run and going on is invisible in what it leaves behind."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.documents import prepared_documents
from tests.trained import base_of, chat, prepared, reloaded, settings, trained
from tunesmith.core.disk import file_digest
from tunesmith.core.errors import DataError, Preempted, SettingsError, TrainError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.records import Batch
from tunesmith.core.rows import Chat, Message
from tunesmith.train import batches, checkpoint, held_out, session, stage
from tunesmith.train.methods.base import Method
from tunesmith.train.methods.lora import Lora
from tunesmith.train.objectives.lm import Lm
from tunesmith.train.objectives.sft import Sft
from tunesmith.train.progress import Progress
from tunesmith.train.streams import Group

Tiny = Callable[[str], Path]
STEPS = 9


class Thrice(Sft):
    """Takes three steps on every group: with the rows as they are, and twice with one left out,
    drawn at random when the group arrives. What is drawn is the stream's state."""

    def stream(self, policy: Any, groups: Iterator[Group]) -> "Repeats":
        return Repeats(groups)


class Repeats:
    """The stream of `Thrice`: a group's micro-batches are kept until its third step is taken."""

    def __init__(self, groups: Iterator[Group]) -> None:
        self.groups, self.left, self.noise = groups, 0, torch.zeros(0)
        self.kept: Group = []

    def __iter__(self) -> "Repeats":
        return self

    def __next__(self) -> Group:
        if not self.left:
            self.kept, self.left = next(self.groups), 3
            self.noise = torch.rand(len(self.kept))
        self.left -= 1
        return [
            self.weighted(rows, float(n)) for rows, n in zip(self.kept, self.noise, strict=True)
        ]

    def weighted(self, rows: Batch, noise: float) -> Batch:
        return Batch(**{**vars(rows), "weights": rows.weights * (0.5 + noise + self.left)})

    def state(self) -> dict[str, Any]:
        tensors = ("ids", "mask", "targets", "weights")
        kept = [{n: getattr(rows, n) for n in tensors} for rows in self.kept]
        return {"left": self.left, "noise": self.noise, "kept": kept}

    def restore(self, state: dict[str, Any]) -> None:
        self.left, self.noise = state["left"], state["noise"]
        self.kept = [Batch(**tensors, rows=(), origins=()) for tensors in state["kept"]]


def result(folder: RunFolder) -> dict[str, Any]:
    """Everything a run leaves that must not depend on whether it was stopped."""
    path = folder.stage("train").path
    facts = json.loads((path / "train.json").read_text())
    newest = checkpoint.newest(path / "checkpoints")
    assert newest is not None
    return {
        "weights": {file.name: file_digest(file) for file in path.glob("*.safetensors")},
        "curves": (path / "curves.jsonl").read_text(),
        "optimizer": {n: t.tolist() for n, t in newest.optimizer.items()},
        "random": newest.random["torch"],
        "facts": {k: v for k, v in facts.items() if k != "seconds"},
    }


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """SIGTERM as the loop sees it, after `count` steps of this process."""
    note, asked = Progress.note, []

    def noted(self: Progress, step: Any) -> None:
        note(self, step)
        if step.number + 1 == count:
            asked.append(Preempted)

    monkeypatch.setattr(Progress, "note", noted)
    for module in (session, held_out):
        monkeypatch.setattr(module, "requested", lambda: asked[0] if asked else None)


@pytest.mark.parametrize("objective", [None, Thrice()], ids=["sft", "three steps a group"])
def test_stopped_at_every_step_it_ends_the_same(
    objective: Sft | None, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-RESUME: weights, optimiser, random state, order and logs, to the bit."""
    base = base_of(tiny("llama"))
    spec = settings(objective=objective)
    whole = result(trained(prepared(tmp_path / "whole"), base, spec))
    for step in range(1, STEPS):
        folder = prepared(tmp_path / f"stopped{step}")
        with monkeypatch.context() as patch:
            stop_after(patch, step)
            with pytest.raises(Preempted, match=f"after step {step}"):
                trained(folder, base, spec)
        torch.manual_seed(step)
        assert result(trained(folder, base, spec)) == whole


def behind_a_prompt(number: int) -> Chat:
    """A short row behind words that all have in common."""
    row = chat(number)
    return replace(row, messages=(Message("system", "river red " * 120), *row.messages))


def test_stopped_behind_a_long_beginning_it_ends_the_same(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What all rows begin with is read once in a pass, which it widens: after a stop as before."""
    base, spec = base_of(tiny("llama")), settings(method=Lora(rank=4), micro_batch=None)
    asked: list[tuple[int, ...]] = []
    own = batches.cut

    def cut(rows: Any, tokens: int, device: Any, *, laid: Any = "packed") -> list[Batch]:
        found = own(rows, tokens, device, laid=laid)
        if len(rows) > 1:  # not the one row that memory is planned by
            asked.append((laid == "shared", tokens > 1024, len(found)))
        return found

    monkeypatch.setattr(batches, "cut", cut)
    whole = result(trained(prepared(tmp_path / "whole", row=behind_a_prompt), base, spec))
    assert set(asked) == {(True, True, 1)}
    folder = prepared(tmp_path / "stopped", row=behind_a_prompt)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(Preempted, match="after step 5"):
            trained(folder, base, spec)
    assert result(trained(folder, base, spec)) == whole


def test_asked_to_stop_in_the_first_look_it_begins_anew(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a library swallowed the stop, the look sees it, and its first measure is not lost."""
    base = base_of(tiny("llama"))
    whole = result(trained(prepared(tmp_path / "whole"), base))
    folder = prepared(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(held_out, "requested", lambda: Preempted)
        patch.setattr(session, "requested", lambda: Preempted)
        with pytest.raises(Preempted):
            trained(folder, base)
    assert result(trained(folder, base)) == whole


MEMBERS = {**Method.members(), "pissa": partial(Lora, rank=4, init="pissa", ratio=4)}


@pytest.mark.parametrize("kind", [k for k, made in MEMBERS.items() if made().moves])
def test_every_method_resumes(
    kind: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, spec = base_of(tiny("llama")), settings(method=MEMBERS[kind]())
    whole = result(trained(prepared(tmp_path / "whole"), base, spec))
    folder = prepared(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Preempted, match="after step 4"):
            trained(folder, base, spec)
    torch.manual_seed(4)
    assert result(trained(folder, base, spec)) == whole
    assert whole["weights"]


def test_windows_of_documents_resume_too(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, spec = base_of(tiny("llama")), settings(objective=Lm(), length=16, epochs=2)
    whole = result(trained(prepared_documents(tmp_path / "whole", rows=8), base, spec))
    for step in (1, 5):
        folder = prepared_documents(tmp_path / f"stopped{step}", rows=8)
        with monkeypatch.context() as patch:
            stop_after(patch, step)
            with pytest.raises(Preempted):
                trained(folder, base, spec)
        torch.manual_seed(step)
        assert result(trained(folder, base, spec)) == whole


def test_full_fine_tuning_and_early_stopping_resume_too(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, spec = (
        base_of(tiny("llama")),
        settings(method="full", lr=1e-3, patience=2, evaluate_every=1),
    )
    trained(prepared(tmp_path / "whole"), base, spec)
    folder = prepared(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Preempted):
            trained(folder, base, spec)
    trained(folder, base, spec)
    for file in ("model.safetensors", "curves.jsonl"):
        one, two = (tmp_path / name / "train" / file for name in ("whole", "stopped"))
        assert file_digest(one) == file_digest(two)


def test_a_finished_stage_is_not_done_again(tiny: Tiny, tmp_path: Path) -> None:
    base = base_of(tiny("llama"))
    folder = trained(prepared(tmp_path / "run"), base)
    before = (folder.stage("train").path / "train.json").stat().st_mtime_ns
    trained(folder, base)
    assert (folder.stage("train").path / "train.json").stat().st_mtime_ns == before
    trained(folder, base, settings(lr=5e-3))
    assert len(list((tmp_path / "run/earlier").glob("*/train/train.json"))) == 1


def test_changed_settings_on_resume_are_refused_by_name(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = base_of(tiny("llama")), prepared(tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Preempted):
            trained(folder, base)
    with pytest.raises(SettingsError, match=r"train\.lr was 0\.01 .* is now 0\.005"):
        trained(folder, base, settings(lr=5e-3))
    trained(folder, base, settings(lr=5e-3), accept=("train.lr",))
    assert folder.stage("train").manifest()["accepted"][0]["field"] == "train.lr"


def test_the_best_checkpoint_is_the_result(tiny: Tiny, tmp_path: Path) -> None:
    """T-BEST: the held-out loss of what is saved is the lowest that was logged."""
    from tunesmith.train.batches import cut
    from tunesmith.train.loop import tallied

    base = base_of(tiny("llama"))
    spec = settings(lr=0.1, epochs=12, evaluate_every=3)
    folder = trained(prepared(tmp_path / "run"), base, spec)
    lines = (folder.stage("train").path / "curves.jsonl").read_text().splitlines()
    looks = [json.loads(line) for line in lines if "held_out" in line]
    lowest = min(look["held_out"]["loss"] for look in looks if look["step"])
    policy = reloaded(folder, spec, base)
    from tunesmith.core.tables import read_part
    from tunesmith.model import render

    rows = [
        render.encode(r, policy.tokenizer) for r in read_part(folder.stage("data").path, "valid")
    ]
    assert tallied(policy, Sft(), cut(rows, 1024, "cpu")).means()["loss"] == pytest.approx(
        lowest, rel=1e-6
    )
    assert looks[-1]["held_out"]["loss"] > lowest


def test_rows_trained_on_are_recorded_by_digest(tiny: Tiny, tmp_path: Path) -> None:
    from tunesmith.core.tables import read_part

    folder = trained(prepared(tmp_path / "run"), base_of(tiny("llama")))
    kept = json.loads((folder.stage("train").path / "rows.json").read_text())["trained_on"]
    assert kept == [row.digest for row in read_part(folder.stage("data").path, "train")]


def test_a_row_longer_than_the_context_is_refused_and_nothing_is_cut(
    tiny: Tiny, tmp_path: Path
) -> None:
    """T-TRUNC."""
    base = base_of(tiny("llama"))
    with pytest.raises(DataError, match=r"rows\.jsonl:\d+: .*train\.length"):
        trained(prepared(tmp_path / "run"), base, settings(length=12))
    folder = trained(prepared(tmp_path / "dropped"), base, settings(length=45, too_long="drop"))
    facts = json.loads((folder.stage("train").path / "train.json").read_text())
    assert 0 < facts["rows"]["train"] < 12


@pytest.mark.parametrize("stopped", [None, 1], ids=["at once", "stopped after the first step"])
def test_a_rate_of_almost_zero_is_noticed(
    stopped: int | None, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-MOVED as a guard: trainable tensors that never move are an error, not a flat curve."""
    base, folder, spec = base_of(tiny("llama")), prepared(tmp_path / "run"), settings(lr=1e-30)
    if stopped:
        with monkeypatch.context() as patch:
            stop_after(patch, stopped)
            with pytest.raises(Preempted):
                trained(folder, base, spec)
    with pytest.raises(TrainError, match="have not moved"):
        trained(folder, base, spec)


class Scarce(Sft):
    """No memory for more than one row, at one step or at all."""

    def loss(self, policy: Any, batch: Batch) -> Any:
        if policy.model.training and batch.ids.shape[0] > 1:
            raise MemoryError
        return super().loss(policy, batch)


def test_out_of_memory_is_said_once_and_recorded(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Also by a run that was stopped after it: it goes on with the micro-batches it had."""
    base, spec = base_of(tiny("llama")), settings(objective=Scarce(), micro_batch=1000)
    whole = prepared(tmp_path / "whole")
    stage.train(whole, spec, base, seed=0, log=Log(whole))
    assert capsys.readouterr().err.count("memory ran out") == 1
    folder = prepared(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Preempted):
            trained(folder, base, spec)
    stage.train(folder, spec, base, seed=0, log=Log(folder))
    assert "memory ran out" not in capsys.readouterr().err
    assert result(folder) == result(whole)
    assert 0 < result(folder)["facts"]["micro_batch_limit"] < 1000
    events = (whole.path / "events.jsonl").read_text().splitlines()
    cuts = [e["micro_batch_limit"] for e in map(json.loads, events) if e["kind"] == "out of memory"]
    assert cuts and cuts[-1] == result(whole)["facts"]["micro_batch_limit"]


@pytest.fixture(autouse=True)
def _tidy(tmp_path: Path) -> Iterator[None]:
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)
