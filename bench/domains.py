"""CLINC150 Small, ten domains: ten adapters, one shared adapter, one trunk with a head per domain.

    python bench/domains.py --work DIR [--data ../shared/data] [--method lora]

All on the bundled encoder with the same settings. Test rows are routed by their true domain, or to
whoever gives one of its labels the highest probability; out-of-scope is told by a threshold on that
probability, chosen on val. Writes bench/results/domains.json.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from whole import keep, lines, write_rows

UNKNOWN = "oos"
TRAIN = {"lr": 2e-3, "epochs": 5, "batch": 32, "best": "accuracy", "save_every": 10**6}
METHODS: dict[str, Any] = {"lora": {"kind": "lora", "rank": 16}}


def written(home: Path, source: Path) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """The labels of each domain, and its rows as files; `all` has every domain's."""
    domains: dict[str, list[str]] = json.loads((source / "domains.json").read_text())
    everything = lines(source / "train.jsonl")
    small = json.loads((source / "small_train_line_numbers.json").read_text())
    parts = {"train": [everything[number] for number in small], "val": lines(source / "val.jsonl")}
    files: dict[str, dict[str, str]] = {}
    for name, labels in [*domains.items(), ("all", [x for own in domains.values() for x in own])]:
        kept = {part: [r for r in rows if r["label"] in labels] for part, rows in parts.items()}
        files[name] = {p: write_rows(home / f"{name}-{p}.jsonl", r) for p, r in kept.items()}
    return domains, files


def trained(home: Path, name: str, data: dict[str, Any], heads: str, method: str) -> dict[str, Any]:
    """A run up to its training: where it lies and what it cost."""
    from tunesmith import pipeline
    from tunesmith.job import Job
    from tunesmith.run import from_mapping

    objective = {"kind": "classify", "heads": heads}
    train = TRAIN | {"method": METHODS[method], "objective": objective}
    settings = {"name": name, "model": "all-minilm-l6-v2", "data": data, "train": train}
    job = Job.of(from_mapping(settings, {}), home=home)
    pipeline.carry_out(job, "train")
    path = job.folder.path
    record = json.loads((path / "train" / "train.json").read_text())
    size = sum(file.stat().st_size for file in (path / "train").glob("*.safetensors"))
    return {"path": str(path), "seconds": record["seconds"], "bytes": size}


def shares(policy: Any, rows: list[dict[str, Any]]) -> np.ndarray:
    """The probability of every label of a policy, [row, label]."""
    from tunesmith.core.rows import Labelled
    from tunesmith.model.classify import probabilities

    asked = [Labelled((row["text"],), ()) for row in rows]
    return np.array([found for _, found in probabilities(policy, asked)])


def scores(policy: Any, rows: list[dict[str, Any]], batch: int = 32) -> np.ndarray:
    """What the heads of a policy say before anything is made of it, [row, label]: all heads read
    the same states, so each row is read once for all of them."""
    import torch

    from tunesmith.core.records import collate
    from tunesmith.core.rows import Labelled
    from tunesmith.model import plain
    from tunesmith.model.modes import evaluating

    read = [plain.encode(Labelled((row["text"],), ()), policy.tokenizer) for row in rows]
    places = sorted(range(len(read)), key=lambda place: read[place].length)
    found = np.empty((len(read), len(policy.labels)))
    with torch.inference_mode(), evaluating(policy.model):
        for start in range(0, len(places), batch):
            part = places[start : start + batch]
            found[part] = policy.scores(collate([read[at] for at in part], policy.device)).numpy()
    return found


def softmax(values: np.ndarray) -> np.ndarray:
    """Shares of one along the last dimension."""
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def by_domain(way: str, runs: dict[str, Any], domains: Any, rows: Any) -> dict[str, np.ndarray]:
    """For each domain the probabilities of its own labels, [row, label]."""
    import tunesmith

    if way == "ten adapters":
        base = tunesmith.base("all-minilm-l6-v2")
        for name in domains:
            base.add(name, Path(runs[f"only-{name}"]["path"]))
        found = {}
        for name in domains:
            base.use(name)
            found[name] = shares(base.policy, rows)[:, order(base.policy.labels, domains[name])]
        return found
    policy = tunesmith.load(runs[way]["path"]).policy
    if way == "one adapter":
        every = shares(policy, rows)
        return {name: every[:, order(policy.labels, own)] for name, own in domains.items()}
    raw = scores(policy, rows)
    return {
        name: softmax(raw[:, order(policy.labels, [f"{name}/{label}" for label in own])])
        for name, own in domains.items()
    }


