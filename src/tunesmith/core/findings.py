"""A thing a person should know about a run, with where it is and what to do."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One observation. `evidence` is masked before it gets here: it is written to reports."""

    severity: Severity
    what: str
    where: str
    evidence: str
    advice: str

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)
