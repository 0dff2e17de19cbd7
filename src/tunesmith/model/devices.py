"""Which device a model trains or answers on."""

from typing import TYPE_CHECKING, Literal

from tunesmith.core.errors import ResourceError
from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

Device = Literal["auto", "cpu", "cuda", "mps"]


def choose(device: Device, setting: str) -> "torch.device":
    """The device that `setting` means; one that is asked for by name and absent is refused."""
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present[device]:
        raise ResourceError(
            f"{setting}: {device} is not available to this build of torch "
            f"({torch.__version__}). Use {setting}=auto, or run: tunesmith doctor"
        )
    return torch.device(device)