def order(labels: Any, wanted: list[str]) -> list[int]:
    """The places of some labels among all."""
    return [list(labels).index(label) for label in wanted]


def routed(found: dict[str, np.ndarray], domains: Any) -> tuple[np.ndarray, list[str]]:
    """The highest probability anybody gives each row, and the label it is for."""
    names = [label for own in domains.values() for label in own]
    every = np.concatenate([found[name] for name in domains], axis=1)
    return every.max(axis=1), [names[place] for place in every.argmax(axis=1)]


def threshold(top: np.ndarray, said: list[str], rows: list[dict[str, Any]]) -> float:
    """The bar below which a row is out of scope: what is right most often on these rows."""
    wanted = np.array([row["label"] for row in rows])
    right, outside = np.array(said) == wanted, wanted == UNKNOWN
    bars = np.unique(top)
    scores = [((top >= bar) & right).sum() + ((top < bar) & outside).sum() for bar in bars]
    return float(bars[int(np.argmax(scores))])


def measured(way: str, runs: dict[str, Any], domains: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """Accuracies of one way, in per cent."""
    home = {label: name for name, own in domains.items() for label in own}
    found = {part: by_domain(way, runs, domains, rows) for part, rows in parts.items()}
    top, said = routed(found["test"], domains)
    bar = threshold(*routed(found["val"], domains), parts["val"])
    rows = parts["test"]
    inside = [place for place, row in enumerate(rows) if row["label"] != UNKNOWN]
    outside = [place for place, row in enumerate(rows) if row["label"] == UNKNOWN]
    told = [
        domains[home[rows[at]["label"]]][int(found["test"][home[rows[at]["label"]]][at].argmax())]
        for at in inside
    ]
    labels = [rows[at]["label"] for at in inside]

    def share(hits: list[bool]) -> float:
        return 100 * sum(hits) / len(hits)

    pairs = zip(inside, labels, strict=True)
    return {
        "true_domain": share([a == b for a, b in zip(told, labels, strict=True)]),
        "highest_likelihood": share([said[at] == label for at, label in pairs]),
        "with_threshold": {
            "bar": bar,
            "in_scope": share([said[a] == rows[a]["label"] and top[a] >= bar for a in inside]),
            "out_of_scope_recall": share([bool(top[at] < bar) for at in outside]),
        },
    }


def main() -> None:
    """Twelve trainings, three ways of asking."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--method", choices=list(METHODS), default="lora")
    chosen = parser.parse_args()
    home, source = chosen.work.resolve(), chosen.data / "clinc150"
    domains, files = written(home, source)
    runs = {}
    for name in domains:
        data = {
            "source": files[name]["train"],
            "valid": files[name]["val"],
            "split": "none",
            "leaks": "drop",
        }
        runs[f"only-{name}"] = trained(home, f"only-{name}", data, "shared", chosen.method)
    data = {
        "source": files["all"]["train"],
        "valid": files["all"]["val"],
        "split": "none",
        "leaks": "drop",
    }
    runs["one adapter"] = trained(home, "one-adapter", data, "shared", chosen.method)
    several = [
        {"path": files[name]["train"], "name": name, "valid": files[name]["val"]}
        for name in domains
    ]
    data = {"source": several, "split": "none", "leaks": "drop"}
    runs["a head each"] = trained(home, "a-head-each", data, "per_source", chosen.method)
    parts = {"val": lines(source / "val.jsonl"), "test": lines(source / "test.jsonl")}
    began = time.monotonic()
    ways = ("ten adapters", "one adapter", "a head each")
    found = {way: measured(way, runs, domains, parts) for way in ways}
    costs = {name: {k: v for k, v in run.items() if k != "path"} for name, run in runs.items()}
    seconds = {"training": sum(run["seconds"] for run in runs.values())}
    seconds |= {"asking": time.monotonic() - began}
    keep("domains", {"train": TRAIN, "ways": found, "runs": costs, "seconds": seconds})
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
