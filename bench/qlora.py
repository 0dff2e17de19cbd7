"""QLoRA against LoRA on the same rows, order and seed: loss, bytes of the base, drift of the merge.

    python bench/qlora.py [--data ../shared/data] [--work DIR] [--bits 4] [--steps 200]

Restaurant data to text (as bench/e2e.py) on the bundled model. Resumes in the folder given. Writes
bench/results/qlora.json.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from e2e import row
from whole import carried_out, keep, lines, write_rows

BATCH = 4
HELD = 128
"""Valid rows at most (e2e_nlg has 50): the loss of the last step and the drift of the merge are
measured on them."""
LAST = 20
"""Steps whose losses are averaged as the final one of training: one step's hangs on four rows."""
BARS = {"loss": 0.03, "bytes": 0.35, "kl": 1e-5}


def settings(home: Path, data: Path, bits: int | None, steps: int) -> dict[str, Any]:
    """The run whose base is held in `bits`."""
    parts = {"source": "train", "valid": "valid", "test": "test"}
    count = {"source": BATCH * steps, "valid": HELD, "test": HELD}
    where = {
        name: write_rows(
            home / f"{part}.jsonl",
            [row(r["mr"], r.get("refs") or [r["ref"]]) for r in lines(data / f"{part}.jsonl")][
                : count[name]
            ],
        )
        for name, part in parts.items()
    }
    return {
        "name": f"qlora-{bits or 'float'}",
        "model": {"source": "smollm2-135m-instruct", "bits": bits},
        "data": {**where, "leaks": "drop", "transforms": []},
        "train": {
            "method": {"kind": "lora", "rank": 16},
            "lr": 1e-3,
            "batch": BATCH,
            "steps": steps,
            "evaluate_every": steps,
            "save_every": 20,
            "probes": 0,
        },
        "evaluate": {"metrics": ["perplexity"]},
        "deploy": {"exports": ["merged"]},
    }


def taken(home: Path, run: dict[str, Any]) -> dict[str, Any]:
    """What one run came to: its losses, its bytes, and what its merge changed."""
    from tunesmith.model.bases import ModelSpec, resolve
    from tunesmith.model.load import load_model
    from tunesmith.model.quantise import held

    bits = run["model"]["bits"]
    found = carried_out(home, run, "deploy" if bits else "evaluate")
    folder = home / "runs" / run["name"]
    curves = lines(folder / "train" / "curves.jsonl")
    steps = [line["loss"] for line in curves if "loss" in line]
    looks = [line["held_out"]["loss"] for line in curves if "held_out" in line]
    verified = folder / "deploy" / "verified.json"
    merged = json.loads(verified.read_text())["merged"]["numbers"] if bits else {}
    return {
        "seconds": found["train"]["seconds"],
        "tokens": found["train"]["tokens"],
        "losses": {"before": looks[0], "held_out": looks[-1], "train": sum(steps[-LAST:]) / LAST},
        "base_bytes": held(load_model(resolve(ModelSpec(**run["model"])))),
        "merge": merged,
    }


def judged(found: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """One run in bits against the one in floats, and whether each bar holds."""
    losses = {
        name: found["losses"][name] / plain["losses"][name] - 1 for name in ("held_out", "train")
    }
    size = found["base_bytes"] / plain["base_bytes"]
    divergence = found["merge"]["kl_dequantised"]
    return {
        "loss_against_float": losses,
        "bytes_against_float": size,
        "merge_kl": divergence,
        "holds": {
            "loss": losses["train"] <= BARS["loss"],
            "held-out loss": losses["held_out"] <= BARS["loss"],
            "bytes": size <= BARS["bytes"],
            "kl": divergence <= BARS["kl"],
        },
    }


def main() -> None:
    """Each way of holding the base, then the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--bits", type=int, nargs="+", default=[4])
    parser.add_argument("--steps", type=int, default=200)
    chosen = parser.parse_args()
    home = chosen.work or Path(tempfile.mkdtemp())
    runs: dict[str, Any] = {}
    for bits in (None, *chosen.bits):
        run = settings(home, chosen.data / "e2e_nlg", bits, chosen.steps)
        runs[str(bits or "float")] = taken(home, run)
        found = {n: judged(r, runs["float"]) for n, r in runs.items() if n != "float"}
        keep("qlora", {"steps": chosen.steps, "runs": runs, "against_float": found, "bars": BARS})
        print(json.dumps(found, indent=2), flush=True)


if __name__ == "__main__":
    main()
