"""What an export promises: a folder others can load, and a check that it is the trained model."""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.findings import Finding
from tunesmith.core.parts import Part

if TYPE_CHECKING:
    from tunesmith.model.policy import Policy


class Export(Part):
    """One form in which a trained model leaves tunesmith."""

    @abstractmethod
    def write(self, policy: "Policy", folder: Path) -> None:
        """Write the export into the empty `folder`. May consume the policy's model."""

    @abstractmethod
    def verify(self, folder: Path, probe: Path) -> list[Finding]:
        """Compare the export, reloaded in a fresh process, with the logits recorded in `probe`.
        An `error` finding means that it is not the trained model."""
