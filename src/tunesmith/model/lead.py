"""Seam: keys and values that stand before every row, as a trained prefix or prompt leaves them.

A prefix is such keys and values (arXiv 2101.00190). A prompt is made into them by one short pass
over its embeddings (arXiv 2104.08691), which costs what its tokens cost and no more: whoever reads
rows, packed or one by one, then needs to know of one thing only. Gradients flow through both. The
reference path is the model's own cache.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.model import layout

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


@dataclass(frozen=True)
class Lead:
    """What every row attends to before its own first token."""

    layers: "tuple[tuple[torch.Tensor, torch.Tensor], ...]"  # [1, key heads, token, size] each

    @property
    def length(self) -> int:
        """How many tokens it stands for; a row's positions go on from there."""
        return self.layers[0][0].shape[2]

    def cache(self, rows: int = 1) -> Any:
        """The same as transformers' own cache, for so many rows."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for number, (keys, values) in enumerate(self.layers):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), number)
        return cache


def of(model: Any) -> Lead | None:
    """What stands before every row of a model under peft; None where nothing does."""
    settings = getattr(model, "peft_config", None)
    if not settings or not layout.virtual(model):
        return None
    plain = layout.causal(model)
    weight = weights(model).to(next(plain.parameters()).dtype)
    if settings[model.active_adapter].peft_type == "PROMPT_TUNING":
        return read(plain, weight)
    return Lead(unfolded(weight, settings[model.active_adapter]))


def weights(model: Any) -> "torch.nn.Parameter":
    """The trained numbers: [token, width] of a prompt, [token, 2 x layers x width] of a prefix."""
    trained: torch.nn.Parameter = model.prompt_encoder[model.active_adapter].embedding.weight
    return trained


def read(plain: Any, embeddings: "torch.Tensor") -> Lead:
    """The keys and values that a model makes of embeddings, [token, width]."""
    from transformers import DynamicCache

    cache: Any = DynamicCache()
    plain.base_model(inputs_embeds=embeddings.unsqueeze(0), past_key_values=cache, use_cache=True)
    return Lead(tuple((layer.keys, layer.values) for layer in cache.layers))


def unfolded(
    weight: "torch.Tensor", settings: Any
) -> "tuple[tuple[torch.Tensor, torch.Tensor], ...]":
    """A prefix as peft keeps it, by layer."""
    tokens, heads = weight.shape[0], settings.num_attention_heads
    parts = weight.view(tokens, 2 * settings.num_layers, heads, settings.token_dim // heads)
    parts = parts.permute(1, 2, 0, 3).unsqueeze(1)  # [2 x layers, 1, heads, token, size]
    return tuple((parts[at], parts[at + 1]) for at in range(0, len(parts), 2))


def folded(lead: Lead) -> "torch.Tensor":
    """The inverse: keys and values as peft keeps a prefix, [token, 2 x layers x width]."""
    parts = torch.stack([each[0] for layer in lead.layers for each in layer])
    return parts.permute(2, 0, 1, 3).reshape(lead.length, -1)
