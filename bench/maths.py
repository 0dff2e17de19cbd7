"""The answer format of GSM8K: does an answer end in `#### number`, and is the number right?

    python bench/maths.py [--data ../shared/data] [--work DIR] [--rows 300] [--asked 100]

The bundled model learns from a few hundred worked problems; format and accuracy are counted over
test problems, before and after. Writes bench/results/maths.json.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from whole import carried_out, keep, lines, write_rows

FORM = re.compile(r"(?m)^#### (-?[\d,]*\.?\d+)\s*\Z")


def number(text: str) -> float | None:
    """The number behind the marks, if the answer ends so."""
    found = FORM.search(text)
    return None if found is None else float(found[1].replace(",", ""))


def counted(home: Path, arm: str, wanted: dict[str, float | None]) -> dict[str, int]:
    """How many of an arm's answers end in a number, and how many in the right one."""
    path = home / "runs" / "maths" / "evaluate" / f"answers-{arm}.jsonl"
    given = {line["row"]: number(line["answer"]) for line in lines(path)}
    formed = sum(value is not None for value in given.values())
    right = sum(value is not None and value == wanted[row] for row, value in given.items())
    return {"answers": len(given), "in_form": formed, "right": right}


def main() -> None:
    """One run, its answers counted."""
    from tunesmith.core.tables import read_part

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--asked", type=int, default=100)
    chosen = parser.parse_args()
    home, source = chosen.work or Path(tempfile.mkdtemp()), chosen.data / "math_verifiable"
    columns = {"kind": "columns", "user": "question", "assistant": "answer"}
    parts = {
        "source": lines(source / "gsm8k_train_2000.jsonl")[: chosen.rows],
        "test": lines(source / "gsm8k_test.jsonl")[: chosen.asked],
    }
    where = {name: write_rows(home / f"{name}.jsonl", rows) for name, rows in parts.items()}
    settings: dict[str, Any] = {
        "name": "maths",
        "data": {**where, "format": columns, "split": {"valid": 20, "test": 0}},
        "train": {"method": {"kind": "lora", "rank": 16}, "lr": 5e-4, "epochs": 1, "batch": 4}
        | {"probes": 0, "evaluate_every": 10**6},
        "evaluate": {"metrics": ["exact"], "batch": 50, "sampling": {"max_tokens": 256}},
    }
    found = carried_out(home, settings)
    rows = read_part(home / "runs" / "maths" / "data", "test")
    wanted = {row.digest: number(row.dialogue()[-1].content or "") for row in rows}
    arms = {arm: counted(home, arm, wanted) for arm in ("base", "tuned")}
    keep("maths", {"arms": arms, "settings": settings["train"], "train": found["train"]})
    print(json.dumps(arms))


if __name__ == "__main__":
    main()
