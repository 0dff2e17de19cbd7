"""A model under peft while it trains: its own tensors, and the folder it leaves."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.disk import disk_errors
from tunesmith.core.errors import SettingsError
from tunesmith.core.late import late
from tunesmith.model import layout, vocabulary
from tunesmith.model.trained import WEIGHTS, adapted

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def wrapped(model: Any, settings: Any, seed: int) -> Any:
    """The model under a fresh adapter, whose random numbers come from `seed`."""
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 a question by its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        torch.manual_seed(seed)
        return get_peft_model(model, settings)


def state(model: Any) -> dict[str, "torch.Tensor"]:
    """The adapter's tensors by the names they have in its file, where training can reach them."""
    from peft import get_peft_model_state_dict

    if layout.virtual(model):
        # peft gives a copy of these.
        return {"prompt_embeddings": model.prompt_encoder["default"].embedding.weight.detach()}
    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


def save(tensors: dict[str, "torch.Tensor"], settings: Any, folder: Path) -> None:
    """Write the folder that peft loads."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with disk_errors(folder, "save the trained model"):
        save_file(contiguous, folder / WEIGHTS, metadata={"format": "pt"})
        settings.inference_mode = True
        settings.save_pretrained(folder)
        settings.inference_mode = False


def load(model: Any, folder: Path) -> Any:
    """The base with the folder's adapter in place, gradients off."""
    return adapted(model, folder).requires_grad_(False).eval()


def task(model: Any) -> str:
    """What peft calls the use of a model."""
    return "CAUSAL_LM" if layout.writes(model) else "FEATURE_EXTRACTION"


def refuse_new_words(model: Any, kind: str) -> None:
    """Refuse words whose rows nothing would train."""
    if vocabulary.added(model):
        raise SettingsError(
            f"train.method: {kind} leaves the embedding as it is, so the words of model.tokens "
            "would never be learned. Use lora or full, or leave model.tokens out"
        )
