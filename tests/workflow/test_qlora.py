"""QLoRA from a run file: trained, stopped, evaluated, exported and taken up, in the same bits."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.documents import prepared_documents
from tests.tiny import tiny_model
from tests.trained import base_of, labelled, prepared, settings, trained
from tests.workflow.test_resume import result, stop_after
from tunesmith import answers, door, environment, forecast
from tunesmith.cli import app
from tunesmith.core.errors import (
    IntegrityError,
    Preempted,
    ResourceError,
    SettingsError,
)
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.deploy.exports.adapter import Adapter
from tunesmith.deploy.exports.merged import Merged
from tunesmith.deploy.stage import Deploy, deploy
from tunesmith.model import quantise
from tunesmith.model.bases import ModelSpec, resolve
from tunesmith.model.layout import linears
from tunesmith.model.load import load_model
from tunesmith.model.merge import merge
from tunesmith.model.trained import load_trained
from tunesmith.run import from_mapping, load
from tunesmith.train.methods.frozen import Frozen
from tunesmith.train.methods.lora import Lora
from tunesmith.train.objectives.classify import Classify
from tunesmith.train.objectives.lm import Lm

RUN = """\
name: bot
model:
  source: tiny
  bits: 4
data:
  source: rows.jsonl
  split: {valid: 4, test: 4}
train:
  method: {kind: lora, rank: 4}
  steps: 4
  batch: 4
  lr: 1e-2
  probes: 0
evaluate:
  metrics: [perplexity]
deploy:
  exports: [adapter, merged]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run `bot` went through every stage, one command after the other."""
    home = tmp_path_factory.mktemp("qlora")
    tiny_model("llama", home / "tiny")
    lines = [{"prompt": f"say {i} twice", "completion": f"{i} {i}"} for i in range(24)]
    (home / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (home / "bot.yaml").write_text(RUN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for stage in ("data", "train", "evaluate", "deploy"):
            assert door.enter(app, [stage, "bot.yaml"]) == 0, stage
    return home


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_what_it_was_held_in_is_recorded_and_said(home: Path) -> None:
    run = home / "runs" / "bot"
    facts = read(run / "train" / "train.json")
    assert facts["base"]["bits"] == 4 and "NF4" in facts["base"]["held_as"]
    assert read(run / "manifest.json")["base"]["bits"] == 4
    plain = sum(p.numel() for p in load_model(base_of(home / "tiny")).parameters())
    assert facts["parameters"] == plain + facts["trainable_parameters"]
    card = (run / "cards" / "model_card.md").read_text()
    assert "held in 4 bits (NF4 with double quantisation)" in card
    readme = (run / "deploy" / "adapter" / "README.md").read_text()
    assert "answers as measured on such a base only" in readme


def test_the_merge_says_what_each_base_would_have_cost(home: Path) -> None:
    run = home / "runs" / "bot"
    found = read(run / "deploy" / "verified.json")["merged"]["numbers"]
    assert found["merged_onto"] == "dequantised"
    assert found["drift_rows"] == "4 of valid"
    assert abs(found["kl_dequantised"]) < 1e-9 < found["kl_original"]
    assert found["kl_dequantised"] < found["kl_quantised"]
    assert found["loss_dequantised"] == pytest.approx(found["loss_trained"], rel=1e-5)
    assert found["relative"] <= 1e-5
    assert "kl dequantised" in (run / "cards" / "model_card.md").read_text()
    config = read(run / "deploy" / "merged" / "config.json")
    assert "quantization_config" not in config


def test_merging_onto_the_original_base_can_be_asked_for(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    asked = ["deploy.exports=[{kind: merged, onto: original}]", "name=other"]
    shutil.copytree(home / "runs" / "bot", home / "runs" / "other")
    assert door.enter(app, ["deploy", "bot.yaml", *asked]) == 0
    run = home / "runs" / "other"
    found = read(run / "deploy" / "verified.json")["merged"]["numbers"]
    assert found["merged_onto"] == "original" and found["relative"] <= 1e-5
    (adapter,) = run.glob("train/adapter_model.safetensors")
    plain = load_model(base_of(home / "tiny"))
    wanted = merge(Lora(rank=4).load(plain.requires_grad_(False), adapter.parent))
    ids = torch.tensor([[5, 9, 12, 40]])
    with torch.no_grad():
        given = load_model(base_of(run / "deploy" / "merged"))(input_ids=ids).logits
        torch.testing.assert_close(given, wanted(input_ids=ids).logits, rtol=1e-5, atol=1e-5)


def test_every_reader_takes_the_base_in_its_bits(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    for arm in ("base", "tuned"):
        model = answers.load("bot", (), arm)
        assert quantise.bits_of(model.policy.model) == 4
        assert isinstance(model.answer("say 3 twice"), str)
    with pytest.raises(IntegrityError, match=r"in 4 bits, and .* in 8 bits.*model\.bits=4"):
        answers.load("bot", ["model.bits=8"])
    with pytest.raises(IntegrityError, match=r"in 4 bits, and .* in floats"):
        answers.load("bot", ["model.bits=null"])


def test_other_bits_are_another_training(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = trained(prepared(tmp_path / "run"), base_of(home / "tiny", bits=4), settings(epochs=1))
    digest = first.stage("train").digest
    trained(first, base_of(home / "tiny", bits=4), settings(epochs=1))
    assert first.stage("train").digest == digest
    trained(first, base_of(home / "tiny", bits=8), settings(epochs=1))
    assert first.stage("train").digest != digest
    assert first.stage("train").inputs["model.bits"] == 8


def test_a_run_goes_on_in_the_same_bits_only(home: Path) -> None:
    source = str(home / "runs" / "bot")
    same = resolve(ModelSpec(source=source, start="continue", bits=4))
    folder = trained(prepared(home / "runs" / "onward"), same, load(home / "bot.yaml").train)
    assert read(folder.path / "train" / "train.json")["base"]["bits"] == 4
    for bits in (None, 8):
        other: Any = resolve(ModelSpec(source=source, start="continue", bits=bits))
        with pytest.raises(
            SettingsError, match=r"model\.bits: bot was trained with 4 .* say the same"
        ):
            trained(prepared(home / "runs" / f"other{bits}"), other, load(home / "bot.yaml").train)


def test_its_merged_model_is_the_base_of_another_run(home: Path) -> None:
    run = RunFolder(home / "runs" / "bot")
    base = resolve(ModelSpec(source=str(run.path)))
    assert base.bits is None
    ids = torch.tensor([[5, 9, 12, 40]])
    tuned = load_trained(run.path / "train", base_of(home / "tiny", bits=4))
    with torch.no_grad():
        wanted, found = tuned.model(input_ids=ids).logits, load_model(base)(input_ids=ids).logits
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    again = resolve(ModelSpec(source=str(run.path), bits=4))
    assert again.digest == base.digest
    assert quantise.bits_of(load_model(again)) == 4


@pytest.mark.parametrize("bits", (4, 8))
@pytest.mark.parametrize("goal", ("sft", "lm", "classify"))
def test_stopped_and_taken_up_it_ends_the_same(
    goal: str,
    bits: Any,
    tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T-RESUME, on a base that is quantised anew by the process that goes on."""
    base = base_of(tiny("bert" if goal == "classify" else "llama"), bits=bits)
    objective = {"sft": None, "lm": Lm(), "classify": Classify()}[goal]
    spec = settings(objective=objective, epochs=2, length=64)

    def fresh(name: str) -> RunFolder:
        if goal == "lm":
            return prepared_documents(tmp_path / name, rows=8)
        return prepared(tmp_path / name, **({"row": labelled} if goal == "classify" else {}))

    whole = result(trained(fresh("whole"), base, spec))
    for step in (1, 3):
        folder = fresh(f"stopped{step}")
        with monkeypatch.context() as patch:
            stop_after(patch, step)
            with pytest.raises(Preempted, match=f"after step {step}"):
                trained(folder, base, spec)
        torch.manual_seed(step)
        assert result(trained(folder, base, spec)) == whole


