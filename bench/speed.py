"""tunesmith against its rivals, workload by workload, on this machine.

    python bench/speed.py [--workloads w1 w4 ...] [--rivals litgpt ...] [--pairs 3] [--rows N]
                          [--threads N] [--fresh] [--tune] [--micro-batches N ...]

Fresh processes, interleaved: each round runs every arm of ours and then the rival, on the same
rows, ids, labels, first numbers and optimiser. A round whose sides disagree about the loss before
training ends the call: what is not the same work is not compared. Every process that ended well is
kept in bench/results/speed/<processor>.json at once, and a later call goes on from there; another
machine, version, setting or engine of ours begins anew. Rivals with environments of their own
(`bench/rivals.py` makes them) run when they are named, on w1, in rounds of their own.
`bench/speed_page.py` makes docs/performance.md of it all.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import KEEPING, around, machine, result_of
from rivals import RIVALS, versions_of
from workloads import WORKLOADS, Workload

from tunesmith.environment import code_digest

HERE = Path(__file__).parent
GROUPED: dict[str, Any] = {"train_sampling_strategy": "group_by_length"}
GRIDS: dict[str, list[dict[str, Any]]] = {
    "trl": [{"micro_batch": m, **GROUPED} for m in (1, 2, 4, 8)],
    "trainer": [{"micro_batch": m, **GROUPED} for m in (1, 2, 4, 8)],
    "litgpt": [{"micro_batch": m} for m in (1, 2, 4)],
    "llamafactory": [{"micro_batch": m, **GROUPED} for m in (1, 2, 4)],
}
UNTRIED = {
    "trl": GROUPED,
    "trainer": GROUPED,
    "litgpt": GRIDS["litgpt"][0],
    "llamafactory": GRIDS["llamafactory"][1],
}
"""What rivals run with where no grid was tried on this processor; the micro-batch of a workload's
own rival is the workload's then."""
ELSEWHERE = "w1"
"""Where rivals run that are not a workload's own."""
EQUAL = 1e-5
"""How far the loss before training may lie apart, as a share of it, in the same arithmetic."""
ROUNDED = 1e-2
"""The same where one side holds its base in fewer bits, or bfloat16."""


