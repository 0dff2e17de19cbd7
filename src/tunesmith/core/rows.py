"""The rows that data produces: one class a kind, each with its content, place and identity."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self, get_args

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)
Cleaner = Callable[[str], str]


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

    def mapped(self, clean: Cleaner) -> "Message":
        """The turn with its text put through `clean`."""
        return self if self.content is None else replace(self, content=clean(self.content))


Turns = tuple[Message, ...]


@dataclass(frozen=True, kw_only=True)
class Row(ABC):
    """What every kind of row can say of itself. Its identity is its content, never its place."""

    kind: ClassVar[str]
    origin: Origin = Origin("", 0)
    source: str = ""
    weight: float = 1.0
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What the record says beside the row, under keys that a setting names: groups, times."""

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """What the row says, without where it came from or how much it weighs, as plain JSON."""

    @classmethod
    @abstractmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """The row that has this content; the inverse of `content()`."""

    @abstractmethod
    def dialogue(self) -> Turns:
        """The row as turns that end in an answer: how rows are compared (leaks, repeats)."""

    @abstractmethod
    def question(self) -> "Row":
        """What the row asks, without its answer."""

    @abstractmethod
    def mapped(self, clean: Cleaner) -> Self:
        """The row with every text that a person wrote put through `clean`; labels stay."""

    @abstractmethod
    def texts(self) -> tuple[str, ...]:
        """Every text that a person wrote, labels left out."""

    @property
    def scope(self) -> str:
        """The source within which its answer means what it says; nothing where that is anywhere."""
        return ""

    @property
    def digest(self) -> str:
        """The row's identity: sha256 of its content."""
        return digest(self.content())

    def at(self, file: str) -> Self:
        """The row, read in a file that is called so."""
        return replace(self, origin=Origin(file, self.origin.line))

    def record(self) -> dict[str, Any]:
        """As one line of a prepared file."""
        beside = {"fields": dict(self.fields)} if self.fields else {}
        return (
            self.content()
            | beside
            | {
                "origin": {"file": self.origin.file, "line": self.origin.line},
                "source": self.source,
                "weight": self.weight,
                "digest": self.digest,
            }
        )


@dataclass(frozen=True)
class Chat(Row):
    """A conversation; its assistant turns are what is imitated.

    `references` are further right answers to the last turn, used by metrics only.
    """

    kind: ClassVar[str] = "chat"
    messages: Turns
    tools: tuple[Mapping[str, Any], ...] = ()
    references: tuple[str, ...] = ()

    def content(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "messages": written(self.messages),
            "tools": [dict(tool) for tool in self.tools],
            "references": list(self.references),
        }

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        return cls(
            messages=turns_of(content["messages"]),
            tools=tuple(content.get("tools", ())),
            references=tuple(content.get("references", ())),
        )

    def dialogue(self) -> Turns:
        return self.messages

    def question(self) -> "Chat":
        return replace(self.prompt(), references=())

    def mapped(self, clean: Cleaner) -> Self:
        references = tuple(clean(text) for text in self.references)
        return replace(self, messages=cleaned(self.messages, clean), references=references)

    def texts(self) -> tuple[str, ...]:
        return tuple(m.content or "" for m in self.messages)

    def prompt(self) -> "Chat":
        """The conversation up to, and without, its last assistant turn."""
        return replace(self, messages=self.messages[: self._last()])

    def answer(self) -> str:
        """The text of the last assistant turn."""
        return self.messages[self._last()].content or ""

    def _last(self) -> int:
        return max(i for i, m in enumerate(self.messages) if m.role == "assistant")


@dataclass(frozen=True)
class Text(Row):
    """A document as it is, for continued pre-training."""

    kind: ClassVar[str] = "text"
    text: str

    def content(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.text}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        return cls(text=content["text"])

    def dialogue(self) -> Turns:
        # A document answers nothing but itself: only the same document leaks.
        return (Message("user", self.text), Message("assistant", self.text))

    def question(self) -> "Text":
        return self

    def mapped(self, clean: Cleaner) -> Self:
        return replace(self, text=clean(self.text))

    def texts(self) -> tuple[str, ...]:
        return (self.text,)


