"""The linear layers of a model's blocks in 4 or 8 bits, through bitsandbytes, and back to floats.

Only the weights are held in few bits (QLoRA, arXiv 2305.14314): the arithmetic is in floats, on
weights made anew in every pass, there and back. So a model answers like the plain one that
`dequantised` makes of it. Steps of training may be had to round what they multiply as well, which
is faster (`arithmetic`).
"""

import logging
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from types import MethodType
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import SettingsError, missing
from tunesmith.core.late import late
from tunesmith.model import coarse, layout

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

SIZES = {4: 4 + 8 / 64 + 32 / (64 * 256), 8: 8.0}
"""Bits a number in all: with a scale of 8 bits for every 64, and one of 32 for 256 of those (4);
beside the scales, one a row (8)."""


def quantised(model: Any, bits: int, *, dtype: "torch.dtype", device: str) -> Any:
    """`model`, of float32 weights on the CPU, with the linear layers of its blocks in `bits` on
    `device`, in place; its other numbers in `dtype`, in which it computes.

    The same weights give the same bits. Embedding and head stay as they are.
    """
    library()
    made = four if bits == 4 else eight
    for name, layer in layout.linears(model).items():
        if type(layer) is not torch.nn.Linear:
            raise SettingsError(
                f"model.bits: {name} of this model is a {type(layer).__name__}, and only plain "
                "linear layers are held in few bits here; leave model.bits out"
            )
        model.set_submodule(name, made(layer, dtype, device))
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    setattr(model, f"is_loaded_in_{bits}bit", True)  # What peft asks.
    return model


def dequantised(model: Any) -> Any:
    """`model` with plain layers of the floats that the bits stand for, in place."""
    for name, layer in list(layers(model)):
        weight = torch.nn.Parameter(floats(layer), requires_grad=False)
        plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        plain.weight, plain.bias = weight, layer.bias
        model.set_submodule(name, plain)
    for bits in SIZES:
        setattr(model, f"is_loaded_in_{bits}bit", False)
    return model


def bits_of(model: Any) -> int | None:
    """How many bits the linear layers are held in; None where they are plain."""
    plain = layout.causal(model)
    return next((b for b in SIZES if getattr(plain, f"is_loaded_in_{b}bit", False)), None)


def layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The quantised layers of a model by name, also those under peft's."""
    if bits_of(model) is None:
        return
    yield from ((name, m) for name, m in model.named_modules() if holds_bits(m))


def holds_bits(layer: Any) -> bool:
    """Whether a module is a quantised linear layer."""
    # Asked of the numbers first: a model in floats needs no bitsandbytes.
    weight = getattr(layer, "weight", None)
    if weight is None or weight.is_floating_point():
        return False
    return isinstance(layer, (library().nn.Linear4bit, library().nn.Linear8bitLt))


def spared(plain: Any, bits: int) -> float:
    """Bytes that a plain model's memory would lose by holding it in `bits`."""
    weights = [layer.weight for layer in layout.linears(plain).values()]
    return float(sum(weight.nbytes - weight.numel() * SIZES[bits] / 8 for weight in weights))


def held(model: Any) -> int:
    """Bytes of a model's parameters, the scales of quantised ones counted."""
    numbers: int = sum(p.nbytes for p in model.parameters())
    return numbers + sum(scales(m) for _, m in layers(model))


def scales(layer: Any) -> int:
    """Bytes of what a quantised layer needs beside its numbers."""
    if layer.weight.dtype == torch.int8:
        return int(row_scales(layer).nbytes)
    outer = layer.weight.quant_state
    inner = outer.state2
    parts = (outer.absmax, outer.code, outer.offset, inner.absmax, inner.code)
    return sum(part.nbytes for part in parts)


