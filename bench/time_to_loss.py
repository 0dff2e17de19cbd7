"""How long until the held-out loss that TRL ends with: 800 rows of e2e_nlg, one epoch of LoRA.

    python bench/time_to_loss.py [--data ../shared/data] [--rows 800]

Same rows, ids, first numbers, rate and optimiser. TRL trains its epoch, grouped by length, once in
floats and once with its model in bfloat16, each at the fastest of its micro-batches, tried on the
first rows. Ours runs with products in floats, in bfloat16 and in bytes: from half the epoch on we
look at the held-out rows every 25 steps, and stop at the first look that is no worse than both of
TRL's last losses; looks are in nobody's time. Each side is a process of its own. Writes
bench/results/time_to_loss/<processor>.json.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import side
import torch
from clock import now, spent
from e2e import row
from machine import KEEPING, around, here
from whole import keep, lines
from workloads import Encoded, Workload, encoded

from tunesmith.environment import code_digest, collect_rarely

RATE, BATCH, LOOK = 1e-3, 4, 25
WORK = Workload("e2e_nlg", lambda *_: [], rows=800, batch=BATCH)
MICRO_BATCHES, TRIED = (1, 2, 4), 48
"""TRL's, tried on so many rows."""
ARMS = {"ours": "floats", "ours in bfloat16": "bfloat16", "ours in bytes": "bytes"}
"""What our products are made in."""
RIVALS = {"trl": "float32", "trl in bfloat16": "bfloat16"}
"""What TRL's model is held in."""


def rows_of(tokenizer: Any, data: Path, count: int) -> dict[str, list[Encoded]]:
    """Ids and labels of the rows trained on and of those held out."""
    found = {}
    for part, records in (
        ("train", random.Random(0).sample(lines(data / "e2e_nlg" / "train.jsonl"), count)),
        ("valid", lines(data / "e2e_nlg" / "valid.jsonl")),
    ):
        asked = [row(r["mr"], r.get("refs") or [r["ref"]]) for r in records]
        turns = [[*r["prompt"], {"role": "assistant", "content": r["completion"]}] for r in asked]
        found[part] = [encoded(tokenizer, each) for each in turns]
    return found


def held_out(policy: Any, rows: list[Encoded]) -> float:
    """The loss per supervised token."""
    from tunesmith.train.batches import cut

    examples = [side.example(number, *each) for number, each in enumerate(rows)]
    with torch.no_grad():
        total = sum(policy.nll(part).item() for part in cut(examples, 512, "cpu"))
    return total / side.supervised(rows)


def theirs(
    base: Any, found: dict[str, list[Encoded]], micro: int, tried: int, dtype: str
) -> dict[str, Any]:
    """TRL's epoch, or the start of it to be tried: its seconds and the loss it ends with."""
    kept: list[Any] = []
    plain = side.adapted
    side.adapted = lambda *given: kept.append(plain(*given)) or kept[-1]
    options = {"micro_batch": micro, "train_sampling_strategy": "group_by_length", "dtype": dtype}
    took = side.trl(base, WORK, found["train"][: tried or None], options)
    times = {what: took[what] for what in ("seconds", "processor_seconds")}
    if tried:
        return {"micro_batch": micro, **times}
    loss = held_out(side.policy_of(kept[0].float().eval(), base, "floats"), found["valid"])
    return {"micro_batch": micro, **times, "load": os.getloadavg()[0], "loss": loss}


