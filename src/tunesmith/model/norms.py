"""Seam: the root mean square norm as one function, which keeps its input and a number a row.

torch's own way takes five passes forward and keeps three tensors. The reference path is the
module's forward (arXiv 1910.07467).
"""

from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def epsilon(module: Any) -> float | None:
    """The small number of a module that is built like an RMSNorm: one vector and that number."""
    named = dict(module.named_parameters())
    if list(named) != ["weight"] or named["weight"].dim() != 1 or list(module.children()):
        return None
    found = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return found if isinstance(found, float) else None


def normed(
    x: "torch.Tensor", weight: "torch.Tensor", *, epsilon: float, offset: float
) -> "torch.Tensor":
    """(weight + offset) * x / sqrt(mean(x^2) + epsilon), over the last dimension."""
    output: torch.Tensor = _Normed.apply(x, weight, epsilon, offset)  # type: ignore[no-untyped-call]
    return output


def reference(
    x: "torch.Tensor", weight: "torch.Tensor", *, epsilon: float, offset: float
) -> "torch.Tensor":
    """The same by plain arithmetic: the oracle of the parity test."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)
    return (weight + offset) * (x * scale)


class _Normed(torch.autograd.Function):
    """With r = 1/rms: dx = r * g - x * r^3 * mean(g * x), where g = upstream * weight."""

    @staticmethod
    def forward(
        ctx: Any, x: "torch.Tensor", weight: "torch.Tensor", epsilon: float, offset: float
    ) -> "torch.Tensor":
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        scale = squares.div_(x.shape[-1]).add_(epsilon).rsqrt_()  # [..., 1]
        ctx.save_for_backward(x, weight, scale)
        ctx.offset = offset
        return (x * scale).mul_(weight + offset if offset else weight)

    @staticmethod
    def backward(ctx: Any, upstream: "torch.Tensor") -> "tuple[torch.Tensor | None, ...]":
        x, weight, scale = ctx.saved_tensors
        g_x = g_weight = None
        if ctx.needs_input_grad[1]:
            rows = (upstream * x).reshape(-1, x.shape[-1])
            g_weight = torch.mv(rows.t(), scale.reshape(-1))
        if ctx.needs_input_grad[0]:
            g_x = upstream * (weight + ctx.offset if ctx.offset else weight)
            inner = torch.linalg.vecdot(g_x, x).unsqueeze(-1)
            inner.mul_(scale).mul_(scale).div_(x.shape[-1])
            g_x.addcmul_(x, inner, value=-1).mul_(scale)
        return g_x, g_weight, None, None
