"""Commands given in a process of their own or in this one, and what they are given to work on."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUICK = ["train.steps=3", "train.batch=4", "train.probes=1", "evaluate.sampling.max_tokens=6"]


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """Its `--json`."""
        return json.loads(self.out)


Command = Callable[..., Said]


def fresh(*words: str, cwd: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "tunesmith", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, **settings)


def rows(path: Path, count: int = 24) -> Path:
    """A file of completion rows."""
    lines = [{"prompt": f"say {i} twice", "completion": f"{i} {i}"} for i in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def project(home: Path, place: Path, more: str = "") -> None:
    """Rows, the model of `home` and a run file `bot.yaml`, nothing run yet."""
    (place / "tiny").symlink_to(home / "tiny")
    rows(place / "rows.jsonl")
    text = "model: tiny\ndata: {source: rows.jsonl, split: {valid: 4, test: 4}}\n"
    (place / "bot.yaml").write_text(text + more)


def begun(home: Path, empty: Path, say: Command, *words: str) -> Path:
    """A project of its own in `empty`, and the folder of the run that was made there."""
    project(home, empty, "evaluate: {metrics: [perplexity]}\n")
    said = say("run", "bot.yaml", *QUICK, *words)
    assert said.code == 0, said.err
    return empty / "runs" / "bot"


def finished(run: Path) -> dict[str, int]:
    """When each stage was finished."""
    return {path.parent.name: path.stat().st_mtime_ns for path in run.glob("*/MANIFEST.json")}
