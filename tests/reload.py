"""A fresh process that reloads every saved folder of `jobs.json` and writes what it answers."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """What the model says at every position."""
    with torch.no_grad():
        return model(input_ids=ids).logits.contiguous()


def ours(job: dict[str, str]) -> Any:
    """The train folder, as our own stages load it."""
    from tests.trained import base_of
    from tunesmith.model.trained import load_trained

    return load_trained(Path(job["train"]), base_of(Path(job["base"]))).model


def plain_peft(job: dict[str, str]) -> Any:
    """The original base under the adapter, as anyone's script would."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(job["base"])
    return PeftModel.from_pretrained(base, job["adapter"]).eval()


def plain_merged(job: dict[str, str]) -> Any:
    """The merged folder, as anyone's script would."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(job["merged"]).eval()


WAYS = {"train": ours, "adapter": plain_peft, "merged": plain_merged}


def main(folder: Path) -> None:
    """Answer every job of the folder in every way its result allows."""
    torch.set_num_threads(1)
    ids = load_file(folder / "ids.safetensors")["ids"]
    jobs = json.loads((folder / "jobs.json").read_text())
    said = {
        f"{name}.{way}": logits(load(job), ids)
        for name, job in jobs.items()
        for way, load in WAYS.items()
        if way in job
    }
    save_file(said, folder / "said.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
