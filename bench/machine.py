"""What a benchmark's numbers were measured on, and what rivals are given there."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_THRESHOLD_": str(2**32)}
"""Has the C library keep what a step frees. Rivals run with it: TRL then spends 2.2 seconds in the
system where it spent 6.3 of 80; ours spends next to none there, and runs without."""


def around(side: str) -> dict[str, str]:
    """The environment of a side's process."""
    return {**os.environ, **({} if side == "ours" else KEEPING)}


def machine() -> dict[str, Any]:
    """Processor, GPU and versions."""
    found = {"cpu": processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    found |= {name: version(name) for name in PACKAGES}
    return found | ({"gpu": gpu} if (gpu := card()) else {})


def processor() -> str:
    """Its name, as it says it itself; its kind where it does not."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def here(name: str) -> str:
    """The name of this processor's result of a benchmark."""
    return f"{name}/{'-'.join(re.findall('[a-z0-9]+', processor().lower()))}"


def result_of(name: str) -> Path:
    """Where this processor's result is kept: bench/results/NAME/<processor>.json."""
    return Path(__file__).parent / "results" / f"{here(name)}.json"


def card() -> str | None:
    """The GPU that runs without a word about the device would take."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
