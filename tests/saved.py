"""A finished train stage around a tiny model whose trained numbers were moved at random."""

from pathlib import Path
from typing import Any

from tunesmith.core.disk import write_json
from tunesmith.core.folders import RunFolder
from tunesmith.model import layout
from tunesmith.model.bases import Base
from tunesmith.model.load import load_model
from tunesmith.model.words import tokenizer_of
from tunesmith.train.methods.base import Method


def moved(base: Base, method: Method) -> Any:
    """The live model: the method applied, everything that may move moved."""
    import torch

    model = method.apply(load_model(base).requires_grad_(False), 0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for weight in layout.trainable(model.parameters()):
            weight.add_(0.05 * torch.randn_like(weight))
    return model.eval()


def saved(path: Path, base: Base, method: Method, model: Any = None) -> RunFolder:
    """A run whose train stage left `model` (by default a `moved` one), as training leaves it."""
    folder = RunFolder(path)
    folder.create()
    stage = folder.stage("train")
    stage.begin({"seed": 0})
    method.save(moved(base, method) if model is None else model, stage.path)
    tokenizer_of(base).save(stage.path)
    facts = {"source": base.source, "digest": base.digest}
    write_json(stage.path / "train.json", {"method": method.model_dump(mode="json"), "base": facts})
    stage.finish()
    return folder
