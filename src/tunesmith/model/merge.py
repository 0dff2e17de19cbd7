"""A tuned model as a plain one: adapters folded into the weights they stand beside."""

import copy
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import SettingsError
from tunesmith.core.late import late
from tunesmith.model import layout
from tunesmith.model.trained import ADVICE

if TYPE_CHECKING:
    import torch

    from tunesmith.model import bottleneck, quantise
else:
    torch = late("torch")
    bottleneck = late("tunesmith.model.bottleneck")
    quantise = late("tunesmith.model.quantise")  # Autograd functions need torch to be defined.


def merge(model: Any) -> Any:
    """A plain model in float32 that answers like `model`. Consumes `model`.

    What stands under peft is folded in; a model whose own weights were trained is plain already.
    Of a base in few bits come the floats that its bits stand for: onto any other base, the
    original among them, the adapter would correct errors that are not there. SettingsError where
    no weights of the base can do what was trained.
    """
    from peft import PeftModel

    if layout.virtual(model):
        raise SettingsError(f"virtual tokens before every row are no weights of the base; {ADVICE}")
    if bottleneck.inside(model):
        raise SettingsError(
            f"a bottleneck adapter bends what it adds, which no weights of the base can; {ADVICE}"
        )
    model = model.float()
    if quantise.bits_of(model) is None:
        return folded(model) if isinstance(model, PeftModel) else model
    if isinstance(model, PeftModel):
        # The adapter is read before its base is taken from under it.
        settings, tensors = adapter_of(model)
        return folded(put_on(quantise.dequantised(model.unload()), settings, tensors))
    return quantise.dequantised(model)


def merge_onto(base: Any, model: Any) -> Any:
    """`base` with the adapter of `model`, if it has one, folded in; consumes `base`, a model like
    that under the adapter, quantised or not."""
    from peft import PeftModel

    return folded(put_on(base, *adapter_of(model))) if isinstance(model, PeftModel) else base


def folded(model: Any) -> Any:
    """The base under peft's adapter, the adapter folded in."""
    from tunesmith.model.load import quiet

    with quiet():
        return model.merge_and_unload(safe_merge=True)


def adapter_of(model: Any) -> tuple[Any, dict[str, "torch.Tensor"]]:
    """What peft put on a model: its settings and its numbers."""
    from peft import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    kept = {name: tensor.detach().float().clone() for name, tensor in tensors.items()}
    return copy.deepcopy(model.peft_config["default"]), kept


def put_on(base: Any, settings: Any, tensors: dict[str, "torch.Tensor"]) -> Any:
    """The adapter on another base of the same shape."""
    from peft import get_peft_model
    from peft.utils import set_peft_model_state_dict

    from tunesmith.model.load import quiet

    with quiet(), torch.random.fork_rng(devices=[]):  # fresh numbers, written over below
        found = get_peft_model(base, settings)
    set_peft_model_state_dict(found, tensors)
    return found.to(layout.causal(base).device).eval()
