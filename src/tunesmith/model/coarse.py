"""A linear layer's products, y = x W' + b, dx = dy W and dW = dy' x: in floats, bfloat16, or bytes.

bfloat16 has the range of single precision and 8 bits of its digits; what is multiplied is rounded
to it, summed in single precision, and rounded once more (arXiv 1905.12322). Bytes are rounded row
by row to the largest number of each row, multiplied, summed as integers and scaled back (arXiv
2208.07339, 2304.13013), and only of a weight that stays as it is. That takes half the time, and a
quarter to a third, on a processor that multiplies such numbers. What is rounded is gone, so only
training steps do it: answers, measures and merges stay exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

LARGEST = 127
"""Bytes run from minus this to this."""

LEAST = 1e-30
"""What stands for the largest number of a row of zeros."""


@dataclass(frozen=True)
class Floats:
    """Both products with floats, made anew each time where a layer holds bits."""

    weight: "Callable[[], torch.Tensor]"  # [out, in]
    bias: "torch.Tensor | None"

    def there(self, x: "torch.Tensor") -> "torch.Tensor":
        """x W' + b."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return torch.nn.functional.linear(x, self.weight().to(x.dtype), bias)

    def back(self, upstream: "torch.Tensor") -> "torch.Tensor":
        """dy W."""
        return upstream @ self.weight().to(upstream.dtype)


@dataclass(frozen=True)
class Halves:
    """Products with the weight in bfloat16, made anew each time where a layer holds bits."""

    weight: "Callable[[], torch.Tensor]"  # [out, in]
    bias: "torch.Tensor | None"

    def there(self, x: "torch.Tensor") -> "torch.Tensor":
        """x W' + b, widened to single precision; `x` may have been rounded before."""
        found = torch.nn.functional.linear(x.bfloat16(), self.weight().bfloat16()).float()
        return found if self.bias is None else found.add_(self.bias)

    def back(self, upstream: "torch.Tensor") -> "torch.Tensor":
        """dy W."""
        return (upstream.bfloat16() @ self.weight().bfloat16()).to(upstream.dtype)

    def to_weight(self, upstream: "torch.Tensor", x: "torch.Tensor") -> "torch.Tensor":
        """dy' x over all rows, [out, in], of a weight that trains."""
        return (upstream.bfloat16().t() @ x.bfloat16()).to(upstream.dtype)


@dataclass(frozen=True)
class Bytes:
    """Both products with the bytes that a layer holds, what is multiplied rounded to bytes too."""

    weight: "torch.Tensor"  # [out, in] int8
    steps: "torch.Tensor"  # [out], what a unit of each row of the weight stands for
    bias: "torch.Tensor | None"

    def there(self, x: "torch.Tensor") -> "torch.Tensor":
        """x W' + b."""
        rows, steps = rounded(x.reshape(-1, x.shape[-1]))
        found = torch.mul(torch._int_mm(rows, self.weight.t()), self.steps).mul_(steps)
        found = found if self.bias is None else found.add_(self.bias)
        return found.view(*x.shape[:-1], -1)

    def back(self, upstream: "torch.Tensor") -> "torch.Tensor":
        """dy W; the weight's steps are taken into dy before that is rounded."""
        rows, steps = rounded((upstream * self.steps).reshape(-1, len(self.steps)))
        found = torch.mul(torch._int_mm(rows, self.weight), steps)
        return found.view(*upstream.shape[:-1], -1)


Products = Floats | Halves | Bytes


def rounded(x: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """The rows of `x` as bytes, and what a unit of each stands for, [row, 1]."""
    steps = x.abs().amax(dim=1, keepdim=True).clamp_(min=LEAST).div_(LARGEST)
    return torch.div(x, steps).round_().to(torch.int8), steps


def rounds(x: "torch.Tensor") -> bool:
    """Whether products with `x` may be coarse: in a training step, in single precision."""
    trains = torch.is_grad_enabled() and x.dtype == torch.float32
    return trains and x.device.type == "cpu"


NEEDS = {"bfloat16": "AVX512-BF16", "bytes": "AVX512-VNNI"}
"""The instructions with which products in such numbers were measured to win."""


@cache
def multiplies(kind: Literal["bfloat16", "bytes"]) -> bool:
    """Whether the processor has them.

    Asked of the processor and not of a clock, so that a run that goes on computes as it did.
    """
    name = NEEDS[kind].lower().replace("-", "_")
    return bool(torch.cpu.get_capabilities().get(name, False))


def noted(layer: Any, x: "torch.Tensor") -> Halves | Bytes | None:
    """How a training step multiplies a layer by `x`, if coarsely: what was noted on it."""
    return getattr(layer, "in_steps", None) if rounds(x) else None
