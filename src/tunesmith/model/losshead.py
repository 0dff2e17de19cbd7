"""Seam: log-probabilities at supervised positions, without ever holding all logits.

The head is the largest matrix of a small model and most positions carry no loss, so only the rows
that do are multiplied, a few hundred at a time, and gradients are made in the same pass: logits are
overwritten with `p - onehot`, and one more product gives the gradient of the hidden states. That is
two products where recomputation needs three. The reference path materialises all logits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.core.late import late
from tunesmith.model.coarse import Halves, noted
from tunesmith.model.products import product

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    torch = late("torch")
    functional = late("torch.nn.functional")

CHUNK = 128
"""Rows of logits made at a time: 25 MB at a vocabulary of 49k, which the allocator hands out again
where it asks the system anew for twice as much; per row quicker than 64 or 256."""
CHUNK_OF_GPU = 2048
"""The same where every launch is waited for."""


class _Head(NamedTuple):
    """Matrix, bias, the rows that stand in for some of the matrix's, and a coarser way to multiply
    by matrix and bias."""

    weight: "torch.Tensor"  # [vocabulary, width]
    bias: "torch.Tensor | None"
    swap: "_Swap | None"
    coarse: Halves | None = None


def nll(
    hidden: "torch.Tensor",  # [row, width]
    head: Any,
    targets: "torch.Tensor",  # [row]
    weights: "torch.Tensor",  # [row]
) -> "torch.Tensor":
    """sum_i weights_i * -log p(targets_i | hidden_i): a scalar in fp32 that backward only scales.

    `head` is a linear layer with `weight` [vocabulary, width] and maybe `bias`, or one in parts
    (`newrows.Head`). Its gradient is made when it is trainable. No rows at all give a zero that
    can be differentiated.
    """
    numbers = [head.weight, _bias(head), *_beside(head)]
    if not torch.is_grad_enabled():
        # A function of ours is asked for gradients by what it is given, whatever this says.
        numbers = [None if each is None else each.detach() for each in numbers]
    total: torch.Tensor = _Nll.apply(hidden, *numbers, targets, weights, noted(head, hidden))  # type: ignore[no-untyped-call]
    return total


def logps(
    hidden: "torch.Tensor",  # [row, width]
    head: Any,
    targets: "torch.Tensor",  # [row]
) -> "torch.Tensor":
    """log p(targets_i | hidden_i) for each row, [row] in fp32, under any upstream gradient."""
    values: torch.Tensor = _Logps.apply(hidden, head.weight, _bias(head), *_beside(head), targets)  # type: ignore[no-untyped-call]
    return values


def nll_reference(
    hidden: "torch.Tensor", head: Any, targets: "torch.Tensor", weights: "torch.Tensor"
) -> "torch.Tensor":
    """What `nll` computes, by materialised logits: the oracle of the parity test."""
    return -(logps_reference(hidden, head, targets) * weights).sum()


def logps_reference(hidden: "torch.Tensor", head: Any, targets: "torch.Tensor") -> "torch.Tensor":
    """What `logps` computes, by materialised logits."""
    return token_logps(head(hidden), targets)


def token_logps(logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """log p of each row's target under its logits, in at least fp32."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return -functional.cross_entropy(precise, targets, reduction="none")


def rows_at_once(device: "torch.device") -> int:
    """How many rows of logits are alive at a time on a device."""
    return CHUNK if device.type == "cpu" else CHUNK_OF_GPU


def _bias(head: Any) -> "torch.Tensor | None":
    return getattr(head, "bias", None)


def _beside(head: Any) -> "tuple[torch.Tensor | None, torch.Tensor | None]":
    """The rows that stand in for some of the matrix's, and which those are."""
    return getattr(head, "rows", None), getattr(head, "numbers", None)


def _precise(dtype: "torch.dtype") -> "torch.dtype":
    return torch.float64 if dtype == torch.float64 else torch.float32


