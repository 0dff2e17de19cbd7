"""Bottleneck adapters: small layers in every block that add to what the block gives back.

y = W x + U f(D (W x)) behind the last linear layer of the attention or of the feed-forward part, D
down to a narrow state and U up again (Houlsby et al., arXiv 1902.00751; after the feed-forward part
only: Pfeiffer et al., arXiv 2005.00247). U starts at zero, so an untrained one changes nothing.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.core.disk import disk_errors, write_json
from tunesmith.core.errors import IntegrityError
from tunesmith.model import layout
from tunesmith.model.safe import check_settings
from tunesmith.model.tensors import read_tensors

WEIGHTS = "bottleneck.safetensors"
SETTINGS = "bottleneck.json"
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
SPREAD = 1e-2
"""Standard deviation of a fresh D, as in the first paper."""


class Bottleneck(nn.Module):
    """A linear layer with an adapter behind it. Switched off, it is the layer."""

    def __init__(self, layer: Any, width: int, size: int, activation: str) -> None:
        super().__init__()
        weight = layer.weight
        self.base_layer, self.on = layer, True
        self.down = nn.Linear(width, size, device=weight.device)
        self.act = ACTIVATIONS[activation]()
        self.up = nn.Linear(size, width, device=weight.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[.., in] to [.., width]."""
        given: torch.Tensor = self.base_layer(x)
        if not self.on:
            return given
        found: torch.Tensor = self.up(self.act(self.down(given.to(self.down.weight.dtype))))
        return given + found.to(given.dtype)


def insert(model: Any, names: list[str], *, size: int, activation: str, seed: int) -> Any:
    """The model with an adapter behind each of the named layers, in place; all else frozen."""
    model.requires_grad_(False)
    generator = torch.Generator("cpu").manual_seed(seed)
    for name in names:
        layer = model.get_submodule(name)
        adapter = Bottleneck(layer, layout.sides(layer)[1], size, activation)
        with torch.no_grad():
            shape = adapter.down.weight.shape
            drawn = torch.randn(shape, generator=generator, device="cpu")
            adapter.down.weight.copy_(drawn * SPREAD)
            for zero in (adapter.down.bias, adapter.up.weight, adapter.up.bias):
                zero.zero_()
        model.set_submodule(name, adapter)
    model.bottleneck = {"layers": names, "size": size, "activation": activation}
    return model


def inside(model: Any) -> dict[str, Bottleneck]:
    """The adapters of a model by name; none in one that has none."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Bottleneck)}


def state(model: Any) -> dict[str, torch.Tensor]:
    """The adapters' tensors by name."""
    return {
        f"{name}.{part}.{what}": weight.detach()
        for name, adapter in inside(model).items()
        for part in ("down", "up")
        for what, weight in adapter.get_submodule(part).named_parameters()
    }


@contextmanager
def switched_off(model: Any) -> Iterator[Any]:
    """The model as it was without them."""
    adapters = inside(model).values()
    before = [adapter.on for adapter in adapters]
    for adapter in adapters:
        adapter.on = False
    try:
        yield model
    finally:
        for adapter, was in zip(adapters, before, strict=True):
            adapter.on = was


def save(model: Any, folder: Path) -> None:
    """Write the adapters and what they are, to be put on the same base again."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.contiguous() for name, tensor in state(model).items()}
    with disk_errors(folder, "save the trained model"):
        save_file(contiguous, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / SETTINGS, model.bottleneck)


def load(model: Any, folder: Path) -> Any:
    """`model` with the adapters of `folder`, which must fit it name by name."""
    settings = read_settings(folder / SETTINGS)
    tensors = read_tensors(folder / WEIGHTS)
    linears = layout.linears(model)
    absent = [name for name in settings["layers"] if name not in linears]
    if absent:
        raise IntegrityError(
            f"{folder / SETTINGS}: {absent[0]} is no linear layer of this model. Adapter and base "
            "do not belong together: name the base it was trained on."
        )
    found = insert(
        model,
        settings["layers"],
        size=settings["size"],
        activation=settings["activation"],
        seed=0,
    )
    own = state(found)
    wrong = sorted(own.keys() ^ tensors.keys()) or [
        name for name, tensor in own.items() if tensor.shape != tensors[name].shape
    ]
    if wrong:
        raise IntegrityError(
            f"{folder / WEIGHTS}: {wrong[0]} does not fit ({len(wrong)} such). Adapter and base do "
            "not belong together: name the base it was trained on."
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
    return found


def read_settings(path: Path) -> Mapping[str, Any]:
    """`bottleneck.json`, refused where it does not say what it must."""
    if path.is_symlink():
        raise IntegrityError(f"{path}: is a link, and nothing is read through one. Get it again.")
    check_settings(path)
    try:
        found = json.loads(path.read_text("utf-8"))
        layers = found["layers"]
        known = (
            isinstance(layers, list)
            and all(isinstance(name, str) for name in layers)
            and len({*layers}) == len(layers)
            and isinstance(found["size"], int)
            and 0 < found["size"] < 2**20
            and found["activation"] in ACTIVATIONS
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path}: cannot be read ({error}). Train the run again.") from error
    if not known:
        raise IntegrityError(f"{path}: does not describe an adapter. Train the run again.")
    return found  # type: ignore[no-any-return]
