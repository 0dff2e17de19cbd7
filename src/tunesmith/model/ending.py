"""Seam: behind the attention of the last block, only the tokens that are asked for.

A token's last state depends on no other token's, once attention has brought together what it
takes from them. So the output layer and the feed-forward part of the last block, and the norms
around them, are of those tokens alone: under a long prompt with a short answer that is a thirtieth
of a pass over thirty blocks, and of what it keeps for the way back. Known by structure, proven by a
short pass. The reference path is the block's own forward, over every token.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.model import attention, fused, layout
from tunesmith.model.modes import evaluating

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

HOLDS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
"""What a block of two parts behind a norm each holds, in Llama and kin."""


def parts(
    model: Any, found: Sequence[fused.Part], seen: Mapping[Any, fused.Call]
) -> list[fused.Part]:
    """The last block of a packed causal model, where it may end so, by what was `seen` of a short
    pass; none where its attention is not among the parts `found`, or more is done than its modules
    tell."""
    block, known = layout.blocks(model)[-1], [part.module for part in found]
    if not all(hasattr(block, name) for name in HOLDS) or block.self_attn not in known:
        return []
    with torch.no_grad(), attention.switched(model):
        if block not in seen or not fused.steady(block, seen[block]):
            return []
    part = fused.Part(block, partial(shortened, block))
    return [part] if agrees(model, [*found, part]) else []


def agrees(model: Any, found: Sequence[fused.Part]) -> bool:
    """Whether some tokens' states are those that a pass over all gives them."""
    packed = attention.probed(model, share=False)
    some = torch.arange(1, packed.ids.shape[1], 3, device=packed.ids.device)
    with torch.no_grad(), evaluating(model), fused.switched(found):
        whole = attention.hidden(model, packed)[some]
        try:
            short = attention.hidden(model, packed, asked=some)
        except attention.BROKEN:
            return False
    return short.shape == whole.shape and fused.is_close(short, whole)


def shortened(
    block: Any,
    hidden_states: "torch.Tensor",  # [1, token, width]
    plan: attention.Plan | None = None,
    **rest: Any,
) -> "torch.Tensor":
    """The block's states of the tokens that the plan asks for, [1, asked, width]; of all where it
    says nothing."""
    if plan is None or plan.asked is None:
        told = {} if plan is None else {"plan": plan}
        return fused.own(block)(hidden_states, **told, **rest)  # type: ignore[no-any-return]
    states = block.input_layernorm(hidden_states)
    taken, _ = block.self_attn(states, plan=plan, only=plan.asked, **rest)
    states = hidden_states[:, plan.asked] + taken
    return states + block.mlp(block.post_attention_layernorm(states))  # type: ignore[no-any-return]
