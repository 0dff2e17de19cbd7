"""Settings for bench/e2e.py, chosen without its test set: BLEU on inputs that training leaves out.

    python bench/e2e_tries.py --work DIR [--data ../shared/data] [path=value ...]

One try a call: the overrides. Asked are 150 inputs of the training file that none of the 800 rows
has, and their answers there. Adds to bench/results/e2e_tries.json.
"""

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any

from e2e import row, write_rows
from methods import scored
from whole import done, keep, lines
from whole import write_rows as written


def left_out(source: Path, prepared: Path, count: int = 150) -> list[dict[str, Any]]:
    """Inputs of the training file that no chosen row has, with all their answers."""
    chosen = {line["messages"][-2]["content"] for line in lines(prepared)}
    answers: dict[str, list[str]] = {}
    for record in lines(source):
        if record["mr"] not in chosen:
            answers.setdefault(record["mr"], []).append(record["ref"])
    picked = random.Random(0).sample(sorted(answers), min(count, len(answers)))
    return [row(meaning, answers[meaning]) for meaning in picked]


def tried(home: Path, source: Path, overrides: list[str]) -> dict[str, Any]:
    """One try: trained, and its answers to inputs that training left out measured."""
    from tunesmith import pipeline
    from tunesmith.job import Job
    from tunesmith.run import load_with_origins

    name = "try-" + "-".join(re.sub(r"[^a-z0-9.]+", "", each) for each in overrides)
    home = home / name
    home.mkdir(parents=True, exist_ok=True)
    write_rows(source, home)
    first = Job.of(load_with_origins(home / "e2e.yaml", [*overrides, "name=rows"]), home=home)
    pipeline.carry_out(first, "data")
    asked = left_out(source / "train.jsonl", first.folder.path / "data" / "train.jsonl")
    written(home / "test.jsonl", asked)
    loaded = load_with_origins(home / "e2e.yaml", [*overrides, "name=try"])
    job = Job.of(loaded, home=home)
    pipeline.carry_out(job, "train")
    train = json.loads((job.folder.path / "train" / "train.json").read_text())
    found = scored(job, "tuned") | {n: train[n] for n in ("best_value", "seconds")}
    return {"overrides": overrides, "inputs": len(asked), **found}


def main() -> None:
    """One try, and the table of all that are done in the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    home, source = chosen.work.resolve(), chosen.data.resolve() / "e2e_nlg"
    overrides = chosen.overrides
    done(home, "e2e-" + "-".join(overrides), lambda: tried(home, source, overrides))
    tries = [json.loads(path.read_text()) for path in sorted((home / "done").glob("e2e-*.json"))]
    keep("e2e_tries", {"tries": tries})
    for each in tries:
        bleu = each["values"]["bleu"]
        print(f"{bleu['value']:.2f}  loss {each['best_value']:.4f}  {each['overrides']}")


if __name__ == "__main__":
    main()
