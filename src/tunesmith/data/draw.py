"""A row's place in a draw: seed and content decide it, so another row in the file changes none."""

import hashlib

from tunesmith.core.rows import Row


def draw(seed: int, row: Row) -> int:
    """A number below 2**64."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{row.digest}".encode()).digest()[:8], "big")