def _logits(
    hidden: "torch.Tensor",
    head: _Head,
) -> "torch.Tensor":
    """Logits of a chunk, in at least fp32; a fresh tensor."""
    coarse = head.coarse
    found = product(hidden, head.weight, head.bias) if coarse is None else coarse.there(hidden)
    logits = found.to(_precise(hidden.dtype))
    if head.swap is not None:
        logits[:, head.swap.numbers] = (hidden @ head.swap.rows.t()).to(logits.dtype)
    return logits


@dataclass(frozen=True)
class _Swap:
    """Rows that stand in for those of the matrix at `numbers`."""

    rows: "torch.Tensor"  # [row, width]
    numbers: "torch.Tensor"  # [row]

    def taken(self, residual: "torch.Tensor") -> "torch.Tensor":
        """The rows' own columns out of `residual`, which is zero there from then on: the matrix
        has no part in them."""
        own = residual[:, self.numbers]
        residual[:, self.numbers] = 0
        return own


def _swap(rows: "torch.Tensor | None", numbers: "torch.Tensor | None") -> "_Swap | None":
    return None if rows is None or numbers is None else _Swap(rows, numbers)


def _to_hidden(chunk: "_Chunk", head: _Head, out: "torch.Tensor") -> None:
    """The gradient of a chunk's hidden states."""
    coarse, residual = head.coarse, chunk.residual
    out.copy_(product(residual, head.weight.t()) if coarse is None else coarse.back(residual))
    if head.swap is not None and chunk.own is not None:
        out.addmm_(chunk.own, head.swap.rows)


def _to_head(
    chunk: "_Chunk",
    hidden: "torch.Tensor",
    weight: "torch.Tensor | None",
    bias: "torch.Tensor | None",
    rows: "torch.Tensor | None",
) -> None:
    """Add a chunk's part to the gradients of the head that are wanted."""
    states = hidden[chunk.part]
    if weight is not None:
        weight.addmm_(chunk.residual.t(), states)
    if bias is not None:
        bias += chunk.residual.sum(0)
    if rows is not None and chunk.own is not None:
        rows.addmm_(chunk.own.t(), states)


def _residuals(
    logits: "torch.Tensor", targets: "torch.Tensor", weights: "torch.Tensor"
) -> "torch.Tensor":
    """Overwrite logits with `weights * (p - onehot)` and return log p of the targets, [row].

    One exponential a logit: the softmax is normalised by the factor that the weights need anyway.
    """
    columns = targets.unsqueeze(1)
    logits.sub_(logits.amax(dim=1, keepdim=True))
    chosen = logits.gather(1, columns).squeeze(1)
    normaliser = logits.exp_().sum(dim=1)
    logits.mul_((weights / normaliser).unsqueeze(1))
    logits.scatter_add_(1, columns, -weights.unsqueeze(1))
    return chosen - normaliser.log()


@dataclass(frozen=True)
class _Chunk:
    """Some rows: log p of their targets, and what their logits have to give in gradients."""

    part: slice
    chosen: "torch.Tensor"  # [row]
    residual: "torch.Tensor"  # [row, vocabulary]
    own: "torch.Tensor | None"  # [row, rows that stand in], taken out of `residual`


def _by_chunk(
    hidden: "torch.Tensor",
    head: _Head,
    targets: "torch.Tensor",
    weights: "torch.Tensor",
) -> Iterator[_Chunk]:
    """The rows, a chunk at a time."""
    size = rows_at_once(hidden.device)
    for start in range(0, hidden.shape[0], size):
        part = slice(start, min(start + size, hidden.shape[0]))
        logits = _logits(hidden[part], head)
        chosen = _residuals(logits, targets[part], weights[part])
        residual = logits.to(hidden.dtype)
        own = None if head.swap is None else head.swap.taken(residual)
        yield _Chunk(part, chosen, residual, own)


