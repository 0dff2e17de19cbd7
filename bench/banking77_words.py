"""77 intents from ten examples each, written by the bundled language model under LoRA.

    python bench/banking77_words.py [--data ../shared/data] [--work DIR] [--tries N]

Settings are chosen by accuracy on 300 of the published valid rows; the whole test set is asked
once, by constrained decoding, and 300 of its rows by label likelihood beside it. Writes
bench/results/banking77_words.json.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from whole import carried_out, keep, lines, write_rows

TRIES: list[dict[str, Any]] = [
    {"lr": 1e-3, "epochs": 3, "batch": 8},
    {"lr": 1e-3, "epochs": 5, "batch": 16},
    {"lr": 5e-4, "epochs": 5, "batch": 8},
]
SOME = 300


def record(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the model is asked: the label is the answer, as words."""
    asked = [{"role": "system", "content": "Intent?"}, {"role": "user", "content": row["text"]}]
    return {"prompt": asked, "completion": row["label"].replace("_", " ")}


def written(home: Path, source: Path) -> dict[str, str]:
    """Train, valid, the whole test set, and some of it, as files."""
    chosen = json.loads((source / "fewshot_ids.json").read_text())
    train = {row["id"]: row for row in lines(source / "train.jsonl")}
    test = lines(source / "test.jsonl")
    parts = {
        "train": [train[number] for number in chosen["train_10"]],
        "valid": [train[number] for number in chosen["valid"]][::5][:SOME],
        "test": test,
        "some": test[:: len(test) // SOME][:SOME],
    }
    found = {
        name: write_rows(home / f"{name}.jsonl", map(record, rows)) for name, rows in parts.items()
    }
    return found


def run(files: dict[str, str], number: int, **evaluate: Any) -> dict[str, Any]:
    """The run of one try."""
    return {
        "name": f"words-{number}",
        "data": {
            "source": files["train"],
            "valid": files["valid"],
            "test": files["test"],
            "leaks": "drop",
        },
        "train": {"method": {"kind": "lora", "rank": 16}, "probes": 0, "evaluate_every": 10**6}
        | TRIES[number],
        "evaluate": {"metrics": ["accuracy", "f1"], "batch": 64}
        | {"sampling": {"choices": "labels"}}
        | evaluate,
    }


def main() -> None:
    """Choose on valid, then ask the test rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--tries", type=int, default=len(TRIES))
    chosen = parser.parse_args()
    home = chosen.work or Path(tempfile.mkdtemp())
    files = written(home, chosen.data / "banking77")
    search = []
    for number in range(chosen.tries):
        found = carried_out(home, run(files, number, part="valid"))
        value = found["report"]["arms"]["tuned"]["accuracy"]["value"]
        search.append({**TRIES[number], "valid": value, "seconds": found["train"]["seconds"]})
        print(search[-1], flush=True)
    best = max(range(chosen.tries), key=lambda number: search[number]["valid"])
    found = carried_out(home, run(files, best))
    keep("banking77_words", {"search": search, "chosen": TRIES[best], "test": found})
    print(json.dumps(found["report"]["arms"]), flush=True)
    likely = carried_out(home, run(files, best, by="likelihood", limit=SOME))
    result = {"search": search, "chosen": TRIES[best], "test": found, "likelihood": likely}
    keep("banking77_words", result)


if __name__ == "__main__":
    main()
