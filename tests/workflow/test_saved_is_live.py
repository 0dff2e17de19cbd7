"""T-SAVE: what is on disk is the live model, for every method, tied and untied, also merged."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.reload import logits
from tests.saved import moved, saved
from tests.trained import base_of
from tunesmith.deploy.exports import adapter
from tunesmith.deploy.exports.merged import Merged
from tunesmith.model.trained import load_trained
from tunesmith.train.methods.adapter import Adapter
from tunesmith.train.methods.base import Method
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.ia3 import Ia3
from tunesmith.train.methods.lora import Lora
from tunesmith.train.methods.prefix import Prefix
from tunesmith.train.methods.prompt import Prompt

METHODS: dict[str, Method] = {
    "lora": Lora(rank=4),
    "lora+dora": Lora(rank=4, dora=True),
    "lora+rslora": Lora(rank=4, scaling="rslora"),
    "lora+pissa": Lora(rank=4, init="pissa"),
    "ia3": Ia3(),
    "prefix": Prefix(length=4),
    "prompt": Prompt(length=4),
    "adapter": Adapter(size=8),
    "full": Full(),
    "full+blocks": Full(blocks=1),
}
KINDS = {"tied": "llama", "untied": "llama-untied"}
CASES = [f"{method}.{kind}" for method in METHODS for kind in KINDS]
MERGED = [case for case in CASES if METHODS[case.split(".")[0]].mergeable]
PEFT = [case for case in CASES if case.startswith(("lora", "ia3", "prefix", "prompt"))]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answers:
    """Logits of the live models, and of their folders after a reload in a fresh process."""

    live: Mapping[str, torch.Tensor]
    merged: Mapping[str, torch.Tensor]
    base: Mapping[str, torch.Tensor]
    reloaded: Mapping[str, torch.Tensor]


@pytest.fixture(scope="module")
def said(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Every case saved here, and all of them reloaded by one other process."""
    home = tmp_path_factory.mktemp("saved")
    ids = torch.randint(3, 480, (2, 40), generator=torch.Generator().manual_seed(0))
    save_file({"ids": ids}, home / "ids.safetensors")
    jobs, live, merged, before = {}, {}, {}, {}
    for case in CASES:
        method, folder = METHODS[case.split(".")[0]], tiny(KINDS[case.split(".")[1]])
        base = base_of(folder)
        model = moved(base, method)
        live[case] = logits(model, ids)[:, -ids.shape[1] :]
        run = saved(home / case, base, method, model)
        policy = load_trained(run.path / "train", base)
        jobs[case] = {"base": str(folder), "train": str(run.path / "train")}
        for kind, export in (("adapter", adapter.Adapter()), ("merged", Merged())):
            if case not in (PEFT if kind == "adapter" else MERGED):
                continue
            (home / case / kind).mkdir()
            export.write(policy, base, home / case / kind)
            jobs[case][kind] = str(home / case / kind)
        left = policy.model
        plain = left.get_base_model() if hasattr(left, "peft_config") else left
        merged[case] = logits(plain.eval(), ids)
        before[case] = logits(untouched(folder), ids)
    (home / "jobs.json").write_text(json.dumps(jobs))
    words = [sys.executable, "-m", "tests.reload", str(home)]
    subprocess.run(words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    return Answers(live, merged, before, load_file(home / "said.safetensors"))


def untouched(folder: Path) -> torch.nn.Module:
    """The base as it was."""
    from transformers import AutoModelForCausalLM

    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder).eval()
    return model


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, as a share of the largest logit."""
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("case", CASES)
def test_a_reloaded_train_folder_is_the_live_model_to_the_bit(case: str, said: Answers) -> None:
    reloaded = said.reloaded[f"{case}.train"][:, -said.live[case].shape[1] :]
    if "pissa" in case:  # saved as LoRA on the whole base, where training had split it
        assert apart(reloaded, said.live[case]) <= 1e-5
    else:
        assert torch.equal(reloaded, said.live[case])
    assert apart(said.live[case], said.base[case]) > 0.01, "nothing was tuned, so nothing is shown"


@pytest.mark.parametrize("case", PEFT)
def test_an_adapter_folder_loads_in_plain_peft_on_the_original_base(
    case: str, said: Answers
) -> None:
    reloaded = said.reloaded[f"{case}.adapter"][:, -said.live[case].shape[1] :]
    assert apart(reloaded, said.live[case]) <= 1e-5


@pytest.mark.parametrize("case", MERGED)
def test_a_merged_folder_is_the_merged_model_to_the_bit_and_answers_like_the_adapter(
    case: str, said: Answers
) -> None:
    assert torch.equal(said.reloaded[f"{case}.merged"], said.merged[case])
    assert apart(said.reloaded[f"{case}.merged"], said.live[case]) <= 1e-5
