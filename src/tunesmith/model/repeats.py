"""What keeps a small model from saying the same again and again: penalties on its logits.

Both see the prompt and the answer so far, as in transformers, whose names they have.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def penalise(logits: "torch.Tensor", said: Sequence[int], penalty: float) -> None:
    """Make what was said less likely, in place: logits above zero are divided by `penalty`, those
    below are multiplied (arXiv 1909.05858). `logits` are of one row, [size]."""
    ids = torch.tensor(sorted(set(said)), device=logits.device)
    own = logits[ids]
    logits[ids] = torch.where(own < 0, own * penalty, own / penalty)


def forbid(logits: "torch.Tensor", said: Sequence[int], size: int) -> None:
    """Give no chance, in place, to whatever would say `size` tokens in a row that were said before
    (arXiv 1705.04304). `logits` are of one row, [size of the vocabulary]."""
    start = list(said[len(said) - size + 1 :]) if size > 1 else []
    starts = range(len(said) - size + 1)
    banned = [said[at + size - 1] for at in starts if list(said[at : at + size - 1]) == start]
    if banned:
        logits[torch.tensor(banned, device=logits.device)] = -torch.inf
