"""A head on a frozen model: with the feature cache against a loop that runs the model every epoch.

    python bench/head.py [--data ../shared/data]

Both start from the same head and see the same rows in the same order, so what differs is time, and
what arithmetic in other batches makes of the last bits. The rival is transformers with a linear
layer, padded to the longest row of a pass, at the pass size that was fastest for it. Writes
bench/results/head.json.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from banking77 import accuracy, folder_of, parts, spec_of
from whole import keep

from tunesmith.core.log import Log
from tunesmith.core.rows import Labelled
from tunesmith.model import features, heads, layout, plain
from tunesmith.model.bases import Base, ModelSpec, resolve
from tunesmith.model.load import load_model
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.trained import load_trained
from tunesmith.train.batches import step_rows, steps_in
from tunesmith.train.stage import train

RATE, BATCH = 1e-2, 32
SETTINGS = {"lr": RATE, "batch": BATCH, "schedule": "constant", "warmup": 0.0, "clip": 1e9}
CASES: dict[str, dict[str, Any]] = {
    "all-minilm-l6-v2": {"shots": "train_10", "epochs": 8, "test": 3080},
    "smollm2-135m-instruct": {"shots": "train_5", "epochs": 3, "test": 385},
}
PASSES = (8, 16, 32)


def ours(rows: dict[str, list[Labelled]], base: Base, epochs: int) -> dict[str, Any]:
    """Two runs on the same rows, of which the first has to read them; then the test rows, twice."""
    runs = []
    for _ in range(2):
        folder, began = folder_of(rows), time.monotonic()
        spec, log = spec_of("frozen", {**SETTINGS, "epochs": epochs}), Log(folder, quiet=True)
        train(folder, spec, base, seed=0, log=log)
        place = folder.stage("train").path
        seconds = json.loads((place / "train.json").read_text())["seconds"]
        runs.append({"whole": time.monotonic() - began, "epoch": seconds / epochs})
    policy = load_trained(place, base)
    policy.features = features.opened(policy, base, print)
    asked = []
    for _ in range(2):
        began = time.monotonic()
        right = accuracy(policy, rows["test"])
        asked.append(time.monotonic() - began)
    return {"first": runs[0], "second": runs[1], "test": right, "test_seconds": asked}


class Rival:
    """transformers under a linear layer, the model run in every pass."""

    def __init__(self, base: Base, labels: list[str], size: int) -> None:
        self.model, self.size, self.labels = load_model(base).requires_grad_(False), size, labels
        self.pooling: heads.Pooling = "last" if layout.writes(self.model) else "mean"
        width = layout.width(self.model)
        named, pooling = tuple(labels), self.pooling
        self.head = heads.fresh(named, width, pooling=pooling, many=False, seed=0).linear
        self.adam = torch.optim.AdamW(self.head.parameters(), lr=RATE, weight_decay=0.0)

    @torch.no_grad()
    def states(self, ids: list[tuple[int, ...]]) -> torch.Tensor:
        """The pooled states of a few texts."""
        width = max(map(len, ids))
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
        padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids])
        found = self.model.base_model(input_ids=padded, attention_mask=mask).last_hidden_state
        if self.pooling == "last":
            return found[torch.arange(len(ids)), mask.sum(dim=1) - 1]
        return (found * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def step(self, ids: list[tuple[int, ...]], wanted: list[int]) -> None:
        """One step of the head over a batch, in passes of the model."""
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        self.adam.zero_grad()
        for first in range(0, len(order), self.size):
            chosen = order[first : first + self.size]
            scores = self.head(self.states([ids[i] for i in chosen]))
            labels = torch.tensor([wanted[i] for i in chosen])
            loss = torch.nn.functional.cross_entropy(scores, labels, reduction="sum")
            (loss / len(ids)).backward()
        self.adam.step()

    @torch.no_grad()
    def right(self, ids: list[tuple[int, ...]], wanted: list[int]) -> float:
        """The share of texts whose likeliest label is theirs."""
        order, found = sorted(range(len(ids)), key=lambda i: len(ids[i])), 0
        for first in range(0, len(order), self.size):
            chosen = order[first : first + self.size]
            said = self.head(self.states([ids[i] for i in chosen])).argmax(dim=1).tolist()
            found += sum(wanted[i] == each for i, each in zip(chosen, said, strict=True))
        return found / len(ids)


def rival(rows: dict[str, list[Labelled]], base: Base, epochs: int) -> dict[str, Any]:
    """The same training without a cache, after a look at which pass size is fastest."""
    tokenizer = Tokenizer.load(base.folder)
    ids = {p: [plain.encode(r, tokenizer).sequences[0].ids for r in rows[p]] for p in rows}
    labels = sorted({row.labels[0] for row in rows["train"]})
    wanted = {p: [labels.index(row.labels[0]) for row in rows[p]] for p in rows}
    tried = {}
    for size in PASSES:
        each, began = Rival(base, labels, size), time.monotonic()
        each.step(ids["train"][:BATCH], wanted["train"][:BATCH])
        began = time.monotonic()
        for start in (BATCH, 2 * BATCH):
            each.step(*(part["train"][start : start + BATCH] for part in (ids, wanted)))
        tried[size] = time.monotonic() - began
    found, took = Rival(base, labels, min(tried, key=tried.__getitem__)), []
    count = len(ids["train"])
    for epoch in range(epochs):
        began, per = time.monotonic(), steps_in(count, BATCH)
        for step in range(epoch * per, (epoch + 1) * per):
            places = step_rows(count, BATCH, 0, step)
            found.step(*([part["train"][i] for i in places] for part in (ids, wanted)))
        took.append(time.monotonic() - began)
    test = found.right(ids["test"], wanted["test"])
    return {"passes": tried, "epochs": took, "epoch": sum(took[1:]) / (epochs - 1), "test": test}


def main() -> None:
    """Both sides for each model, in a cache of this call's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    source, results = parser.parse_args().data / "banking77", {}
    bases = {name: resolve(ModelSpec(source=name)) for name in CASES}
    os.environ["TUNESMITH_CACHE"] = tempfile.mkdtemp()
    for name, case in CASES.items():
        rows = parts(source, case["shots"])
        rows["valid"], test = rows["valid"][::20], rows["test"]
        rows["test"] = test[:: len(test) // case["test"]][: case["test"]]
        found = {"ours": ours(rows, bases[name], case["epochs"])}
        found["rival"] = rival(rows, bases[name], case["epochs"])
        found["times"] = found["rival"]["epoch"] / found["ours"]["first"]["epoch"]
        results[name] = {**case, "rows": {part: len(rows[part]) for part in rows}, **found}
        print(name, json.dumps(found), flush=True)
        keep("head", {"models": results})


if __name__ == "__main__":
    main()
