"""Greedy answers: our decoder against transformers' `generate`, at the best of its settings.

    python bench/generation.py                  the whole comparison; goes on where it was left
    python bench/generation.py SIDE CASE '{..}' one fresh process of it; prints one JSON line

64 ragged prompts of common words, the bundled model, fp32, one thread. Both sides ignore stop
tokens, so the amount of work is fixed: 60 tokens for every prompt (`equal`), or a drawn number for
each (`unequal`), where `generate` must go on until the longest row of its batch is done. The rival
sorts its prompts by length and tries several batches with either kind of cache, with the C library
keeping what it frees; its best is run in turns with ours. Every run is kept at once in
bench/results/generation/<processor>.json; another version or model code of ours begins anew. Both
sides' tokens are compared; where a row differs, the gap between the two likeliest tokens at the
first difference says whether it was a tie.
"""

import copy
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from clock import now, peak, spent
from machine import KEEPING, around, machine, result_of
from workloads import turns_of, words

from tunesmith.environment import code_digest
from tunesmith.model.bases import ModelSpec, resolve
from tunesmith.model.load import load_model

PROMPTS, TOKENS, ROWS, ROUNDS = 64, 60, 32, 3
RIVALS = tuple({"batch": batch} for batch in (8, 16, 32)) + ({"batch": 32, "cache": "static"},)
CASES = ("equal", "unequal")
SIDES = ("ours", "transformers")

Found = dict[str, Any]


