"""The nouns that training passes on: `Example` (tokens), `Batch` (tensors), `Tally` (sums)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.core.rows import Origin

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

IGNORE = -100
"""The target of a position that carries no loss."""


@dataclass(frozen=True)
class Sequence:
    """Token ids, and for each position the id it must predict next, or `IGNORE`.

    `targets[t]` belongs to the *next* token: shifting happens once, here, and nowhere else.
    """

    ids: tuple[int, ...]
    targets: tuple[int, ...]
    segments: tuple[int, ...] = ()
    """Which text of a pair a token belongs to, for encoders that tell them apart; empty: one."""

    @property
    def supervised(self) -> int:
        """How many positions carry loss."""
        return sum(target != IGNORE for target in self.targets)


Label = int | float | tuple[int, ...]
"""What a row is, in numbers: a label's place, a score, or 0 and 1 for each of many labels."""


@dataclass(frozen=True)
class Example:
    """What an objective makes of a row. `row` is the row's digest, `origin` where it was read."""

    sequences: tuple[Sequence, ...]
    row: str
    origin: Origin
    label: Label | None = None
    weight: float = 1.0
    source: str = ""
    """The source that the row is of, which may have a head and measures of its own."""

    @property
    def length(self) -> int:
        """Tokens in all sequences together."""
        return sum(len(s.ids) for s in self.sequences)


@dataclass(frozen=True)
class Batch:
    """What a loss sees: one micro-batch, right-padded, that knows which rows it holds."""

    ids: "torch.Tensor"  # [sequence, time] int64
    mask: "torch.Tensor"  # [sequence, time] bool, True on real tokens
    targets: "torch.Tensor"  # [sequence, time] int64, IGNORE where no loss is taken
    weights: "torch.Tensor"  # [sequence] float
    rows: tuple[str, ...]
    origins: tuple[Origin, ...]
    labels: "torch.Tensor | None" = None  # [example], or [example, label] of 0 and 1
    segments: "torch.Tensor | None" = None  # [sequence, time] int64, where a row has two texts
    extra: Mapping[str, Any] = field(default_factory=dict)  # tensors of a stream, [sequence, ...]
    sources: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Real tokens, padding left out."""
        return int(self.mask.sum())

    @property
    def supervised(self) -> int:
        """Positions that carry loss."""
        return int((self.targets != IGNORE).sum())


def collate(examples: Iterable[Example], device: "torch.device | str") -> Batch:
    """Right-pad the examples' sequences into one batch on `device`."""
    examples = list(examples)
    sequences = [(s, e) for e in examples for s in e.sequences]
    width = max(len(s.ids) for s, _ in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.bool)
    targets = torch.full((len(sequences), width), IGNORE, dtype=torch.long)
    for i, (sequence, _) in enumerate(sequences):
        length = len(sequence.ids)
        ids[i, :length] = torch.tensor(sequence.ids)
        mask[i, :length] = True
        targets[i, :length] = torch.tensor(sequence.targets)
    labels = [e.label for e in examples if e.label is not None]
    segments = _segments([s for s, _ in sequences], width)
    return Batch(
        ids=ids.to(device),
        mask=mask.to(device),
        targets=targets.to(device),
        weights=torch.tensor([e.weight for _, e in sequences], device=device),
        rows=tuple(e.row for _, e in sequences),
        origins=tuple(e.origin for _, e in sequences),
        labels=torch.tensor(labels, device=device) if labels else None,
        segments=None if segments is None else segments.to(device),
        sources=tuple(e.source for _, e in sequences),
    )


def _segments(sequences: Iterable[Sequence], width: int) -> "torch.Tensor | None":
    """The tokens' segments, right-padded; None where every row is one text."""
    found = [s.segments for s in sequences]
    if not any(found):
        return None
    padded = [(*s, *([0] * (width - len(s)))) for s in found]
    return torch.tensor(padded, dtype=torch.long)


@dataclass(frozen=True)
class Tally:
    """Named (sum, count) pairs. They add up exactly over micro-batches, steps and ranks."""

    pairs: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __add__(self, other: "Tally") -> "Tally":
        names = {**self.pairs, **other.pairs}
        none = (0.0, 0.0)
        return Tally(
            {
                name: (
                    self.pairs.get(name, none)[0] + other.pairs.get(name, none)[0],
                    self.pairs.get(name, none)[1] + other.pairs.get(name, none)[1],
                )
                for name in names
            }
        )

    def means(self) -> dict[str, float]:
        """sum / count of each name; a name never counted is left out."""
        return {name: total / count for name, (total, count) in self.pairs.items() if count}


@dataclass(frozen=True)
class Loss:
    """A sum of loss terms (a scalar tensor with a graph) and what to log beside it."""

    total: "torch.Tensor"
    logs: Tally = Tally()