def ours(base: Any, found: dict[str, list[Encoded]], wanted: float, arithmetic: str) -> Any:
    """Our steps until the loss is no worse than `wanted`, or the epoch's end."""
    from tunesmith.train import optimiser
    from tunesmith.train.batches import Groups, common_start, steps_in
    from tunesmith.train.loop import Train, steps
    from tunesmith.train.objectives.base import PassThrough
    from tunesmith.train.objectives.sft import Sft

    spec = Train(lr=RATE, warmup=0.0, schedule="linear", batch=BATCH, arithmetic=arithmetic)
    examples = [side.example(number, *each) for number, each in enumerate(found["train"])]
    base = replace(base, bits=8) if arithmetic == "bytes" else base
    policy = side.policy_of(side.adapted(base, "lora"), base, arithmetic)
    optimizer = optimiser.adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    tokens, laid = spec.pass_tokens("cpu", common_start(examples)), policy.laid
    groups = Groups(examples, rows=BATCH, tokens=tokens, seed=0, device="cpu", laid=laid)
    total, looks, times = steps_in(len(examples), BATCH), [], Counter[str]()
    began = now()
    for step in steps(policy, Sft(), PassThrough(groups), spec, total=total, optimizer=optimizer):
        done = step.number + 1
        if done < total and (done % LOOK or done < total / 2):
            continue
        times.update(spent(began))
        policy.model.eval()
        looks.append({"steps": done, **times})
        looks[-1]["loss"] = held_out(policy, found["valid"])
        policy.model.train()
        if looks[-1]["loss"] <= wanted:
            break
        began = now()
    return {**times, "load": os.getloadavg()[0], "loss": looks[-1]["loss"], "looks": looks}


def alone(who: str, data: Path, rows: int, **options: float | str) -> dict[str, Any]:
    """A side in a process of its own."""
    told = ["--side", who, "--rows", str(rows), "--data", str(data)]
    told += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-W", "ignore", __file__, *told]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=around(who))
    print(who, done.stdout.splitlines()[-1][:200], flush=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def fastest(data: Path, rows: int, dtype: str) -> dict[str, Any]:
    """TRL's epoch at the micro-batch that was fastest on a few rows."""
    tries = [
        alone("trl", data, rows, micro=micro, tried=TRIED, dtype=dtype) for micro in MICRO_BATCHES
    ]
    best = min(tries, key=lambda each: each["seconds"])["micro_batch"]
    return {**alone("trl", data, rows, micro=best, dtype=dtype), "tries": tries}


def against(own: dict[str, Any], rival: dict[str, Any]) -> dict[str, Any] | None:
    """How the rival's time compares with ours to its loss; None where we never were there."""
    there = next((look for look in own["looks"] if look["loss"] <= rival["loss"]), None)
    if there is None:
        return None
    ratio = {what: rival[what] / there[what] for what in ("seconds", "processor_seconds")}
    return {**ratio, **{f"our_{what}": there[what] for what in ("steps", "loss")}}


def compare(data: Path, rows: int) -> None:
    """TRL first, at its fastest, then ours until it is there."""
    settings = {"rows": rows, "rows_a_step": BATCH, "rate": RATE, "seed": 0}
    settings["code"] = code_digest("model/*.py", "train/**/*.py")
    found: dict[str, Any] = {"settings": settings | {"theirs_in": KEEPING}, "ratio": {}}
    rivals = {name: fastest(data, rows, dtype) for name, dtype in RIVALS.items()}
    found |= rivals
    wanted = min(rival["loss"] for rival in rivals.values())
    for arm, arithmetic in ARMS.items():
        own = found[arm] = alone("ours", data, rows, wanted=wanted, arithmetic=arithmetic)
        found["ratio"][arm] = {name: against(own, rival) for name, rival in rivals.items()}
        keep(here("time_to_loss"), found)


def main() -> None:
    """Both sides, or one of them."""
    from transformers import AutoTokenizer

    from tunesmith.model.bases import ModelSpec, resolve

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--side", choices=["trl", "ours"])
    parser.add_argument("--wanted", type=float, default=0.0)
    parser.add_argument("--micro", type=int, default=2)
    parser.add_argument("--tried", type=int, default=0)
    parser.add_argument("--dtype", choices=RIVALS.values(), default="float32")
    parser.add_argument("--arithmetic", choices=ARMS.values(), default="floats")
    chosen = parser.parse_args()
    if chosen.side is None:
        compare(chosen.data, chosen.rows)
        return
    side.RATES["lora"] = RATE
    collect_rarely()  # As in bench/side.py.
    base = resolve(ModelSpec())
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    found = rows_of(tokenizer, chosen.data, chosen.rows)
    if chosen.side == "trl":
        print(json.dumps(theirs(base, found, chosen.micro, chosen.tried, chosen.dtype)))
    else:
        print(json.dumps(ours(base, found, chosen.wanted, chosen.arithmetic)))


if __name__ == "__main__":
    main()
