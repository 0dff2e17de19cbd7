"""A killed `predict`, called again, leaves the file that an undisturbed one leaves."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tiny import tiny_model
from tests.trained import base_of, prepared, trained
from tunesmith.core.disk import write_text

ROWS = 300


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, and rows to answer, one of which nothing can answer."""
    home = tmp_path_factory.mktemp("killed")
    tiny_model("llama", home / "tiny")
    folder = trained(prepared(home / "runs" / "bot"), base_of(home / "tiny"))
    settings = f"name: bot\nmodel: {home / 'tiny'}\ndata: {{source: rows.jsonl}}\n"
    write_text(folder.path / "run.yaml", settings)
    rows = [{"id": i, "prompt": "say it " * (1 + i % 7)} for i in range(ROWS)]
    rows[40]["prompt"] = "far too long " * 3000
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home


def command(out: str) -> list[str]:
    settings = ["evaluate.sampling.max_tokens=24", "evaluate.batch=4"]
    return [sys.executable, "-m", "tunesmith", "predict", "bot", "rows.jsonl", *settings] + [
        "--out",
        out,
    ]


def test_killed_and_called_again_it_gives_the_same_file(home: Path) -> None:
    whole = subprocess.run(command("whole.jsonl"), cwd=home, capture_output=True, text=True)
    assert whole.returncode == 3 and "rows.jsonl:41: the prompt has" in whole.stderr
    draw, out, seen = random.Random(0), home / "killed.jsonl", [0]
    for _ in range(4):
        process = subprocess.Popen(command("killed.jsonl"), cwd=home, stderr=subprocess.DEVNULL)
        wanted = seen[-1] + draw.randrange(5, 60)
        while process.poll() is None and lines(out) < wanted:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(lines(out))
        torn(out, draw)
    assert 0 < seen[-1] < ROWS, "killed too early or too late to show anything"
    last = subprocess.run(command("killed.jsonl"), cwd=home, capture_output=True, text=True)
    assert last.returncode == 3 and last.stderr.splitlines()[-1] == whole.stderr.splitlines()[-1]
    assert out.read_bytes() == (home / "whole.jsonl").read_bytes()
    found = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert [row["id"] for row in found] == list(range(ROWS))


def test_ctrl_c_leaves_whole_lines_and_one_sentence(home: Path) -> None:
    words = command("stopped.jsonl")
    process = subprocess.Popen(words, cwd=home, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and lines(home / "stopped.jsonl") < 5:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error, error
    assert "same command" in error.splitlines()[-1]
    content = (home / "stopped.jsonl").read_bytes()
    assert content.endswith(b"\n") and content.count(b"\n") < ROWS


def lines(path: Path) -> int:
    """Whole lines so far."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def torn(path: Path, draw: random.Random) -> None:
    """What a power loss may leave: a last line cut anywhere."""
    if path.exists():
        os.truncate(path, max(0, path.stat().st_size - draw.randrange(0, 60)))