def once(name: str, side: str, options: dict[str, Any], rows: int) -> dict[str, Any]:
    """One fresh process of a side."""
    command = [sys.executable, "-W", "ignore", str(HERE / "side.py"), name, side, str(rows)]
    command.append(json.dumps(options))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=around(side))
    if done.returncode:
        raise SystemExit(f"{name} {side} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    speed, peak = found["tokens_per_second"], found["peak_gb"]
    print(f"{name} {side:7} {options}: {speed:.0f} tokens/s, {peak:.2f} GB", flush=True)
    return found


def sides_of(work: Workload, rival: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Who runs in a round: our arms, then the rival, and once more where it has two ways."""
    own = {arm: ("ours", options) for arm, options in work.arms.items()}
    theirs = {rival: (rival, best(work, rival, {}))}
    if rival == work.rival and work.rounded is not None:
        theirs[rounded(rival)] = (rival, best(work, rival, work.rounded))
    return own | theirs


def best(work: Workload, rival: str, way: dict[str, Any]) -> dict[str, Any]:
    """A rival's fastest setting of those tried on this processor; `way` is what it trains in."""
    (name,) = (name for name, each in WORKLOADS.items() if each is work)
    tuning = kept().get(f"tuning {key_of(name, rival)}", {})
    alike_here = {"machine": machine(), "theirs_in": KEEPING}.items() <= tuning.items()
    tried = speeds(tuning) if alike_here else []
    told = (work.rounded or {}).keys()
    alike = [each for each in tried if {k: v for k, v in each[0].items() if k in told} == way]
    if alike:
        return max(alike, key=lambda each: statistics.median(each[1]))[0]
    micro = {"micro_batch": work.micro_batch} if rival == work.rival else {}
    return {**UNTRIED[rival], **micro, **way}


def speeds(tuning: dict[str, Any]) -> list[tuple[dict[str, Any], list[float]]]:
    """Each setting of a rival that was tried, and its tokens a second, try by try."""
    found: list[tuple[dict[str, Any], list[float]]] = []
    for each in tuning.get("tries", []):
        known = next((s for options, s in found if options == each["options"]), None)
        if known is None:
            found.append((each["options"], known := []))
        known.append(each["tokens_per_second"])
    return found


def rounded(rival: str) -> str:
    """The name of a rival's side that trains in bfloat16."""
    return f"{rival} in bfloat16"


def settings_of(name: str, rival: str, rows: int) -> dict[str, Any]:
    """All that makes numbers comparable."""
    work = WORKLOADS[name]
    sides = {arm: options for arm, (_, options) in sides_of(work, rival).items()}
    fixed = {"rows": rows, "rows_a_step": work.batch, "epochs": work.epochs, "bits": work.bits}
    fixed["threads"] = int(os.environ["OMP_NUM_THREADS"])
    fixed |= {"theirs": versions_of(rival)} if rival in RIVALS else {}
    fixed["code"] = code_digest("model/*.py", "train/**/*.py")
    return {**fixed, "sides": sides, "theirs_in": KEEPING, "seed": 0, "machine": machine()}


def check(name: str, rival: str, found: dict[str, dict[str, Any]]) -> None:
    """The parity gate: the same loss before training, and gradients that are something."""
    wanted = found[rival]["probe"]
    for arm, result in found.items():
        if min(result["norms"]) <= 0:
            raise SystemExit(f"{name}: {arm} trained with a gradient of nothing")
        coarse = "bits" in WORKLOADS[name].arms.get(arm, {}) or arm == rounded(rival)
        bound = ROUNDED if coarse else EQUAL
        apart = abs(result["probe"] - wanted) / wanted
        if apart > bound:
            raise SystemExit(f"{name}: {arm} begins {apart:.1e} from {rival}: not the same")


def kept() -> dict[str, Any]:
    """What was measured so far."""
    path = result_of("speed")
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def key_of(name: str, rival: str) -> str:
    """Where results are kept: those against a workload's own rival under its name alone."""
    return name if rival == WORKLOADS[name].rival else f"{name} {rival}"


def measured(name: str, rival: str, rows: int, pairs: int, *, fresh: bool) -> None:
    """The rounds of a workload that are not there yet."""
    key, wanted = key_of(name, rival), settings_of(name, rival, rows)
    entry, sides = kept().get(key), sides_of(WORKLOADS[name], rival)
    if fresh or entry is None or entry["settings"] != wanted:
        entry = {"settings": wanted, "rounds": []}
    for number in range(pairs):
        if number == len(entry["rounds"]):
            entry["rounds"].append({"began": time.strftime("%Y-%m-%d %H:%M")})
        done = entry["rounds"][number]
        for arm, (side, options) in sides.items():
            if arm not in done:
                done[arm] = once(name, side, options, rows)
                write({key: entry})
        check(name, rival, {arm: done[arm] for arm in sides})


def tuned(name: str, rival: str, rows: int, micro_batches: list[int]) -> None:
    """Every setting of a rival's grid once more: which is its best."""
    work = WORKLOADS[name]
    grid = [each for each in GRIDS[rival] if each["micro_batch"] in micro_batches]
    grid = [each for each in grid if each["micro_batch"] <= work.batch]
    if rival == work.rival and work.rounded is not None:
        grid += [{**work.rounded, **each} for each in grid]
    found = [{"options": options, **once(name, rival, options, rows)} for options in grid]
    facts = {"machine": machine(), "theirs_in": KEEPING, "rows": rows}
    key = f"tuning {key_of(name, rival)}"
    before = kept().get(key, {})
    tried = before.get("tries", []) if facts.items() <= before.items() else []
    write({key: {**facts, "tries": tried + found}})


def write(found: dict[str, Any]) -> None:
    """Put results beside those that are there."""
    text = json.dumps(kept() | found, indent=1) + "\n"
    path = result_of("speed")
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def main() -> None:
    """The workloads asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument(
        "--rivals", nargs="+", choices=RIVALS, default=[], help=f"on {ELSEWHERE} only"
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=None, help="instead of each workload's own")
    parser.add_argument("--fresh", action="store_true", help="forget earlier rounds")
    parser.add_argument("--tune", action="store_true", help="try the rivals' settings first")
    parser.add_argument("--micro-batches", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(chosen.threads)
    pairs = [(name, WORKLOADS[name].rival) for name in chosen.workloads if not chosen.rivals]
    pairs += [(ELSEWHERE, rival) for rival in chosen.rivals]
    for name, rival in pairs:
        rows = chosen.rows or WORKLOADS[name].rows
        if chosen.tune:
            tuned(name, rival, rows, chosen.micro_batches)
        measured(name, rival, rows, chosen.pairs, fresh=chosen.fresh)


if __name__ == "__main__":
    main()
