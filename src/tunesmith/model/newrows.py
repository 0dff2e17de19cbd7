"""Seam: rows of the embedding that train alone, without a copy of the matrix they belong to.

In every forward pass peft writes the trained rows into a copy of the matrix, once more for a head
that shares it, and gets their gradient as a part of the whole matrix's. Here the rows stand beside
the matrix: the embedding looks a new word up in them, and the loss head puts their logits in the
place of the matrix's. The reference path is peft's forward.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.model import forwards, layout

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    torch = late("torch")
    functional = late("torch.nn.functional")


def layers(model: Any) -> list[Any]:
    """The layers in which peft trains single rows; a tied head's shares those of the embedding."""
    if not hasattr(model, "peft_config"):
        return []
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer

    return [m for m in model.modules() if isinstance(m, TrainableTokensLayer)]


def parameters(model: Any) -> list[Any]:
    """The rows themselves."""
    return [row for layer in layers(model) for row in layer.trainable_tokens_delta.values()]


def embeddings(model: Any) -> list[Any]:
    """Those of `layers` that do nothing but look rows up."""
    return [layer for layer in layers(model) if type(layer.base_layer) is torch.nn.Embedding]


def switched(plain: Sequence[Any]) -> AbstractContextManager[None]:
    """The fast look-up for the time of one forward pass; anyone else sees peft's."""
    return forwards.standing_in({layer: MethodType(look_up, layer) for layer in plain})


def look_up(layer: Any, ids: "torch.Tensor") -> "torch.Tensor":
    """The embedding of `ids`; by peft where the rows are switched off or already in the matrix."""
    if layer.disable_adapters or layer.merged:
        return type(layer).forward(layer, ids)  # type: ignore[no-any-return]
    found: torch.Tensor = layer.base_layer(ids)
    numbers, rows = beside(layer)
    order = numbers.argsort()
    place = torch.searchsorted(numbers[order], ids).clamp(max=len(numbers) - 1)
    place = order[place]  # [.., time], which row a token would have
    new = (numbers[place] == ids).unsqueeze(-1)
    return torch.where(new, functional.embedding(place, rows).to(found.dtype), found)


def beside(layer: Any) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Which rows of the matrix train, [row], and what stands in for them, [row, width]."""
    (name,) = layer.active_adapters
    rows: torch.Tensor = layer.trainable_tokens_delta[name]
    return torch.tensor(layer.token_indices[name], device=rows.device), rows


@dataclass(frozen=True)
class Head:
    """A head in its parts: a matrix, and rows that stand in for those at `numbers`."""

    weight: "torch.Tensor"  # [vocabulary, width]
    numbers: "torch.Tensor"  # [row]
    rows: "torch.Tensor"  # [row, width]
    bias: None = None
    in_steps: Any = None
    """How training steps multiply the matrix, if coarsely (`coarse`)."""

    def __call__(self, hidden: "torch.Tensor") -> "torch.Tensor":
        logits = functional.linear(hidden, self.weight)
        return logits.index_copy(-1, self.numbers, functional.linear(hidden, self.rows))


def head(model: Any) -> Any:
    """The model's head; in its parts where rows of it train."""
    found = layout.head(model)
    layer = next((m for m in layers(model) if m is getattr(found, "token_adapter", None)), None)
    if layer is None:
        return found
    if layer.disable_adapters or layer.merged:
        return layer.base_layer
    numbers, rows = beside(layer)
    weight, in_steps = layer.base_layer.weight, getattr(layer.base_layer, "in_steps", None)
    return Head(weight, numbers, rows.to(weight.dtype), in_steps=in_steps)


@contextmanager
def folded(model: Any) -> Iterator[None]:
    """The rows inside the matrix for a while: generation would copy it for every token."""
    fold(model)
    try:
        yield
    finally:
        for layer in layers(model):
            layer.unmerge()


def fold(model: Any) -> None:
    """Put the rows into the matrix, for a model that is only used from here on."""
    for layer in layers(model):
        layer.merge()
