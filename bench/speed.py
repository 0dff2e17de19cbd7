"""tunesmith against its rivals at their best, workload by workload, on this machine.

    python bench/speed.py [--workloads w1 w4 ...] [--pairs 3] [--rows N] [--threads N]
                          [--fresh] [--tune]

Fresh processes, interleaved: each round runs every arm of ours and then the rival, on the same
rows, ids, labels, first numbers and optimiser. A round whose sides disagree about the loss before
training ends the call: what is not the same work is not compared. Every process that ended well is
kept in bench/results/speed.json at once, and a later call goes on from there; another machine,
version or setting begins anew. `bench/speed_page.py` makes docs/performance.md of it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import machine
from workloads import WORKLOADS, Workload

HERE = Path(__file__).parent
RESULT = HERE / "results" / "speed.json"
TRL_GRID = [{"micro_batch": m, "train_sampling_strategy": "group_by_length"} for m in (1, 2, 4, 8)]
BEST = {
    "trl": TRL_GRID[1],
    "trainer": {"micro_batch": 2, "train_sampling_strategy": "group_by_length"},
}
"""What was fastest for a rival: for TRL on w1, and kept for the others, transformers among them."""
TUNED = ("trl", "w1")
EQUAL = 1e-5
"""How far the loss before training may lie apart, as a share of it, in the same arithmetic."""
ROUNDED = 1e-2
"""The same where one side holds its base in fewer bits."""


def once(name: str, side: str, options: dict[str, Any], rows: int) -> dict[str, Any]:
    """One fresh process of a side."""
    command = [sys.executable, "-W", "ignore", str(HERE / "side.py"), name, side, str(rows)]
    done = subprocess.run(
        [*command, json.dumps(options)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} {side} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    speed, peak = found["tokens_per_second"], found["peak_gb"]
    print(f"{name} {side:7} {options}: {speed:.0f} tokens/s, {peak:.2f} GB", flush=True)
    return found


def sides_of(work: Workload) -> dict[str, tuple[str, dict[str, Any]]]:
    """Who runs in a round: our arms, then the rival."""
    own = {arm: ("ours", options) for arm, options in work.arms.items()}
    return {**own, work.rival: (work.rival, BEST[work.rival])}


def settings_of(name: str, rows: int) -> dict[str, Any]:
    """All that makes numbers comparable."""
    work = WORKLOADS[name]
    sides = {arm: options for arm, (_, options) in sides_of(work).items()}
    fixed = {"rows": rows, "rows_a_step": work.batch, "epochs": work.epochs, "bits": work.bits}
    fixed["threads"] = int(os.environ["OMP_NUM_THREADS"])
    return {**fixed, "sides": sides, "seed": 0, "machine": machine()}


def check(name: str, found: dict[str, dict[str, Any]]) -> None:
    """The parity gate: the same loss before training, and gradients that are something."""
    work = WORKLOADS[name]
    wanted = found[work.rival]["probe"]
    for arm, result in found.items():
        if min(result["norms"]) <= 0:
            raise SystemExit(f"{name}: {arm} trained with a gradient of nothing")
        bound = ROUNDED if "bits" in work.arms.get(arm, {}) else EQUAL
        apart = abs(result["probe"] - wanted) / wanted
        if apart > bound:
            raise SystemExit(f"{name}: {arm} begins {apart:.1e} from {work.rival}: not the same")


def kept() -> dict[str, Any]:
    """What was measured so far."""
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    return found


def measured(name: str, rows: int, pairs: int, *, fresh: bool) -> None:
    """The rounds of a workload that are not there yet."""
    wanted = settings_of(name, rows)
    entry = kept().get(name)
    if fresh or entry is None or entry["settings"] != wanted:
        entry = {"settings": wanted, "rounds": []}
    for number in range(pairs):
        if number == len(entry["rounds"]):
            entry["rounds"].append({"began": time.strftime("%Y-%m-%d %H:%M")})
        done = entry["rounds"][number]
        for arm, (side, options) in sides_of(WORKLOADS[name]).items():
            if arm not in done:
                done[arm] = once(name, side, options, rows)
                write({name: entry})
        check(name, {arm: done[arm] for arm in sides_of(WORKLOADS[name])})


def tuned() -> None:
    """Every setting of the grid once: which is the rival's best."""
    side, name = TUNED
    found = [
        {"options": options, **once(name, side, options, WORKLOADS[name].rows)}
        for options in TRL_GRID
    ]
    write({"tuning": {"machine": machine(), "tries": found}})


def write(found: dict[str, Any]) -> None:
    """Put results beside those that are there."""
    text = json.dumps(kept() | found, indent=1) + "\n"
    beside = RESULT.with_suffix(".new")
    beside.write_text(text)
    beside.replace(RESULT)


def main() -> None:
    """The workloads asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=None, help="instead of each workload's own")
    parser.add_argument("--fresh", action="store_true", help="forget earlier rounds")
    parser.add_argument("--tune", action="store_true", help="try the rival's settings first")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(chosen.threads)
    if chosen.tune:
        tuned()
    for name in chosen.workloads:
        rows = chosen.rows or WORKLOADS[name].rows
        measured(name, rows, chosen.pairs, fresh=chosen.fresh)


if __name__ == "__main__":
    main()
