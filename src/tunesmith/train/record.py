"""What a run leaves to look at: curves and probe answers, one JSON line each, rewindable."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith.core.disk import disk_errors, write_text
from tunesmith.core.log import append_line


class Lines:
    """An append-only JSONL file; `step` in a line counts the optimiser steps done before it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line. A full disk, or a link at the path, is a ResourceError."""
        line = json.dumps({"step": step, **values}, ensure_ascii=False) + "\n"
        with disk_errors(self.path, "write"):
            append_line(self.path, line.encode("utf-8"))

    def read(self) -> Iterator[dict[str, Any]]:
        """The whole lines; one cut off by a crash is left out."""
        if self.path.exists():
            with disk_errors(self.path, "read"):
                text = self.path.read_text(encoding="utf-8")
            # Not splitlines(): texts hold line ends of Unicode that are none of JSON lines.
            for line in text.split("\n"):
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    return

    def rewind(self, step: int) -> None:
        """Forget lines of `step` and later: a resumed run writes them again."""
        kept = [json.dumps(v, ensure_ascii=False) for v in self.read() if v["step"] < step]
        if self.path.exists():
            write_text(self.path, "".join(line + "\n" for line in kept))
