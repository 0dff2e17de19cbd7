"""What numbers the training steps of a model multiply by its frozen layers in (`coarse`).

Chosen once for a training and noted on the layers; whoever multiplies asks them.
"""

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.errors import SettingsError
from tunesmith.core.late import late
from tunesmith.model import coarse, devices, layout

if TYPE_CHECKING:
    import torch

    from tunesmith.model import quantise
    from tunesmith.model.policy import Policy
else:
    torch = late("torch")
    quantise = late("tunesmith.model.quantise")  # autograd functions need torch to be defined

Arithmetic = Literal["floats", "bfloat16", "bytes"]


def refuse_unfit(kind: Arithmetic, *, bits: int | None, dtype: str, device: devices.Device) -> None:
    """Refuse what would not be faster, by what is known before a model is loaded."""
    if kind == "floats":
        return
    where = devices.choose(device, "train.device").type
    reasons = {
        f"is for processors, and this training is on {where}": where != "cpu",
        "rounds numbers of model.dtype: float32, and those are bfloat16": dtype == "bfloat16",
        "is for a base in model.bits: 8": kind == "bytes" and bits != 8,
        f"needs a processor with {coarse.NEEDS[kind]}, or is slower": not coarse.multiplies(kind),
    }
    reason = next((said for said, holds in reasons.items() if holds), None)
    if reason is not None:
        raise SettingsError(f"train.arithmetic: {kind} {reason}; say floats")


def choose(policy: "Policy", kind: Arithmetic) -> None:
    """Note on the layers how the training steps of a policy multiply by them. Raises SettingsError
    where there is none that a step multiplies by and leaves as it is."""
    if kind == "floats":
        return
    quantised = [layer for _, layer in quantise.layers(policy.model)]
    found = quantised if kind == "bytes" else layers(policy.model, scores=policy.head is not None)
    if policy.still or not found:
        raise SettingsError(
            f"train.arithmetic: {kind} is for steps that multiply by linear layers which stay as "
            "they are, and this training has none; say floats"
        )
    for layer in found:
        if kind == "bytes":
            layer.steps_in_bytes = True
        else:
            _in_halves(layer)


def layers(model: Any, *, scores: bool) -> list[Any]:
    """The linear layers that training leaves as they are: the blocks', and the head unless only
    `scores` of texts are asked for."""
    found = [*layout.linears(model).values(), *([] if scores else [_head(model)])]
    return [layer for layer in found if layer is not None and is_frozen(layer)]


def is_frozen(layer: Any) -> bool:
    """Whether a layer is a linear one, plain or in bits, that training leaves as it is."""
    weight = layer.weight
    plain = type(layer) is torch.nn.Linear and weight.dtype == torch.float32
    return (plain or quantise.holds_bits(layer)) and not weight.requires_grad


def _head(model: Any) -> Any:
    """The layer that makes logits, without what trains rows of it."""
    head = layout.head(model)
    rows = getattr(head, "token_adapter", None)
    return head if rows is None else rows.base_layer


def _in_halves(layer: Any) -> None:
    held = quantise.holds_bits(layer)
    weight = partial(quantise.floats, layer) if held else _copied(layer)
    layer.in_halves = coarse.Halves(weight, layer.bias)
    if not held:  # those in bits ask by themselves
        layer.forward = MethodType(_forward, layer)


def _copied(layer: Any) -> "Callable[[], torch.Tensor]":
    """A plain layer's weight in bfloat16, made once."""
    weight: torch.Tensor = layer.weight.bfloat16()
    return lambda: weight


def _forward(layer: Any, x: "torch.Tensor") -> "torch.Tensor":
    halves = coarse.halves_of(layer, x)
    if halves is None:
        return type(layer).forward(layer, x)  # type: ignore[no-any-return]
    return quantise.multiplied(x, halves)
