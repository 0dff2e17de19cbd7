"""Every way to change a model, side by side: e2e_nlg, 800 rows, one epoch, the whole test set.

    python bench/methods.py --work DIR [--data ../shared/data] [--only lora,prefix]

Each method first tries its settings on 400 rows, judged by the held-out loss; the best of them
then trains on 800, with three seeds where SEEDS says so. What it costs is measured on the CPU over
the first forty rows, also where a GPU did the rest. Runs stay in DIR, so a second call goes on
where the first was stopped. Writes bench/results/methods.json, which docs/methods.md is made from.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from e2e import row
from machine import machine
from whole import keep, lines, write_rows

TRIES: dict[str, list[dict[str, Any]]] = {
    "lora": [
        {"method": {"kind": "lora", "rank": 16}, "lr": rate, "batch": 4}
        for rate in (5e-4, 1e-3, 2e-3, 4e-3)
    ],
    "lora+rslora": [
        {"method": {"kind": "lora", "rank": 64, "scaling": "rslora"}, "lr": rate, "batch": 4}
        for rate in (2e-4, 5e-4, 1e-3)
    ],
    "lora+dora": [
        {"method": {"kind": "lora", "rank": 16, "dora": True}, "lr": rate, "batch": 4}
        for rate in (1e-3, 2e-3)
    ],
    "lora+pissa": [
        {"method": {"kind": "lora", "rank": 16, "init": "pissa"}, "lr": rate, "batch": 4}
        for rate in (2e-4, 5e-4, 1e-3)
    ],
    "lora+plus": [
        {"method": {"kind": "lora", "rank": 16, "ratio": 8}, "lr": rate, "batch": 4}
        for rate in (3e-4, 1e-3)
    ],
    "full": [
        {"method": {"kind": "full"}, "lr": rate, "batch": 4} for rate in (5e-5, 1e-4, 2e-4, 4e-4)
    ],
    "full+blocks": [
        {"method": {"kind": "full", "blocks": 10}, "lr": rate, "batch": 4} for rate in (2e-4, 5e-4)
    ],
    "adapter": [
        {"method": {"kind": "adapter", "size": size}, "lr": rate, "batch": 4}
        for size, rate in ((64, 1e-3), (64, 3e-3), (256, 1e-3), (256, 3e-3))
    ],
    "prefix": [
        {"method": {"kind": "prefix", "length": length}, "lr": rate, "batch": 4}
        for length, rate in ((32, 3e-3), (32, 1e-2), (32, 3e-2), (32, 1e-1), (32, 3e-1), (64, 1e-1))
    ],
    "prompt": [
        {"method": {"kind": "prompt", "length": length}, "lr": rate, "batch": 4}
        for length, rate in ((32, 3e-3), (32, 1e-2), (32, 3e-2), (32, 1e-1), (64, 3e-2), (32, 5e-2))
    ],
    "ia3": [
        {"method": {"kind": "ia3"}, "lr": rate, "batch": 4} for rate in (3e-3, 1e-2, 3e-2, 1e-1)
    ],
}
TESTS = 630
"""Inputs of the whole test set."""
COSTED = 10
"""Steps of four rows over which time and memory are measured."""
SEEDS = {"lora": 3, "full": 3, "adapter": 3}
METRICS = [{"kind": "bleu", "lowercase": True}, "chrf", "rouge", "perplexity"]


def written(home: Path, source: Path) -> dict[str, str]:
    """Train, valid and the whole test set as completion rows."""
    parts = {
        "train": [row(r["mr"], [r["ref"]]) for r in lines(source / "train.jsonl")],
        "valid": [row(r["mr"], r["refs"]) for r in lines(source / "valid.jsonl")],
        "test": [row(r["mr"], r["refs"]) for r in lines(source / "test.jsonl")],
    }
    return {name: write_rows(home / f"{name}.jsonl", rows) for name, rows in parts.items()}


def run(files: dict[str, str], name: str, train: dict[str, Any], rows: int, seed: int) -> Any:
    """A run file: one epoch over so many rows."""
    transforms = ["deduplicate", {"kind": "sample", "rows": rows}]
    return {
        "name": name,
        "data": {
            "source": files["train"],
            "valid": files["valid"],
            "test": files["test"],
            "transforms": transforms,
        },
        "train": {"epochs": 1, "probes": 0, "evaluate_every": 10**6} | train,
        "evaluate": {"metrics": METRICS, "sampling": {"max_tokens": 80}, "general": "bundled"},
        "seed": seed,
    }


def peak() -> float:
    """The largest memory this process held, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def one(home: Path, settings: dict[str, Any], arm: str) -> dict[str, Any]:
    """A run in a process of its own, whose memory is its alone; from its file where it is done.

    `arm` says what is asked the test rows after the training: `tuned`, `base` or `none`.
    """
    kept = home / "done" / f"{settings['name']}-{arm}.json"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, "--one", json.dumps([str(home), settings, arm])]
        subprocess.run(command, check=True, cwd=Path(__file__).parent)
    return json.loads(kept.read_text())  # type: ignore[no-any-return]


