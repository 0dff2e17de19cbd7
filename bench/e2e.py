"""Restaurant data to text: 800 rows, one epoch of LoRA, BLEU on the fixed 100 test inputs.

    python bench/e2e.py [--data ../shared/data] [path=value ...]

The whole product, from rows to report, on the bundled model. Writes bench/results/e2e.json.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from w1 import machine

SYSTEM = "Describe the venue in one or two sentences."
RUN = """\
name: e2e
model: smollm2-135m-instruct
data:
  source: train.jsonl
  valid: valid.jsonl
  test: test.jsonl
  transforms: [deduplicate, {kind: sample, rows: 800}]
train:
  method: {kind: lora, rank: 16}
  epochs: 1
  lr: 1e-3
  batch: 4
  evaluate_every: 100
  probes: 0
evaluate:
  metrics:
    - {kind: bleu, lowercase: true}
    - {kind: rouge}
    - {kind: chrf}
    - {kind: perplexity}
  sampling: {max_tokens: 80}
"""


def row(meaning: str, answers: list[str]) -> dict[str, Any]:
    """One input with all its right answers."""
    prompt = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": meaning}]
    return {"prompt": prompt, "completion": answers[0], "references": answers[1:]}


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(source: Path, target: Path) -> None:
    """The data set as completion rows: train, the held-out inputs, and the fixed 100 of test."""
    fixed = set(json.loads((source / "test100_ids.json").read_text()))
    parts = {
        "train": [row(r["mr"], [r["ref"]]) for r in lines(source / "train.jsonl")],
        "valid": [row(r["mr"], r["refs"]) for r in lines(source / "valid.jsonl")],
        "test": [row(r["mr"], r["refs"]) for r in lines(source / "test.jsonl") if r["id"] in fixed],
    }
    for name, rows in parts.items():
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
        (target / f"{name}.jsonl").write_text(text)
    (target / "e2e.yaml").write_text(RUN)


def main() -> None:
    """Run it in a fresh folder and keep what it measured."""
    from tunesmith import pipeline
    from tunesmith.run import load_with_origins

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    write_rows(chosen.data / "e2e_nlg", folder)
    loaded = load_with_origins(folder / "e2e.yaml", chosen.overrides)
    began = time.monotonic()
    job = pipeline.job(loaded, home=folder)
    pipeline.carry_out(job, "evaluate")
    run = folder / "runs" / "e2e"
    report = json.loads((run / "evaluate" / "report.json").read_text())
    trained = json.loads((run / "train" / "train.json").read_text())
    facts = ("seconds", "tokens", "steps", "best_step", "first_loss", "last_loss", "rate", "rows")
    kept = ("arms", "difference", "notes", "rows", "samples")
    result = {
        "machine": machine(),
        "overrides": chosen.overrides,
        "seconds_in_all": time.monotonic() - began,
        "train": {name: trained[name] for name in facts},
        "report": {name: report.get(name) for name in kept},
    }
    path = Path(__file__).parent / "results" / "e2e.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({"train": result["train"], "arms": report["arms"]}, indent=2))


if __name__ == "__main__":
    main()
