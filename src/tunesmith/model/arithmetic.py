"""What numbers the training steps of a model multiply by its own layers in (`coarse`).

Chosen once for a training and noted on the layers; whoever multiplies asks them.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.errors import SettingsError
from tunesmith.core.late import late
from tunesmith.model import coarse, devices, layout

if TYPE_CHECKING:
    import torch

    from tunesmith.model import lowrank, quantise
    from tunesmith.model.policy import Policy
else:
    torch = late("torch")
    # Autograd functions need torch to be defined.
    lowrank = late("tunesmith.model.lowrank")
    quantise = late("tunesmith.model.quantise")

Arithmetic = Literal["floats", "bfloat16", "bytes"]


def refuse_unfit(
    kind: Arithmetic, *, bits: int | None, dtype: str, device: devices.Device, moves: bool
) -> None:
    """Refuse what would not be faster, or unsteady, by what is known before a model is loaded;
    `moves` says whether training changes what the model makes of its rows."""
    if kind == "floats":
        return
    if why := needless(kind, dtype=dtype, moves=moves):
        raise SettingsError(f"train.arithmetic: {why}")
    where = devices.choose(device, "train.device").type
    reasons = {
        f"is for processors, and this training is on {where}; say floats": where != "cpu",
        "is for a base in 8 bits; say model.bits: 8 with it, or floats": kind == "bytes"
        and bits != 8,
        f"needs a processor with {coarse.NEEDS[kind]}, or is slower; say floats": (
            not coarse.multiplies(kind)
        ),
    }
    reason = next((said for said, holds in reasons.items() if holds), None)
    if reason is not None:
        raise SettingsError(f"train.arithmetic: {kind} {reason}")


def needless(kind: Arithmetic, *, dtype: str, moves: bool) -> str:
    """Why a run's settings alone speak against coarser numbers; empty where they do not."""
    if kind == "floats":
        return ""
    reasons = {
        "rounds numbers of model.dtype: float32, and those are bfloat16; say floats": (
            dtype == "bfloat16"
        ),
        "cannot serve train.method: frozen, which keeps of each row what no other row may change; "
        "say bfloat16 or floats": kind == "bytes" and not moves,
    }
    found = next((said for said, holds in reasons.items() if holds), None)
    return "" if found is None else f"{kind} {found}"


def choose(policy: "Policy", kind: Arithmetic) -> None:
    """Note on the layers how the training steps of a policy multiply by them. Raises SettingsError
    as `layers` does."""
    if kind == "floats":
        return
    found = layers(policy.model, kind, scores=policy.head is not None)
    policy.rounds = kind == "bfloat16"
    for layer in found:
        if kind == "bytes":
            scales = quantise.row_scales(layer) / coarse.LARGEST
            layer.in_steps = coarse.Bytes(layer.weight.data, scales, layer.bias)
        elif quantise.holds_bits(layer):
            layer.in_steps = coarse.Halves(partial(quantise.floats, layer), layer.bias)
        else:
            policy.copies.append(Copy(layer.weight))
            layer.in_steps = coarse.Halves(policy.copies[-1], layer.bias)
        layer.forward = partial(_forward, layer, layer.forward)


def layers(model: Any, kind: Arithmetic, *, scores: bool) -> list[Any]:
    """The linear layers that steps multiply by in such numbers: the blocks' own, and the head where
    more is asked for than `scores` of texts. Raises SettingsError where there is none."""
    own = [layer for block in layout.blocks(model) for layer in _own(block)]
    beside = [] if scores else [_head(model)]
    fit = quantise.holds_bits if kind == "bytes" else is_plain
    found = [layer for layer in [*own, *beside] if layer is not None and fit(layer)]
    if not found:
        raise SettingsError(
            f"train.arithmetic: {kind} is for linear layers, and no step of this training "
            "multiplies by one of torch's; say floats"
        )
    return found


def is_plain(layer: Any) -> bool:
    """Whether a layer is a linear one in single precision or in bits."""
    single = type(layer) is torch.nn.Linear and layer.weight.dtype == torch.float32
    return single or quantise.holds_bits(layer)


def _own(block: Any) -> list[Any]:
    """The linear layers of a block itself: where some stay as they are, those that train count as
    put beside them by a method, and stay in floats."""
    found = [module for module in block.modules() if layout.is_linear(module)]
    return [layer for layer in found if not layer.weight.requires_grad] or found


def _head(model: Any) -> Any:
    """The layer that makes logits, without what trains rows of it."""
    head = layout.head(model)
    rows = getattr(head, "token_adapter", None)
    return head if rows is None else rows.base_layer


class Copy:
    """A plain layer's weight in bfloat16, made anew once it is told that the weight has moved: a
    fused optimiser's writing cannot be told from the weight."""

    def __init__(self, weight: "torch.Tensor") -> None:
        self.weight, self.made, self.stale = weight, weight.detach().bfloat16(), False

    def __call__(self) -> "torch.Tensor":
        if self.stale:
            self.made.copy_(self.weight.detach())
            self.stale = False
        return self.made

    def weight_moved(self) -> None:
        """To be told after every step."""
        self.stale = self.weight.requires_grad


def _forward(
    layer: Any, before: "Callable[[torch.Tensor], torch.Tensor]", x: "torch.Tensor"
) -> "torch.Tensor":
    """A layer's forward as what is noted on it says, else as it was `before`."""
    products = coarse.noted(layer, x)
    if products is None:
        return before(x)
    told = lowrank.bare(layer, x) if layer.weight.requires_grad else None
    # What keeps `x` for the way back is for weights that need it there.
    return quantise.multiplied(x, products) if told is None else lowrank.together(x, [told])[0]
