"""Tiny snapshots for the crash tests, told apart by their step."""

import random
from pathlib import Path

import torch

from tunesmith.core.log import Log
from tunesmith.train import checkpoint
from tunesmith.train.checkpoint import Snapshot

QUIET = Log(quiet=True)


def snapshot(step: int) -> Snapshot:
    """A small state of every kind: types, scalars, nesting, text beyond ASCII."""
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(6, 5, generator=generator)
    return Snapshot(
        step=step,
        cursor=step * 3,
        model={"a": weight, "b": weight[0].to(torch.bfloat16)},
        optimizer={"optimizer/state/a/exp_avg": weight * 2, "optimizer/state/a/step": weight.sum()},
        optimizer_state={"groups": [{"lr": 0.1 + step, "parameters": ["a"]}], "state": {}},
        random={"python": [3, [random.Random(step).randrange(1 << 32)], None]},
        stream={"kl": 0.1 * step, "rollouts": [{"ids": torch.arange(step + 3), "text": "größer"}]},
        best={"step": 1, "value": 1 / 3},
        progress={"losses": [1.5, 2.25]},
        digests={"data": "0" * 64},
    )


def same(found: Snapshot | None, wanted: Snapshot) -> bool:
    """Whether a recovered snapshot is that one, to the bit."""
    if found is None:
        return False
    left, right = checkpoint.parts(found), checkpoint.parts(wanted)
    return left[0] == right[0] and all(
        left[1].keys() == right[1].keys()
        and left[1][part].keys() == right[1][part].keys()
        and all(torch.equal(left[1][part][k], right[1][part][k]) for k in right[1][part])
        for part in right[1]
    )


def two_checkpoints(folder: Path) -> None:
    """Steps 1 and 2 saved: what the save of step 3 finds."""
    for step in (1, 2):
        checkpoint.save(folder, snapshot(step), log=QUIET)
