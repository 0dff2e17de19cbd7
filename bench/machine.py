"""What a benchmark's numbers were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")


def machine() -> dict[str, Any]:
    """Processor, GPU and versions."""
    model = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    versions = {name: version(name) for name in PACKAGES}
    found = {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), **versions}
    return found | ({"gpu": gpu} if (gpu := card()) else {})


def card() -> str | None:
    """The GPU that runs without a word about the device would take."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
