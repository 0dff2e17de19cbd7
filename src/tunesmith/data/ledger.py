"""What happened to every row, from the files to the parts of a run."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.rows import canonical
from tunesmith.data.transforms.base import Account, Decision


@dataclass
class Ledger:
    """What happened to every row, from the files to the parts."""

    files: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Account] = field(default_factory=list)
    told: list[bytes | Path] = field(default_factory=list)
    """What was decided of single rows: lines of JSON, or files of them."""
    parts: dict[str, int] = field(default_factory=dict)
    mixture: dict[str, Any] | None = None
    """The recipe of several sources, and of each its rows in each part and in one epoch."""

    def tell(self, decision: Decision) -> None:
        """One decision more."""
        self.told.append(told_line(decision))

    @contextmanager
    def reasons_told(self) -> Iterator[None]:
        """Inside, rows that are too few to divide are told with what the transforms dropped."""
        try:
            yield
        except DataError as error:
            lost = "; ".join(str(account) for account in self.steps if account.dropped)
            raise DataError(f"{error} ({lost})" if lost else str(error)) from None

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "files": self.files,
            "steps": [account.record() for account in self.steps],
            "parts": self.parts,
            "mixture": self.mixture,
        }


def told_line(decision: Decision) -> bytes:
    """A decision as a line."""
    return f"{canonical(decision.record())}\n".encode()


def told_lines(told: Iterable[bytes | Path]) -> Iterator[bytes]:
    """What was decided, a whole line at a time."""
    for each in told:
        if isinstance(each, bytes):
            yield each
        else:
            with each.open("rb") as lines:
                yield from lines
