"""TensorBoard event files inside the run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from tunesmith.train.sinks.base import Sink, Writer


class TensorboardWriter(Writer):
    """Scalars through torch's own writer."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class Tensorboard(Sink):
    """Writes `train/sinks/tensorboard/`; look at it with `tensorboard --logdir runs`."""

    kind: Literal["tensorboard"] = "tensorboard"
    library: ClassVar[str] = "tensorboard"

    def open(self, folder: Path, name: str) -> Writer:
        return TensorboardWriter(folder / "tensorboard")
