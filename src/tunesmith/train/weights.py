"""Saved tensors go back over a model's weights, all of them or none."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.errors import IntegrityError
from tunesmith.model.load import read_tensors

if TYPE_CHECKING:
    import torch


HEAD = "head.safetensors"
"""What lies beside a method's weights and is not of its making."""


def saved(folder: Path) -> "dict[str, torch.Tensor]":
    """The tensors that a method saved in a trained folder, by name."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        if file.name != HEAD:
            found.update(read_tensors(file))
    return found


def copy_into(weights: Mapping[str, "torch.Tensor"], state: Mapping[str, "torch.Tensor"]) -> None:
    """Copy tensors over weights of the same names and shapes; anything else is refused."""
    missing, unexpected = weights.keys() - state.keys(), state.keys() - weights.keys()
    if missing or unexpected:
        raise IntegrityError(
            f"the saved weights do not fit the model: {len(missing)} missing "
            f"{sorted(missing)[:3]}, {len(unexpected)} unexpected {sorted(unexpected)[:3]}"
        )
    for name, weight in weights.items():
        if weight.shape != state[name].shape:
            raise IntegrityError(
                f"{name} is {list(state[name].shape)} in the file and {list(weight.shape)} in "
                "the model; they were not made for each other"
            )
    for name, weight in weights.items():
        weight.data.copy_(state[name])
