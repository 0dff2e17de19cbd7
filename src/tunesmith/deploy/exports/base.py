"""What an export promises: a folder others can load, and a check that it is the trained model."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.core.findings import Finding
from tunesmith.core.parts import Part

if TYPE_CHECKING:
    from tunesmith.model.bases import Base
    from tunesmith.model.policy import Policy


@dataclass(frozen=True)
class Verified:
    """What a reload found. An `error` finding means that it is not the trained model."""

    findings: tuple[Finding, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, for the report: differences, bounds, how many prompts agreed."""
    sentence: str = ""
    """The same in a line for a person."""

    @property
    def passed(self) -> bool:
        """Whether the export is the trained model."""
        return all(finding.severity != "error" for finding in self.findings)


class Export(Part):
    """One form in which a trained model leaves tunesmith."""

    merges: ClassVar[bool] = False
    """Whether what was trained is folded into the weights of the base."""

    @property
    def needs_bits(self) -> bool:
        """Whether its settings mean something only where the base is held in few bits."""
        return False

    def accept(self, trained: Path) -> None:  # noqa: B027 (most forms hold every model)
        """Refuse, in a sentence and before any work, a result that this form cannot hold."""

    def settled(
        self, policy: "Policy", base: "Base", data: Path, say: Callable[[str], None]
    ) -> tuple["Policy", dict[str, Any]]:
        """The model that leaves, where that is for a measurement to decide, and what was measured,
        for the report. `data` are the run's prepared rows."""
        return policy, {}

    @abstractmethod
    def write(self, policy: "Policy", base: "Base", folder: Path) -> dict[str, str]:
        """Write the export into the empty `folder`. May consume the policy's model.

        Returns the sha256 of each tensor by name, taken from memory: the files are checked
        against it, so a bit that changes on the way to the disk is found.
        """

    @abstractmethod
    def verify(self, folder: Path, probe: Path) -> Verified:
        """Compare the export, reloaded in a fresh process, with the logits recorded in `probe`."""

    def usage(self, folder: Path, base: "Base") -> list[str]:
        """Lines that say what to do with the finished export."""
        return []


def name_of(base: "Base") -> str:
    """What other tools load the base by: its hub name, or the folder it lies in."""
    from tunesmith.model.bases import HUB_NAME

    fetched = bool(base.revision) and HUB_NAME.fullmatch(base.source) is not None
    return base.source if fetched and not base.source.endswith(".gguf") else str(base.folder)
