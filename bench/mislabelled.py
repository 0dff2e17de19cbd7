"""Wrong labels planted in real rows, and what quality's `mislabelled` finds of them.

    python bench/mislabelled.py [--data ../shared/data] [--first 5]

The 770 rows of banking77's published ten examples for each of 77 intents; a tenth of them get
another label at random. What is told is counted at several values of `sure`: recall is of the rows
that were changed, precision of the rows that are told. Some of the data's own labels are wrong, so
precision is a lower bound. The default of `sure` was chosen on draws 0 to 4; those reported are 5
to 9. Writes bench/results/mislabelled.json.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from tunesmith.core.rows import Labelled, Origin
from tunesmith.data.audits.quality import Quality
from tunesmith.data.doubts import doubts

RESULT = Path(__file__).parent / "results" / "mislabelled.json"
DRAWS = 5
SHARE = 0.1
SURE = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)


def shots(home: Path) -> list[Labelled]:
    """The rows of the published subset."""
    wanted = set(json.loads((home / "fewshot_ids.json").read_text())["train_10"])
    with (home / "train.jsonl").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [
        Labelled((record["text"],), (record["label"],), origin=Origin("train.jsonl", line))
        for line, record in enumerate(records, 1)
        if record["id"] in wanted
    ]


def flipped(rows: list[Labelled], seed: int) -> tuple[list[Labelled], set[int]]:
    """The rows, a tenth with another label, and the lines of those."""
    draw = random.Random(seed)
    labels = sorted({row.labels[0] for row in rows})
    places = set(draw.sample(range(len(rows)), round(SHARE * len(rows))))
    found = []
    for place, row in enumerate(rows):
        others = [label for label in labels if label != row.labels[0]]
        label = draw.choice(others) if place in places else row.labels[0]
        found.append(Labelled(row.given, (label,), origin=row.origin))
    return found, {rows[place].origin.line for place in places}


def main() -> None:
    """Flip, look, count, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--first", type=int, default=5)
    given = parser.parse_args()
    rows = shots(given.data / "banking77")
    seeds = range(given.first, given.first + DRAWS)
    told: list[tuple[float, bool]] = []
    untouched = [each.margin for each in doubts(rows, min(SURE))]
    wrong = 0
    for seed in seeds:
        changed, lines = flipped(rows, seed)
        wrong += len(lines)
        told += [(e.margin, e.row.origin.line in lines) for e in doubts(changed, min(SURE))]
    table: list[dict[str, Any]] = []
    for sure in SURE:
        hits = [right for margin, right in told if margin >= sure]
        table.append(
            {
                "sure": sure,
                "recall": round(sum(hits) / wrong, 3),
                "precision": round(sum(hits) / len(hits), 3) if hits else None,
                "told_of_unchanged_rows": sum(margin >= sure for margin in untouched),
            }
        )
    result = {
        "rows": len(rows),
        "changed": wrong // DRAWS,
        "seeds": [seeds[0], seeds[-1]],
        "default": Quality().sure,
        "table": table,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
