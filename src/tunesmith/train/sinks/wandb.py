"""Weights & Biases: offline inside the run folder, or online where the run says so."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from tunesmith.train.sinks.base import Sink, Writer


class WandbWriter(Writer):
    """Numbers of one record."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class Wandb(Sink):
    """Writes `train/sinks/wandb/`, to be sent later by `wandb sync`, or never.

    The numbers alone: no code, no console, nothing about the machine.
    """

    kind: Literal["wandb"] = "wandb"
    library: ClassVar[str] = "wandb"
    mode: Literal["offline", "online"] = "offline"
    """`online` sends the numbers at once, with the login that wandb knows."""
    project: str = "tunesmith"
    """The project that the record joins."""

    def open(self, folder: Path, name: str) -> Writer:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_save_requirements=False,
            symlink=False,
        )
        return WandbWriter(
            wandb.init(project=self.project, name=name, dir=folder, mode=self.mode, settings=quiet)
        )
