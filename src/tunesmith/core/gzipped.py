"""What a gzip file holds, as a file: inflated piece by piece, every member checked to its end."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path

from tunesmith.core.errors import DataError
from tunesmith.core.quote import visible

MAGIC = b"\x1f\x8b"
"""How every member of a gzip file begins."""
PIECE = 2**16
"""Compressed bytes read at once."""
AS_GZIP = 16 + zlib.MAX_WBITS
"""zlib reads the header and checks the length and the checksum at the end."""


class Inflated(io.RawIOBase):
    """The content of a gzip file of one or more members.

    Never more is inflated than is asked for, so a small file that would unfold to a huge one
    costs no memory. `advance` hears the compressed bytes.
    """

    def __init__(
        self, path: Path, packed: io.BufferedReader, advance: Callable[[int], object]
    ) -> None:
        self.path, self.packed, self.advance = path, packed, advance
        self.member = zlib.decompressobj(AS_GZIP)
        self.rest = b""  # read, and not inflated yet

    def readable(self) -> bool:
        """It is read only."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` as far as one piece goes; 0 at the end of the last member."""
        while not self.member.eof or self.another():
            piece = self.inflated(len(buffer))
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)
            if not self.member.eof and not self.rest and not self.more():
                raise self.fault("is cut short; get it again")
        return 0

    def inflated(self, most: int) -> bytes:
        """At most so many bytes of what was read."""
        try:
            piece = self.member.decompress(self.rest, most)
        except zlib.error:
            raise self.fault("is damaged; get it again") from None
        self.rest = self.member.unused_data if self.member.eof else self.member.unconsumed_tail
        return piece

    def another(self) -> bool:
        """Begin the next member, if one follows."""
        while len(self.rest) < len(MAGIC) and self.more():
            pass
        if not self.rest:
            return False
        if not self.rest.startswith(MAGIC):
            raise self.fault("goes on after its end with something else; get it again")
        self.member = zlib.decompressobj(AS_GZIP)
        return True

    def more(self) -> bool:
        """Read a piece. False at the end of the file."""
        read = self.packed.read(PIECE)
        self.advance(len(read))
        self.rest += read
        return bool(read)

    def fault(self, what: str) -> DataError:
        """The error for a file that is no whole gzip."""
        return DataError(f"{visible(self.path)}: the compressed file {what}")
