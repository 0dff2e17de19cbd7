"""What a sink promises: training numbers go out, and a failure of its never stops a run."""

from abc import abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from tunesmith.core.errors import missing
from tunesmith.core.parts import Part


class Writer:
    """An open sink."""

    @abstractmethod
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on the numbers of one step."""

    @abstractmethod
    def close(self) -> None:
        """Flush and end."""


class Sink(Part):
    """A place outside the run folder that training numbers are copied to.

    Nothing leaves the machine unless a setting of the sink says so. A training that goes on after
    a stop may begin a new record; `train/curves.jsonl` is the one that counts.
    """

    library: ClassVar[str]
    """What it imports; the extra that installs it is named like the sink."""

    def accept(self) -> None:
        """Refuse, before any work, a sink whose library is not installed."""
        if find_spec(self.library) is None:
            raise missing(self.library, self.kind)

    @abstractmethod
    def open(self, folder: Path, name: str) -> Writer:
        """Start a record for the run `name`; local files go under `folder`."""
