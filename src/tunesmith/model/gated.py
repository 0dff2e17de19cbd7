"""Seam: a gated feed-forward part (SwiGLU, arXiv 2002.05202), its three layers as one function.

It keeps its input, gate and up; what lies between is made once more on the way back, in place. The
reference path is the module's own forward.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.model import lowrank
from tunesmith.model.lowrank import Linear

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    torch = late("torch")
    functional = late("torch.nn.functional")

Activation = Callable[["torch.Tensor"], "torch.Tensor"]


def layers(module: Any) -> list[Any] | None:
    """Gate, up and down of a module that is built of these and an activation by SiLU."""
    found = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if any(each is None for each in found) or not hasattr(module, "act_fn"):
        return None
    return found


def feed_forward(x: "torch.Tensor", linears: Sequence[Linear]) -> "torch.Tensor":
    """down(silu(gate(x)) * up(x)), [..., width]."""
    flat = x.reshape(-1, x.shape[-1])
    output: torch.Tensor = _Gated.apply(flat, *[part for each in linears for part in each])  # type: ignore[no-untyped-call]
    return output.view(*x.shape[:-1], -1)


class _Gated(torch.autograd.Function):
    """Its backward writes into what it has made itself, never into what autograd handed over."""

    @staticmethod
    def forward(ctx: Any, x: "torch.Tensor", *parts: Any) -> "torch.Tensor":
        linears = lowrank.unfold(parts)
        (gate, up), narrow = lowrank.outputs_of(x, linears[:2])
        inner = functional.silu(gate).mul_(up)
        (output,), low = lowrank.outputs_of(inner, linears[2:])
        lowrank.save(ctx, linears, x, narrow, gate, up, low)
        return output

    @staticmethod
    def backward(ctx: Any, upstream: "torch.Tensor") -> "tuple[torch.Tensor | None, ...]":
        (x, narrow, gate, up, low), linears = lowrank.saved(ctx)
        size, wanted = 2 * lowrank.PARTS, ctx.needs_input_grad
        active = functional.silu(gate)
        g_inner, of_down = lowrank.gradients_of(
            active * up, low, linears[2:], [upstream], (True, *wanted[1 + size :])
        )
        assert g_inner is not None
        g_up = active.mul_(g_inner)
        g_gate = torch.ops.aten.silu_backward(g_inner.mul_(up), gate)
        g_x, of_both = lowrank.gradients_of(
            x, narrow, linears[:2], [g_gate, g_up], wanted[: 1 + size]
        )
        return (g_x, *of_both, *of_down)
