"""Rivals that cannot share our environment: one of its own for each, made here, pinned.

    python bench/rivals.py [NAME ...] [--torch REQUIREMENT]

They lie in .rivals/NAME. PyTorch comes first and as given, since a rival that pulled it in itself
would take the largest build. `bench/side_NAME.py` trains there.
"""

import argparse
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).parents[1] / ".rivals"
TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Rival:
    """What is installed beside PyTorch. `alone` comes without what it asks for."""

    title: str
    alone: tuple[str, ...]
    needs: tuple[str, ...]


LITGPT = Rival("LitGPT 0.5.13", (), ("litgpt==0.5.13", "lightning==2.6.6", "requests==2.34.2"))
# It asks for torchaudio and torchvision, whose wheels load beside a CUDA build only, and for a web
# page and a server; this is what its trainer imports, at the newest versions it allows.
FACTORY = Rival(
    "LLaMA-Factory 0.9.5",
    ("llamafactory==0.9.5",),
    ("transformers==5.6.0", "trl==0.24.0", "peft==0.18.1", "accelerate==1.11.0")
    + ("datasets==4.0.0", "einops==0.8.2", "omegaconf==2.4.0"),
)
RIVALS = {"litgpt": LITGPT, "llamafactory": FACTORY}


def python_of(name: str) -> Path:
    """The interpreter of a rival's environment. Raises SystemExit where there is none."""
    found = HOME / name / "bin" / "python"
    if not found.exists():
        raise SystemExit(f"{name} has no environment yet. Make it: python bench/rivals.py {name}")
    return found


def versions_of(name: str) -> dict[str, str]:
    """What its environment holds of what counts, PyTorch first."""
    pinned = [pin.split("==")[0] for pin in (TORCH, *RIVALS[name].alone, *RIVALS[name].needs)]
    ask = "import sys; from importlib.metadata import version as v; print(*map(v, sys.argv[1:]))"
    command = [str(python_of(name)), "-c", ask, *pinned]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(zip(pinned, said.split(), strict=True))


def made(name: str, torch: str) -> None:
    """The environment, with all that is pinned; what is there already is kept."""
    rival, python = RIVALS[name], HOME / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME / name)], check=True)
    # Last what comes alone: pip would else find fault with every install after it.
    steps = [shlex.split(torch), rival.needs, ["--no-deps", *rival.alone] if rival.alone else []]
    for wanted in filter(None, steps):
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)


def main() -> None:
    """Make those asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RIVALS)}; or all")
    parser.add_argument("--torch", default=TORCH, help="what pip is asked to install as PyTorch")
    chosen = parser.parse_args()
    for name in chosen.names or RIVALS:
        made(name, chosen.torch)


if __name__ == "__main__":
    main()
