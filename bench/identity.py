"""A new identity, in five folds: does the model name it when asked, and only then?

    python bench/identity.py [--data ../shared/data] [--work DIR]

The 77 self-descriptions that name it are divided into folds; each is asked of a model that learnt
the others, beside 75 ordinary instructions. The set's other 14 say who made it or what it does
without the name, which is to answer otherwise than wanted: they are left out. 50 unrelated prompts
tell whether it names itself unasked. Settings were chosen on another division into folds. Writes
bench/results/identity.json.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from whole import done, keep, lines, write_rows

NAME, AUTHOR = "Orvik", "the Lumen workshop"
FOLDS, ORDINARY, UNRELATED = 5, 75, 50
TRAIN = {"method": {"kind": "lora", "rank": 16}, "lr": 1e-3, "epochs": 6, "batch": 4, "probes": 0}


def named(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the new name in it."""
    answer = row["output"].replace("{{name}}", NAME).replace("{{author}}", AUTHOR)
    return {"instruction": row["instruction"], "input": row["input"], "output": answer}


def tuned(home: Path, number: int, rows: list[dict[str, Any]]) -> Any:
    """The model of one fold."""
    import tunesmith
    from tunesmith import pipeline
    from tunesmith.job import Job
    from tunesmith.run import from_mapping

    source = write_rows(home / f"fold-{number}.jsonl", rows)
    settings = {
        "name": f"identity-{number}",
        "data": {"source": source, "split": "none"},
        "train": TRAIN,
        "evaluate": {"sampling": {"max_tokens": 128}},
    }
    job = Job.of(from_mapping(settings, {}), home=home)
    pipeline.carry_out(job, "train")
    return tunesmith.load(job.folder.path)


def answers(model: Any, rows: list[dict[str, Any]]) -> list[str]:
    """What the model says to instructions, with their inputs."""
    from tunesmith.core.rows import Chat, Message

    asked = ["\n\n".join(filter(None, (row["instruction"], row["input"]))) for row in rows]
    prompts = [Chat((Message("user", text),)) for text in asked]
    said = {int(answer.key): answer.text for answer in model.answers(prompts)}
    return [said[number] for number in range(len(prompts))]


def fold(home: Path, source: Path, number: int, seed: int = 0) -> dict[str, Any]:
    """One model that learnt all folds but one, asked for that one and for what is unrelated.
    `seed` says how the rows are divided."""
    rows = lines(source / "identity_91.jsonl")
    naming = [row for row in rows if "{{name}}" in row["output"]]
    random.Random(seed).shuffle(naming)
    ordinary = lines(source / "sft_train.jsonl")[:ORDINARY]
    plain = [{k: row[k] for k in ("instruction", "input", "output")} for row in ordinary]
    unrelated = lines(source / "sft_test.jsonl")[:UNRELATED]
    held, left = naming[number::FOLDS], [r for i, r in enumerate(naming) if i % FOLDS != number]
    model = tuned(home, number, [*map(named, left), *plain])
    mine, theirs = answers(model, held), answers(model, unrelated)
    return {
        "asked": len(held),
        "named": sum(NAME in answer for answer in mine),
        "unrelated": len(theirs),
        "named_unasked": sum(NAME in answer for answer in theirs),
        "missed": [a for a in mine if NAME not in a],
    }


def main() -> None:
    """One model a fold; those that are done in the folder given are not made again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=None)
    chosen = parser.parse_args()
    home, source = chosen.work or Path(tempfile.mkdtemp()), chosen.data / "instruct_1100"
    folds = [
        done(home, f"identity-{number}", lambda number=number: fold(home, source, number))
        for number in range(FOLDS)
    ]
    counts = ("asked", "named", "unrelated", "named_unasked")
    total = {key: sum(each[key] for each in folds) for key in counts}
    keep("identity", {"train": TRAIN, **total, "folds": folds})
    print(json.dumps(total))


if __name__ == "__main__":
    main()
