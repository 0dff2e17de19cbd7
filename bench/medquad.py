"""Medical documents, `lm` with LoRA: held-out perplexity of the domain, and of general text beside.

    python bench/medquad.py [--data ../shared/data] [--steps 48] [--documents 42] [--words 0]

The bundled model reads on in the answers of MedQuAD (NIH, CC BY 4.0), 1,024 tokens a step, and is
judged by the shortest held-out documents. Answers that training has too are left out of them.
With `--words N` the N words of the training documents that cost the most pieces become one piece
each. Writes bench/results/medquad.json, or medquad_words.json.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from whole import machine

from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.rows import Origin, Text
from tunesmith.core.tables import write_rows
from tunesmith.data.words import common, costly, told
from tunesmith.evaluate.stage import Evaluate, evaluate
from tunesmith.model.bases import ModelSpec, resolve
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.words import tokenizer_of
from tunesmith.train.loop import Train
from tunesmith.train.stage import train


def answers(record: dict[str, Any]) -> list[str]:
    """A document's answers, runs of white space made one."""
    return [" ".join(pair["answer"].split()) for pair in record["qa"]]


def documents(folder: Path) -> dict[str, list[Text]]:
    """A row for each document; what training has read is no test."""
    found: dict[str, list[Text]] = {}
    seen: set[str] = set()
    for part in ("train", "valid", "test"):
        name = f"docs_{part}.jsonl"
        kept = [
            (number, [text for text in answers(json.loads(line)) if text not in seen])
            for number, line in enumerate((folder / name).read_text().splitlines(), 1)
        ]
        found[part] = [
            Text(text="\n\n".join(texts), origin=Origin(name, number))
            for number, texts in kept
            if texts
        ]
        seen |= {text for _, texts in kept for text in texts}
    return found


def run(home: Path, parts: dict[str, list[Text]], steps: int, words: list[str]) -> dict[str, Any]:
    """Train and measure; the report with what training took."""
    folder = RunFolder(home / "medquad")
    folder.create()
    stage = folder.stage("data")
    stage.begin({})
    for part, rows in parts.items():
        write_rows(stage.path / f"{part}.jsonl", (row.record() for row in rows))
    stage.finish()
    base, log = resolve(ModelSpec(tokens=words)), Log(folder)
    spec = Train(objective="lm", steps=steps, batch=2, length=512, lr=1e-3, evaluate_every=steps)
    train(folder, spec, base, seed=0, log=log)
    start = time.monotonic()
    evaluate(folder, Evaluate(), base, seed=0, log=log)
    report = json.loads((folder.path / "evaluate/report.json").read_text())
    facts = json.loads((folder.path / "train/train.json").read_text())
    wanted = ("tokens", "supervised", "seconds", "steps", "rate", "trainable_parameters", "threads")
    return {
        "train": {name: facts[name] for name in wanted},
        "evaluate_seconds": time.monotonic() - start,
        **{name: report[name] for name in ("arms", "difference", "verdict", "rows", "notes")},
    }


def main() -> None:
    """Prepare, train, measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--documents", type=int, default=42, help="documents judged")
    parser.add_argument("--words", type=int, default=0, help="words to add")
    chosen = parser.parse_args()
    parts = documents(chosen.data / "medquad_medical")
    for part, count in (("valid", 3), ("test", chosen.documents)):
        parts[part] = sorted(parts[part], key=lambda row: len(row.text))[:count]
    plain = Tokenizer.load(resolve(ModelSpec()).folder)
    words = costly(common(parts["train"]), plain)[: chosen.words]
    with tempfile.TemporaryDirectory() as home:
        found = run(Path(home), parts, chosen.steps, words)
    grown = tokenizer_of(resolve(ModelSpec(tokens=words)))
    arms = {arm: found["arms"][arm]["perplexity"]["value"] for arm in ("base", "tuned")}
    change = 1 - arms["tuned"] / arms["base"]
    result = {
        "machine": machine(),
        "perplexity_down": change,
        **found,
        "words": list(told(words, parts["train"], plain, grown)) if words else [],
    }
    name = "medquad_words.json" if words else "medquad.json"
    path = Path(__file__).parent / "results" / name
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['verdict']}; perplexity down {change:.1%}")


if __name__ == "__main__":
    main()
