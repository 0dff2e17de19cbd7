"""77 intents from five and from ten examples each: the bundled encoder warmed up by contrast.

    python bench/few_shot.py [--data ../shared/data] [--tries] [--seeds 0 1 2]

With `--tries` the settings are chosen first: by accuracy on a third of the published valid rows
after training on five examples a label, with one seed. The best of them, `CHOSEN`, is then asked
the whole test set, for both sizes and each seed. Writes bench/results/few_shot.json.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from banking77 import accuracy, parts, trained
from whole import keep

RESULT = Path(__file__).parent / "results" / "few_shot.json"
PUBLISHED = {"train_5": 0.740, "train_10": 0.843}
"""RoBERTa, as published for these rows."""


def settings(lr: float, epochs: int, batch: int, **contrast: float) -> dict[str, Any]:
    """A training of the whole encoder by contrast."""
    objective = {"kind": "classify", "contrast": contrast}
    return {"objective": objective, "lr": lr, "epochs": epochs, "batch": batch, "warmup": 0.1}


TRIES = [
    settings(1e-4, 4, 154, temperature=0.1),
    settings(3e-4, 4, 154, temperature=0.1),
    settings(3e-4, 4, 154, temperature=0.3),
    settings(2e-4, 4, 154, temperature=0.05),
]
CHOSEN = TRIES[3]


def main() -> None:
    """Choose where asked to, then measure, one number after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tries", action="store_true")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    chosen = parser.parse_args()
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    source = chosen.data / "banking77"
    for each in TRIES if chosen.tries else ():
        rows = parts(source, "train_5")
        _, valid, _ = trained({**rows, "valid": rows["valid"][::3]}, "full", each, 0)
        found["tries"] = [*found.get("tries", []), {**each, "valid": valid}]
        print(found["tries"][-1], flush=True)
        keep("few_shot", found)
    for shots, published in PUBLISHED.items():
        rows, runs = parts(source, shots), []
        for seed in chosen.seeds:
            policy, valid, seconds = trained(rows, "full", CHOSEN, seed)
            test = accuracy(policy, rows["test"])
            runs.append({"seed": seed, "valid": valid, "test": test, "seconds": seconds})
            print(shots, runs[-1], flush=True)
        mean = statistics.mean(run["test"] for run in runs)
        found[shots] = {"test": mean, "published": published, "runs": runs}
        keep("few_shot", {**found, "settings": CHOSEN})
        print(f"{shots}: test accuracy {mean:.4f}, published {published}", flush=True)


if __name__ == "__main__":
    main()
