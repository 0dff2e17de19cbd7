"""The global random generators, of the CPU and of every accelerator, as one state to put back.

Whatever goes on or is done again draws the numbers it would have drawn: a checkpoint carries this
state, and a step that is repeated starts from it.
"""

import base64
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late

if TYPE_CHECKING:
    import numpy
    import torch
else:
    numpy = late("numpy")
    torch = late("torch")


def seed_everything(seed: int) -> None:
    """Start every generator from `seed`."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def capture() -> dict[str, Any]:
    """The states of all generators, as JSON. Nothing is drawn."""
    kind, keys, *rest = numpy.random.get_state(legacy=True)
    captured = {
        "torch": text(torch.get_rng_state()),
        "python": list(random.getstate()),
        "numpy": [kind, [int(key) for key in keys], *rest],
    }
    if torch.cuda.is_available():
        captured["cuda"] = [text(state) for state in torch.cuda.get_rng_state_all()]
    if torch.backends.mps.is_available():
        captured["mps"] = text(torch.mps.get_rng_state())
    return captured


def restore(captured: Mapping[str, Any]) -> None:
    """Set all generators to what `capture` gave; those of a device that is not here are left."""
    version, internal, gauss = captured["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = captured["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), *rest))
    torch.set_rng_state(tensor(captured["torch"]))
    for device, state in enumerate(captured.get("cuda", ())):
        if device < torch.cuda.device_count():
            torch.cuda.set_rng_state(tensor(state), device)
    if "mps" in captured and torch.backends.mps.is_available():
        torch.mps.set_rng_state(tensor(captured["mps"]))


def text(state: "torch.Tensor") -> str:
    """Bytes of a generator as base64."""
    return base64.b64encode(state.numpy().tobytes()).decode("ascii")


def tensor(state: str) -> "torch.Tensor":
    """The inverse of `text`."""
    return torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8).clone()
