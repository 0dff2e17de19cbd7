"""What numbers the training steps of a model multiply by its own layers in (`coarse`).

Chosen once for a training and noted on the layers; whoever multiplies asks them.
"""

from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.errors import SettingsError
from tunesmith.core.late import late
from tunesmith.model import coarse, devices, layout

if TYPE_CHECKING:
    import torch

    from tunesmith.model import lowrank, quantise
    from tunesmith.model.policy import Policy
else:
    torch = late("torch")
    # Autograd functions need torch to be defined.
    lowrank = late("tunesmith.model.lowrank")
    quantise = late("tunesmith.model.quantise")

Arithmetic = Literal["floats", "bfloat16", "bytes"]


def refuse_unfit(
    kind: Arithmetic, *, bits: int | None, dtype: str, device: devices.Device, moves: bool
) -> None:
    """Refuse what would not be faster, by what is known before a model is loaded; `moves` says
    whether training changes what the model makes of its rows."""
    if kind == "floats":
        return
    where = devices.choose(device, "train.device").type
    reasons = {
        f"is for processors, and this training is on {where}": where != "cpu",
        "rounds numbers of model.dtype: float32, and those are bfloat16": dtype == "bfloat16",
        "is for steps through the model, which this method reads once": not moves,
        "is for a base in model.bits: 8": kind == "bytes" and bits != 8,
        f"needs a processor with {coarse.NEEDS[kind]}, or is slower": not coarse.multiplies(kind),
    }
    reason = next((said for said, holds in reasons.items() if holds), None)
    if reason is not None:
        raise SettingsError(f"train.arithmetic: {kind} {reason}; say floats")


def choose(policy: "Policy", kind: Arithmetic) -> None:
    """Note on the layers how the training steps of a policy multiply by them. Raises SettingsError
    where no step multiplies by one that can be had so."""
    if kind == "floats":
        return
    quantised = [layer for _, layer in quantise.layers(policy.model)]
    found = quantised if kind == "bytes" else layers(policy.model, scores=policy.head is not None)
    if policy.still or not found:
        raise SettingsError(
            f"train.arithmetic: {kind} is for steps that multiply by linear layers of the model, "
            "and this training has none; say floats"
        )
    policy.coarse = kind == "bfloat16"
    for layer in found:
        if kind == "bytes":
            scales = quantise.row_scales(layer) / coarse.LARGEST
            layer.in_steps = coarse.Bytes(layer.weight.data, scales, layer.bias)
        elif quantise.holds_bits(layer):
            layer.in_steps = coarse.Halves(partial(quantise.floats, layer), layer.bias)
        else:
            policy.copies.append(Copy(layer))
            layer.in_steps = coarse.Halves(policy.copies[-1], layer.bias)
            layer.forward = MethodType(_forward, layer)  # those in bits ask by themselves


def layers(model: Any, *, scores: bool) -> list[Any]:
    """The linear layers that can be multiplied in bfloat16: the blocks' own, and the head unless
    only `scores` of texts are asked for."""
    own = [layer for block in layout.blocks(model) for layer in _own(block)]
    found = [*own, *([] if scores else [_head(model)])]
    return [layer for layer in found if layer is not None and is_plain(layer)]


def is_plain(layer: Any) -> bool:
    """Whether a layer is a linear one in single precision or in bits."""
    single = type(layer) is torch.nn.Linear and layer.weight.dtype == torch.float32
    return single or quantise.holds_bits(layer)


def _own(block: Any) -> list[Any]:
    """The linear layers of a block itself: where some stay as they are, those that train were put
    beside them by a method."""
    found = [module for module in block.modules() if layout.is_linear(module)]
    return [layer for layer in found if not layer.weight.requires_grad] or found


def _head(model: Any) -> Any:
    """The layer that makes logits, without what trains rows of it."""
    head = layout.head(model)
    rows = getattr(head, "token_adapter", None)
    return head if rows is None else rows.base_layer


class Copy:
    """A plain layer's weight in bfloat16, made when it is asked for and kept until it is told that
    the weight has moved: a fused optimiser's writing cannot be told from the weight."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.made: torch.Tensor | None = None

    def __call__(self) -> "torch.Tensor":
        if self.made is None:
            self.made = self.layer.weight.detach().bfloat16()
        return self.made

    def forget(self) -> None:
        """Make it anew the next time, if training moves the weight."""
        if self.layer.weight.requires_grad:
            self.made = None


def _forward(layer: Any, x: "torch.Tensor") -> "torch.Tensor":
    halves = coarse.products_of(layer, x)
    if halves is None:
        return type(layer).forward(layer, x)  # type: ignore[no-any-return]
    if layer.weight.requires_grad:
        told = lowrank.Linear(layer.weight, layer.bias, None, None, 0.0, halves)
        (found,) = lowrank.together(x, [told])
        return found
    return quantise.multiplied(x, halves)
