"""Files of work in progress: whole or not there after a kill, and not worth a sync of the disk."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tunesmith.core import disk


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A new file to write; it gets its name when it is complete.

    After a power loss it may not be whole: who takes it up looks at its digest.
    """
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(8)}.tmp")
    with disk.disk_errors(path, "write"):
        try:
            with os.fdopen(disk.DISK.create(temporary), "wb") as file:
                yield file
            disk.DISK.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                disk.DISK.unlink(temporary)
            raise