@dataclass(frozen=True)
class Labelled(Row):
    """One text, or a pair of them, and what it is.

    `labels` holds one name; with `many` it is a set of any size, the empty one too. A row that only
    asks holds none.
    """

    kind: ClassVar[str] = "labelled"
    given: tuple[str, ...]
    labels: tuple[str, ...]
    many: bool = False

    def content(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "texts": list(self.given),
            "labels": list(self.labels),
            "many": self.many,
        }

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        given, labels = tuple(content["texts"]), tuple(content["labels"])
        return cls(given=given, labels=labels, many=content["many"])

    def dialogue(self) -> Turns:
        asked = tuple(Message("user", text) for text in self.given)
        return (*asked, Message("assistant", self.answer()))

    @property
    def scope(self) -> str:
        return self.source  # Another source may call another thing by the same name.

    def answer(self) -> str:
        """The label, or the set of them as a JSON list."""
        return canonical(list(self.labels)) if self.many else self.labels[0]

    def question(self) -> "Labelled":
        return replace(self, labels=(), many=False)

    def mapped(self, clean: Cleaner) -> Self:
        return replace(self, given=tuple(clean(text) for text in self.given))

    def texts(self) -> tuple[str, ...]:
        return self.given


@dataclass(frozen=True)
class Pair(Row):
    """A conversation that asks, the answer that was preferred, and the one that was not."""

    kind: ClassVar[str] = "pair"
    asked: Turns
    chosen: Turns
    rejected: Turns
    tools: tuple[Mapping[str, Any], ...] = ()

    def content(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "prompt": written(self.asked),
            "chosen": written(self.chosen),
            "rejected": written(self.rejected),
            "tools": [dict(tool) for tool in self.tools],
        }

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        return cls(
            asked=turns_of(content["prompt"]),
            chosen=turns_of(content["chosen"]),
            rejected=turns_of(content["rejected"]),
            tools=tuple(content.get("tools", ())),
        )

    def dialogue(self) -> Turns:
        return self.asked + self.chosen

    def question(self) -> Chat:
        return Chat(self.asked, self.tools, origin=self.origin, source=self.source)

    def mapped(self, clean: Cleaner) -> Self:
        return replace(
            self,
            asked=cleaned(self.asked, clean),
            chosen=cleaned(self.chosen, clean),
            rejected=cleaned(self.rejected, clean),
        )

    def texts(self) -> tuple[str, ...]:
        return tuple(m.content or "" for m in (*self.asked, *self.chosen, *self.rejected))


@dataclass(frozen=True)
class Judged(Row):
    """A conversation that asks, one answer, and whether people liked it."""

    kind: ClassVar[str] = "judged"
    asked: Turns
    answered: Turns
    liked: bool
    tools: tuple[Mapping[str, Any], ...] = ()

    def content(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "prompt": written(self.asked),
            "completion": written(self.answered),
            "liked": self.liked,
            "tools": [dict(tool) for tool in self.tools],
        }

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        return cls(
            asked=turns_of(content["prompt"]),
            answered=turns_of(content["completion"]),
            liked=content["liked"],
            tools=tuple(content.get("tools", ())),
        )

    def dialogue(self) -> Turns:
        return self.asked + self.answered

    def question(self) -> Chat:
        return Chat(self.asked, self.tools, origin=self.origin, source=self.source)

    def mapped(self, clean: Cleaner) -> Self:
        return replace(
            self, asked=cleaned(self.asked, clean), answered=cleaned(self.answered, clean)
        )

    def texts(self) -> tuple[str, ...]:
        return tuple(m.content or "" for m in (*self.asked, *self.answered))


KINDS: dict[str, type[Row]] = {kind.kind: kind for kind in (Chat, Text, Labelled, Pair, Judged)}
"""The kinds of row by the name in a prepared file."""

KNOWN_MESSAGE_KEYS = ("role", "content", "train")


def written(messages: Turns) -> list[dict[str, Any]]:
    """Turns as plain JSON."""
    return [m.rendered() | ({} if m.train is None else {"train": m.train}) for m in messages]


def cleaned(messages: Turns, clean: Cleaner) -> Turns:
    """Turns with their texts put through `clean`."""
    return tuple(message.mapped(clean) for message in messages)


def message(record: Mapping[str, Any]) -> Message:
    """A message from its JSON mapping; keys beyond role, content and train are kept as they are."""
    extra = {k: v for k, v in record.items() if k not in KNOWN_MESSAGE_KEYS}
    return Message(record["role"], record.get("content"), record.get("train"), extra)


def turns_of(records: Iterable[Mapping[str, Any]]) -> Turns:
    """Turns from their JSON."""
    return tuple(message(record) for record in records)


def row_from(record: Mapping[str, Any]) -> Row:
    """A row from one line of a prepared file; the inverse of `record()`."""
    row = KINDS[record["kind"]].of(record)
    origin = Origin(record["origin"]["file"], record["origin"]["line"])
    beside = record.get("fields", {})
    weight = record["weight"]
    return replace(row, origin=origin, source=record["source"], weight=weight, fields=beside)
