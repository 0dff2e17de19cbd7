"""Trackio: a database inside the run folder, or the Space that the run names."""

import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar, Literal

from tunesmith.train.sinks.base import Sink, Writer


class TrackioWriter(Writer):
    """Numbers of one record."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        with redirect_stdout(sys.stderr):  # it talks, and stdout is ours
            self.run.finish()


class Trackio(Sink):
    """Writes `train/sinks/trackio/`; look at it with `TRACKIO_DIR=... trackio show`.

    With `space`, the numbers go to that Space of the hub instead.
    """

    kind: Literal["trackio"] = "trackio"
    library: ClassVar[str] = "trackio"
    space: str | None = None
    """`owner/name` of a Space on the hub; by default a database in the run folder."""
    project: str = "tunesmith"
    """The project that the record joins."""

    def open(self, folder: Path, name: str) -> Writer:
        # Read when trackio is imported, and by nothing else: hence here.
        os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
        with redirect_stdout(sys.stderr):
            import trackio

            run = trackio.init(
                project=self.project, name=name, space_id=self.space, resume="allow", embed=False
            )
        return TrackioWriter(run)
