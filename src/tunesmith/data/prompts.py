"""When two rows ask the same: the ground of splitting, of finding leaks and of contradictions."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith.core.rows import Cleaner, Row, canonical


def exact(text: str) -> str:
    """The text as it is."""
    return text


def normalised(text: str) -> str:
    """The text without case and with single spaces; digits and marks are kept."""
    return " ".join(text.casefold().split())


@dataclass(frozen=True)
class Asked:
    """What a row asks: its `prompt`, and before each trained turn what that turn answers.

    A conversation of three answers trains three prompts; a held-out row that asks any of them
    has been answered in training.
    """

    prompt: bytes
    trained: tuple[bytes, ...]


def asked(row: Row, clean: Cleaner = normalised) -> Asked:
    """What a row asks, as digests of the cleaned turns before each answer."""
    so_far = hashlib.sha256()
    prompt, trained = b"", []
    for message in row.dialogue():
        if message.role == "assistant":
            prompt = so_far.digest()[:16]
            if message.train is not False:
                trained.append(prompt)
        text = clean(message.content or "")
        so_far.update(f"{message.role} {len(text)} {text}".encode())
        so_far.update(canonical(dict(message.extra)).encode() if message.extra else b"")
    return Asked(prompt, tuple(trained))


def asking(rows: Iterable[Row], clean: Cleaner) -> list[tuple[Asked, Row]]:
    """The rows beside what they ask."""
    return [(asked(row, clean), row) for row in rows]


def leaking(
    train: Iterable[tuple[Asked, Row]], held_out: Iterable[tuple[Asked, Row]]
) -> list[tuple[Row, Row]]:
    """Rows of `train` that answer what a row of `held_out` asks, each beside such a row."""
    asks = {ask.prompt: row for ask, row in held_out}
    found = []
    for ask, row in train:
        told = next((key for key in ask.trained if key in asks), None)
        if told is not None:
            found.append((row, asks[told]))
    return found
