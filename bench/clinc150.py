"""CLINC150 Small with the bundled encoder: in-scope accuracy and out-of-scope recall, two ways.

    python bench/clinc150.py [--data ../shared/data] [--work DIR] [--methods frozen full]

`taught`: out-of-scope is one more class, from the 100 training rows that the Small condition has.
`threshold`: those rows are left out, and a threshold on the largest probability is chosen on val.
The published numbers are in the data set's README. Writes bench/results/clinc150.json.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from whole import carried_out, keep, lines, write_rows

UNKNOWN = "oos"
METHODS: dict[str, dict[str, Any]] = {
    "frozen": {"method": "frozen", "lr": 3e-3, "epochs": 20, "batch": 64},
    "full": {"method": "full", "lr": 3e-4, "epochs": 5, "batch": 32},
}


def settings(home: Path, data: Path, method: str, way: str) -> dict[str, Any]:
    """The run of one method, out-of-scope told one way."""
    everything = lines(data / "train.jsonl")
    small = json.loads((data / "small_train_line_numbers.json").read_text())
    rows = [everything[number] for number in small]
    rows += [row for row in everything if row["label"] == UNKNOWN and row not in rows]
    if way == "threshold":
        rows = [row for row in rows if row["label"] != UNKNOWN]
    parts = {"source": rows, "valid": lines(data / "val.jsonl"), "test": lines(data / "test.jsonl")}
    where = {name: write_rows(home / f"{way}-{name}.jsonl", kept) for name, kept in parts.items()}
    return {
        "name": f"clinc-{method}-{way}",
        "model": "all-minilm-l6-v2",
        "data": {**where, "leaks": "drop", "transforms": []},
        "train": {"objective": "classify", "best": "accuracy", **METHODS[method]},
        "evaluate": {"metrics": ["scope", "accuracy", "calibration"], "unknown": UNKNOWN},
    }


def main() -> None:
    """Both ways for each method asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    chosen = parser.parse_args()
    home = chosen.work or Path(tempfile.mkdtemp())
    kept = Path(__file__).parent / "results" / "clinc150.json"
    found: dict[str, Any] = json.loads(kept.read_text())["runs"] if kept.exists() else {}
    for method in chosen.methods:
        for way in ("threshold", "taught"):
            run = settings(home, chosen.data / "clinc150", method, way)
            found[f"{method}, {way}"] = carried_out(home, run) | {"settings": METHODS[method]}
            keep("clinc150", {"runs": found})
            print(method, way, json.dumps(found[f"{method}, {way}"]["report"]["arms"]["tuned"]))


if __name__ == "__main__":
    main()
