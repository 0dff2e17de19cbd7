"""docs/performance.md, from what bench/speed.py and generation.py measured; lost cases stay in.

python bench/speed_page.py
"""

import json
import random
import statistics
from pathlib import Path
from typing import Any

from rivals import RIVALS
from speed import key_of
from workloads import WORKLOADS

HOME = Path(__file__).parents[1]
RESULTS, PAGE = HOME / "bench" / "results" / "speed.json", HOME / "docs" / "performance.md"
ANSWERS = RESULTS.with_name("generation.json")
DRAWS = 2000
HEAD = """# Performance

<!-- Written by bench/speed_page.py from bench/results/; change those. -->

`make bench` runs tunesmith and its rivals on the same rows, ids, labels, first numbers, optimiser
and rows a step, in fp32 unless it says otherwise, each in a fresh process, in rounds: every arm of
ours, then the rival. Before the clock starts, both sides must give the same loss for the first
rows (within 1e-5 of it; 1e-2 where one side alone holds its base in 8 bits). The rival is TRL with
peft, `group_by_length`, no gradient checkpointing, at the fastest micro-batch of 1 and 2 (`w3`,
`w4`), of 1, 2 and 4 (`w2`, `w5`, `w9`) or of 1, 2, 4 and 8 (`w1`), by one run of a few rows each;
for `w8` transformers' Trainer at that of `w1`. On `w1` are two more, which `bench/rivals.py` gives
environments of their own: LitGPT, which has no grouping by length, and LLaMA-Factory with
`group_by_length`, each at its best micro-batch of 1, 2 and 4, with adapters that start from our
numbers; LitGPT's own loop clips no gradient and weighs micro-batches, not tokens, alike.
`make rivals` measures them. The model is the bundled SmolLM2-135M-Instruct.

A ratio is ours to the rival's within one round, the median of all rounds, with a bootstrap
interval of 95 % where there are three rounds or more. *By the processor* is the same in seconds
of processor time, which other work on the machine disturbs less: go by it where the load below
the table is above the number of threads. One round is an indication, not a result. The share of
the ceiling is tokens a second to what fp32 matrix products alone would allow at the speed
measured just before; products in bytes can pass it, and so can tokens that a common beginning
saves.

"""
ANSWERING = """
## Greedy answers

`bench/generation.py`: 64 ragged prompts, our decoder with 32 rows against transformers' `generate`
at the best of its settings there (prompts sorted by length, several batches, both kinds of cache),
each in a fresh process, by turns. Both ignore stop tokens: 60 tokens each, or a drawn number, where
`generate` goes on until the longest of its batch is done. Ratios are the rival's time to ours, the
median of the rounds and their range.

"""
CASES = {"equal": "60 tokens each", "unequal": "3 to 120 tokens"}
NAMES = {"ours": "tunesmith", "ours in bytes": "tunesmith, `bits: 8`"}
TITLES = {"trl": "TRL", "trainer": "transformers"} | {n: each.title for n, each in RIVALS.items()}


