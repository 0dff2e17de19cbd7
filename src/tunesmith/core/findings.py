"""A thing a person should know about a run, with where it is and what to do."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many of what: rows, and each kind of thing found in them."""
    audit: str = ""
    """The kind of the audit that found it."""

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)
