"""Real SIGKILLs on a toy run that saves all the time; each resume ends on the same bits."""

import hashlib
import json
import random
from pathlib import Path

import numpy
import pytest
import torch

from tests.crash.kill_loop import COUNTED, kill_loop
from tunesmith.core.log import Log
from tunesmith.train import checkpoint, randomness
from tunesmith.train.checkpoint import Snapshot
from tunesmith.train.state import flatten_optimizer, restore_optimizer

STEPS = 12


def toy(folder: Path) -> None:
    """Twelve Adam steps on random numbers of three generators, a checkpoint after each."""
    torch.manual_seed(1)
    random.seed(2)
    numpy.random.seed(3)
    weight = torch.nn.Parameter(torch.randn(128, 64))
    named, optimizer = {"weight": weight}, torch.optim.AdamW([weight], lr=0.1)
    begun = 0
    if (saved := checkpoint.newest(folder / "checkpoints", Log(quiet=True))) is not None:
        weight.data.copy_(saved.model["weight"])
        restore_optimizer(optimizer, named, saved.optimizer, saved.optimizer_state)
        randomness.restore(saved.random)
        begun = saved.step
    for step in range(begun + 1, STEPS + 1):
        noise = torch.randn_like(weight) * random.random() + numpy.random.rand()
        (weight * noise).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        tensors, state = flatten_optimizer(optimizer, named)
        snapshot = Snapshot(
            step=step,
            cursor=step,
            model={"weight": weight.detach()},
            optimizer=tensors,
            optimizer_state=state,
            random=randomness.capture(),
        )
        checkpoint.save(folder / "checkpoints", snapshot)


def outcome(folder: Path) -> str:
    """A digest of all that the last checkpoint holds."""
    last = checkpoint.load(folder / "checkpoints" / f"step-{STEPS:08d}")
    state, tensors = checkpoint.parts(last)
    hashed = hashlib.sha256(json.dumps(json.loads(state), sort_keys=True).encode())
    for part in tensors.values():
        for name in sorted(part):
            hashed.update(name.encode() + part[name].numpy().tobytes())
    return hashed.hexdigest()


@pytest.mark.parametrize(
    "kills", [20, pytest.param(200, marks=pytest.mark.evidence)], ids=["small", "evidence"]
)
def test_a_killed_run_ends_on_the_same_bits(tmp_path: Path, kills: int) -> None:
    toy(tmp_path / "warm")  # what torch imports late is imported once, before the forks
    found = kill_loop(toy, outcome, tmp_path, checkpoints="checkpoints", kills=kills, seed=7)
    print(dict(found.classes))
    assert found.failures == []
    assert found.counted >= kills
    assert all(found.classes[name] for name in COUNTED)
