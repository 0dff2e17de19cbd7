"""A linear layer's products, y = x W' + b, dx = dy W and dW = dy' x: in floats, bfloat16, or bytes.

bfloat16 has the range of single precision and 8 bits of its digits; what is multiplied is rounded
to it, summed in single precision, and rounded once more (arXiv 1905.12322). Bytes are rounded row
by row to the largest number of each row, multiplied, summed as integers and scaled back (arXiv
2304.13013), and only of a weight that stays as it is. A few columns of a language model's numbers
are many times as large as the rest, which would be rounded away beside them: those are multiplied
in floats (arXiv 2208.07339). Coarse products take half the time, and a quarter to a third, on a
processor that multiplies such numbers. What is rounded is gone, so only training steps do it:
answers, measures and merges stay exact.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

LARGEST = 127
"""Bytes run from minus this to this."""

LEAST = 1e-30
"""What stands for the largest number of a row of zeros."""

APART = 16
"""Columns multiplied in floats beside bytes: 8 leave gradients coarser, 32 no finer, and each takes
time (docs/decisions/0015-steps-in-bytes.md)."""


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

    def there(self, x: "torch.Tensor | Rounded") -> "torch.Tensor":
        """x W' + b, of numbers [..., in] or of their rows, rounded before."""
        if not isinstance(x, Rounded):
            rows = Rounded.of(x.reshape(-1, x.shape[-1]))
            return self.there(rows).view(*x.shape[:-1], -1)
        found = _product(x.rows, self.weight.t()).mul_(self.steps).mul_(x.steps)
        beside = self.weight.index_select(1, x.columns).to(found.dtype)
        found.addmm_(x.apart, beside.mul_(self.steps.unsqueeze(1)).t())
        return found if self.bias is None else found.add_(self.bias)

    def back(self, upstream: "torch.Tensor") -> "torch.Tensor":
        """dy W; the weight's steps are taken into dy before that is rounded."""
        rows, steps = rounded_((upstream * self.steps).reshape(-1, len(self.steps)))
        return _product(rows, self.weight).mul_(steps).view(*upstream.shape[:-1], -1)


Products = Floats | Halves | Bytes


class Rounded(NamedTuple):
    """Rows as bytes, but for the columns that hold the largest numbers of all of them."""

    rows: "torch.Tensor"  # [row, in] int8, zero in `columns`
    steps: "torch.Tensor"  # [row, 1], what a unit of each stands for
    columns: "torch.Tensor"  # [some]
    apart: "torch.Tensor"  # [row, some], the numbers of those

    @classmethod
    def of(cls, x: "torch.Tensor") -> "Rounded":
        """The rows of `x`, [row, in]."""
        size = x.abs()
        # A narrow layer keeps three quarters of its columns in bytes.
        columns = size.amax(dim=0).topk(min(APART, x.shape[1] // 4)).indices
        steps = _steps_(size.index_fill_(1, columns, 0).amax(dim=1, keepdim=True))
        rows = torch.div(x, steps, out=size).round_().to(torch.int8).index_fill_(1, columns, 0)
        return cls(rows, steps, columns, x.index_select(1, columns))


def taken(x: "torch.Tensor", by: Sequence[Products | None]) -> Any:
    """Rows [row, in] as several products take them all, rounded once; as they are where those
    differ."""
    if all(isinstance(each, Halves) for each in by):
        return x.bfloat16()
    return Rounded.of(x) if all(isinstance(each, Bytes) for each in by) else x


def rounded_(x: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """The rows of `x`, [row, in], whose place is taken, as bytes; and what a unit of each stands
    for, [row, 1]."""
    # Two passes that only read take less time than one that also writes all sizes.
    steps = _steps_(torch.maximum(x.amax(1, keepdim=True), x.amin(1, keepdim=True).neg_()))
    return x.div_(steps).round_().to(torch.int8), steps


def _steps_(largest: "torch.Tensor") -> "torch.Tensor":
    """What a unit of rows stands for, in the place of their largest numbers."""
    return largest.clamp_(min=LEAST).div_(LARGEST)


def _product(rows: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
    """The sums of products of bytes, as floats."""
    found = torch._int_mm(rows, weight)
    # In the same memory: fresh pages, and an operation over two types, cost as much as the product.
    return found.view(torch.float32).copy_(found)


_reads_for_steps = [False]


@contextmanager
def as_in_steps() -> Iterator[None]:
    """Products as in training steps without gradients: a model that stays as it is is read once
    for all of them."""
    _reads_for_steps.append(True)
    try:
        yield
    finally:
        _reads_for_steps.pop()


def rounds(x: "torch.Tensor") -> bool:
    """Whether products with `x` may be coarse: in a training step, in single precision."""
    trains = torch.is_grad_enabled() or _reads_for_steps[-1]
    return trains and x.dtype == torch.float32 and x.device.type == "cpu"


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
