"""Seam: how likely every choice is after a prompt, with the prompt read once.

Prompt and trie go through the model in one pass. A token of the trie sees the prompt, its own
ancestors and itself, at the position it has in its own sequence, so every choice gets the numbers
it would get alone. Which of these a layer may look at is the model's own rule, asked at those
positions: sliding windows and chunks need no code here. The reference path reads the prompt afresh
for every choice; `logps` takes the fast path only where a probe gives the reference's numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from tunesmith.model import layout
from tunesmith.model.attention import BROKEN, after
from tunesmith.model.lead import Lead, of
from tunesmith.model.modes import evaluating
from tunesmith.model.sight import Sight, refuse_more, sight
from tunesmith.model.trie import ROOT, Trie, grown

NAME = "tunesmith_tree"


@dataclass(frozen=True)
class Tree:
    """A prompt and the inner nodes of a trie as one sequence."""

    ids: torch.Tensor  # [token]
    positions: torch.Tensor  # [token]
    seen: torch.Tensor  # [token, token] bool: the prompt's past, or a node's ancestors
    places: dict[int, int]  # inner node -> where its logits stand, the root's first
    lead: Lead | None = None  # what stands before the prompt

    def visible(self, rule: Callable[..., torch.Tensor]) -> torch.Tensor:
        """[query, key]: what is in the same sequence, as far as the model's rule lets it look."""
        zero = torch.zeros((), dtype=torch.long, device=self.ids.device)
        start = 0 if self.lead is None else self.lead.length
        before = torch.arange(start, device=self.ids.device)
        seen = torch.cat([self.seen.new_ones(len(self.ids), start), self.seen], dim=1)
        at = self.positions + start
        return seen & rule(zero, zero, at[:, None], torch.cat([before, at])[None, :])


def logps(model: Any, prompt: tuple[int, ...], trie: Trie) -> torch.Tensor:
    """log p of every choice given the prompt, its end of turn included, [choice] float64."""
    with torch.no_grad(), evaluating(model):
        if model not in _PROVED:
            _PROVED[model] = works(model)
        return (together if _PROVED[model] else one_by_one)(model, prompt, trie)


def one_by_one(model: Any, prompt: tuple[int, ...], trie: Trie) -> torch.Tensor:
    """The reference: a plain forward pass of prompt and choice for each choice."""
    device = next(model.parameters()).device
    plain, before, found = layout.causal(model), of(model), []
    for path in trie.paths:
        ids = torch.tensor([[*prompt, *path[:-1]]], device=device)
        given = {} if before is None else {"past_key_values": before.cache()}
        logits = plain(input_ids=ids, use_cache=bool(given), **given).logits[0, len(prompt) - 1 :]
        wanted = torch.tensor(path, device=device)[:, None]
        found.append(chances(logits).gather(1, wanted).double().sum())
    return torch.stack(found)


def together(model: Any, prompt: tuple[int, ...], trie: Trie) -> torch.Tensor:
    """The fast path: one pass over the prompt and the trie."""
    tree = replace(planted(prompt, trie, next(model.parameters()).device), lead=of(model))
    values = chances(_pass(model, tree)[0, -len(tree.places) :])
    steps = [(tree.places[n], t) for c in range(len(trie.texts)) for n, t in trie.walk(c)]
    rows, tokens = torch.tensor(steps, device=values.device).T
    sums = values[rows, tokens].double().split([len(path) for path in trie.paths])
    return torch.stack([each.sum() for each in sums])


def chances(logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities in single precision or better."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.log_softmax(dim=-1)


def planted(prompt: tuple[int, ...], trie: Trie, device: torch.device) -> Tree:
    """The prompt, then every inner node of the trie; a leaf predicts nothing, so it stays out."""
    steps = [(node, *step) for node, below in enumerate(trie.children) for step in below.items()]
    inner = [(parent, token, node) for parent, token, node in steps if node not in trie.ends]
    places = {ROOT: 0} | {node: at for at, (_, _, node) in enumerate(inner, 1)}
    size, total = len(prompt), len(prompt) + len(inner)
    seen = torch.ones(total, total, dtype=torch.bool, device=device).tril()
    positions = list(range(size))
    for at, (parent, _, _) in enumerate(inner, size):
        above = size - 1 + places[parent]
        seen[at] = seen[above]
        seen[at, at] = True
        positions.append(positions[above] + 1)
    ids = torch.tensor([*prompt, *(token for _, token, _ in inner)], device=device)
    return Tree(ids, torch.tensor(positions, device=device), seen, places)


def attend(
    module: Any,
    query: torch.Tensor,  # [1, heads, token, size]
    key: torch.Tensor,  # [1, key heads, token, size]
    value: torch.Tensor,
    attention_mask: Sight,
    *,
    tree: Tree,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface over a tree."""
    refuse_more(rest)
    if attention_mask.kept is None:
        attention_mask.kept = tree.visible(attention_mask.rule)
    if tree.lead is not None:
        _, key, value = after(tree.lead.layers[module.layer_idx], (query, key, value))
    found = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask.kept,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found.transpose(1, 2), None


def _pass(model: Any, tree: Tree) -> torch.Tensor:
    """Logits of one forward pass, of the trie's places only where the model can do that."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sight)
    plain = layout.causal(model)
    before = plain.config._attn_implementation
    plain.config._attn_implementation = NAME
    try:
        output = plain(
            input_ids=tree.ids[None],
            position_ids=tree.positions[None] + (0 if tree.lead is None else tree.lead.length),
            # All ones: without it, positions that repeat would be taken for packed documents.
            attention_mask=torch.ones_like(tree.ids)[None],
            use_cache=False,
            logits_to_keep=len(tree.places),
            tree=tree,
        )
    finally:
        plain.config._attn_implementation = before
    return output.logits  # type: ignore[no-any-return]


_PROVED: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
PROBE = (1, 5, 2, 4, 3)
"""A short prompt of ids that every vocabulary has."""
PROBE_CHOICES = ((5, 2), (5, 4, 1, 2), (5, 4, 3, 2), (3, 2))


def works(model: Any) -> bool:
    """Whether one pass over a small trie gives the reference's numbers on this model."""
    if not getattr(layout.causal(model), "_supports_attention_backend", False):
        return False
    trie = grown([str(path) for path in PROBE_CHOICES], PROBE_CHOICES)
    try:
        given = together(model, PROBE, trie)
    except BROKEN:
        return False  # whatever the model asks of its attention, it is more than a tree gives
    expected = one_by_one(model, PROBE, trie)
    exact = next(model.parameters()).dtype in (torch.float32, torch.float64)
    return bool((given - expected).abs().max() <= (1e-4 if exact else 1e-1))
