"""What numbers the training steps of a model multiply by its frozen layers in (`coarse`).

Chosen once for a training and noted on the layers; whoever multiplies asks them.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.errors import SettingsError
from tunesmith.core.late import late
from tunesmith.model import coarse, layout

if TYPE_CHECKING:
    import torch

    from tunesmith.model import quantise
else:
    torch = late("torch")
    quantise = late("tunesmith.model.quantise")  # autograd functions need torch to be defined

Arithmetic = Literal["floats", "bfloat16", "bytes"]


def choose(model: Any, kind: Arithmetic) -> None:
    """Have the training steps of a model multiply so. Raises SettingsError where it has no layers
    for it, or a processor that would not be faster."""
    if kind == "bytes":
        _in_bytes(model)
    if kind == "bfloat16" and not _in_halves(model):
        raise SettingsError(
            "train.arithmetic: bfloat16 is for a frozen base in float32 on a processor with "
            "AVX512-BF16; say floats"
        )


def _in_bytes(model: Any) -> None:
    """The layers that are held in bytes; what is left, the head, in bfloat16 where that wins."""
    if quantise.bits_of(model) != 8 or not coarse.multiplies("bytes"):
        raise SettingsError(
            "train.arithmetic: bytes is for a base with model.bits: 8 on a processor with "
            "AVX512-VNNI; say floats"
        )
    for _, layer in quantise.layers(model):
        layer.steps_in_bytes = True
    _in_halves(model)


def _in_halves(model: Any) -> bool:
    """The frozen layers of blocks and head; whether there are any for which it wins."""
    named = [*layout.linears(model).values(), layout.head(model)]
    frozen = [layer for layer in named if layer is not None and is_frozen(layer)]
    if not frozen or not coarse.multiplies("bfloat16"):
        return False
    for layer in frozen:
        held = quantise.holds_bits(layer)
        weight = partial(quantise.floats, layer) if held else copied(layer)
        layer.in_halves = coarse.Halves(weight, layer.bias)
    return True


def copied(layer: Any) -> "Callable[[], torch.Tensor]":
    """A plain layer's weight in bfloat16, made once."""
    weight: torch.Tensor = layer.weight.bfloat16()
    return lambda: weight


def is_frozen(layer: Any) -> bool:
    """Whether a layer is a linear one on a processor that training leaves as it is."""
    weight = layer.weight
    plain = type(layer) is torch.nn.Linear and weight.dtype == torch.float32
    held = quantise.holds_bits(layer)
    return (plain or held) and not weight.requires_grad and weight.device.type == "cpu"
