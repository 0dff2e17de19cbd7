"""docs/performance.md, from what bench/speed.py, generation.py, time_to_loss.py and growth.py
measured; lost cases stay in.

python bench/speed_page.py
"""

import json
import statistics
from pathlib import Path
from typing import Any

from rivals import RIVALS
from speed import key_of, rounded, speeds
from workloads import WORKLOADS

HOME = Path(__file__).parents[1]
RESULTS, PAGE = HOME / "bench" / "results", HOME / "docs" / "performance.md"
HEAD = """# Performance

<!-- Written by bench/speed_page.py from bench/results/; change those. -->

`make bench` runs tunesmith and its rivals on the same rows, ids, labels, first numbers, optimiser
and rows a step, in fp32 unless it says otherwise, each in a fresh process, in rounds: every arm of
ours, then the rival. Before the clock starts, both sides must give the same loss for the first rows
(within 1e-5 of it; 1e-2 where one side holds its base in 8 bits or bfloat16). That loss is taken
without gradients, where ours never rounds to bfloat16: what rounded steps do to a training is
measured by itself ([0022](decisions/0022-steps-in-bfloat16.md)). The rival is TRL with peft,
`group_by_length`, no gradient checkpointing, at its fastest micro-batch: of those tried on the same
processor for what was measured from 2026-11-29 on, on the AMD EPYC for what was before (below is
what was tried, and under each table when it ran); for `w8` transformers' Trainer, timed from
loading the model to the end, ours from rows to a saved folder, with transformers imported before on
both sides (before 2026-11-29 8:50 the Trainer's clock alone left that out). It runs once more in
bfloat16, which these processors multiply faster: its model is held in it, but for `w5` and `w8`,
where it multiplies in it (autocast). `make rivals` adds two more on `w1`, which `bench/rivals.py`
gives environments of their own: LitGPT, which has no grouping by length, and LLaMA-Factory with
`group_by_length`, both in float32 only, with adapters that start from our numbers; LitGPT's own
loop clips no gradient and weighs micro-batches, not tokens, alike. Every rival of this table runs
with glibc told to keep what is freed (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`), which
spares TRL time in the system; ours has next to none of that and runs without. From 2026-11-29
12:00 on ours, TRL and the Trainer have Python look through all that lives for garbage as rarely as
our commands do ([0024](decisions/0024-garbage-is-looked-for-where-it-is.md)). The model is the
bundled SmolLM2-135M-Instruct.

A ratio is ours to the rival's within one round: the median of all rounds, and the least and the
greatest of them. *Aim* has two marks, a good one and one beyond it, both over the rival in float32;
why one is missed is in [0020](decisions/0020-where-a-step-s-time-goes.md). *By the processor* is
the same in seconds of processor time, which other work on the machine disturbs less: go by it where
the load below the table is above the number of threads. One round is an indication, not a result.
The share of the ceiling is tokens a second to what fp32 matrix products alone would allow at the
speed measured just before; products in bfloat16 or bytes can pass it, and so can tokens that a
common beginning saves, rows that are read once for ten epochs, and the part of the last block that
is left out for tokens without a loss (up to a thirtieth).
"""
TRIED = """
### Settings of rivals, {cpu}

Runs with each micro-batch of a rival over some rows (`bench/speed.py --tune`); rounds take the one
that is the fastest by the median. What glibc frees is *kept*, as in the rounds, or goes back *as it
comes*.

"""
ANSWERING = """
## Greedy answers, {cpu}

`bench/generation.py`: 64 ragged prompts, our decoder with 32 rows against transformers' `generate`
at the best of its settings there (prompts sorted by length, batches of 8, 16 and 32, a static cache
at 32; {memory}), both in float32 on one thread, each in a fresh process, by turns.
Both ignore stop tokens: 60 tokens each, or a drawn number, where `generate` goes on until the
longest of its batch is done. Ratios are the rival's time to ours, the median of the rounds and
their range.

"""
REACHING = """
## Time to a loss, {cpu}

`bench/time_to_loss.py`: TRL trains one epoch of LoRA on {rows} rows of e2e_nlg, {rate:g} at its
start, {batch} rows a step, in floats and with its model in bfloat16, each at the fastest of its
micro-batches; then we train from the same numbers, in floats, bfloat16 and bytes, until our loss on
the held-out rows is no worse than both that TRL ended with, or the epoch ends. Looks at them, every
25 steps from half the epoch on, are in nobody's time. TRL's glibc keeps what is freed.

"""
GROWING = """
## Growth, {cpu}

`bench/growth.py`: LoRA as in `w1` on {threads} threads, tokens a second in windows of
{seconds:.0f} seconds after the first step, each set of rows in a process of its own. *To the first
step* holds what grows with the rows: their order and the first step itself. Lengths: every row has
as many tokens, all carry loss, 4,096 tokens a step; *expected* is the speed of rows of {known} by
the operations a token needs, as `tunesmith train --dry-run` counts them. That count weighed
attention twice until these speeds showed it (it gave 181, 139 and 95 for the three longest), so
this column agrees with what it was mended by and is no forecast made before.

"""
CASES = {"equal": "60 tokens each", "unequal": "3 to 120 tokens"}
NAMES = {
    "ours": "tunesmith",
    "ours in bfloat16": "tunesmith, `bfloat16`",
    "ours in bytes": "tunesmith, `bits: 8`, `bytes`",
}
AIMED = ("ours", "ours in bytes")
"""The sides that something was aimed at for, over a rival in floats."""
TITLES = {"trl": "TRL", "trainer": "transformers", "trl in bfloat16": "TRL, bfloat16"}
TITLES |= {"trainer in bfloat16": "transformers, bfloat16"}
TITLES |= {n: each.title for n, each in RIVALS.items()}