def four(layer: Any, dtype: "torch.dtype", device: str) -> Any:
    """A linear layer in NF4, its scales quantised once more."""
    nn = library().nn
    made = nn.Linear4bit(
        layer.in_features, layer.out_features, bias=False, compute_dtype=dtype, device="meta"
    )
    made.weight = nn.Params4bit(
        layer.weight.data, requires_grad=False, quant_type="nf4", module=made
    ).to(device)
    made.bias = layer.bias
    # Else a pass without gradients on a processor with AVX512-BF16 repacks the weights for a kernel
    # that has no way back, and what is trained after it gets other gradients (59 % off, measured).
    made.support_avx512bf16_for_cpu = False
    return made


def eight(layer: Any, dtype: "torch.dtype", device: str) -> Any:
    """A linear layer in int8, a scale for each row."""
    nn = library().nn
    made = nn.Linear8bitLt(
        layer.in_features, layer.out_features, bias=False, has_fp16_weights=False, device="meta"
    )
    made.weight = nn.Int8Params(layer.weight.data, requires_grad=False).to(device)
    made.bias = layer.bias
    made.init_8bit_state()
    # Its own rounds the input to 8 bits too, on a CPU in evaluation only: two models in one.
    made.forward = MethodType(_eight_forward, made)
    return made


def products_of(layer: Any, x: "torch.Tensor") -> coarse.Products:
    """How a layer in bits is multiplied by `x` and by its gradient."""
    return coarse.noted(layer, x) or coarse.Floats(partial(floats, layer), layer.bias)


def floats(layer: Any) -> "torch.Tensor":
    """The weights that a layer's bits stand for, [out, in]; those of a plain layer."""
    weight: torch.Tensor = layer.weight
    if weight.is_floating_point():
        return weight
    functional = library().functional
    if weight.dtype == torch.int8:
        found: torch.Tensor = functional.int8_vectorwise_dequant(weight.data, row_scales(layer))
        return found
    found = functional.dequantize_4bit(weight.data, layer.weight.quant_state)
    return found


def row_scales(layer: Any) -> "torch.Tensor":
    """The scales of an int8 layer: beside its weight, until it is first used or after a merge."""
    found: torch.Tensor = layer.weight.SCB if layer.state.SCB is None else layer.state.SCB
    return found


def _eight_forward(layer: Any, x: "torch.Tensor") -> "torch.Tensor":
    return multiplied(x, products_of(layer, x))


def multiplied(x: "torch.Tensor", weight: coarse.Products) -> "torch.Tensor":
    """x W' + b under gradients to `x` and b, [..., out]."""
    found: torch.Tensor = _Frozen.apply(x, weight.bias, weight)  # type: ignore[no-untyped-call]
    return found


class _Frozen(torch.autograd.Function):
    """y = x W' + b, W made of its bits each way, so that no copy in floats is kept between."""

    @staticmethod
    def forward(
        ctx: Any, x: "torch.Tensor", bias: "torch.Tensor | None", weight: coarse.Products
    ) -> "torch.Tensor":
        ctx.weight = weight
        return weight.there(x)

    @staticmethod
    def backward(ctx: Any, upstream: "torch.Tensor") -> tuple["torch.Tensor | None", ...]:
        to_x, to_bias = ctx.needs_input_grad[:2]
        g_x = ctx.weight.back(upstream) if to_x else None
        g_bias = upstream.flatten(0, -2).sum(0).to(ctx.weight.bias.dtype) if to_bias else None
        return g_x, g_bias, None


def library() -> Any:
    """bitsandbytes."""
    settle()
    try:
        import bitsandbytes
    except ImportError as error:
        raise missing("bitsandbytes", "qlora") from error
    return bitsandbytes


def settle() -> None:
    """Keep the import of bitsandbytes, which peft makes wherever it is installed, to itself.

    On a processor with AVX512-BF16 it fetches a kernel from the hub and runs it, where the package
    `kernels` is installed, and says so where it is not. Nobody asked for either.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if "bitsandbytes" in sys.modules or "kernels" in sys.modules or not find_spec("kernels"):
        return
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        if find_spec("bitsandbytes"):
            import bitsandbytes  # noqa: F401
    finally:
        del sys.modules["kernels"]
