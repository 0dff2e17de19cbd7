"""77 intents from ten examples each: the bundled encoder with a head, on the whole test set.

    python bench/banking77.py [--data ../shared/data] [--methods frozen full] [--seeds 0 1 2]

Rate and epochs are chosen by accuracy on the published valid rows, with one seed; only then are
the test rows asked, once a seed. Writes bench/results/banking77.json, a method at a time.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from whole import machine

from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.rows import Labelled, Origin
from tunesmith.core.tables import write_rows
from tunesmith.model import classify
from tunesmith.model.bases import ModelSpec, resolve
from tunesmith.model.trained import load_trained
from tunesmith.train.loop import Train
from tunesmith.train.stage import train

RESULT = Path(__file__).parent / "results" / "banking77.json"
GRIDS: dict[str, list[dict[str, Any]]] = {
    "frozen": [
        {"lr": lr, "epochs": epochs, "batch": 32}
        for lr in (3e-3, 1e-2, 3e-2)
        for epochs in (30, 100)
    ],
    "full": [
        {"lr": 2e-4, "epochs": 10, "batch": 16},
        {"lr": 5e-4, "epochs": 6, "batch": 16},
    ],
}


def parts(source: Path, shots: str = "train_10") -> dict[str, list[Labelled]]:
    """Ten rows a label (or `train_5`) to train on, the published valid rows, the whole test set."""
    chosen = json.loads((source / "fewshot_ids.json").read_text())
    rows = {
        record["id"]: Labelled(
            given=(record["text"],), labels=(record["label"],), origin=Origin(name, line)
        )
        for name in ("train.jsonl", "test.jsonl")
        for line, record in enumerate(map(json.loads, (source / name).open()), 1)
    }
    test = [row for row in rows.values() if row.origin.file == "test.jsonl"]
    named = {"train": chosen[shots], "valid": chosen["valid"]}
    return {**{part: [rows[i] for i in ids] for part, ids in named.items()}, "test": test}


def folder_of(rows: dict[str, list[Labelled]]) -> RunFolder:
    """A run whose rows are prepared."""
    folder = RunFolder(Path(tempfile.mkdtemp()) / "run")
    folder.create()
    stage = folder.stage("data")
    stage.begin({})
    for part, found in rows.items():
        write_rows(stage.path / f"{part}.jsonl", [row.record() for row in found])
    stage.finish()
    return folder


def spec_of(method: str, settings: dict[str, Any]) -> Train:
    """A training that is looked at once, at its end."""
    fixed = {"objective": "classify", "best": "accuracy", "device": "cpu", "keep": 1}
    rare = {"evaluate_every": 10**6, "save_every": 10**6}
    return Train.model_validate({"method": method, **fixed, **rare, **settings})


def trained(
    rows: dict[str, list[Labelled]], method: str, settings: dict[str, Any], seed: int
) -> Any:
    """One run, looked at on the valid rows at its end: its policy, and that accuracy."""
    folder, base = folder_of(rows), resolve(ModelSpec(source="all-minilm-l6-v2"))
    train(folder, spec_of(method, settings), base, seed=seed, log=Log(folder, quiet=True))
    place = folder.stage("train").path
    record = json.loads((place / "train.json").read_text())
    return load_trained(place, base), record["best_value"], record["seconds"]


def accuracy(policy: Any, rows: list[Labelled]) -> float:
    """The share of rows whose likeliest label is theirs."""
    right = 0
    for row, (_, shares) in zip(rows, classify.probabilities(policy, rows), strict=True):
        right += policy.labels[max(range(len(shares)), key=shares.__getitem__)] in row.labels
    return right / len(rows)


def measured(rows: dict[str, list[Labelled]], method: str, seeds: list[int]) -> dict[str, Any]:
    """The search on valid with the first seed, then the test set with what it chose."""
    found = []
    for settings in GRIDS[method]:
        found.append((settings, *trained(rows, method, settings, seeds[0])))
        print(method, settings, *found[-1][2:], flush=True)
    settings, *first = max(found, key=lambda each: each[2])
    runs = []
    for seed in seeds:
        policy, valid, seconds = (
            first if seed == seeds[0] else trained(rows, method, settings, seed)
        )
        test = accuracy(policy, rows["test"])
        runs.append({"seed": seed, "valid": valid, "test": test, "seconds": seconds})
        print(method, runs[-1], flush=True)
    search = [{**settings, "valid": valid} for settings, _, valid, _ in found]
    mean = statistics.mean(run["test"] for run in runs)
    return {"settings": settings, "test": mean, "runs": runs, "search": search}


def main() -> None:
    """Measure the methods asked for and keep the numbers beside those of earlier calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--methods", nargs="+", default=list(GRIDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    chosen = parser.parse_args()
    rows = parts(chosen.data / "banking77")
    for method in chosen.methods:
        before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        found = {"machine": machine(), "rows": {part: len(rows[part]) for part in rows}}
        methods = {**before.get("methods", {}), method: measured(rows, method, chosen.seeds)}
        RESULT.write_text(json.dumps({**found, "methods": methods}, indent=2) + "\n")
        print(f"{method}: test accuracy {methods[method]['test']:.4f}", flush=True)


if __name__ == "__main__":
    main()