def middle(values: list[float]) -> str:
    """The median, with the least and the greatest where there are several."""
    told = f"{statistics.median(values):.2f}"
    return told if len(values) == 1 else f"{told} [{min(values):.2f}, {max(values):.2f}]"


def ratios(rounds: list[dict[str, Any]], arm: str, rival: str, what: str) -> list[float]:
    """Ours to the rival's, a round each."""
    return [each[arm][what] / each[rival][what] for each in rounds]


def typical(rounds: list[dict[str, Any]], arm: str, what: str) -> float:
    """The median over rounds."""
    return statistics.median(each[arm][what] for each in rounds)


def line(name: str, rival: str, arm: str, entry: dict[str, Any]) -> list[str]:
    """One arm against a rival."""
    work, rounds = WORKLOADS[name], whole(entry)
    faster = ratios(rounds, arm, rival, "tokens_per_second")
    seconds = ratios(rounds, arm, rival, "processor_seconds")
    memory = statistics.median(ratios(rounds, arm, rival, "peak_gb"))
    more = ", more" if memory >= 1.005 else ""
    first = [each[arm]["first"] for each in rounds if "first" in each[arm]]
    cells = [
        f"`{name}` {work.title}",
        NAMES[arm],
        TITLES[rival],
        f"{entry['settings']['rows']} x {len(rounds)}",
        middle(faster) + (" (lost)" if statistics.median(faster) < 1 else ""),
        middle([1 / value for value in seconds]),
        (work.target if arm in AIMED and rival == work.rival else "") or "-",
        f"{typical(rounds, arm, 'tokens_per_second'):.0f}",
        f"{typical(rounds, rival, 'tokens_per_second'):.0f}",
        f"{typical(rounds, arm, 'supervised_per_second'):.0f}",
        f"{typical(rounds, arm, 'ceiling_share'):.0%}",
        f"{typical(rounds, arm, 'peak_gb'):.2f} ({memory:.2f}x{more})",
        f"{statistics.median(first):.1f}" if first else "-",
    ]
    return cells


