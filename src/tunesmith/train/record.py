"""What a run leaves to look at: curves and probe answers, one JSON line each, rewindable."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.core import disk
from tunesmith.core.disk import disk_errors, sync_file, write_bytes
from tunesmith.core.jsonlines import append_line


class Lines:
    """An append-only JSONL file; `step` in a line counts the optimiser steps done before it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line. A full disk, or a link at the path, is a ResourceError."""
        line = json.dumps({"step": step, **values}, ensure_ascii=False) + "\n"
        with disk_errors(self.path, "write"):
            append_line(self.path, line.encode("utf-8"))

    def settle(self) -> int:
        """Make all lines durable; their bytes, which a checkpoint written after it counts on."""
        if not self.path.exists():
            return 0
        with disk_errors(self.path, "save"):
            sync_file(self.path)
            disk.DISK.sync_folder(self.path.parent)
            return disk.DISK.size(self.path)

    def rewind(self, size: int) -> None:
        """Forget what comes after the first `size` bytes: a resumed run writes it again."""
        if not self.path.exists():
            return
        with disk_errors(self.path, "read"):
            content = self.path.read_bytes()
        if len(content) > size:
            write_bytes(self.path, content[:size])
