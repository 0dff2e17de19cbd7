"""What a transform promises: rows in, fewer or changed rows out, and every one accounted for."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from tunesmith.core.parts import Part
from tunesmith.core.rows import Origin, Row


@dataclass(frozen=True)
class Decision:
    """What a step did with one row, and why. Texts stay out: they may be private."""

    step: str
    row: Origin
    did: Literal["dropped", "changed", "added"]
    why: str
    other: Origin | None = None
    """The row that this one was compared with."""

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        found = {"step": self.step, "row": str(self.row), "did": self.did, "why": self.why}
        return found if self.other is None else {**found, "other": str(self.other)}


def unheard(decision: Decision) -> None:
    """Decisions of a look that nobody keeps."""


@dataclass
class Account:
    """What happened to rows in one transform: `taken + added == kept + sum(dropped.values())`."""

    kind: str
    taken: int = 0
    kept: int = 0
    changed: int = 0
    added: int = 0
    """Rows that stand once more than they came."""
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What a person should know beside the counts."""
    before: dict[str, int] = field(default_factory=dict)
    """Characters and, of labelled rows, labels of what came in."""
    after: dict[str, int] = field(default_factory=dict)
    """The same of what went on."""
    tell: Callable[[Decision], object] = field(default=unheard, compare=False, repr=False)
    """Who hears of every row that was dropped or changed."""

    def drop(self, reason: str, row: Row, other: Origin | None = None) -> None:
        """Count one dropped row under its reason."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self.tell(Decision(self.kind, row.origin, "dropped", reason, other))

    def change(self, row: Row, what: str) -> None:
        """Count one changed row."""
        self.changed += 1
        self.tell(Decision(self.kind, row.origin, "changed", what))

    def add(self, row: Row, why: str) -> None:
        """Count a row that stands once more."""
        self.added += 1
        self.tell(Decision(self.kind, row.origin, "added", why))

    def join(self, other: "Account") -> None:
        """Count in what happened to other rows in the same step."""
        for name in ("taken", "kept", "changed", "added"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("dropped", "before", "after"):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, dict(Counter(mine) + Counter(theirs)))
        self.notes += [note for note in other.notes if note not in self.notes]

    def __str__(self) -> str:
        """What the step did, in words."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        lost = f", dropped {sum(self.dropped.values())} ({reasons})" if reasons else ""
        lost += f", changed {self.changed}" if self.changed else ""
        lost += f", added {self.added}" if self.added else ""
        said = "".join(f"; {note}" for note in self.notes)
        return f"{self.kind}: {self.taken} rows in, {self.kept} kept{lost}{said}"

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        found = asdict(self)
        del found["tell"]
        return found


class Transform(Part):
    """A step over rows: streamed, seeded, counted; a second pass changes nothing."""

    alone: ClassVar[bool] = False
    """Whether what becomes of a row rests on that row alone: such steps run over pieces of a large
    source side by side."""

    def fields(self) -> tuple[str, ...]:
        """Keys of the records that the step looks at beside the rows."""
        return ()

    def files(self) -> tuple[str, ...]:
        """Files that the step reads: their content decides the result."""
        return ()

    def for_texts(self) -> "Transform":
        """The step as it goes over texts that no row is read from: none can be dropped there."""
        return self

    @abstractmethod
    def apply(self, rows: Iterable[Row], account: Account, seed: int) -> Iterator[Row]:
        """The rows that go on, in order, with origin, source and weight kept."""
