"""Learning-rate curves: a closed form of the step, so that resuming needs no state."""

import math
from typing import Literal

Curve = Literal["linear", "cosine", "constant"]


def warmup_steps(share: float, total: int) -> int:
    """Steps of linear warm-up for a share of all steps, as transformers rounds it."""
    return math.ceil(share * total)


def factor(step: int, *, total: int, warmup: int, curve: Curve) -> float:
    """What the peak rate is multiplied with at `step` (from 0): warm-up, then down to zero.

    The first step of a warm-up is not zero, as it is elsewhere: rows are too dear to waste some.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    rest = (step - warmup) / max(1, total - warmup)
    if curve == "constant":
        return 1.0
    if curve == "linear":
        return max(0.0, 1.0 - rest)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * rest)))
