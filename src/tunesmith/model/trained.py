"""A trained folder back as a model: a base alone, one under an adapter or a head, a whole model."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import IntegrityError
from tunesmith.core.late import late
from tunesmith.model import heads, layout, newrows
from tunesmith.model.bases import Base
from tunesmith.model.binding import check_binding
from tunesmith.model.load import load_model, quiet
from tunesmith.model.policy import Policy
from tunesmith.model.safe import check_safetensors, check_settings
from tunesmith.model.tensors import read_tensors, shards
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.words import tokenizer_of

if TYPE_CHECKING:
    import torch

    from tunesmith.model import bottleneck
else:
    torch = late("torch")
    bottleneck = late("tunesmith.model.bottleneck")  # needs torch to be defined

ADVICE = "export it as it is (exports: [adapter]), or go on with it (model.start=continue)"
SETTINGS = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def load_trained(
    train_folder: Path, base: Base, *, device: str = "cpu", tuned: bool = True
) -> Policy:
    """The model of a finished train stage, frozen and in evaluation mode, in float32.

    `tuned=False` gives the base it started from, with its own tokenizer and no head. Reads PEFT
    folders, model folders and heads, safetensors only. Raises IntegrityError when the folder
    belongs to another base, is damaged, or holds none of them.
    """
    check_binding(train_folder, base)
    tokenizer = Tokenizer.load(train_folder if tuned else base.folder)
    if tuned and tokenizer.words != tokenizer_of(base).words:
        raise IntegrityError(
            f"{train_folder}: was trained with other words in model.tokens than those named here. "
            "Name the same ones, or train the run again: tunesmith train RUN.yaml --restart"
        )
    if not tuned:
        model = load_model(replace(base, tokens=()), device=device)
    elif (train_folder / SETTINGS).is_file():
        model = adapted(load_model(base, device=device), train_folder).to(device)
    elif (train_folder / bottleneck.SETTINGS).is_file():
        model = bottleneck.load(load_model(base, device=device), train_folder)
    elif head_alone(train_folder):
        model = load_model(base, device=device)
    else:
        model = load_model(whole(train_folder, base), device=device)
    head = heads.load(train_folder, layout.width(model)) if tuned else None
    return Policy(model.requires_grad_(False).eval(), tokenizer, head=head)


def has_adapter(folder: Path) -> bool:
    """Whether a folder holds something to put on a base."""
    return any((folder / name).is_file() for name in (SETTINGS, bottleneck.SETTINGS))


def head_alone(folder: Path) -> bool:
    """Whether nothing but a head was trained, so that the model under it is the base."""
    whole = (folder / "config.json").is_file()
    return (folder / heads.NAME).is_file() and not whole and not has_adapter(folder)


def whole(folder: Path, base: Base) -> Base:
    """A folder that full fine-tuning left, as the base of its own."""
    weights = [folder / name for name in shards(folder)]
    if not weights or not (folder / "config.json").is_file():
        raise IntegrityError(
            f"{folder}: holds neither an adapter ({WEIGHTS}) nor a model (config.json and "
            "*.safetensors). Train the run again: tunesmith train RUN.yaml --restart"
        )
    for path in weights:
        check_safetensors(path)
    for path in sorted(folder.glob("*config.json")):
        check_settings(path)
    return Base(folder, "", base.source, base.revision)


def adapted(model: Any, folder: Path) -> Any:
    """`model` under the PEFT adapter in `folder`, which must fit it name by name.

    peft makes the layers; we read the weights: its own loader would fall back to a pickle.
    """
    from peft import PeftConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

    check_settings(folder / SETTINGS)
    tensors = read_tensors(folder / WEIGHTS)
    settings = PeftConfig.from_pretrained(str(folder))
    settings.inference_mode = True
    with quiet(), torch.random.fork_rng(devices=[]):  # fresh ones are drawn, then written over
        found = get_peft_model(model, settings)
    expected = get_peft_model_state_dict(found, save_embedding_layers=False)
    missing = sorted(expected.keys() - tensors.keys())
    outcome: Any = set_peft_model_state_dict(found, tensors)
    unexpected = sorted(set(outcome.unexpected_keys) - expected.keys())
    if missing or unexpected:
        what = f"lacks {missing[0]}" if missing else f"has {unexpected[0]}, which has no place"
        raise IntegrityError(
            f"{folder / WEIGHTS}: {what} ({len(missing) + len(unexpected)} such). Adapter and base "
            "do not belong together: name the base it was trained on."
        )
    newrows.fold(found)
    return found
