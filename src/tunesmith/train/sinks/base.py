"""What a sink promises: training numbers go out, and a failure of its never stops a run."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

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
    """A place outside the run folder that training numbers are copied to."""

    @abstractmethod
    def open(self, folder: Path, name: str) -> Writer:
        """Start a record for the run `name`; local files go under `folder`."""
