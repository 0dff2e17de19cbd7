"""Seam: attention inside each document as one function over torch's causal CPU kernel.

What all documents begin with is attended to by every later query in one call without a mask, and
each document's own tokens in one causal call; the two softmaxes are then merged by their
normalisers, as flash attention merges blocks (arXiv 2205.14135). Back, the kernel is given the
merged output and normaliser, with which each part's gradient comes out as it is. The reference path
is one call a document under a mask, which computes what lies above the diagonal too.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def serves(query: "torch.Tensor") -> bool:
    """Whether torch has the kernel for such numbers on such a device."""
    known = hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward")
    return known and query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64)


def documents(
    query: "torch.Tensor",  # [1, heads, token, size]
    key: "torch.Tensor",  # [1, key heads, token, size]
    value: "torch.Tensor",
    lengths: Sequence[int],
    *,
    shared: bool,
    scale: float | None,
) -> "torch.Tensor":
    """Attention of every token to its own document, with `shared` after what stands first,
    [1, token, heads, size]."""
    output: torch.Tensor = _Documents.apply(query, key, value, lengths, shared, scale)  # type: ignore[no-untyped-call]
    return output


def _spans(lengths: Sequence[int]) -> Iterator[slice]:
    start = 0
    for length in lengths:
        yield slice(start, start + length)
        start += length


class _Documents(torch.autograd.Function):
    """Keeps queries, keys, values, the output and a normaliser for each query."""

    @staticmethod
    def forward(
        ctx: Any,
        query: "torch.Tensor",
        key: "torch.Tensor",
        value: "torch.Tensor",
        lengths: Sequence[int],
        shared: bool,
        scale: float | None,
    ) -> "torch.Tensor":
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        _, heads, tokens, size = query.shape
        output = query.new_empty(1, tokens, heads, size).transpose(1, 2)
        normaliser = query.new_empty(1, tokens, heads).transpose(1, 2)
        for own in _spans(lengths):
            parts = (each[:, :, own] for each in (query, key, value))
            output[:, :, own], normaliser[:, :, own] = attend(*parts, 0.0, True, scale=scale)
        first = lengths[0]
        if shared and first < tokens:
            before = (each[:, :, :first] for each in (key, value))
            late = attend(query[:, :, first:], *before, 0.0, False, scale=scale)
            _merge(output[:, :, first:], normaliser[:, :, first:], *late)
        ctx.save_for_backward(query, key, value, output, normaliser)
        ctx.lengths, ctx.shared, ctx.scale = lengths, shared, scale
        return output.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, upstream: "torch.Tensor") -> "tuple[torch.Tensor | None, ...]":
        back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        query, key, value, output, normaliser = ctx.saved_tensors
        upstream = upstream.transpose(1, 2)
        found = [torch.empty_like(each) for each in (query, key, value)]
        for own in _spans(ctx.lengths):
            asked = (upstream, query, key, value, output, normaliser)
            parts = back(*(t[:, :, own] for t in asked), 0.0, True, scale=ctx.scale)
            for whole, part in zip(found, parts, strict=True):
                whole[:, :, own] = part
        first = ctx.lengths[0]
        if ctx.shared and first < query.shape[2]:
            late = [t[:, :, first:] for t in (upstream, query, output, normaliser)]
            before = [t[:, :, :first] for t in (key, value)]
            parts = back(*late[:2], *before, *late[2:], 0.0, False, scale=ctx.scale)
            found[0][:, :, first:] += parts[0]
            found[1][:, :, :first] += parts[1]
            found[2][:, :, :first] += parts[2]
        return (*found, None, None, None)


def _merge(
    output: "torch.Tensor",
    normaliser: "torch.Tensor",
    other: "torch.Tensor",
    other_normaliser: "torch.Tensor",
) -> None:
    """Make attention over two sets of keys out of attention over each, in place."""
    both = torch.logaddexp(normaliser, other_normaliser)
    output.mul_((normaliser - both).exp_().unsqueeze(-1))
    output.addcmul_(other, (other_normaliser - both).exp_().unsqueeze(-1))
    normaliser.copy_(both)