@pytest.mark.parametrize(
    ("method", "export"), [(Frozen(), Merged()), (Lora(rank=4), Adapter())], ids=["head", "adapter"]
)
def test_labels_over_8_bits_are_exported_and_proved(
    method: Any, export: Any, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """A head alone leaves its base as floats; an adapter is reloaded on a base in bits."""
    base = base_of(tiny("bert"), bits=8)
    spec = settings(method=method, objective=Classify(), epochs=1)
    run = trained(prepared(tmp_path / "run", row=labelled), base, spec)
    deploy(run, Deploy(exports=[export]), base, seed=0, log=Log(run, quiet=True))
    numbers = read(run.path / "deploy" / "verified.json")[export.kind]["numbers"]
    assert numbers["answers_equal"] == numbers["texts"]
    if export.kind == "merged":
        assert abs(numbers["kl_dequantised"]) < 1e-9 < numbers["kl_original"]


def test_a_forecast_counts_the_bits(home: Path) -> None:
    run = load(home / "bot.yaml")
    found = [
        forecast.whole(run.model_copy(update={"model": model}), Log(quiet=True))
        for bits in (None, 8, 4)
        for model in [run.model.model_copy(update={"bits": bits})]
    ]
    plain, eight, four = (each["memory_bytes"] for each in found)
    numbers = sum(w.weight.numel() for w in linears(load_model(base_of(home / "tiny"))).values())
    assert plain - eight == 3 * numbers
    assert plain - four == pytest.approx((32 - 4.127) / 8 * numbers, rel=1e-3)
    assert len({each["parameters"] for each in found}) == 1


def test_weights_that_are_trained_themselves_are_refused_where_it_was_said(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "model: {source: tiny, bits: 4}\ndata: {source: rows.jsonl}\ntrain: {method: full}\n"
    )
    said = r"run\.yaml:1:\d+: model\.bits: 4-bit weights .* full .*leaves the base's weights alone"
    with pytest.raises(SettingsError, match=said):
        load(tmp_path / "run.yaml")
    load(tmp_path / "run.yaml", ["train.method=frozen", "train.objective=classify"])
    with pytest.raises(SettingsError, match=r"model\.bits: .*4 or 8"):
        load(tmp_path / "run.yaml", ["train.method=lora", "model.bits=3"])


def test_a_missing_library_is_said_before_training(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.job import Job
    from tunesmith.pipeline import carry_out

    found = environment.installed
    monkeypatch.setattr(
        environment, "installed", lambda name: None if name == "bitsandbytes" else found(name)
    )
    asked = {"name": "bot", "model": {"source": str(home / "tiny"), "bits": 8}}
    run = from_mapping({**asked, "data": {"source": str(home / "rows.jsonl")}}, {})
    folder = RunFolder(tmp_path / "runs" / "bot")
    with pytest.raises(ResourceError, match=r"pip install 'tunesmith\[qlora\]'"):
        carry_out(Job(run, folder, Log(quiet=True)), "train")
    assert not (folder.path / "train").exists()
