"""Trackio: its data base on this machine, or the Space that the run names."""

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
        import trackio

        # The module's own word, after which nothing is left to say when the process ends.
        with redirect_stdout(sys.stderr):
            trackio.finish()


class Trackio(Sink):
    """Writes to Trackio's own data base on this machine; look at it with `trackio show`.

    It is one for all runs, at `TRACKIO_DIR` or in the hub's cache. With `space`, the numbers go to
    that Space of the hub instead.
    """

    kind: Literal["trackio"] = "trackio"
    library: ClassVar[str] = "trackio"
    space: str | None = None
    """`owner/name` of a Space on the hub; by default nothing leaves this machine."""
    project: str = "tunesmith"
    """The project that the record joins."""

    def open(self, folder: Path, name: str) -> Writer:
        with redirect_stdout(sys.stderr):  # it talks, and stdout is ours
            import trackio

            run = trackio.init(
                project=self.project, name=name, space_id=self.space, resume="allow", embed=False
            )
        return TrackioWriter(run)
