"""Seam: rotary positions as one function that keeps only their cosines and sines.

Rotation is linear, so nothing of queries and keys is needed on the way back (arXiv 2104.09864).
The reference path is the `apply_rotary_pos_emb` of the model's own file.
"""

from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def rotated(x: "torch.Tensor", cos: "torch.Tensor", sin: "torch.Tensor") -> "torch.Tensor":
    """x * cos + (-x2, x1) * sin, where x1 and x2 are the halves of the last dimension.

    `cos` and `sin` have no gradient and must be given in a shape that x can be multiplied by.
    """
    output: torch.Tensor = _Rotated.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return output


def reference(x: "torch.Tensor", cos: "torch.Tensor", sin: "torch.Tensor") -> "torch.Tensor":
    """The same by plain arithmetic: the oracle of the parity test."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


class _Rotated(torch.autograd.Function):
    """Back by the transposed rotation."""

    @staticmethod
    def forward(
        ctx: Any, x: "torch.Tensor", cos: "torch.Tensor", sin: "torch.Tensor"
    ) -> "torch.Tensor":
        ctx.save_for_backward(cos, sin)
        output, half = x * cos, x.shape[-1] // 2
        output[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        output[..., half:].addcmul_(x[..., :half], sin[..., half:])
        return output

    @staticmethod
    def backward(ctx: Any, upstream: "torch.Tensor") -> "tuple[torch.Tensor | None, ...]":
        cos, sin = ctx.saved_tensors
        g_x, half = upstream * cos, upstream.shape[-1] // 2
        g_x[..., :half].addcmul_(upstream[..., half:], sin[..., half:])
        g_x[..., half:].addcmul_(upstream[..., :half], sin[..., :half], value=-1)
        return g_x, None, None
