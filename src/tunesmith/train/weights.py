"""What training changes, taken from a model and its head, and put back: all of it or nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.errors import IntegrityError, SettingsError
from tunesmith.model import heads, layout
from tunesmith.model.tensors import read_tensors

if TYPE_CHECKING:
    import torch

    from tunesmith.model.policy import Policy
    from tunesmith.train.methods.base import Method


def state_of(policy: "Policy", method: "Method") -> dict[str, "torch.Tensor"]:
    """The tensors that a checkpoint carries: the method's, and the head's."""
    head = {} if policy.head is None else policy.head.state()
    return {**method.state(policy.model), **head}


def restore(policy: "Policy", method: "Method", state: Mapping[str, "torch.Tensor"]) -> None:
    """Put back what `state_of` gave."""
    head = {} if policy.head is None else policy.head.state()
    method.restore(policy.model, {n: t for n, t in state.items() if n not in head})
    copy_into(head, {n: t for n, t in state.items() if n in head})


def go_on(policy: "Policy", method: "Method", folder: Path) -> None:
    """Put in what an earlier run left in its trained folder: the method's weights, and the head
    where both have one. A head for other labels is refused."""
    method.restore(policy.model, saved(folder))
    before = heads.load(folder, layout.width(policy.model))
    if policy.head is None or before is None:
        return
    for name in ("labels", "many", "pooling", "tasks"):
        was, now = getattr(before, name), getattr(policy.head, name)
        if was != now:
            raise SettingsError(
                f"train.objective.{name}: the run that this one goes on from was trained with "
                f"{was} and this one says {now}; say the same, or take the run up as a whole: "
                "model.start=merged"
            )
    copy_into(policy.head.state(), before.state())


def saved(folder: Path) -> "dict[str, torch.Tensor]":
    """The tensors that a method saved in a trained folder, by name."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        if file.name != heads.NAME:
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
