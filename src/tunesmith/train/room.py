"""Whether a step fits into memory, asked before the first one; blocks are recomputed if not.

One forward pass over the longest row tells what a token keeps for the way back. That times the
tokens of a pass, beside what is free now, says how many blocks must be made again.
"""

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.core.errors import SettingsError, out_of_memory
from tunesmith.core.late import late
from tunesmith.core.records import Batch, Example
from tunesmith.model import layout, recompute
from tunesmith.model.devices import free_bytes
from tunesmith.model.policy import Policy
from tunesmith.train import batches, randomness
from tunesmith.train.objectives.base import Objective

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

SPARE = 0.8
"""The share of what is free that a step may take."""
STATES = 3
"""Numbers beside each trained one: its gradient, and Adam's two moments (arXiv 1412.6980)."""


@dataclass(frozen=True)
class Need:
    """Bytes that a step takes beyond what is held now, when everything is kept."""

    kept: float
    """By the blocks, for the way back."""
    rest: float
    """By the gradients and the optimiser."""

    @property
    def whole(self) -> float:
        return self.kept + self.rest


def need(policy: Policy, objective: Objective, rows: Sequence[Example], tokens: int) -> Need:
    """What a pass of `tokens` tokens takes, by one pass over the longest row."""
    (batch,) = batches.cut([max(rows, key=lambda row: row.length)], tokens, policy.device)
    kept = kept_by(policy, objective, batch)
    share = max(tokens, batch.ids.numel()) / batch.ids.numel()
    trained = sum(parameter.nbytes for parameter in policy.trainable())
    return Need(kept * share, STATES * trained)


def kept_by(policy: Policy, objective: Objective, batch: Batch) -> int:
    """Bytes that a forward pass keeps for the way back, beside the model itself."""
    before = randomness.capture()
    own = [*policy.model.parameters(), *policy.model.buffers()]
    with recompute.counting(own) as found:
        objective.loss(policy, batch)
    randomness.restore(before)
    return sum(found.values())


def every(need: Need, free: float, blocks: int) -> int | None:
    """Each how-manieth block must be made again for a step to fit into `free` bytes; None where
    everything can be kept, 1 also where nothing helps."""
    over = need.whole - SPARE * free
    if over <= 0:
        return None
    again = math.ceil(over / (need.kept / blocks))
    return max(1, blocks // again)


def checked(setting: int | str, policy: Policy) -> None:
    """Refuse blocks that cannot be recomputed. Raises SettingsError."""
    if not isinstance(setting, int):
        return
    blocks = len(layout.blocks(policy.model))
    if setting > blocks:
        raise SettingsError(
            f"train.gradient_checkpointing: {setting} of {blocks} blocks leaves none; say off, or "
            f"a number from 1 (all of them) to {blocks} (one)"
        )
    if not policy.recomputes:
        why = "this model's own attention, in use here, writes into a cache: no block can run twice"
        if policy.device.type == "mps":
            why = "on mps torch does not put random numbers back, so no block can run twice"
        raise SettingsError(
            f"train.gradient_checkpointing: {why}; say off, and lower train.micro_batch or "
            "train.length"
        )


def plan(
    setting: int | str,
    policy: Policy,
    objective: Objective,
    rows: Sequence[Example],
    tokens: int,
) -> tuple[int | None, str]:
    """Each how-manieth block is made again, and a sentence where that, or memory, is worth one."""
    checked(setting, policy)
    if isinstance(setting, int):
        return setting, ""
    free = free_bytes(policy.device)
    if setting == "off" or policy.still or free is None:
        return None, ""
    blocks = len(layout.blocks(policy.model))
    try:
        wanted = need(policy, objective, rows, tokens)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        gc.collect()
        said = "the longest row alone is more than memory holds with all that it keeps"
        return (1 if policy.recomputes else None), said
    found = every(wanted, free, blocks) if policy.recomputes else None
    said = f"a step needs about {wanted.whole / 1e9:.1f} GB and {free / 1e9:.1f} are free"
    if wanted.whole <= SPARE * free:
        return None, ""
    if found is None or wanted.rest + wanted.kept / blocks > free:
        return found, f"{said}: it may not fit; lower train.micro_batch or train.length"
    which = "every block is" if found == 1 else f"one block of {found} is"
    return found, f"{said}: {which} computed again on the way back"
