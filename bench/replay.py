"""What replay saves: 200 narrow rows over-trained, with and without a fifth of general text beside.

    python bench/replay.py [--data ../shared/data] [--work DIR] [--asked 40] [--lr 5e-4]
                           [--epochs 3] [--arms without with]

The bundled model, every weight at a high rate, learns to describe restaurants (e2e_nlg). Replayed
are openings of Wikipedia articles; what is lost is measured on the general text that comes with
tunesmith, as `evaluate.general: bundled` does, so on other text than was replayed. `with` has a
fifth of the rows that are seen, `tokens` a fifth of the trained tokens. Goes on in `--work` where
it stopped. Writes bench/results/replay.json.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from e2e import row
from whole import carried_out, keep, lines, write_rows

ROWS, SHARE, LENGTH = 200, 0.2, 192
GENERAL = "general_perplexity"
TASK = "bleu"
ARMS: dict[str, dict[str, Any] | None] = {"without": None, "with": {}, "tokens": {"by": "tokens"}}


def files(data: Path, home: Path, asked: int) -> dict[str, str]:
    """The rows of the task, of its test, and the text to replay."""
    source = data / "e2e_nlg"
    fixed = set(json.loads((source / "test100_ids.json").read_text()))
    tests = [r for r in lines(source / "test.jsonl") if r["id"] in fixed][:asked]
    wiki = lines(data / "general_probes" / "wiki_text_27.jsonl")
    step = lines(source / "train.jsonl")
    parts = {
        "task": [row(r["mr"], [r["ref"]]) for r in step[:: len(step) // ROWS][:ROWS]],
        "test": [row(r["mr"], r["refs"]) for r in tests],
        "general": [{"text": r["text"]} for r in wiki],
    }
    return {name: write_rows(home / f"{name}.jsonl", rows) for name, rows in parts.items()}


def settings(arm: str, where: dict[str, str], lr: float, epochs: int) -> dict[str, Any]:
    """One arm: the same but for what is read beside the task."""
    mix = ARMS[arm]
    replay = [] if mix is None else [{"path": where["general"], "replay": SHARE}]
    data: dict[str, Any] = {"source": [{"path": where["task"]}, *replay], "mix": mix or {}}
    return {
        "name": arm,
        "data": {**data, "test": where["test"], "split": "none"},
        "train": {"method": "full", "lr": lr, "epochs": epochs, "batch": 8, "length": LENGTH}
        | {"probes": 0, "save_every": 1000, "keep": 1},
        "evaluate": {
            "metrics": [{"kind": "bleu", "lowercase": True}, {"kind": "rouge"}],
            "general": "bundled",
            "sampling": {"max_tokens": 60},
            "batch": 40,
        },
    }


def loss(found: dict[str, Any], arm: str) -> float:
    """The general loss in nats a token."""
    return math.log(found["report"]["arms"][arm][GENERAL]["value"])


def compared(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The rise of the general loss and the points of the task, and what replay made of both."""
    base = loss(found["without"], "base")
    rise = {arm: loss(each, "tuned") - base for arm, each in found.items()}
    task = {arm: each["report"]["arms"]["tuned"][TASK]["value"] for arm, each in found.items()}
    return {
        arm: {
            "rise_of_general_loss": rise[arm],
            TASK: task[arm],
            "rise_cut_by": 1 - rise[arm] / rise["without"],
            "points_lost": task["without"] - task[arm],
        }
        for arm in found
    }


def main() -> None:
    """One run an arm, compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--asked", type=int, default=40)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["without", "with"])
    chosen = parser.parse_args()
    home = chosen.work or Path(tempfile.mkdtemp())
    where = files(chosen.data, home, chosen.asked)
    found = {}
    for arm in chosen.arms:
        found[arm] = carried_out(home, settings(arm, where, chosen.lr, chosen.epochs))
        facts = home / "runs" / arm / "train" / "train.json"
        found[arm]["mixture"] = json.loads(facts.read_text())["mixture"]
    result = compared(found) if "without" in found else {}
    keep(
        "replay",
        {
            "compared": result,
            "settings": settings("with", where, chosen.lr, chosen.epochs)["train"],
            **found,
        },
    )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
