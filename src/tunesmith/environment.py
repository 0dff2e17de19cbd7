"""What a run stood on: our code's digest, versions, and what this machine computes with.

`--help` passes through here: what is not always needed is imported where it is used.
"""

import gc
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIBRARIES = ("tunesmith", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")

SWITCHES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Measures of itself that wandb would send once a minute, offline or not.
    "WANDB_ERROR_REPORTING": "false",
    # Without it MLflow wants a data base, and with that twenty times the packages.
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "true",
    # Ours is the one message about a fork after tokenizing: there is none.
    "TOKENIZERS_PARALLELISM": "true",
}

SPINS = "1000"
"""How often a thread of OpenMP looks before it sleeps. As the library comes it looks for so long
that two programs on the same cores keep each other from what both wait for (decision 0023)."""

FULL = 1000
"""How many times Python looks through what is no longer young before it looks through all that
lives, where also a quarter as much must have come since the last time."""


def enter() -> None:
    """At the ways in only (the command's door, `tunesmith.train` and its kin): files for their
    owner alone, no library tells anyone what we do, no thread keeps a core that it only waits on,
    and garbage is looked for where it is. What a person has set stays."""
    os.umask(0o077)
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    collect_rarely()


def collect_rarely() -> None:
    """Have Python look through all that lives less often. The libraries of a run keep half a
    million things that never become garbage, and to walk them again and again took a sixth of a
    short command (decision 0024). What is young is looked through as often as before."""
    young, middle, full = gc.get_threshold()
    gc.set_threshold(young, middle, max(full, FULL))


def code_digest(*patterns: str) -> str:
    """sha256 over modules of ours, by name: those of `patterns`, or all."""
    from tunesmith.core.disk import file_digest
    from tunesmith.core.rows import digest

    home = Path(__file__).parent
    files = {path for pattern in patterns or ("**/*.py",) for path in home.glob(pattern)}
    return digest({path.relative_to(home).as_posix(): file_digest(path) for path in sorted(files)})


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on."""
    return {name: found for name in LIBRARIES if (found := installed(name)) is not None}


def installed(name: str) -> str | None:
    """A distribution's version, or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def need(extra: str, *names: str) -> None:
    """Refuse, before any work, what a library that is not installed would stop later."""
    from tunesmith.core.errors import missing

    for name in names:
        if installed(name) is None:
            raise missing(name, extra)


def facts() -> Mapping[str, Any]:
    """Bits are promised equal only where all of this is equal."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "versions": versions(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch"] = {
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "build": torch.__config__.show(),
        }
    return found