def whole(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The rounds in which every side was run."""
    return [each for each in entry["rounds"] if set(entry["settings"]["sides"]) <= set(each)]


def training(found: dict[str, Any]) -> str:
    """Training steps on one processor."""
    columns = ["workload", "side", "rival", "rows x rounds", "real tokens/s to the rival's"]
    columns += ["by the processor", "aim", "tokens/s", "rival's", "with loss/s", "of the ceiling"]
    columns += ["peak GB (to rival's)", "s to first step"]
    table = []
    pairs = [(name, rival) for name, work in WORKLOADS.items() for rival in (work.rival, *RIVALS)]
    keys = [(name, rival, key_of(name, rival)) for name, rival in pairs]
    measured = {key: found[key] for _, _, key in keys if key in found and whole(found[key])}
    for name, rival, key in keys:
        if key in measured:
            sides = measured[key]["settings"]["sides"]
            table += [
                line(name, other, arm, measured[key])
                for other in (rival, rounded(rival))
                for arm in WORKLOADS[name].arms
                if {other, arm} <= set(sides)
            ]
    absent = [f"`{name}`" for name in WORKLOADS if name not in measured]
    last = f"\nNot measured yet: {', '.join(absent)}.\n" if absent else ""
    told = f"\n## Training, {cpu_of(found)}\n\n" + tabled(columns, table)
    return told + last + machines(measured) + tuning(found)


def cpu_of(found: dict[str, Any]) -> str:
    """The processor of a result, or of the first of several."""
    entries = [each for each in (found, *found.values()) if isinstance(each, dict)]
    kept = [part for each in entries for part in (each, each.get("settings", {}))]
    return next(str(part["machine"]["cpu"]) for part in kept if "machine" in part)


def tuning(found: dict[str, Any]) -> str:
    """What was tried of each rival."""
    rows = []
    for name, entry in found.items():
        ways: dict[str, list[str]] = {}
        for options, tried in speeds(entry) if name.startswith("tuning ") else []:
            way = "bfloat16" if {"dtype", "bf16"} & set(options) else "float32"
            told = " ".join(f"{speed:.0f}" for speed in tried)
            ways.setdefault(way, []).append(f"{options['micro_batch']}: {told}")
        kept = "kept" if "theirs_in" in entry else "as it comes"
        title = f"`{name.removeprefix('tuning ')}`"
        rows += [[title, str(entry["rows"]), way, kept, ", ".join(ways[way])] for way in ways]
    columns = ["workload", "rows", "in", "memory", "tokens/s"]
    return TRIED.format(cpu=cpu_of(found)) + tabled(columns, sorted(rows)) if rows else ""


def tabled(columns: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def answering(found: dict[str, Any]) -> str:
    """Greedy answers against transformers' `generate`."""
    columns = ["answers", "rounds", "by the clock", "by the processor", "aim", "processor s"]
    columns += ["rival's", "rival's settings", "rows that differ", "load"]
    rows = []
    for case, title in CASES.items():
        if case not in found:
            continue
        entry, (clock, processor) = found[case], found[case]["summary"].values()
        spread = [f"{t['ratio']:.2f} [{t['from']:.2f}, {t['to']:.2f}]" for t in (clock, processor)]
        loads = [side["load"] for each in entry["rounds"] for side in each.values()]
        seconds = [f"{processor[side]:.1f}" for side in ("ours", "transformers")]
        settings = ", ".join(f"{name} {value}" for name, value in found["best"].items())
        cells = [title, str(len(entry["rounds"])), *spread, "1.5x; 2.5x", *seconds, settings]
        rows.append([*cells, str(len(entry["differ"])), f"{min(loads):.1f} to {max(loads):.1f}"])
    kept = "theirs_in" in found["settings"]
    memory = "glibc keeps what it frees" if kept else "its allocator as it comes"
    return ANSWERING.format(cpu=cpu_of(found), memory=memory) + tabled(columns, rows)


def reaching(found: dict[str, Any]) -> str:
    """How long until the rival's final loss."""
    settings = found["settings"]
    columns = ["rival", "its micro-batch", "ends with", "after", "ours", "loss", "after steps"]
    columns += ["after", "its time to ours", "by the processor", "aim", "load"]
    table = []
    for arm, rivals in found["ratio"].items():
        for name, ratio in rivals.items():
            rival, own = found[name], found[arm]
            tried = ", ".join(str(each["micro_batch"]) for each in rival["tries"])
            cells = [TITLES[name], f"{rival['micro_batch']} of {tried}", f"{rival['loss']:.5f}"]
            cells += [f"{rival['seconds']:.0f} s", NAMES[arm], *reached(rival, own, ratio)]
            loads = f"{own['load']:.1f}, {rival['load']:.1f}"
            table.append([*cells, "1.8x; 2.5x" if name == "trl" else "-", loads])
    told = {
        "cpu": cpu_of(found),
        "rate": settings["rate"],
        "batch": settings["rows_a_step"],
        "rows": settings["rows"],
    }
    return REACHING.format(**told) + tabled(columns, table)


def reached(rival: dict[str, Any], own: dict[str, Any], ratio: dict[str, Any] | None) -> list[str]:
    """Our loss, steps and time at a rival's loss, else at the end, and the times to each other."""
    if ratio is None:
        steps, seconds = own["looks"][-1]["steps"], own["seconds"]
        return [f"{own['loss']:.5f}", str(steps), f"{seconds:.0f} s", "never reached", "-"]
    ours = f"{rival['seconds'] / ratio['seconds']:.0f} s"
    times = [f"{ratio[what]:.2f}" for what in ("seconds", "processor_seconds")]
    return [f"{ratio['our_loss']:.5f}", str(ratio["our_steps"]), ours, *times]


def growing(found: dict[str, Any]) -> str:
    """Tokens a second over windows, counts of rows and lengths."""
    columns = ["rows", "tokens/s, window by window", "expected", "to the first step", "peak GB"]
    rows = []
    for name, entry in found["sets"].items():
        kind, number = name.split()
        title = f"{int(number):,} rows of w1" if kind == "rows" else f"{int(number):,} tokens each"
        speeds = [f"{each['tokens_per_second']:.0f}" for each in entry["windows"]]
        expected = f"{as_known(found, entry):.0f}" if kind == "length" else "-"
        cells = [title, ", ".join(speeds), expected, f"{entry['to_first_step']:.1f} s"]
        rows.append([*cells, f"{entry['peak_gb']:.2f}"])
    settings = found["settings"]
    said = {
        "cpu": cpu_of(found),
        "threads": settings["threads"],
        "seconds": settings["seconds"],
        "known": settings["known"],
    }
    return GROWING.format(**said) + tabled(columns, rows)


def as_known(found: dict[str, Any], entry: dict[str, Any]) -> float:
    """The speed of the known length by the operations that a token of this one needs."""
    known = found["sets"][f"length {found['settings']['known']}"]
    speed: float = known["windows"][0]["tokens_per_second"]
    return speed * known["needed_gflop"] / entry["needed_gflop"]


SECTIONS = {
    "speed": training,
    "generation": answering,
    "time_to_loss": reaching,
    "growth": growing,
}
"""By the folder of its results, which are kept for each processor."""


def listed(facts: dict[str, Any]) -> str:
    """Names and values in a line."""
    return ", ".join(f"{what} {value}" for what, value in facts.items())


def machines(measured: dict[str, Any]) -> str:
    """What it was measured on, each kind once."""
    kinds: dict[str, list[str]] = {}
    for name, entry in measured.items():
        settings = entry["settings"]
        facts = {**settings["machine"], "threads": settings["threads"]}
        said = f"{listed(facts)}; digest of our engine {settings['code'][:8]}"
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
    told = HEAD
    for name, section in SECTIONS.items():
        for path in sorted(RESULTS.glob(f"{name}/*.json")):
            told += section(json.loads(path.read_text()))
    PAGE.write_text(told)
