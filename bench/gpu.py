"""tunesmith against TRL on a GPU, LoRA in bf16: the bundled model, and a Llama of random numbers.

    python bench/gpu.py [--models small large] [--rows 2048] [--pairs 3]

Both sides take the rows of w1 (bench/workloads.py), 64 a step, over a base in bf16 with adapters in
fp32. Each is tried at several micro-batches first; the best of each then run in turn, in one
process. Counted is what comes after the first step. Writes bench/results/gpu.json.
"""

import argparse
import gc
import time
from dataclasses import replace
from statistics import median
from typing import Any

import side
import torch
from speed import ROUNDED
from whole import keep
from workloads import WORKLOADS, Encoded

BATCH = 64
MODELS: dict[str, dict[str, Any] | None] = {
    "small": None,
    "large": {
        "vocab_size": 49152,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
}
"""`large` has the shape of Llama 3.2 1B, with this vocabulary."""
SIZES = {"small": (16, 32, 64), "large": (8, 16, 32)}
"""Rows of TRL's micro-batches."""
TRIES: dict[str, list[dict[str, Any]]] = {
    "ours": [{"micro_batch": tokens} for tokens in (4096, 8192, 16384)],
    "trl": [{"train_sampling_strategy": "group_by_length"}],
}


def tries(name: str, model: str) -> list[dict[str, Any]]:
    """What a side is tried with."""
    if name == "ours":
        return TRIES[name]
    return [TRIES[name][0] | {"micro_batch": size} for size in SIZES[model]]


def once(name: str, model: str, encoded: list[Encoded], options: dict[str, Any]) -> dict[str, Any]:
    """One training of a side."""
    from tunesmith.model.bases import ModelSpec, resolve

    work = replace(WORKLOADS["w1"], batch=BATCH)
    place = side.Place("cuda", "bfloat16", MODELS[model])
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    train = {"ours": side.ours, "trl": side.trl}[name]
    found = train(resolve(ModelSpec()), work, encoded, {**options, "place": place})
    torch.cuda.synchronize()
    steps = len(found["losses"])
    tokens = sum(len(ids) for ids, _ in encoded) * (steps - 1) / steps
    speed = tokens / (found["seconds"] - found["first"])
    kept = {key: found[key] for key in ("seconds", "first", "probe", "losses", "norms")}
    peak = torch.cuda.max_memory_allocated() / 1e9
    print(f"{model} {name} {options}: {speed:.0f} tokens/s, {peak:.2f} GB", flush=True)
    return {"options": options, "tokens_per_second": speed, "peak_gb": peak, **kept}


def check(rounds: list[dict[str, Any]]) -> None:
    """The same loss before training, as near as bf16 lets two ways through a model come."""
    for each in rounds:
        apart = abs(each["ours"]["probe"] / each["trl"]["probe"] - 1)
        if apart > ROUNDED:
            raise SystemExit(f"the sides begin {apart:.1e} apart: not the same")


def compared(model: str, encoded: list[Encoded], pairs: int) -> dict[str, Any]:
    """Each side tuned, then in turn at its best."""
    short = encoded[: 4 * BATCH]
    tuned, best = {}, {}
    for name in TRIES:
        once(name, model, short, dict(tries(name, model)[0]))  # what a process does only once
        tuned[name] = [once(name, model, short, dict(each)) for each in tries(name, model)]
        best[name] = max(tuned[name], key=lambda found: found["tokens_per_second"])["options"]
    rounds = [
        {name: once(name, model, encoded, dict(best[name])) for name in TRIES} for _ in range(pairs)
    ]
    check(rounds)
    ratios = [r["ours"]["tokens_per_second"] / r["trl"]["tokens_per_second"] for r in rounds]
    memory = [r["ours"]["peak_gb"] / r["trl"]["peak_gb"] for r in rounds]
    return {
        "speed": {"ratio": median(ratios), "all": ratios},
        "memory": {"ratio": median(memory), "all": memory},
        "tuning": tuned,
        "rounds": rounds,
    }


def main() -> None:
    """Every model asked for."""
    from transformers import AutoTokenizer

    from tunesmith.model.bases import ModelSpec, resolve

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--pairs", type=int, default=3)
    chosen = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(resolve(ModelSpec()).folder)
    encoded = WORKLOADS["w1"].make(tokenizer, chosen.rows)
    found: dict[str, Any] = {}
    for model in chosen.models:
        began = time.monotonic()
        found[model] = compared(model, encoded, chosen.pairs)
        found[model]["seconds"] = time.monotonic() - began
        keep("gpu", {"rows": chosen.rows, "rows_a_step": BATCH, "models": found})
        print(model, found[model]["speed"], found[model]["memory"], flush=True)


if __name__ == "__main__":
    main()
