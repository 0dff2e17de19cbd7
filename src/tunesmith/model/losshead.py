"""Seam: log-probabilities at supervised positions, without ever holding all logits.

The head is the largest matrix of a small model and most positions carry no loss, so only the rows
that do are multiplied, a few hundred at a time, and gradients are made in the same pass: logits are
overwritten with `p - onehot`, and one more product gives the gradient of the hidden states. That is
two products where recomputation needs three. The reference path materialises all logits.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    torch = late("torch")
    functional = late("torch.nn.functional")

CHUNK = 256
"""Rows of logits alive at a time: 50 MB at a vocabulary of 49k, and no slower than more."""

Parts = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor | None"]


def nll(
    hidden: "torch.Tensor",  # [row, width]
    head: Any,
    targets: "torch.Tensor",  # [row]
    weights: "torch.Tensor",  # [row]
) -> "torch.Tensor":
    """sum_i weights_i * -log p(targets_i | hidden_i): a scalar in fp32 that backward only scales.

    `head` is a linear layer with `weight` [vocabulary, width] and maybe `bias`. Its gradient is
    made when it is trainable. No rows at all give a zero that can be differentiated.
    """
    total: torch.Tensor = _Nll.apply(hidden, head.weight, _bias(head), targets, weights)  # type: ignore[no-untyped-call]
    return total


def logps(
    hidden: "torch.Tensor",  # [row, width]
    head: Any,
    targets: "torch.Tensor",  # [row]
) -> "torch.Tensor":
    """log p(targets_i | hidden_i) for each row, [row] in fp32, under any upstream gradient."""
    values: torch.Tensor = _Logps.apply(hidden, head.weight, _bias(head), targets)  # type: ignore[no-untyped-call]
    return values


def nll_reference(
    hidden: "torch.Tensor", head: Any, targets: "torch.Tensor", weights: "torch.Tensor"
) -> "torch.Tensor":
    """What `nll` computes, by materialised logits: the oracle of the parity test."""
    return -(logps_reference(hidden, head, targets) * weights).sum()


def logps_reference(hidden: "torch.Tensor", head: Any, targets: "torch.Tensor") -> "torch.Tensor":
    """What `logps` computes, by materialised logits."""
    logits = functional.linear(hidden, head.weight, _bias(head))
    return token_logps(logits, targets)


def token_logps(logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """log p of each row's target under its logits, in at least fp32."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return -functional.cross_entropy(precise, targets, reduction="none")


def _bias(head: Any) -> "torch.Tensor | None":
    return getattr(head, "bias", None)


def _precise(dtype: "torch.dtype") -> "torch.dtype":
    return torch.float64 if dtype == torch.float64 else torch.float32


def _logits(
    hidden: "torch.Tensor", weight: "torch.Tensor", bias: "torch.Tensor | None", out: "torch.Tensor"
) -> "torch.Tensor":
    """Logits of a chunk, in the shared buffer where the dtype allows it."""
    if hidden.dtype != out.dtype:
        return functional.linear(hidden, weight, bias).to(out.dtype)
    torch.mm(hidden, weight.t(), out=out)
    return out if bias is None else out.add_(bias)


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


def _by_chunk(
    hidden: "torch.Tensor",
    weight: "torch.Tensor",
    bias: "torch.Tensor | None",
    targets: "torch.Tensor",
    weights: "torch.Tensor",
) -> Iterator[tuple[slice, "torch.Tensor", "torch.Tensor"]]:
    """The rows of each chunk, log p of their targets and their residuals. The residuals share one
    buffer: they are gone when the next chunk comes."""
    shape = min(CHUNK, hidden.shape[0]), weight.shape[0]
    buffer = torch.empty(shape, dtype=_precise(hidden.dtype), device=hidden.device)
    for start in range(0, hidden.shape[0], CHUNK):
        part = slice(start, min(start + CHUNK, hidden.shape[0]))
        logits = _logits(hidden[part], weight, bias, buffer[: part.stop - part.start])
        yield part, _residuals(logits, targets[part], weights[part]), logits


class _Nll(torch.autograd.Function):
    """Gradients in the forward pass: the weights of the sum are known there."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: "torch.Tensor",
        weight: "torch.Tensor",
        bias: "torch.Tensor | None",
        targets: "torch.Tensor",
        weights: "torch.Tensor",
    ) -> "torch.Tensor":
        weights = weights.to(_precise(hidden.dtype))
        total = torch.zeros((), dtype=weights.dtype, device=hidden.device)
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        d_weight = torch.zeros_like(weight) if wants_weight else None
        d_bias = torch.zeros_like(bias) if bias is not None and wants_bias else None
        for part, chosen, residual in _by_chunk(hidden, weight, bias, targets, weights):
            total -= (chosen * weights[part]).sum()
            residual = residual.to(hidden.dtype)
            if d_hidden is not None:
                torch.mm(residual, weight, out=d_hidden[part])
            if d_weight is not None:
                d_weight.addmm_(residual.t(), hidden[part])
            if d_bias is not None:
                d_bias += residual.sum(0)
        ctx.gradients = (d_hidden, d_weight, d_bias)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: "torch.Tensor") -> tuple["torch.Tensor | None", ...]:
        scaled = [None if g is None else g.mul_(upstream.to(g.dtype)) for g in ctx.gradients]
        ctx.gradients = None
        return (*scaled, None, None)


class _Logps(torch.autograd.Function):
    """Keeps each row's `dlogp/dhidden`; backward scales it row by row."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: "torch.Tensor",
        weight: "torch.Tensor",
        bias: "torch.Tensor | None",
        targets: "torch.Tensor",
    ) -> "torch.Tensor":
        dtype = _precise(hidden.dtype)
        values = torch.empty(hidden.shape[0], dtype=dtype, device=hidden.device)
        ones = torch.ones_like(values)
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for part, chosen, residual in _by_chunk(hidden, weight, bias, targets, ones):
            values[part] = chosen
            if d_hidden is not None:
                torch.mm(residual.to(hidden.dtype), weight, out=d_hidden[part])
        ctx.save_for_backward(hidden, weight, bias, targets, d_hidden)
        return values

    @staticmethod
    def backward(ctx: Any, upstream: "torch.Tensor") -> tuple["torch.Tensor | None", ...]:
        hidden, weight, bias, targets, d_hidden = ctx.saved_tensors
        g_hidden = None
        if d_hidden is not None:
            g_hidden = d_hidden * -upstream.unsqueeze(1).to(d_hidden.dtype)
        g_weight = g_bias = None
        if any(ctx.needs_input_grad[1:3]):
            g_weight, g_bias = _head_gradients(hidden, weight, bias, targets, upstream)
        return g_hidden, g_weight, g_bias, None


def _head_gradients(
    hidden: "torch.Tensor",
    weight: "torch.Tensor",
    bias: "torch.Tensor | None",
    targets: "torch.Tensor",
    upstream: "torch.Tensor",
) -> tuple["torch.Tensor", "torch.Tensor | None"]:
    """The trained head's gradients, from logits made once more: too large to have been kept."""
    g_weight, shares = torch.zeros_like(weight), -upstream.to(_precise(hidden.dtype))
    g_bias = None if bias is None else torch.zeros_like(bias)
    for part, _, residual in _by_chunk(hidden, weight, bias, targets, shares):
        residual = residual.to(hidden.dtype)
        g_weight.addmm_(residual.t(), hidden[part])
        if g_bias is not None:
            g_bias += residual.sum(0)
    return g_weight, g_bias