def child(home: Path, settings: dict[str, Any], arm: str) -> None:
    """Carry a run out and write down what it cost and gave."""
    from tunesmith import pipeline
    from tunesmith.job import Job
    from tunesmith.run import from_mapping

    job = Job.of(from_mapping(settings, {}), home=home)
    pipeline.carry_out(job, "train")
    train = json.loads((job.folder.path / "train" / "train.json").read_text())
    names = ("seconds", "tokens", "steps", "best_step", "best_value", "last_loss")
    names += ("trainable_parameters", "parameters")
    found: dict[str, Any] = {"train": {name: train[name] for name in names}, "peak_gb": peak()}
    found |= {"machine": machine()}
    if arm != "none":
        found |= scored(job, arm)
    path = home / "done" / f"{settings['name']}-{arm}.json"
    path.with_suffix(".tmp").write_text(json.dumps(found))
    os.replace(path.with_suffix(".tmp"), path)


def scored(job: Any, arm: str) -> dict[str, Any]:
    """One arm's measures on the test rows: the base need not be asked again by every run."""
    from tunesmith.evaluate import compare, general, questions, stage
    from tunesmith.evaluate.arms import ask
    from tunesmith.evaluate.metrics.perplexity import Perplexity
    from tunesmith.model.bases import resolve

    began, run = time.monotonic(), job.loaded.run
    base = resolve(run.model)
    asked = questions.questions(job.folder.stage("data").path, run.evaluate, seed=0, head=None)
    here = job.folder.stage("evaluate")
    here.begin(stage.inputs(job.folder, run.evaluate, base, asked))
    outcome = ask(arm, here, base, asked, log=job.log)
    judged = [outcome.judged(row) for row in asked.rows]
    values = compare.compare(asked.metrics, {arm: judged}, draws=1000, seed=0).arms[arm]
    if outcome.general:
        texts = [general.judgement(outcome.general[row]) for row in sorted(outcome.general)]
        beside = compare.compare([Perplexity()], {arm: texts}, draws=1000, seed=0).arms[arm]
        values |= {"general": beside["perplexity"]}
    return {"values": values, "evaluation_seconds": time.monotonic() - began}


def searched(home: Path, files: dict[str, str], method: str) -> list[dict[str, Any]]:
    """The tries of a method, each with its held-out loss."""
    found = []
    for number, settings in enumerate(TRIES[method]):
        name = f"try-{method.replace('+', '-')}-{number}"
        done = one(home, run(files, name, settings, 400, 0), "none")
        found.append({"settings": settings, "held_out_loss": done["train"]["best_value"]})
        print(method, settings, found[-1]["held_out_loss"], flush=True)
    return found


def finished(home: Path, files: dict[str, str], method: str) -> dict[str, Any]:
    """A method's search, its runs on all rows, and what a step of it costs on the CPU."""
    tries = searched(home, files, method)
    best = min(tries, key=lambda done: float(done["held_out_loss"]))["settings"]
    stem = method.replace("+", "-")
    seeds = [
        one(home, run(files, f"{stem}-{seed}", best, 800, seed), "tuned")
        for seed in range(SEEDS.get(method, 1))
    ]
    short = best | {"steps": COSTED, "device": "cpu"}
    alone = run(files, f"cost-{stem}", short, 4 * COSTED, 0)
    alone["data"] |= {"valid": None, "split": "none"}  # a look at held-out rows is no step
    cost = one(home, alone, "none")
    cost = {"seconds": cost["train"]["seconds"] / COSTED, "peak_gb": cost["peak_gb"]}
    return {"tries": tries, "chosen": best, "seeds": seeds, "cost_of_a_step": cost}


def main() -> None:
    """Search, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", default=",".join(TRIES))
    parser.add_argument("--one")
    chosen = parser.parse_args()
    if chosen.one:
        home, settings, arm = json.loads(chosen.one)
        return child(Path(home), settings, arm)
    home = chosen.work.resolve()
    files = written(home, chosen.data.resolve() / "e2e_nlg")
    kept = Path(__file__).parent / "results" / "methods.json"
    table = json.loads(kept.read_text())["methods"] if kept.is_file() else {}
    if "base" not in table:
        asked = run(files, "base", {"steps": 1}, 4, 0)
        table["base"] = {"inputs": TESTS, **one(home, asked, "base")["values"]}
    for method in chosen.only.split(","):
        table[method] = finished(home, files, method)
        keep("methods", {"methods": table})


if __name__ == "__main__":
    main()
