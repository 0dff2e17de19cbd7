"""TensorBoard event files inside the run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from tunesmith.core.errors import ResourceError
from tunesmith.train.sinks.base import Sink, Writer


class TensorboardWriter(Writer):
    """Scalars through torch's own writer."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ResourceError(
                "the tensorboard sink needs a package that is not installed. "
                "Run: pip install tensorboard"
            ) from error
        self.writer = SummaryWriter(str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class Tensorboard(Sink):
    """Writes `train/tensorboard/`; look at it with `tensorboard --logdir runs`."""

    kind: Literal["tensorboard"] = "tensorboard"

    def open(self, folder: Path, name: str) -> Writer:
        return TensorboardWriter(folder / "tensorboard")
