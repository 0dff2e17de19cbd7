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

from whole import keep, lines, measured

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
  method: {kind: lora, rank: 16, ratio: 8}
  epochs: 1
  lr: 5e-4
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
    from tunesmith.run import load_with_origins

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    write_rows(chosen.data / "e2e_nlg", folder)
    loaded = load_with_origins(folder / "e2e.yaml", chosen.overrides)
    began = time.monotonic()
    found = measured(loaded, folder)
    seconds = time.monotonic() - began
    keep("e2e", {"overrides": chosen.overrides, "seconds_in_all": seconds, **found})
    print(json.dumps({"train": found["train"], "arms": found["report"]["arms"]}, indent=2))


if __name__ == "__main__":
    main()
