"""On a GPU: it trains what the CPU trains, goes on to the bit, answers and exports the same."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trained import base_of, labelled, prepared, settings, trained
from tests.workflow.test_resume import result, stop_after
from tunesmith.core.errors import Preempted
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.deploy.exports.merged import Merged
from tunesmith.deploy.stage import Deploy, deploy
from tunesmith.evaluate.metrics.exact import Exact
from tunesmith.evaluate.metrics.perplexity import Perplexity
from tunesmith.evaluate.stage import Evaluate, evaluate
from tunesmith.train.methods.adapter import Adapter
from tunesmith.train.methods.base import Method
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.ia3 import Ia3
from tunesmith.train.methods.lora import Lora
from tunesmith.train.methods.prefix import Prefix
from tunesmith.train.methods.prompt import Prompt
from tunesmith.train.objectives.classify import Classify

Tiny = Callable[[str], Path]
METHODS = [Lora(rank=4), Lora(rank=4, dora=True), Full(), Adapter(), Prefix(), Prompt(), Ia3()]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


def losses(folder: RunFolder) -> list[float]:
    lines = (folder.stage("train").path / "curves.jsonl").read_text().splitlines()
    return [found["loss"] for line in lines if "loss" in (found := json.loads(line))]


def named(method: Method) -> str:
    return method.kind + ("+dora" if getattr(method, "dora", False) else "")


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma"])
@pytest.mark.parametrize("method", METHODS, ids=named)
def test_every_method_takes_the_steps_of_the_cpu(
    method: Method, kind: str, tiny: Tiny, tmp_path: Path
) -> None:
    base, spec = base_of(tiny(kind)), settings(method=method, lr=1e-3)
    here = trained(prepared(tmp_path / "cpu"), base, spec)
    there = trained(prepared(tmp_path / "gpu"), base, spec.model_copy(update={"device": "cuda"}))
    assert losses(there) == pytest.approx(losses(here), rel=1e-4)


def test_an_encoder_learns_labels(tiny: Tiny, tmp_path: Path) -> None:
    spec = settings(objective=Classify(), method=Lora(rank=4), best="loss", lr=1e-3)
    base = base_of(tiny("modernbert"))
    here = trained(prepared(tmp_path / "cpu", row=labelled), base, spec)
    moved = spec.model_copy(update={"device": "cuda"})
    there = trained(prepared(tmp_path / "gpu", row=labelled), base, moved)
    assert losses(there) == pytest.approx(losses(here), rel=1e-4)


def test_stopped_it_goes_on_to_the_bit(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, spec = base_of(tiny("llama")), settings(device="cuda")
    whole = result(trained(prepared(tmp_path / "whole"), base, spec))
    folder = prepared(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(Preempted):
            trained(folder, base, spec)
    torch.manual_seed(5)
    assert result(trained(folder, base, spec)) == whole


@pytest.mark.filterwarnings("ignore:inner dimension")  # of layers as narrow as a tiny model's
@pytest.mark.parametrize("bits", [None, 4, 8])
def test_answers_and_exports(bits: int | None, tiny: Tiny, tmp_path: Path) -> None:
    """What was trained on the GPU is measured there, merged and verified."""
    base = replace(base_of(tiny("llama")), bits=bits)
    spec = settings(device="cuda", method=Lora(rank=4))
    folder, log = trained(prepared(tmp_path / "run"), base, spec), Log(quiet=True)
    evaluate(folder, Evaluate(metrics=[Exact(), Perplexity()]), base, seed=0, log=log)
    report: dict[str, Any] = json.loads((folder.path / "evaluate" / "report.json").read_text())
    assert report["arms"]["tuned"]["perplexity"]["value"] > 0
    deploy(folder, Deploy(exports=[Merged()]), base, seed=0, log=log)
    verified = json.loads((folder.path / "deploy" / "verified.json").read_text())
    assert verified["merged"]["numbers"]["relative"] <= 1e-5
