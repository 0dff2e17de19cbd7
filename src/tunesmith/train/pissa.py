"""PiSSA: LoRA that starts from the largest singular values of the weights (arXiv 2404.02948).

The weights lose what A and B take from them, so switching the adapter off gives no base back: its
first numbers must go in again. For the same reason it is saved as ordinary LoRA of twice the rank,
B A - B0 A0, which stands on the base as it was.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.train import peft_folder
from tunesmith.train.weights import copy_into

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

INIT = "pissa_niter_4"
"""Singular values by the paper's quick way; the random numbers in it come from the run's seed."""
START = "start."
"""What the first numbers are called in a checkpoint, before the name of what they became."""


def remembered(model: Any) -> Any:
    """The model, with the adapter's first numbers kept beside it."""
    model.pissa_start = {name: t.clone() for name, t in peft_folder.state(model).items()}
    return model


def state(model: Any) -> "dict[str, torch.Tensor]":
    """What trains, and what it started from: the weights lost exactly that."""
    first = {f"{START}{name}": tensor for name, tensor in model.pissa_start.items()}
    return peft_folder.state(model) | first


def restore(model: Any, tensors: "Mapping[str, torch.Tensor]") -> None:
    """Put `state` back. Where other random numbers were drawn since, as on another device, the
    weights get back what these took, and lose what the saved ones did."""
    before = {name: tensor.clone() for name, tensor in model.pissa_start.items()}
    copy_into(state(model), tensors)
    now = model.pissa_start
    for name in [each for each in now if ".lora_A." in each]:
        other = name.replace(".lora_A.", ".lora_B.")
        if torch.equal(before[name], now[name]) and torch.equal(before[other], now[other]):
            continue
        layer = model.get_submodule(name.partition(".lora_A.")[0])
        taken = before[other] @ before[name] - now[other] @ now[name]
        weight = layer.get_base_layer().weight
        moved = layer.scaling["default"] * (taken.t() if layer.fan_in_fan_out else taken)
        weight.data += moved.to(weight.dtype)


@contextmanager
def undone(model: Any) -> Iterator[Any]:
    """The base, to the last bits: the first numbers in place of the trained ones."""
    live = peft_folder.state(model)
    trained = {name: tensor.clone() for name, tensor in live.items()}
    _put(live, model.pissa_start)
    try:
        yield model
    finally:
        _put(live, trained)


def _put(live: "dict[str, torch.Tensor]", numbers: "dict[str, torch.Tensor]") -> None:
    for name, tensor in live.items():
        tensor.copy_(numbers[name])


def as_lora(model: Any) -> "tuple[dict[str, torch.Tensor], Any]":
    """Tensors and settings of the same change as ordinary LoRA: [A; A0] and [B, -B0]."""
    start, found = model.pissa_start, {}
    for name, tensor in peft_folder.state(model).items():
        if ".lora_A." in name:
            found[name] = torch.cat([tensor, start[name]], dim=0)
        elif ".lora_B." in name:
            found[name] = torch.cat([tensor, -start[name]], dim=1)
        else:
            found[name] = tensor
    settings = copy.deepcopy(model.peft_config["default"])
    # The factor before B A stays what it was: alpha / rank, or alpha / sqrt(rank).
    settings.lora_alpha *= math.sqrt(2) if settings.use_rslora else 2
    settings.r, settings.init_lora_weights = 2 * settings.r, True
    return found, settings
