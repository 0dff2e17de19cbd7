"""Control strings: the added tokens of a tokenizer that are neither words nor runs of space."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

WORD_STARTS = ("\u2581", "\u0120", "\u010a")
"""Marks some vocabularies use for a space or a line break."""


@dataclass(frozen=True)
class Control:
    """One control string, and how much space around it belongs to it."""

    text: str
    id: int
    special: bool
    left: bool
    right: bool
    word: bool


def structural(token: Mapping[str, Any], words: Collection[str]) -> bool:
    """Whether an added token is a control string, not a word or a run of space added for length."""
    text = token["content"]
    if text in words and not token["special"]:
        return False
    for mark in WORD_STARTS:
        text = text.replace(mark, " ")
    return bool(token["special"] or text.strip())


def control(token: Mapping[str, Any]) -> Control:
    """A control string from its entry in `tokenizer.json`."""
    return Control(
        text=token["content"],
        id=token["id"],
        special=token["special"],
        left=token["lstrip"],
        right=token["rstrip"],
        word=token["single_word"],
    )
