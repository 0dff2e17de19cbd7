"""A new identity, in five folds: does the model name it when asked, and only then?

    python bench/identity.py [--data ../shared/data] [--work DIR] [--folds 5]

The 77 self-descriptions that name it are divided into folds; each is asked of a model that learnt
the others, beside 75 ordinary instructions. 50 unrelated prompts tell whether it names itself
unasked. Writes bench/results/identity.json.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from whole import keep, lines, write_rows

NAME, AUTHOR = "Orvik", "the Lumen workshop"
FOLDS, ORDINARY, UNRELATED = 5, 75, 50
TRAIN = {"method": {"kind": "lora", "rank": 16}, "lr": 1e-3, "epochs": 3, "batch": 4, "probes": 0}


def named(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the new name in it."""
    answer = row["output"].replace("{{name}}", NAME).replace("{{author}}", AUTHOR)
    return {"instruction": row["instruction"], "input": row["input"], "output": answer}


def tuned(home: Path, number: int, rows: list[dict[str, Any]]) -> Any:
    """The model of one fold."""
    import tunesmith
    from tunesmith import pipeline
    from tunesmith.run import from_mapping

    source = write_rows(home / f"fold-{number}.jsonl", rows)
    settings = {
        "name": f"identity-{number}",
        "data": {"source": source, "split": "none"},
        "train": TRAIN,
        "evaluate": {"sampling": {"max_tokens": 64}},
    }
    job = pipeline.job(from_mapping(settings, {}), home=home)
    pipeline.carry_out(job, "train")
    return tunesmith.load(job.folder.path)


def answers(model: Any, rows: list[dict[str, Any]]) -> list[str]:
    """What the model says to instructions, with their inputs."""
    from tunesmith.core.rows import Chat, Message

    asked = ["\n\n".join(filter(None, (row["instruction"], row["input"]))) for row in rows]
    prompts = [Chat((Message("user", text),)) for text in asked]
    said = {int(answer.key): answer.text for answer in model.answers(prompts)}
    return [said[number] for number in range(len(prompts))]


def main() -> None:
    """One model a fold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--folds", type=int, default=FOLDS)
    chosen = parser.parse_args()
    home, source = chosen.work or Path(tempfile.mkdtemp()), chosen.data / "instruct_1100"
    rows = lines(source / "identity_91.jsonl")
    naming = [row for row in rows if "{{name}}" in row["output"]]
    random.Random(0).shuffle(naming)
    others = [row for row in rows if "{{name}}" not in row["output"]]
    ordinary = lines(source / "sft_train.jsonl")[:ORDINARY]
    plain = [{k: row[k] for k in ("instruction", "input", "output")} for row in ordinary]
    unrelated = lines(source / "sft_test.jsonl")[:UNRELATED]
    folds: list[dict[str, Any]] = []
    for number in range(chosen.folds):
        held, left = naming[number::FOLDS], [r for i, r in enumerate(naming) if i % FOLDS != number]
        model = tuned(home, number, [*map(named, [*left, *others]), *plain])
        mine, theirs = answers(model, held), answers(model, unrelated)
        folds.append(
            {
                "asked": len(held),
                "named": sum(NAME in answer for answer in mine),
                "unrelated": len(theirs),
                "named_unasked": sum(NAME in answer for answer in theirs),
                "missed": [a for a in mine if NAME not in a],
            }
        )
        print(number, {k: v for k, v in folds[-1].items() if k != "missed"}, flush=True)
        total = {key: sum(fold[key] for fold in folds) for key in ("asked", "named")}
        unasked = {key: sum(f[key] for f in folds) for key in ("unrelated", "named_unasked")}
        keep("identity", {"train": TRAIN, **total, **unasked, "folds": folds})
    print(json.dumps(total | unasked))


if __name__ == "__main__":
    main()