def middle(values: list[float]) -> str:
    """The median, with its interval where there is one to be had."""
    if len(values) < 3:
        return f"{statistics.median(values):.2f}"
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(DRAWS))
    low, high = medians[DRAWS // 40], medians[-DRAWS // 40]
    return f"{statistics.median(values):.2f} [{low:.2f}, {high:.2f}]"


def ratios(rounds: list[dict[str, Any]], arm: str, rival: str, what: str) -> list[float]:
    """Ours to the rival's, a round each."""
    return [each[arm][what] / each[rival][what] for each in rounds]


def typical(rounds: list[dict[str, Any]], arm: str, what: str) -> float:
    """The median over rounds."""
    return statistics.median(each[arm][what] for each in rounds)


def line(name: str, rival: str, arm: str, entry: dict[str, Any]) -> str:
    """One arm against a rival."""
    work, rounds = WORKLOADS[name], whole(entry)
    faster = ratios(rounds, arm, rival, "tokens_per_second")
    seconds = ratios(rounds, arm, rival, "processor_seconds")
    memory = statistics.median(ratios(rounds, arm, rival, "peak_gb"))
    first = [each[arm]["first"] for each in rounds if "first" in each[arm]]
    cells = [
        f"`{name}` {work.title}",
        NAMES[arm],
        TITLES[rival],
        f"{entry['settings']['rows']} x {len(rounds)}",
        middle(faster) + (" (lost)" if statistics.median(faster) < 1 else ""),
        middle([1 / value for value in seconds]),
        (work.target if rival == work.rival else "") or "-",
        f"{typical(rounds, arm, 'tokens_per_second'):.0f}",
        f"{typical(rounds, rival, 'tokens_per_second'):.0f}",
        f"{typical(rounds, arm, 'supervised_per_second'):.0f}",
        f"{typical(rounds, arm, 'ceiling_share'):.0%}",
        f"{typical(rounds, arm, 'peak_gb'):.2f} ({memory:.2f}x)",
        f"{statistics.median(first):.1f}" if first else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def whole(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The rounds in which every side was run."""
    return [each for each in entry["rounds"] if set(entry["settings"]["sides"]) <= set(each)]


def page(found: dict[str, Any]) -> str:
    """The whole page."""
    columns = (
        ("workload", "side", "rival", "rows x rounds", "real tokens/s to the rival's")
        + ("by the processor", "aim", "tokens/s", "rival's", "with loss/s", "of the ceiling")
        + ("peak GB (to rival's)", "s to first step")
    )
    table = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    pairs = [(name, rival) for name, work in WORKLOADS.items() for rival in (work.rival, *RIVALS)]
    keys = [(name, rival, key_of(name, rival)) for name, rival in pairs]
    measured = {key: found[key] for _, _, key in keys if key in found and whole(found[key])}
    for name, rival, key in keys:
        if key in measured:
            table += [line(name, rival, arm, measured[key]) for arm in WORKLOADS[name].arms]
    absent = [f"`{name}`" for name in WORKLOADS if name not in measured]
    last = f"\nNot measured yet: {', '.join(absent)}.\n" if absent else ""
    return HEAD + "\n".join(table) + "\n" + last + machines(measured)


def answering(found: dict[str, Any]) -> str:
    """Greedy answers against transformers' `generate`."""
    columns = (
        "answers",
        "rounds",
        "by the clock",
        "by the processor",
        "aim",
        "processor s",
        "rival's",
    ) + ("rival's settings", "rows that differ", "load")
    table = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for case, title in CASES.items():
        if case not in found:
            continue
        entry, (clock, processor) = found[case], found[case]["summary"].values()
        spread = [f"{t['ratio']:.2f} [{t['from']:.2f}, {t['to']:.2f}]" for t in (clock, processor)]
        loads = [side["load"] for each in entry["rounds"] for side in each.values()]
        seconds = [f"{processor[side]:.1f}" for side in ("ours", "transformers")]
        settings = ", ".join(f"{name} {value}" for name, value in found["best"].items())
        cells = [title, str(len(entry["rounds"])), *spread, "1.5x; 2.5x", *seconds, settings]
        cells += [str(len(entry["differ"])), f"{min(loads):.1f} to {max(loads):.1f}"]
        table.append("| " + " | ".join(cells) + " |")
    return ANSWERING + "\n".join(table) + "\n"


def listed(facts: dict[str, Any]) -> str:
    """Names and values in a line."""
    return ", ".join(f"{what} {value}" for what, value in facts.items())


def machines(measured: dict[str, Any]) -> str:
    """What it was measured on, each kind once."""
    kinds: dict[str, list[str]] = {}
    for name, entry in measured.items():
        settings = entry["settings"]
        facts = {**settings["machine"], "threads": settings["threads"]}
        said = listed(facts)
        said += f"; the rival's: {listed(settings['theirs'])}" if "theirs" in settings else ""
        loads = [
            side["load"]
            for each in whole(entry)
            for side in each.values()
            if isinstance(side, dict)
        ]
        kinds.setdefault(said, []).append(f"`{name}` (load {min(loads):.1f} to {max(loads):.1f})")
    return "".join(f"\n{', '.join(names)}: {said}.\n" for said, names in kinds.items())


if __name__ == "__main__":
    told = page(json.loads(RESULTS.read_text()))
    PAGE.write_text(told + (answering(json.loads(ANSWERS.read_text())) if ANSWERS.exists() else ""))
