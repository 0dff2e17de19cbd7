"""Which device a model trains or answers on, and how much memory it has left."""

import os
from pathlib import Path
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
        there = " and ".join(name for name, found in present.items() if found)
        raise ResourceError(
            f"{setting}: {device} is not available to this build of torch ({torch.__version__}) on "
            f"this machine, {there} is. Say {setting}=auto, which takes the fastest there is"
        )
    return torch.device(device)


def free_bytes(device: "torch.device") -> int | None:
    """Bytes that could be used on a device now; None where it does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory() if device.type == "cpu" else None


def free_memory() -> int:
    """Bytes of main memory that could be used now, by this machine and by the limit of a container
    that we are in."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    left = left_of(Path("/sys/fs/cgroup"))
    return free if left is None else min(free, left)


def left_of(group: Path) -> int | None:
    """Bytes that the container of a control group (version 2) may still use, with what it could
    give back of files it has read; None where there is no limit."""
    try:
        limit, used = (
            int((group / name).read_text("ascii")) for name in ("memory.max", "memory.current")
        )
        lines = (group / "memory.stat").read_text("ascii").splitlines()
        given_back = int(dict(line.split() for line in lines)["inactive_file"])
    except (OSError, KeyError, ValueError):
        return None
    return limit - used + given_back
