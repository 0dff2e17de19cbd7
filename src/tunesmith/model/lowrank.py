"""Seam: linear layers that share an input, plain or under plain LoRA, without extra passes.

peft writes the adapter's product, scales it and adds it: three passes over the widest tensor of a
layer, and as many back. Here one function adds it into the base's product while multiplying, and
keeps only the input and the narrow product for the way back. Layers that read the same input (a
query, a key and a value) are one function: their narrow products are one, and so is their
gradient's. A frozen base may be held in few bits (`quantise`). The reference path is the layers'
own forward, which any layer with dropout, DoRA, a bias on its adapter, several adapters or another
dtype keeps.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.core.late import late
from tunesmith.model import coarse, forwards, quantise
from tunesmith.model.coarse import Halves, Products
from tunesmith.model.products import product

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


class Linear(NamedTuple):
    """What a layer computes: W x + b + scale * B A x. Without an adapter, A and B are None. Where
    there is `coarse`, that multiplies by W and adds b: W, if it is not in bits, and b are there for
    their gradients alone."""

    weight: "torch.Tensor | None"  # [out, in]
    bias: "torch.Tensor | None"  # [out]
    first: "torch.Tensor | None"  # A, [rank, in]
    second: "torch.Tensor | None"  # B, [out, rank]
    scale: float
    coarse: Products | None = None


PARTS = len(Linear._fields)
TENSORS = 4
"""The first of these, which autograd keeps."""


def layers(model: Any) -> list[Any]:
    """The peft layers of a model that are plain LoRA over a frozen `nn.Linear`, in bits or not."""
    if not hasattr(model, "peft_config"):
        return []
    from peft.tuners.lora import layer

    kinds: list[type] = [layer.Linear]
    if quantise.bits_of(model) is not None:
        from peft.tuners.lora import bnb

        kinds += [bnb.Linear4bit, bnb.Linear8bitLt]
    return [m for m in model.modules() if type(m) in kinds and is_plain(m)]


def is_plain(layer: Any) -> bool:
    """Whether a peft layer computes W x + scale * B A x and nothing else, under some adapter."""
    base = layer.base_layer
    known = type(base) is torch.nn.Linear or quantise.holds_bits(base)
    plain = known and not base.weight.requires_grad and not layer.merged
    return plain and any(is_product(layer, name) for name in layer.lora_A)


def is_product(layer: Any, name: str) -> bool:
    """Whether an adapter of a layer is two matrices, in the type of the base's or in single
    precision over a base in less, and no more."""
    first, second, base = layer.lora_A[name], layer.lora_B[name], layer.base_layer.weight
    return (
        name not in layer.lora_variant
        and isinstance(layer.lora_dropout[name], torch.nn.Identity)
        and first.bias is None
        and second.bias is None
        and first.weight.dtype == second.weight.dtype
        and (first.weight.dtype in (base.dtype, torch.float32) or not base.is_floating_point())
    )


def read(layer: Any, x: "torch.Tensor") -> Linear | None:
    """What a layer makes of `x` now; None where that is more than a `Linear` says."""
    base = getattr(layer, "base_layer", None)
    if base is None:
        return bare(layer, x)
    found = bare(base, x)
    if found is None or not hasattr(layer, "merged"):  # a wrapper that is not peft's
        return None
    if layer.merged or base.weight.requires_grad:
        return None
    if layer.disable_adapters:  # of whatever kind they are
        return found
    if not hasattr(layer, "lora_A"):
        return None
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if not active:
        return found
    if len(active) != 1 or not is_product(layer, active[0]):
        return None
    (name,) = active
    # Kept in single precision over a base in 16 bits, it is multiplied in the type of the input.
    first, second = (pair[name].weight.to(x.dtype) for pair in (layer.lora_A, layer.lora_B))
    return found._replace(first=first, second=second, scale=layer.scaling[name])


def bare(layer: Any, x: "torch.Tensor") -> Linear | None:
    """A layer without an adapter."""
    if type(layer) is torch.nn.Linear:
        return Linear(layer.weight, layer.bias, None, None, 0.0, coarse.noted(layer, x))
    if quantise.holds_bits(layer):
        return Linear(None, layer.bias, None, None, 0.0, quantise.products_of(layer, x))
    return None


def read_all(layers: Sequence[Any], x: "torch.Tensor") -> list[Linear] | None:
    """What several layers make of `x` now, where all of it is in the type of that."""
    found = [read(layer, x) for layer in layers]
    told = [each for each in found if each is not None and fits(each, x)]
    return told if len(told) == len(layers) else None


def fits(linear: Linear, x: "torch.Tensor") -> bool:
    """Whether a layer's numbers are in the type of its input."""
    return all(part is None or part.dtype == x.dtype for part in (linear.weight, linear.first))


