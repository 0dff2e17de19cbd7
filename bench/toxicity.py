"""Toxic comments: a classifier trained by tunesmith, for the sensitive audit, against words alone.

    python bench/toxicity.py [--data ../shared/data] [--keep FOLDER]

Five folds of 1,000 comments (every fifth row held out, in turn). Ours is the bundled encoder with
a trained head; the floor is scikit-learn's logistic regression on words, pairs of
words and letters. Rate and epochs are chosen on a sixth of the first fold's training rows, before
any held-out row is asked. The difference is paired by row, its interval from 10,000 resamples.
What was trained on all rows is asked the 3,728 cases of HateCheck, too: how far it carries.
`--keep` leaves that run in a folder, to be named as `classifier`. Writes
bench/results/toxicity.json.
"""

import argparse
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from banking77 import accuracy, folder_of, trained
from w1 import machine

from tunesmith.core.folders import RunFolder
from tunesmith.core.rows import Labelled, Origin
from tunesmith.model import classify

RESULT = Path(__file__).parent / "results" / "toxicity.json"
FOLDS, DRAWS, METHOD = 5, 10_000, "frozen"
GRID: list[dict[str, Any]] = [{"lr": 1e-2, "epochs": 15, "batch": 32}]


def rows_of(path: Path) -> list[Labelled]:
    """The comments with their labels."""
    with path.open(encoding="utf-8") as file:
        return [
            Labelled((record["text"],), (record["label"],), origin=Origin(path.name, line))
            for line, record in enumerate(map(json.loads, file), 1)
        ]


def right(policy: Any, rows: list[Labelled]) -> list[bool]:
    """Whether each row's likeliest label is its own."""
    said = classify.probabilities(policy, rows)
    return [
        policy.labels[max(range(len(shares)), key=shares.__getitem__)] in row.labels
        for row, (_, shares) in zip(rows, said, strict=True)
    ]


def floor(train: list[Labelled], test: list[Labelled]) -> list[bool]:
    """The same of a bag of words and letters."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    bags = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),
    )
    model = make_pipeline(bags, LogisticRegression(C=10, max_iter=2000))
    model.fit([row.given[0] for row in train], [row.labels[0] for row in train])
    said = model.predict([row.given[0] for row in test])
    return [label == row.labels[0] for label, row in zip(said, test, strict=True)]


def chosen(rows: list[Labelled]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The settings that are best on rows that are trained on later, and all that was tried."""
    parts = {"train": [r for i, r in enumerate(rows) if i % 6], "valid": rows[::6]}
    if len(GRID) == 1:
        return GRID[0], []
    tried = []
    for settings in GRID:
        policy, _, seconds = trained(parts, METHOD, settings, 0)
        tried.append({**settings, "valid": accuracy(policy, parts["valid"]), "seconds": seconds})
        print(tried[-1], flush=True)
    best = max(tried, key=lambda each: each["valid"])
    return {name: best[name] for name in GRID[0]}, tried


def folds(rows: list[Labelled], settings: dict[str, Any]) -> dict[str, Any]:
    """Accuracy over all folds, ours and the floor's, and their difference."""
    ours, theirs = np.zeros(len(rows)), np.zeros(len(rows))
    for fold in range(FOLDS):
        held = [i for i in range(len(rows)) if i % FOLDS == fold]
        learned = [row for i, row in enumerate(rows) if i % FOLDS != fold]
        test = [rows[i] for i in held]
        policy, *_ = trained({"train": learned, "valid": learned[:8]}, METHOD, settings, fold)
        ours[held], theirs[held] = right(policy, test), floor(learned, test)
        print("fold", fold, ours[held].mean(), theirs[held].mean(), flush=True)
    draw = np.random.default_rng(0)
    apart = ours - theirs
    means = [apart[draw.integers(0, len(apart), len(apart))].mean() for _ in range(DRAWS)]
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "ours": ours.mean(),
        "bag_of_words": theirs.mean(),
        "difference": {"value": apart.mean(), "low": low, "high": high},
        "by_fold": [
            {"ours": ours[f::FOLDS].mean(), "bag_of_words": theirs[f::FOLDS].mean()}
            for f in range(FOLDS)
        ],
    }


def transfer(policy: Any, path: Path) -> dict[str, Any]:
    """Accuracy on HateCheck, over all and by what a case tests."""
    with path.open(encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    toxic = {"hateful": "Toxic", "non-hateful": "Not Toxic"}
    rows = [Labelled((case["text"],), (toxic[case["label"]],)) for case in cases]
    said = right(policy, rows)
    by: dict[str, list[bool]] = defaultdict(list)
    for case, hit in zip(cases, said, strict=True):
        by[case["label"]].append(hit)
        by[case["functionality"]].append(hit)
    shares = {name: float(np.mean(hits)) for name, hits in by.items()}
    return {"accuracy": float(np.mean(said)), "rows": len(rows), "right": shares}


def main() -> None:
    """Choose, measure, carry over, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    rows = rows_of(asked.data / "audit_probes" / "toxicity_1000.jsonl")
    settings, tried = chosen([row for i, row in enumerate(rows) if i % FOLDS])
    found = folds(rows, settings)
    policy, run = whole(rows, settings)
    carried = transfer(policy, asked.data / "audit_probes" / "hatecheck.jsonl")
    if asked.keep is not None:
        shutil.copytree(run.path, asked.keep)
    result = {
        "machine": machine(),
        "method": METHOD,
        "settings": settings,
        "search": tried,
        **found,
    }
    RESULT.write_text(json.dumps({**result, "hatecheck": carried}, indent=2) + "\n", "utf-8")
    print(json.dumps({**found, "hatecheck": carried["accuracy"]}, indent=1))


def whole(rows: list[Labelled], settings: dict[str, Any]) -> tuple[Any, RunFolder]:
    """What is trained on every row, and its run."""
    from banking77 import spec_of

    from tunesmith.core.log import Log
    from tunesmith.model.bases import ModelSpec, resolve
    from tunesmith.model.trained import load_trained
    from tunesmith.train.stage import train

    run, base = (
        folder_of({"train": rows, "valid": rows[:8]}),
        resolve(ModelSpec(source="all-minilm-l6-v2")),
    )
    train(run, spec_of(METHOD, settings), base, seed=0, log=Log(run, quiet=True))
    return load_trained(run.stage("train").path, base), run


if __name__ == "__main__":
    main()
