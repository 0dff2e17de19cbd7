"""Whether training slows down as rows get more and longer: tokens a second, minute by minute.

    python bench/growth.py [--windows 2] [--seconds 60] [--threads N]

LoRA as in w1, each set of rows in a process of its own. By count: the rows of w1 as 1,000, 10,000
and 100,000 of them (those of the first thousand over and over, so that only their number differs).
By length: rows of 128 to 4,096 tokens each, 4,096 tokens a step, every answer token carrying loss;
what is expected there is the speed of 512 by the operations a token needs, as `--dry-run` counts
them. A window ends with the first step past its seconds; the first step is in none.
Writes bench/results/growth/<processor>.json; sets already there are kept.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import side
from clock import now, peak, spent
from machine import here, result_of
from whole import keep
from workloads import WORKLOADS, Encoded

from tunesmith.environment import code_digest
from tunesmith.model.bases import Base, ModelSpec, resolve

COUNTS = (1_000, 10_000, 100_000)
LENGTHS = (128, 256, 512, 1024, 2048, 4096)
DISTINCT = 1_000
A_STEP = 4096
"""Tokens of a step where rows are of one length."""
KNOWN = 512
"""The length whose speed the others are predicted from."""
RESULT = result_of("growth")

Found = dict[str, Any]


def rows_of(kind: str, number: int, base: Base) -> tuple[list[Encoded], int]:
    """Rows, and how many make a step."""
    from transformers import AutoTokenizer

    tokenizer, work = AutoTokenizer.from_pretrained(base.folder), WORKLOADS["w1"]
    if kind == "rows":
        distinct = work.make(tokenizer, DISTINCT)
        return [distinct[n % DISTINCT] for n in range(number)], work.batch
    texts = WORKLOADS["w4"].make(tokenizer, 4 * max(LENGTHS) // 1024)
    ids = [each for window, _ in texts for each in window]
    starts = range(0, len(ids) - number + 1, number)
    return [(ids[at : at + number], ids[at : at + number]) for at in starts], A_STEP // number


def windows(steps: Iterator[Any], count: int, seconds: float) -> list[Found]:
    """Real tokens and seconds of so many windows, from the end of the first step on."""
    next(steps)
    found: list[Found] = []
    for _ in range(count):
        began, tokens, taken = now(), 0, 0
        while spent(began)["seconds"] < seconds:
            tokens, taken = tokens + next(steps).tokens, taken + 1
        took = spent(began)
        found.append({**took, "steps": taken, "tokens_per_second": tokens / took["seconds"]})
    return found


def trained(kind: str, number: int, count: int, seconds: float) -> Found:
    """Training on one set of rows, for `count` windows."""
    from tunesmith.costs import attended
    from tunesmith.model import layout
    from tunesmith.model.policy import Policy
    from tunesmith.model.tokenizer import Tokenizer
    from tunesmith.train import optimiser
    from tunesmith.train.batches import Groups, common_start
    from tunesmith.train.loop import Train, steps
    from tunesmith.train.objectives.base import PassThrough
    from tunesmith.train.objectives.sft import Sft

    base = resolve(ModelSpec())
    encoded, rows = rows_of(kind, number, base)
    examples = [side.example(place, *row) for place, row in enumerate(encoded)]
    policy = Policy(side.adapted(base, "lora"), Tokenizer.load(base.folder))
    spec = Train(lr=side.RATES["lora"], schedule="constant", batch=rows)
    tokens = spec.pass_tokens("cpu", common_start(examples))
    began = now()
    groups = Groups(examples, rows=rows, tokens=tokens, seed=0, device="cpu", laid=policy.laid)
    optimizer = optimiser.adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    stream = PassThrough(groups)
    each = steps(policy, Sft(), stream, spec, total=10**9, optimizer=optimizer)
    found = windows(each, count, seconds)
    losing = side.supervised(encoded) / sum(len(ids) for ids, _ in encoded)
    squares = sum(len(ids) ** 2 for ids, _ in encoded) / sum(len(ids) for ids, _ in encoded)
    blocks = list(layout.blocks(policy.model))
    needed = side.floor(base, WORKLOADS["w1"], losing)
    needed += attended(squares, layout.width(policy.model), len(blocks)) / 1e9
    facts = {"began": spent(began)["seconds"] - sum(each["seconds"] for each in found)}
    facts |= {"load": os.getloadavg()[0], "peak_gb": peak(), "needed_gflop": needed}
    return {"windows": found, "to_first_step": facts.pop("began"), **facts}


def alone(kind: str, number: int, told: list[str]) -> Found:
    """One set of rows in a fresh process."""
    command = [sys.executable, "-W", "ignore", __file__, "--set", kind, str(number), *told]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{kind} {number} failed:\n{done.stderr[-2000:]}")
    found: Found = json.loads(done.stdout.strip().splitlines()[-1])
    speeds = [f"{each['tokens_per_second']:.0f}" for each in found["windows"]]
    print(f"{kind} {number}: {' '.join(speeds)} tokens/s, {found['peak_gb']:.2f} GB", flush=True)
    return found


def main() -> None:
    """All sets that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--set", nargs=2, default=None)
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(chosen.threads)
    if chosen.set is not None:
        kind, number = chosen.set
        print(json.dumps(trained(kind, int(number), chosen.windows, chosen.seconds)))
        return
    settings = {"seconds": chosen.seconds, "windows": chosen.windows, "threads": chosen.threads}
    settings |= {"code": code_digest("model/*.py", "train/**/*.py"), "seed": 0}
    settings["known"] = KNOWN
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    found: Found = before["sets"] if before.get("settings") == settings else {}
    for kind, number in [*(("rows", n) for n in COUNTS), *(("length", n) for n in LENGTHS)]:
        name = f"{kind} {number}"
        if name not in found:
            told = ["--windows", str(chosen.windows if kind == "rows" else 1)]
            told += ["--seconds", str(chosen.seconds)]
            found[name] = alone(kind, number, told)
            keep(here("growth"), {"settings": settings, "sets": found})


if __name__ == "__main__":
    main()
