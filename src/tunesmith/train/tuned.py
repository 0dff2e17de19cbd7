"""What tuning changed in a model: taken, put back, saved, loaded, switched off.

All of it is asked of the model and never of the method, so a method need only say what may move.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.disk import disk_errors
from tunesmith.core.late import late
from tunesmith.model import layout
from tunesmith.model.load import quiet
from tunesmith.train import peft_folder
from tunesmith.train.weights import copy_into, saved

if TYPE_CHECKING:
    import torch

    from tunesmith.model import bottleneck
else:
    bottleneck = late("tunesmith.model.bottleneck")  # needs torch to be defined


def state(model: Any) -> dict[str, "torch.Tensor"]:
    """The tensors that training changes, by stable name: what a checkpoint carries."""
    if hasattr(model, "peft_config"):
        return peft_folder.state(model)
    if bottleneck.inside(model):
        return bottleneck.state(model)
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def restore(model: Any, tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Put tensors of `state` back, or those of a whole model that was saved."""
    own = state(model)
    whole = {name: weight.detach() for name, weight in model.named_parameters()}
    copy_into(whole if own and whole.keys() == tensors.keys() else own, tensors)


@contextmanager
def undone(model: Any, frozen: Any | None) -> Iterator[Any]:
    """The model as it was: what was added is switched off; what moved needs the copy `frozen`."""
    if layout.virtual(model):
        yield layout.causal(model)
    elif hasattr(model, "peft_config"):
        with model.disable_adapter():
            yield model
    elif bottleneck.inside(model):
        with bottleneck.switched_off(model):
            yield model
    elif frozen is not None:
        yield frozen
    elif layout.trainable(model.parameters()):
        raise ValueError("weights that moved are undone by a frozen copy, and there is none")
    else:
        yield model


def save(model: Any, folder: Path) -> None:
    """Write what was trained as the field expects it: a PEFT folder, bottleneck adapters, a model
    folder; nothing where nothing of the model moves."""
    if hasattr(model, "peft_config"):
        peft_folder.save(state(model), model.peft_config["default"], folder)
    elif bottleneck.inside(model):
        bottleneck.save(model, folder)
    elif layout.trainable(model.parameters()):
        with disk_errors(folder, "save the trained model"), quiet():
            model.save_pretrained(folder)


def load(model: Any, folder: Path) -> Any:
    """The base `model` with what `save` wrote in place, gradients off."""
    if (folder / "adapter_config.json").is_file():
        return peft_folder.load(model, folder)
    if (folder / bottleneck.SETTINGS).is_file():
        model = bottleneck.load(model, folder)
    elif tensors := saved(folder):
        copy_into({name: p.detach() for name, p in model.named_parameters()}, tensors)
    return model.requires_grad_(False).eval()
