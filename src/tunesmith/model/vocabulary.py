"""Rows of the embedding for new words, started from what the words were made of."""

from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import SettingsError
from tunesmith.core.late import late
from tunesmith.model import layout
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.words import pieces

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def grow(model: Any, before: Tokenizer, after: Tokenizer) -> None:
    """Give `model` a row for each word that `after` has and `before` has not, in place.

    A row starts as the mean of the rows of the word's pieces (as in arXiv 2109.07460), in the head
    too where that has its own. No other number changes.
    """
    rows = dict(pieces(before, after))
    if after.size > model.get_input_embeddings().weight.shape[0]:
        with torch.random.fork_rng(devices=[]):  # fresh rows are drawn, then written over
            model.resize_token_embeddings(after.size, mean_resizing=False)
    with torch.no_grad():
        for layer in ends(model):
            bias = getattr(layer, "bias", None)
            for weight in [layer.weight, *([] if bias is None else [bias])]:
                for number, made_of in rows.items():
                    weight[number] = weight[made_of].double().mean(0).to(weight)
    model.added_rows = list(rows)


def added(model: Any) -> list[int]:
    """The rows that `grow` made."""
    return list(getattr(layout.causal(model), "added_rows", ()))


def ends(model: Any) -> list[Any]:
    """The input embedding, and the head where it is not the same matrix."""
    embedding = model.get_input_embeddings()
    return [embedding] if layout.tied(model) else [embedding, layout.head(model)]


def trained_alone(model: Any) -> dict[str, list[int]] | None:
    """The new rows by the name of their layer, for an adapter that trains them beside itself."""
    rows = added(model)
    if not rows:
        return None
    layers = ends(model)
    if getattr(layout.head(model), "bias", None) is not None:
        raise SettingsError(
            "model.tokens: the head of this model has a bias, beside which peft cannot train "
            "single rows. Use train.method: full"
        )
    return {name: rows for name, layer in model.named_modules() if layer in layers}
