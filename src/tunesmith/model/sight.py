"""Who sees whom, asked of the model's own mask rule, and attention by it over rows in slots.

What a token may see is asked at its row's own positions: sliding windows and chunks need no code
here. The rule travels through transformers' forward pass where a mask would.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as functional


class Sight:
    """The model's rule of who sees whom, for one forward pass."""

    def __init__(self, rule: Callable[..., torch.Tensor], reach: int | None, causal: bool) -> None:
        self.rule, self.reach, self.causal = rule, reach, causal
        self.kept: torch.Tensor | None = None
        self.prompts = dict[int, torch.Tensor]()

    def prompt(self, start: int, length: int, device: torch.device) -> torch.Tensor | None:
        """[query, key] of one prompt that goes on from `start` keys; None where plain causal
        attention says the same."""
        if self.causal and not start and (self.reach is None or length <= self.reach):
            return None
        if length not in self.prompts:  # all prompts of a pass go on from the same
            index = torch.arange(start + length, device=device)
            zero = torch.zeros((), dtype=torch.long, device=device)
            self.prompts[length] = self.rule(zero, zero, index[start:, None], index[None, :])
        return self.prompts[length]

    def rows(self, at: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
        """[row, 1, 1, key], 0 where a row's newest token sees and -inf elsewhere; all layers'."""
        if self.kept is None:
            batch = torch.arange(len(at), device=at.device)[:, None]
            keys = torch.arange(width, device=at.device)[None, :]
            zero = torch.zeros((), dtype=torch.long, device=at.device)
            seen = self.rule(batch, zero, at[:, None], keys)
            hidden = torch.zeros(seen.shape, dtype=dtype, device=at.device)
            self.kept = hidden.masked_fill_(~seen, -torch.inf)[:, None, None, :]
        return self.kept


def sight(
    *,
    mask_function: Callable[..., torch.Tensor],
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    use_vmap: bool = False,
    **_: Any,
) -> Sight:
    """transformers' mask interface: instead of a mask, the rule it would be made from."""
    if use_vmap:
        raise NotImplementedError("this model's mask rule cannot be asked for many rows at once")
    return Sight(mask_function, local_size, allow_is_causal_skip)


def refuse_more(told: Mapping[str, Any]) -> None:
    """Refuse what a model tells its attention beyond the factor of a softmax."""
    if any(told.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise NotImplementedError("this model's attention is more than a scaled softmax")


class Pass(Protocol):
    """What attention must know of a forward pass over slots."""

    @property
    def entering(self) -> list[int]:
        """Tokens that each new prompt brings; none where every row adds one token."""

    @property
    def before(self) -> int:
        """Keys that stand before all of the new prompts."""

    @property
    def at(self) -> torch.Tensor:
        """The position of each row's new token, [row]."""

    @property
    def blocks(self) -> list[tuple[slice, int]]:
        """Rows that attend in one call, and how far back."""


def attend(
    module: Any,
    query: torch.Tensor,  # entering: [1, heads, token, size]; extending: [row, heads, 1, size]
    key: torch.Tensor,  # entering: [1, key heads, token, size]; else [row, key heads, width, size]
    value: torch.Tensor,
    attention_mask: Sight,
    *,
    slots: Pass,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface over slots."""
    refuse_more(rest)
    if slots.entering:
        return attend_prompts(query, key, value, attention_mask, slots, scaling), None
    rows, heads, _, size = query.shape
    mask = attention_mask.rows(slots.at, key.shape[2], query.dtype)
    # Heads that share a key head stand as its queries: keys and values are read once, uncopied.
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    found = [
        functional.scaled_dot_product_attention(
            grouped[block],
            key[block, :, :width],
            value[block, :, :width],
            attn_mask=mask[block, ..., :width],
            scale=scaling,
        )
        for block, width in slots.blocks
    ]
    joined = found[0] if len(found) == 1 else torch.cat(found)
    return joined.reshape(rows, 1, heads, value.shape[-1]), None


def attend_prompts(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rule: Sight,
    slots: Pass,
    scaling: float | None,
) -> torch.Tensor:
    """Each packed prompt by itself, [1, token, heads, size]."""
    found = []
    widths = [slots.before + length for length in slots.entering]
    queries, keys = query.split(slots.entering, dim=2), key.split(widths, dim=2)
    for q, k, v in zip(queries, keys, value.split(widths, dim=2), strict=True):
        mask = rule.prompt(slots.before, q.shape[2], q.device)
        found.append(
            functional.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
        )
    return torch.cat(found, dim=2).transpose(1, 2)
