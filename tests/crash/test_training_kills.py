"""SIGKILL at random in real training: what the resumed run leaves is bit for bit the same (F1)."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.crash.kill_loop import COUNTED, kill_loop
from tests.trained import base_of, prepared, settings, trained
from tunesmith.core.disk import file_digest
from tunesmith.core.folders import RunFolder
from tunesmith.core.rows import digest
from tunesmith.model.bases import Base
from tunesmith.train import checkpoint

SETTINGS = {
    "lora": settings(save_every=1, keep=2),
    "full": settings(method="full", save_every=2),
}


def work(base: Base, ready: Path, kind: str, folder: Path) -> None:
    """One run of the train stage on rows prepared before, going on where a killed one stood."""
    torch.set_num_threads(1)
    if not (folder / "run" / "data").exists():
        shutil.copytree(ready, folder / "copy")
        (folder / "copy").rename(folder / "run")
    trained(RunFolder(folder / "run"), base, SETTINGS[kind])


def outcome(folder: Path) -> str:
    """A digest of weights, optimiser, random state, order and curves."""
    path = folder / "run" / "train"
    newest = checkpoint.newest(path / "checkpoints")
    assert newest is not None
    facts = json.loads((path / "train.json").read_text())
    facts.pop("seconds")
    weights = [file_digest(file) for file in sorted(path.glob("*.safetensors"))]
    state = [newest.cursor, newest.random, {n: t.tolist() for n, t in newest.optimizer.items()}]
    return digest([weights, state, facts, (path / "curves.jsonl").read_text()])


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        ("lora", 40),
        ("full", 10),
        pytest.param("lora", 160, marks=pytest.mark.evidence),
        pytest.param("full", 40, marks=pytest.mark.evidence),
    ],
)
def test_killed_training_resumes_to_the_bit(
    kind: str, kills: int, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    base, ready = base_of(tiny("llama")), prepared(tmp_path / "ready").path
    found = kill_loop(
        partial(work, base, ready, kind),
        outcome,
        tmp_path / "trials",
        checkpoints="run/train/checkpoints",
        kills=kills,
        seed=11,
    )
    print(kind, dict(found.classes))
    assert found.failures == []
    assert found.counted >= kills
    assert all(found.classes[name] for name in COUNTED)
