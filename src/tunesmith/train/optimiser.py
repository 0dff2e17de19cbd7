"""AdamW over a policy's trainable parameters, in groups that differ in decay."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def adamw(
    parameters: Iterable["torch.nn.Parameter"], *, decay: float, betas: tuple[float, float]
) -> "torch.optim.AdamW":
    """AdamW (arXiv 1711.05101) with decay on matrices only; states are fp32 like the parameters.

    `scale` in a group multiplies the run's learning rate; the loop sets `lr` before every step.
    """
    parameters = list(parameters)
    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": decay, "scale": 1.0},
        {"params": vectors, "weight_decay": 0.0, "scale": 1.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=betas, fused=True)


def settle(optimizer: "torch.optim.Optimizer", *, decay: float, betas: tuple[float, float]) -> None:
    """Put this run's settings in force over those that a checkpoint brought back."""
    for group in optimizer.param_groups:
        group["betas"] = betas
        is_matrix = group["params"][0].dim() >= 2
        group["weight_decay"] = decay if is_matrix else 0.0
