"""Causal attention of training steps in bfloat16, by products of whole blocks of queries.

torch's kernel for processors gains little from narrower numbers, but products of a stack of
matrices do: two to three times. So a block of queries, those of all heads that share keys at once,
is multiplied with all the keys that one of them sees. Scores and probabilities are rounded, what is
summed is not; they are made once more on the way back (arXiv 2112.05682), so nothing is kept that
grows with the square of a row. Where the processor multiplies tiles (AMX), the kernel is the
quicker one on the way there. Short rows, whose calls cost more than their products, keep it both
ways (docs/decisions/0022-steps-in-bfloat16.md).
"""

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    torch = late("torch")
    functional = late("torch.nn.functional")

BLOCK = 256
"""Queries multiplied at a time: what lies above the diagonal of a block is computed for nothing."""
BLOCK_OF_TILES = 128
"""The same where products take less time than what lies around them."""
LEAST = 256
"""Queries of a document from which this is the quicker way."""


class Block(NamedTuple):
    """Queries `first` to `last`, which see the keys up to `seen`."""

    first: int
    last: int
    seen: int


@cache
def tiles() -> bool:
    """Whether the processor multiplies whole tiles of bfloat16. Asked of it and not of a clock, so
    that a run that goes on computes as it did."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def attended(
    query: "torch.Tensor",  # [1, heads, time, size]
    key: "torch.Tensor",  # [1, key heads, keys, size], keys >= time
    value: "torch.Tensor",
    scaling: float | None,
) -> "torch.Tensor":
    """What the last `time` of all positions take of those up to them, [1, heads, time, size]."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    found: torch.Tensor = _Attended.apply(query[0], key[0], value[0], scale)  # type: ignore[no-untyped-call]
    return found.unsqueeze(0)


def blocks(time: int, keys: int) -> Iterator[Block]:
    """The queries in blocks of nearly one size."""
    count = -(-time // (BLOCK_OF_TILES if tiles() else BLOCK))
    borders = [time * at // count for at in range(count + 1)]
    for first, last in zip(borders, borders[1:], strict=False):
        yield Block(first, last, keys - time + last)


def _rows(states: "torch.Tensor", block: Block, heads: int) -> "torch.Tensor":
    """A block's rows of all heads that share keys, [key heads, rows, size]."""
    own = states[:, block.first : block.last]
    return own.reshape(heads, -1, own.shape[-1])


def _shares(rows: "torch.Tensor", key: "torch.Tensor", block: Block) -> "torch.Tensor":
    """How much each row takes of each key it sees, [key heads, rows, seen], all in bfloat16."""
    size = block.last - block.first
    scores = torch.bmm(rows, key[:, : block.seen].transpose(1, 2))
    beyond = scores.new_full((size, size), float("-inf")).triu_(1)
    scores.unflatten(1, (-1, size))[..., block.seen - size :].add_(beyond)
    return torch.softmax(scores, dim=-1)


def _by_kernel(query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor") -> "torch.Tensor":
    """What queries, scaled before, take of all positions up to their own, by torch's kernel."""
    found = functional.scaled_dot_product_attention(
        query.unsqueeze(0),
        key.unsqueeze(0),
        value.unsqueeze(0),
        is_causal=True,
        scale=1.0,
        enable_gqa=len(query) != len(key),
    )
    return found.squeeze(0)


def _by_block(query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor") -> "torch.Tensor":
    """The same of the last of all positions, by products of blocks."""
    found = query.new_empty(*query.shape[:2], value.shape[-1])
    for block in blocks(query.shape[1], key.shape[1]):
        shares = _shares(_rows(query, block, len(key)), key, block)
        taken = torch.bmm(shares, value[:, : block.seen])
        found[:, block.first : block.last] = taken.view(len(query), -1, taken.shape[-1])
    return found


class _Attended(torch.autograd.Function):
    """Keeps queries, keys and values."""

    @staticmethod
    def forward(
        ctx: Any,
        query: "torch.Tensor",  # [heads, time, size]
        key: "torch.Tensor",  # [key heads, keys, size]
        value: "torch.Tensor",
        scale: float,
    ) -> "torch.Tensor":
        ctx.save_for_backward(query, key, value)
        ctx.scale = scale
        states = (query * scale).bfloat16(), key.bfloat16(), value.bfloat16()
        whole = query.shape[1] == key.shape[1]
        found = _by_kernel(*states) if whole and tiles() else _by_block(*states)
        return found.to(query.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: "torch.Tensor") -> "tuple[torch.Tensor | None, ...]":
        query, key, value = ctx.saved_tensors
        heads, keys, values = len(key), key.bfloat16(), value.bfloat16()
        asked, given = (query * ctx.scale).bfloat16(), upstream.bfloat16()
        g_query, g_key, g_value = (torch.zeros_like(each) for each in (query, key, value))
        for block in blocks(query.shape[1], key.shape[1]):
            rows, up = (_rows(each, block, heads) for each in (asked, given))
            shares, seen = _shares(rows, keys, block), slice(block.seen)
            g_value[:, seen] += torch.bmm(shares.transpose(1, 2), up)
            g_shares = torch.bmm(up, values[:, seen].transpose(1, 2))
            g_scores = torch._softmax_backward_data(g_shares, shares, -1, g_shares.dtype)
            g_rows = torch.bmm(g_scores, keys[:, seen])
            g_query[:, block.first : block.last] = g_rows.view(len(query), -1, rows.shape[-1])
            g_key[:, seen] += torch.bmm(g_scores.transpose(1, 2), rows)
        return g_query.mul_(ctx.scale), g_key, g_value, None
