"""AdamW over a policy's trainable parameters, in groups that differ in decay and in pace."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def adamw(
    parameters: Iterable["torch.nn.Parameter"],
    *,
    decay: float,
    betas: tuple[float, float],
    paces: "Mapping[torch.nn.Parameter, float] | None" = None,
) -> "torch.optim.AdamW":
    """AdamW (arXiv 1711.05101) with decay on matrices only; states are fp32 like the parameters.

    `scale` in a group multiplies the run's learning rate: what `paces` says, else 1. The loop sets
    `lr` before every step.
    """
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        pace = (paces or {}).get(parameter, 1.0)
        groups.setdefault((pace, parameter.dim() < 2), []).append(parameter)
    described = [
        {"params": groups[pace, vector], "weight_decay": 0.0 if vector else decay, "scale": pace}
        for pace, vector in sorted(groups)
    ]
    return torch.optim.AdamW(described, lr=0.0, betas=betas, fused=True)


def settle(
    optimizer: "torch.optim.Optimizer",
    *,
    decay: float,
    betas: tuple[float, float],
    paces: "Mapping[torch.nn.Parameter, float] | None" = None,
) -> None:
    """Put this run's settings in force over those that a checkpoint brought back."""
    for group in optimizer.param_groups:
        group["scale"] = (paces or {}).get(group["params"][0], 1.0)
        group["betas"] = betas
        is_matrix = group["params"][0].dim() >= 2
        group["weight_decay"] = decay if is_matrix else 0.0