def switched(plain: Sequence[Any]) -> AbstractContextManager[None]:
    """The fast arithmetic for the time of one forward pass; anyone else sees peft's."""
    return forwards.standing_in({layer: MethodType(forward, layer) for layer in plain})


def forward(layer: Any, x: "torch.Tensor") -> "torch.Tensor":
    """A layer's output; by peft where not one plain adapter is switched on or the dtype differs."""
    told = None if layer.disable_adapters else read_all([layer], x)
    if told is None:
        return type(layer).forward(layer, x)  # type: ignore[no-any-return]
    return together(x, told)[0]


def together(x: "torch.Tensor", linears: Sequence[Linear]) -> "tuple[torch.Tensor, ...]":
    """The outputs of layers that share an input, [..., out] each."""
    flat = x.reshape(-1, x.shape[-1])
    outputs = _Together.apply(flat, *[part for each in linears for part in each])  # type: ignore[no-untyped-call]
    return tuple(each.view(*x.shape[:-1], -1) for each in outputs)


def unfold(parts: Sequence[Any]) -> list[Linear]:
    """A function's flat arguments as layers again."""
    return [Linear(*parts[at : at + PARTS]) for at in range(0, len(parts), PARTS)]


def outputs_of(
    x: "torch.Tensor",  # [token, in]
    linears: Sequence[Linear],
) -> "tuple[list[torch.Tensor], torch.Tensor | None]":
    """Each layer's output, and the narrow products x A' of all adapters, side by side."""
    firsts = [each.first for each in linears if each.first is not None]
    joined = firsts[0] if len(firsts) == 1 else torch.cat(firsts) if firsts else None
    narrow = None if joined is None else product(x, joined)  # [token, ranks]
    given, outputs = coarse.taken(x, [each.coarse for each in linears]), []
    for each, columns in zip(linears, _columns(linears), strict=True):
        output = _there(each, given)
        if narrow is not None and each.second is not None:
            output.addmm_(narrow[:, columns], each.second.t(), alpha=each.scale)
        outputs.append(output)
    return outputs, narrow


def gradients_of(
    x: "torch.Tensor",
    narrow: "torch.Tensor | None",
    linears: Sequence[Linear],
    upstream: "Sequence[torch.Tensor]",  # [token, out] each
    wanted: Sequence[bool],
) -> "tuple[torch.Tensor | None, list[torch.Tensor | None]]":
    """The gradients of the input and of every layer's parts; `wanted` says of x and then of each
    part whether anyone asks (arXiv 2106.09685)."""
    parts: list[torch.Tensor | None] = [None] * (PARTS * len(linears))
    columns, g_narrow = _columns(linears), None if narrow is None else torch.empty_like(narrow)
    for at, (each, up) in enumerate(zip(linears, upstream, strict=True)):
        if wanted[1 + PARTS * at]:
            parts[PARTS * at] = _to_weight(each, up, x)
        if each.bias is not None and wanted[2 + PARTS * at]:
            parts[PARTS * at + 1] = up.sum(0)
        if narrow is not None and g_narrow is not None and each.second is not None:
            own = narrow[:, columns[at]]
            torch.mul(product(up, each.second.t()), each.scale, out=g_narrow[:, columns[at]])
            # The narrow side first: the other way round takes twice as long.
            parts[PARTS * at + 3] = product(own.t(), up.t()).mul_(each.scale).t()
    if g_narrow is not None:
        g_firsts = g_narrow.t() @ x  # [ranks, in]
        for at, each in enumerate(linears):
            if each.first is not None:
                parts[PARTS * at + 2] = g_firsts[columns[at]]
    g_x = _to_input(g_narrow, linears, upstream) if wanted[0] else None
    return g_x, parts


