"""Stretches of a file of lines, so that several readers can share one file."""

import io
import os
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core import textfile
from tunesmith.core.textfile import opened


@dataclass(frozen=True)
class Piece:
    """A file, or whole lines of one from the byte `start` to `end`, with the lines before them."""

    path: Path
    start: int = 0
    end: int | None = None
    before: int = 0

    @property
    def whole(self) -> bool:
        """Whether this is all of a file."""
        return self.end is None

    @property
    def size(self) -> int:
        """Its bytes."""
        return (os.path.getsize(self.path) if self.end is None else self.end) - self.start


def cut(path: Path, size: int) -> list[Piece]:
    """The file in stretches of whole lines, each of about `size` bytes."""
    found: list[Piece] = []
    start = before = lines = at = 0
    with opened(path) as file:
        while block := file.read(min(textfile.PIECE, size)):
            border = block.rfind(b"\n") + 1 if at + len(block) - start >= size else 0
            if border:
                lines += block.count(b"\n", 0, border)
                found.append(Piece(path, start, at + border, before))
                start, before = at + border, lines
            lines += block.count(b"\n", border)
            at += len(block)
    return (
        [*found, Piece(path, start, at, before)] if found and at > start else found or [Piece(path)]
    )


def stretch(file: io.BufferedReader, piece: Piece) -> io.BufferedReader:
    """A reader of one stretch alone."""
    return io.BufferedReader(Stretch(file, piece), textfile.PIECE)


class Stretch(io.RawIOBase):
    """The bytes of a stretch as a file of their own."""

    def __init__(self, file: io.BufferedReader, piece: Piece) -> None:
        file.seek(piece.start)
        self.inner = file
        self.left = piece.size

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, room: "memoryview") -> int:  # type: ignore[override]
        """Some of the bytes."""
        data = self.inner.read(min(len(room), self.left))
        room[: len(data)] = data
        self.left -= len(data)
        return len(data)
