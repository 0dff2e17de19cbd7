"""Seam: LoRA's arithmetic over peft's layers, without extra passes over a layer's output.

peft writes the adapter's product, scales it and adds it: three passes over the widest tensor of a
layer, and as many back. Here one function adds it into the base's product while multiplying, and
keeps only the input and the narrow product for the way back. The base may be held in few bits. The
reference path is peft's forward, which any layer with dropout, DoRA, a bias on its adapter or
another dtype keeps.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.model import quantise
from tunesmith.model.bytewise import Products

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def layers(model: Any) -> list[Any]:
    """The peft layers of a model that are plain LoRA over a frozen `nn.Linear`, in bits or not."""
    if not hasattr(model, "peft_config"):
        return []
    from peft.tuners.lora import layer

    kinds: list[type] = [layer.Linear]
    if quantise.bits_of(model) is not None:
        from peft.tuners.lora import bnb

        kinds += [bnb.Linear4bit, bnb.Linear8bitLt]
    coarse = {id(each) for _, each in quantise.layers(model)}
    return [m for m in model.modules() if type(m) in kinds and is_plain(m, coarse)]


def is_plain(layer: Any, coarse: set[int]) -> bool:
    """Whether a peft layer computes W x + scale * B A x and nothing else, under some adapter, where
    `coarse` are the quantised layers by id."""
    base = layer.base_layer
    plain = type(base) is torch.nn.Linear or id(base) in coarse
    frozen = not base.weight.requires_grad and not layer.merged
    return plain and frozen and any(is_product(layer, name) for name in layer.lora_A)


def is_product(layer: Any, name: str) -> bool:
    """Whether an adapter of a layer is two matrices in the type of the base's, and no more."""
    first, second, base = layer.lora_A[name], layer.lora_B[name], layer.base_layer.weight
    return (
        name not in layer.lora_variant
        and isinstance(layer.lora_dropout[name], torch.nn.Identity)
        and first.bias is None
        and second.bias is None
        and first.weight.dtype == second.weight.dtype
        and (first.weight.dtype == base.dtype or not base.is_floating_point())
    )


@contextmanager
def switched(plain: Sequence[Any]) -> Iterator[None]:
    """The fast arithmetic for the time of one forward pass; anyone else sees peft's."""
    for layer in plain:
        layer.forward = MethodType(forward, layer)
    try:
        yield
    finally:
        for layer in plain:
            del layer.forward


def forward(layer: Any, x: "torch.Tensor") -> "torch.Tensor":
    """A layer's output; by peft where not one plain adapter is switched on or the dtype differs."""
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or len(active) != 1 or not is_product(layer, active[0]):
        return type(layer).forward(layer, x)  # type: ignore[no-any-return]
    (name,) = active
    first, second = layer.lora_A[name].weight, layer.lora_B[name].weight
    if x.dtype != first.dtype:
        return type(layer).forward(layer, x)  # type: ignore[no-any-return]
    flat = x.reshape(-1, x.shape[-1])
    base = quantise.products_of(layer.base_layer, flat)
    output: torch.Tensor = _LowRank.apply(flat, base, first, second, layer.scaling[name])  # type: ignore[no-untyped-call]
    return output.view(*x.shape[:-1], -1)


class _LowRank(torch.autograd.Function):
    """y = x W' + b + scale (x A') B'; gradients for x, A and B (arXiv 2106.09685)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: "torch.Tensor",  # [token, in]
        base: Products,  # of W and b
        first: "torch.Tensor",  # A, [rank, in]
        second: "torch.Tensor",  # B, [out, rank]
        scale: float,
    ) -> "torch.Tensor":
        narrow = x @ first.t()  # [token, rank]
        ctx.save_for_backward(x, first, second, narrow)
        ctx.base, ctx.scale = base, scale
        return base.there(x).addmm_(narrow, second.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, upstream: "torch.Tensor") -> tuple["torch.Tensor | None", ...]:
        x, first, second, narrow = ctx.saved_tensors
        g_narrow = (upstream @ second).mul_(ctx.scale)
        g_first = g_narrow.t() @ x
        g_second = (upstream.t() @ narrow).mul_(ctx.scale)
        g_x = None
        if ctx.needs_input_grad[0]:
            g_x = ctx.base.back(upstream).addmm_(g_narrow, first)
        return g_x, None, g_first, g_second, None