def _to_input(
    g_narrow: "torch.Tensor | None", linears: Sequence[Linear], upstream: "Sequence[torch.Tensor]"
) -> "torch.Tensor":
    """The gradient of the input: the sum of what each layer gives back."""
    g_x = _back(linears[0], upstream[0])
    for each, up in zip(linears[1:], upstream[1:], strict=True):
        # Not `addmm_`: the quicker library has none, and gains more than the addition costs.
        g_x.add_(_back(each, up))
    if g_narrow is not None:
        firsts = [each.first for each in linears if each.first is not None]
        g_x.addmm_(g_narrow, firsts[0] if len(firsts) == 1 else torch.cat(firsts))
    return g_x


def _there(linear: Linear, x: Any) -> "torch.Tensor":
    """W x + b, of rows as `coarse.taken` leaves them."""
    if linear.coarse is not None:
        return linear.coarse.there(x)
    assert linear.weight is not None
    return product(x, linear.weight, linear.bias)


def _back(linear: Linear, upstream: "torch.Tensor") -> "torch.Tensor":
    """dy W."""
    if linear.coarse is not None:
        return linear.coarse.back(upstream)
    assert linear.weight is not None
    return product(upstream, linear.weight.t())


def _to_weight(linear: Linear, upstream: "torch.Tensor", x: "torch.Tensor") -> "torch.Tensor":
    """dy' x."""
    if isinstance(linear.coarse, Halves):
        return linear.coarse.to_weight(upstream, x)
    return upstream.t() @ x


def _columns(linears: Sequence[Linear]) -> list[slice]:
    """Where each layer's part of the joined narrow product stands."""
    found, start = [], 0
    for each in linears:
        end = start + (0 if each.first is None else each.first.shape[0])
        found.append(slice(start, end))
        start = end
    return found


def save(ctx: Any, linears: Sequence[Linear], *tensors: "torch.Tensor | None") -> None:
    """Keep tensors and the layers' parts for the way back."""
    kept = [part for each in linears for part in each[:TENSORS]]
    ctx.save_for_backward(*tensors, *kept)
    ctx.own, ctx.rest = len(tensors), [each[TENSORS:] for each in linears]


def saved(ctx: Any) -> "tuple[list[Any], list[Linear]]":
    """What `save` kept."""
    kept, size = ctx.saved_tensors, TENSORS
    own, parts = list(kept[: ctx.own]), kept[ctx.own :]
    flat = [
        part
        for at, rest in enumerate(ctx.rest)
        for part in (*parts[size * at : size * (at + 1)], *rest)
    ]
    return own, unfold(flat)


class _Together(torch.autograd.Function):
    """Layers over one input; keeps that and the narrow products."""

    @staticmethod
    def forward(ctx: Any, x: "torch.Tensor", *parts: Any) -> "tuple[torch.Tensor, ...]":
        linears = unfold(parts)
        outputs, narrow = outputs_of(x, linears)
        save(ctx, linears, x, narrow)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *upstream: "torch.Tensor") -> "tuple[torch.Tensor | None, ...]":
        (x, narrow), linears = saved(ctx)
        g_x, parts = gradients_of(x, narrow, linears, upstream, ctx.needs_input_grad)
        return (g_x, *parts)
