"""Files of JSON lines that grow while we work: how a line is added, and which lines count.

A line is added by one write. A kill, a full disk or a power loss can leave one that is not whole;
the next begins on a line of its own, and a reader passes over whatever is no JSON object.
"""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.core import disk


def append_line(path: Path, line: bytes) -> None:
    """One write in append mode, so lines of two processes never mix; mends a torn last line."""
    file = disk.DISK.append(path)
    try:
        size = os.fstat(file).st_size
        torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        content = b"\n" + line if torn else line
        if disk.DISK.write(file, memoryview(content)) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        disk.DISK.close(file)


def whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of the whole lines; none where there is no file."""
    if not path.exists():
        return
    with disk.disk_errors(path, "read"):
        content = path.read_bytes()
    # Not splitlines(): texts hold line ends of Unicode that are none of JSON lines.
    for line in content.split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value
