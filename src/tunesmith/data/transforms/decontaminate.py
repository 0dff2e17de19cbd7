"""Drop training rows that say what a test or a probe says: a score on it would measure memory."""

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tunesmith.core.rows import Origin, Row
from tunesmith.core.tables import read
from tunesmith.data.grams import grams, words_of
from tunesmith.data.nested import texts_in
from tunesmith.data.transforms.base import Account, Transform

COMMON = 10
"""Stretches that stand in more records of a test than this are its form, not its content (GPT-3,
arXiv 2005.14165, appendix C)."""


class Decontaminate(Transform):
    """Drop rows that share a stretch of words with the records of a file.

    Every text of the file's records is looked at, whatever its form, so that any benchmark can be
    named. A text shorter than `words` counts where a row's text is all of it. Case, spaces and
    punctuation do not count, nor do system prompts, nor stretches that more than ten records of the
    file share.
    """

    kind: Literal["decontaminate"] = "decontaminate"
    alone: ClassVar[bool] = True
    against: Annotated[tuple[str, ...], Field(min_length=1)]
    """Files or folders of rows that must not be in training: tests, probes."""
    words: Annotated[int, Field(ge=4)] = 13
    """Words in a row that are shared by accident no more (13 in GPT-3)."""

    def files(self) -> tuple[str, ...]:
        """What is read beside the rows."""
        return self.against

    def apply(self, rows: Iterable[Row], account: Account, seed: int) -> Iterator[Row]:
        """The rows that overlap nothing."""
        known = [probes(path, self.words) for path in self.against]
        for row in rows:
            account.taken += 1
            found = next((o for each in known if (o := each.overlapping(row)) is not None), None)
            if found is not None:
                account.drop("overlaps a test or a probe", row, found)
                continue
            account.kept += 1
            yield row


class Probes:
    """The stretches of a file's texts, each with the first record that has it."""

    def __init__(self, path: str, size: int) -> None:
        self.size = size
        self.records: list[Origin] = []
        first: dict[int, int] = {}
        seen: dict[int, int] = {}
        for number, record in enumerate(read(Path(path))):
            self.records.append(record.origin)
            for gram in {g for text in texts_in(record.fields) for g in self.stretches(text)}:
                seen[gram] = seen.get(gram, 0) + 1
                first.setdefault(gram, number)
        self.first = {gram: place for gram, place in first.items() if seen[gram] <= COMMON}

    def stretches(self, text: str) -> list[int]:
        """The stretches of a text; all of a shorter one."""
        found: list[int] = np.unique(grams(words_of(text), self.size)).tolist()
        return found

    def overlapping(self, row: Row) -> Origin | None:
        """The record that a row shares a stretch with."""
        system = {turn.content for turn in row.dialogue() if turn.role == "system"}
        shared = (
            gram
            for text in row.texts()
            if text not in system
            for gram in self.stretches(text)
            if gram in self.first
        )
        found = next(shared, None)
        return None if found is None else self.records[self.first[found]]


@cache
def probes(path: str, size: int) -> Probes:
    """What a file holds; read once in a process."""
    return Probes(path, size)
