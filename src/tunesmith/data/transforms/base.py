"""What a transform promises: rows in, fewer or changed rows out, and every one accounted for."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tunesmith.core.parts import Part
from tunesmith.core.rows import Row


@dataclass
class Account:
    """What happened to rows in one transform: `taken == kept + sum(dropped.values())`."""

    kind: str
    taken: int = 0
    kept: int = 0
    changed: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What a person should know beside the counts."""

    def drop(self, reason: str) -> None:
        """Count one dropped row under its reason."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


class Transform(Part):
    """A step over rows: streamed, seeded, counted; a second pass changes nothing."""

    @abstractmethod
    def apply(self, rows: Iterable[Row], account: Account, seed: int) -> Iterator[Row]:
        """The rows that go on, in order, with origin, source and weight kept."""