def prompts(folder: Path) -> list[list[int]]:
    """Questions of about fifty words, by the model's own template."""
    from transformers import AutoTokenizer

    draw, tokenizer = random.Random(0), AutoTokenizer.from_pretrained(folder)
    asked = [turns_of(words(draw, 50)) for _ in range(PROMPTS)]
    return [
        tokenizer.apply_chat_template(
            turns, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        for turns in asked
    ]


def lengths(case: str) -> list[int]:
    """How many tokens each answer has."""
    draw = random.Random(1)
    drawn = [int(draw.lognormvariate(math.log(30), 0.7)) for _ in range(PROMPTS)]
    return [min(120, max(3, each)) for each in drawn] if case == "unequal" else [TOKENS] * PROMPTS


def ours(model: Any, asked: list[list[int]], wanted: list[int], folder: Path, _: Found) -> Any:
    """The decoder, as an evaluation runs it."""
    from tunesmith.model.generate import Decoder, Request, answers
    from tunesmith.model.tokenizer import Tokenizer

    endless = copy.copy(Tokenizer.load(folder))
    endless.__dict__["stop_ids"] = ()
    requests = [
        Request(str(number), tuple(ids), count)
        for number, (ids, count) in enumerate(zip(asked, wanted, strict=True))
    ]
    began = now()
    decoder = Decoder(model, endless, rows=ROWS)
    ordered = sorted(requests, key=lambda request: len(request.ids), reverse=True)
    found = {int(answer.key): list(answer.ids) for answer in answers(decoder, ordered)}
    return found, spent(began)


def transformers(
    model: Any, asked: list[list[int]], wanted: list[int], _: Path, options: Found
) -> Any:
    """`generate` over batches of prompts of like length, padded on the left."""
    model.generation_config.eos_token_id = None
    order = sorted(range(len(asked)), key=lambda number: len(asked[number]))
    cache = {"cache_implementation": options["cache"]} if "cache" in options else {}
    found, began = {}, now()
    for start in range(0, len(order), options["batch"]):
        batch = order[start : start + options["batch"]]
        width = max(len(asked[number]) for number in batch)
        short = [width - len(asked[number]) for number in batch]
        ids = [[0] * gap + asked[n] for gap, n in zip(short, batch, strict=True)]
        mask = [[0] * gap + [1] * (width - gap) for gap in short]
        with torch.inference_mode():
            output = model.generate(
                torch.tensor(ids),
                attention_mask=torch.tensor(mask),
                max_new_tokens=max(wanted[number] for number in batch),
                do_sample=False,
                pad_token_id=0,
                **cache,
            )
        for number, row in zip(batch, output[:, width:].tolist(), strict=True):
            found[number] = row[: wanted[number]]
    return found, spent(began)


def side(name: str, case: str, options: Found) -> None:
    """Answer all prompts once and print what it took."""
    torch.set_num_threads(1)
    base = resolve(ModelSpec())
    model = load_model(base).eval()
    asked = prompts(base.folder)
    run = {"ours": ours, "transformers": transformers}[name]
    found, took = run(model, asked, lengths(case), base.folder, options)
    said = [found[number] for number in range(PROMPTS)]
    facts = {"load": os.getloadavg()[0], "peak_gb": peak(), "answers": said}
    print(json.dumps({**took, "tokens": sum(map(len, said)), **facts}))


def fresh(name: str, case: str, options: Found) -> Found:
    """One side in a process of its own."""
    called = [sys.executable, __file__, name, case, json.dumps(options)]
    done = subprocess.run(called, capture_output=True, text=True, check=False, env=around(name))
    if done.returncode:
        raise SystemExit(done.stderr)
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """What is missing of the comparison, kept after every process."""
    settings = {"machine": machine(), "threads": 1, "rows": ROWS, "theirs_in": KEEPING}
    settings["code"] = code_digest("model/*.py")
    path = result_of("generation")
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("settings") != settings:
        found = {"settings": settings}
    tried = found.setdefault("tried", {})
    for options in RIVALS:
        if json.dumps(options) not in tried:
            took = fresh("transformers", "equal", options)
            tried[json.dumps(options)] = {n: v for n, v in took.items() if n != "answers"}
            keep(found)
    best = json.loads(min(tried, key=lambda each: tried[each]["processor_seconds"]))
    found["best"] = best
    for case in CASES * ROUNDS:
        entry = found.setdefault(case, {"rounds": []})
        if len(entry["rounds"]) == ROUNDS:
            continue
        both = {name: fresh(name, case, best) for name in SIDES}
        said = [both[name].pop("answers") for name in SIDES]
        entry["rounds"].append(both)
        entry["differ"] = differences(*said)
        entry["summary"] = summary(entry["rounds"])
        keep(found)
        print(case, json.dumps(entry["summary"]), len(entry["differ"]), flush=True)


def summary(rounds: list[Found]) -> Found:
    """Medians of both sides and of the ratio within a round, with its spread."""
    told: Found = {}
    for what in ("seconds", "processor_seconds"):
        ratios = [each["transformers"][what] / each["ours"][what] for each in rounds]
        told[what] = {
            **{name: statistics.median(each[name][what] for each in rounds) for name in SIDES},
            "ratio": statistics.median(ratios),
            "from": min(ratios),
            "to": max(ratios),
        }
    return told


def differences(ours: list[list[int]], theirs: list[list[int]]) -> list[Found]:
    """Where the answers part, and how far apart the two likeliest tokens are there, by logits."""
    apart = [number for number in range(PROMPTS) if ours[number] != theirs[number]]
    if not apart:
        return []
    base = resolve(ModelSpec())
    model, asked = load_model(base).eval(), prompts(base.folder)
    found = []
    for number in apart:
        pairs = enumerate(zip(ours[number], theirs[number], strict=True))
        at = next(place for place, (one, other) in pairs if one != other)
        with torch.inference_mode():
            read = torch.tensor([asked[number] + ours[number][:at]])
            first, second = model(read).logits[0, -1].topk(2).values.tolist()
        found.append({"prompt": number, "token": at, "gap": first - second, "of": abs(first)})
    return found


def keep(found: Found) -> None:
    """Write what is known so far."""
    found["at"] = time.strftime("%Y-%m-%d")
    result_of("generation").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        side(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()
