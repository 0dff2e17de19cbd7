"""Two trainings at once on one machine: how long a thread that waits for another keeps its core.

    python bench/beside.py [--rounds 3] [--rows 16]

LoRA on short instructions (`w1` of bench/speed.py), every training on all cores: alone, then two at
the same time, with the OpenMP library as it comes and with the wait that tunesmith sets for its
commands (`environment.SPINS`). Writes bench/results/beside.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from whole import keep

from tunesmith.environment import SPINS

WAYS: dict[str, dict[str, str]] = {"as it comes": {}, "ours": {"GOMP_SPINCOUNT": SPINS}}


def begun(rows: int, way: str) -> "subprocess.Popen[str]":
    """A training in a process of its own."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("side.py"))]
    command += ["w1", "ours", str(rows), "{}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count()), **WAYS[way]}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload,no-any-return]


def speed(training: "subprocess.Popen[str]") -> float:
    """Its tokens a second, once it is done."""
    said, _ = training.communicate()
    return float(json.loads(said.splitlines()[-1])["tokens_per_second"])


def main() -> None:
    """Every way by turns, round by round."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=16)
    chosen = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    for _ in range(chosen.rounds):
        rounds.append({})
        for way in WAYS:
            alone = speed(begun(chosen.rows, way))
            both = [begun(chosen.rows, way) for _ in range(2)]
            rounds[-1][way] = {"alone": alone, "two": [speed(each) for each in both]}
            print(way, rounds[-1][way], flush=True)
    middle = {
        way: {
            "alone": statistics.median(each[way]["alone"] for each in rounds),
            "each of two": statistics.median(s for each in rounds for s in each[way]["two"]),
        }
        for way in WAYS
    }
    found = {"rows": chosen.rows, "spins": SPINS, "middle": middle, "rounds": rounds}
    keep("beside", found)


if __name__ == "__main__":
    main()
