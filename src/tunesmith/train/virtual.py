"""What a prefix and a prompt have in common: virtual tokens, and the real ones they start from."""

from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import SettingsError
from tunesmith.core.late import late
from tunesmith.model import layout, lead
from tunesmith.train import peft_folder

if TYPE_CHECKING:
    import torch

    from tunesmith.model.tokenizer import Tokenizer
else:
    torch = late("torch")


def refuse_unfit(model: Any, kind: str, length: int) -> None:
    """Refuse models that have nowhere to put a virtual token."""
    if not layout.writes(model):
        raise SettingsError(
            f"train.method: {kind} stands before what a model reads in order, and this one is an "
            "encoder, which reads all at once. Use lora, adapter or full"
        )
    peft_folder.refuse_new_words(model, kind)
    context = layout.context(model)
    if context is not None and length >= context:
        raise SettingsError(
            f"train.method.{kind}.length: {length} virtual tokens leave no room for rows in this "
            f"model's context of {context}; take fewer"
        )


def sampled(model: Any, length: int, seed: int) -> "torch.Tensor":
    """Ids of the vocabulary at random."""
    generator = torch.Generator("cpu").manual_seed(seed)
    size = layout.vocabulary(model)
    return torch.randint(size, (length,), generator=generator, device="cpu")


def of_text(text: str, tokenizer: "Tokenizer", length: int) -> "torch.Tensor":
    """The ids of a text, again and again until they are `length`."""
    ids = tokenizer.encode(text)
    if not ids:
        raise SettingsError("train.method: text: is empty; leave it out, or write what the task is")
    return torch.tensor((ids * (length // len(ids) + 1))[:length], device="cpu")


def embeddings(model: Any, ids: "torch.Tensor") -> "torch.Tensor":
    """What the model looks up for some ids, [token, width]."""
    plain = layout.causal(model)
    with torch.no_grad():
        found: torch.Tensor = plain.get_input_embeddings()(ids.to(plain.device))
    return found


def keys_and_values(model: Any, ids: "torch.Tensor") -> lead.Lead:
    """What the model makes of some ids."""
    with torch.no_grad():
        return lead.read(layout.causal(model), embeddings(model, ids))


def put(model: Any, numbers: "torch.Tensor") -> None:
    """Start the virtual tokens from these numbers."""
    lead.weights(model).data.copy_(numbers)
