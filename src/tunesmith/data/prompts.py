"""When two rows ask the same: the ground of splitting, of finding leaks and of contradictions."""

import hashlib
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
