"""A million rows on two cores: time in proportion, memory bounded, killed anywhere and gone on.

About three quarters of an hour. The numbers stand in bench/results/data.json (bench/data.py).
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.data import MAIL, measured, planted

pytestmark = pytest.mark.evidence

PEAK = 2048
"""Megabytes of all processes together, at a million rows."""
ROWS = 100_000
"""Of the run that is killed."""
LINEAR = 1.5
"""A row may cost this much more at a million than at ten thousand."""


def test_a_million_rows_cost_a_hundred_times_ten_thousand() -> None:
    few, many = measured(10_000), measured(1_000_000)
    assert many["peak_megabytes"] <= PEAK
    assert (
        sum(many["parts"].values())
        + sum(count for reasons in many["dropped"].values() for count in reasons.values())
        == 1_000_000
    )
    assert many["cpu_seconds"] <= few["cpu_seconds"] * 100 * LINEAR
    # Nothing that was redacted is left for the audits to find.
    assert {"pii", "secrets"} <= {*many["steps"]} and many["findings"] == []
    assert many["changed"]["redact"] >= 0.8 * 1_000_000 / MAIL


PREPARE = """
import json, sys
from pathlib import Path
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.data import stage
from tunesmith.data.audits.pii import Pii
from tunesmith.data.audits.secrets import Secrets
folder = RunFolder(Path("runs") / sys.argv[1])
folder.create()
audits = (Pii(), Secrets())
spec = stage.Data(source="rows.jsonl", transforms=json.loads(sys.argv[2]), audits=audits)
stage.prepare(folder, spec, seed=0, log=Log(quiet=True))
"""
STEPS = ["normalise", {"kind": "deduplicate", "match": "near"}]


def test_killed_anywhere_it_goes_on(tmp_path: Path) -> None:
    with (tmp_path / "rows.jsonl").open("w") as out:
        out.writelines(json.dumps(record) + "\n" for record in planted(ROWS))

    def start(name: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", PREPARE, name, json.dumps(STEPS)]
        return subprocess.Popen(words, cwd=tmp_path)

    began = time.monotonic()
    assert start("whole").wait() == 0
    whole = time.monotonic() - began
    draw, kills = random.Random(0), 0
    while kills < 20:
        process = start("killed")
        try:
            process.wait(timeout=draw.uniform(1.0, whole / 3))
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 3 and start("killed").wait() == 0
    for name in ("train.jsonl", "valid.jsonl", "test.jsonl", "findings.json"):
        one, other = (tmp_path / "runs" / n / "data" / name for n in ("whole", "killed"))
        assert one.read_bytes() == other.read_bytes()
    found = {each["audit"] for each in json.loads(other.read_text())}
    assert found == {"pii", "secrets"}
