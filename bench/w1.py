"""W1 of the benchmark plan: LoRA SFT on short instructions, tunesmith against TRL at its best.

    python bench/w1.py [--pairs 3] [--tune]

Fresh processes, interleaved, on the same rows and numbers. The result is the median of paired
ratios, written to bench/results/w1.json with every single run in it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from machine import machine

HERE = Path(__file__).parent
ROWS, BATCH = 64, 8
TRL_GRID = [{"micro_batch": m, "train_sampling_strategy": "group_by_length"} for m in (1, 2, 4, 8)]
TRL_BEST = TRL_GRID[1]


def once(side: str, options: dict[str, Any], *, count: int = ROWS, batch: int = BATCH) -> Any:
    """One fresh process of a side."""
    command = [sys.executable, str(HERE / "side.py"), side, str(count), str(batch)]
    done = subprocess.run(
        [*command, json.dumps(options)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    speed, peak = result["tokens_per_second"], result["peak_gb"]
    print(f"{side:5} {options}: {speed:.0f} tokens/s, {peak:.2f} GB", flush=True)
    return {"options": options, **result}


def main() -> None:
    """Tune the rival, run the pairs, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--tune", action="store_true", help="try the rival's micro-batches first")
    chosen = parser.parse_args()
    tuning = [once("trl", options) for options in TRL_GRID] if chosen.tune else []
    best = max(tuning, key=lambda r: r["tokens_per_second"])["options"] if tuning else TRL_BEST
    pairs = [(once("ours", {}), once("trl", best)) for _ in range(chosen.pairs)]
    ratios = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs]
    memory = [a["peak_gb"] / b["peak_gb"] for a, b in pairs]
    first = [abs(a["losses"][0] - b["losses"][0]) for a, b in pairs]
    result = {
        "machine": machine(),
        "rows": ROWS,
        "rows_a_step": BATCH,
        "seed": 0,
        "load": os.getloadavg(),
        "speed_ratio": statistics.median(ratios),
        "ratios": ratios,
        "memory_ratio": statistics.median(memory),
        "first_loss_difference": first,
        "pairs": pairs,
        "tuning": tuning,
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "w1.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"tokens/s ours / TRL's best: {result['speed_ratio']:.2f} {sorted(ratios)}")
    print(f"peak memory ours / TRL's best: {result['memory_ratio']:.2f}")


if __name__ == "__main__":
    main()