class _Nll(torch.autograd.Function):
    """Gradients in the forward pass: the weights of the sum are known there."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: "torch.Tensor",
        weight: "torch.Tensor",
        bias: "torch.Tensor | None",
        rows: "torch.Tensor | None",
        numbers: "torch.Tensor | None",
        targets: "torch.Tensor",
        weights: "torch.Tensor",
        coarse: Halves | None,
    ) -> "torch.Tensor":
        head = _Head(weight, bias, _swap(rows, numbers), coarse)
        weights = weights.to(_precise(hidden.dtype))
        total = torch.zeros((), dtype=weights.dtype, device=hidden.device)
        wants_hidden, wants_weight, wants_bias, wants_rows = ctx.needs_input_grad[:4]
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        d_weight = torch.zeros_like(weight) if wants_weight else None
        d_bias = torch.zeros_like(bias) if bias is not None and wants_bias else None
        d_rows = torch.zeros_like(rows) if rows is not None and wants_rows else None
        for chunk in _by_chunk(hidden, head, targets, weights):
            total -= (chunk.chosen * weights[chunk.part]).sum()
            if d_hidden is not None:
                _to_hidden(chunk, head, d_hidden[chunk.part])
            _to_head(chunk, hidden, d_weight, d_bias, d_rows)
        ctx.gradients = (d_hidden, d_weight, d_bias, d_rows)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: "torch.Tensor") -> tuple["torch.Tensor | None", ...]:
        scaled = [None if g is None else g.mul_(upstream.to(g.dtype)) for g in ctx.gradients]
        ctx.gradients = None
        return (*scaled, None, None, None, None)


class _Logps(torch.autograd.Function):
    """Keeps each row's `dlogp/dhidden`; backward scales it row by row."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: "torch.Tensor",
        weight: "torch.Tensor",
        bias: "torch.Tensor | None",
        rows: "torch.Tensor | None",
        numbers: "torch.Tensor | None",
        targets: "torch.Tensor",
    ) -> "torch.Tensor":
        head, dtype = _Head(weight, bias, _swap(rows, numbers)), _precise(hidden.dtype)
        values = torch.empty(hidden.shape[0], dtype=dtype, device=hidden.device)
        ones = torch.ones_like(values)
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for chunk in _by_chunk(hidden, head, targets, ones):
            values[chunk.part] = chunk.chosen
            if d_hidden is not None:
                _to_hidden(chunk, head, d_hidden[chunk.part])
        ctx.save_for_backward(hidden, weight, bias, rows, numbers, targets, d_hidden)
        return values

    @staticmethod
    def backward(ctx: Any, upstream: "torch.Tensor") -> tuple["torch.Tensor | None", ...]:
        hidden, weight, bias, rows, numbers, targets, d_hidden = ctx.saved_tensors
        g_hidden = None
        if d_hidden is not None:
            g_hidden = d_hidden * -upstream.unsqueeze(1).to(d_hidden.dtype)
        wanted = ctx.needs_input_grad[1:4]
        of_head: tuple[torch.Tensor | None, ...] = (None, None, None)
        if any(wanted):
            head = _Head(weight, bias, _swap(rows, numbers))
            of_head = _head_gradients(hidden, head, targets, upstream, wanted)
        return (g_hidden, *of_head, None, None)


def _head_gradients(
    hidden: "torch.Tensor",
    head: _Head,
    targets: "torch.Tensor",
    upstream: "torch.Tensor",
    wanted: Sequence[bool],
) -> "tuple[torch.Tensor | None, ...]":
    """The trained head's gradients, from logits made once more: too large to have been kept."""
    weight, bias, swap, _ = head
    g_weight = torch.zeros_like(weight) if wanted[0] else None
    g_bias = torch.zeros_like(bias) if bias is not None and wanted[1] else None
    g_rows = torch.zeros_like(swap.rows) if swap is not None and wanted[2] else None
    shares = -upstream.to(_precise(hidden.dtype))
    for chunk in _by_chunk(hidden, head, targets, shares):
        _to_head(chunk, hidden, g_weight, g_bias, g_rows)
    return g_weight, g_bias, g_rows
