"""The nouns that travel: `Row` (data), `Example` (tokens), `Batch` (tensors), `Tally` (sums)."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

IGNORE = -100
"""The target of a position that carries no loss."""

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal content, equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Origin:
    """Where a row was read."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Message:
    """One turn. `train` says whether an assistant turn carries loss; None means the default (yes).

    `extra` holds what else the template may render (`tool_calls`, `tool_call_id`, `name`,
    `reasoning_content`), untouched.
    """

    role: str
    content: str | None
    train: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def rendered(self) -> dict[str, Any]:
        """The mapping a chat template sees."""
        return {"role": self.role, "content": self.content, **self.extra}


@dataclass(frozen=True)
class Chat:
    """A conversation; its assistant turns are what is imitated.

    `references` are further right answers to the last turn, used by metrics only.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    references: tuple[str, ...] = ()
    origin: Origin = Origin("", 0)
    source: str = ""
    weight: float = 1.0

    def content(self) -> dict[str, Any]:
        """What the row says, without where it came from or how much it weighs."""
        turns = [
            m.rendered() | ({} if m.train is None else {"train": m.train}) for m in self.messages
        ]
        return {
            "kind": "chat",
            "messages": turns,
            "tools": [dict(tool) for tool in self.tools],
            "references": list(self.references),
        }

    @property
    def digest(self) -> str:
        """The row's identity: sha256 of its content."""
        return digest(self.content())

    def record(self) -> dict[str, Any]:
        """As one line of a prepared file."""
        return self.content() | {
            "origin": {"file": self.origin.file, "line": self.origin.line},
            "source": self.source,
            "weight": self.weight,
            "digest": self.digest,
        }

    def prompt(self) -> "Chat":
        """The conversation up to, and without, its last assistant turn."""
        return replace(self, messages=self.messages[: self._last()])

    def answer(self) -> str:
        """The text of the last assistant turn."""
        return self.messages[self._last()].content or ""

    def _last(self) -> int:
        return max(i for i, m in enumerate(self.messages) if m.role == "assistant")


Row = Chat
"""The kinds of row a source may give; later issues add more."""

KNOWN_MESSAGE_KEYS = ("role", "content", "train")


def message(record: Mapping[str, Any]) -> Message:
    """A message from its JSON mapping; keys beyond role, content and train are kept as they are."""
    extra = {k: v for k, v in record.items() if k not in KNOWN_MESSAGE_KEYS}
    return Message(record["role"], record.get("content"), record.get("train"), extra)


def row_from(record: Mapping[str, Any]) -> Row:
    """A row from one line of a prepared file; the inverse of `record()`."""
    return Chat(
        messages=tuple(message(m) for m in record["messages"]),
        tools=tuple(record.get("tools", ())),
        references=tuple(record.get("references", ())),
        origin=Origin(record["origin"]["file"], record["origin"]["line"]),
        source=record["source"],
        weight=record["weight"],
    )


@dataclass(frozen=True)
class Sequence:
    """Token ids, and for each position the id it must predict next, or `IGNORE`.

    `targets[t]` belongs to the *next* token: shifting happens once, here, and nowhere else.
    """

    ids: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def supervised(self) -> int:
        """How many positions carry loss."""
        return sum(target != IGNORE for target in self.targets)


@dataclass(frozen=True)
class Example:
    """What an objective makes of a row. `row` is the row's digest, `origin` where it was read."""

    sequences: tuple[Sequence, ...]
    row: str
    origin: Origin
    label: int | float | None = None
    weight: float = 1.0

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
    labels: "torch.Tensor | None" = None  # [example]
    extra: Mapping[str, Any] = field(default_factory=dict)

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
    return Batch(
        ids=ids.to(device),
        mask=mask.to(device),
        targets=targets.to(device),
        weights=torch.tensor([e.weight for _, e in sequences], device=device),
        rows=tuple(e.row for _, e in sequences),
        origins=tuple(e.origin for _, e in sequences),
        labels=torch.tensor(labels, device=device) if labels else None,
    )


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
