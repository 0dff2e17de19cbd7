"""Steps computed in bfloat16 or in bytes against floats: held-out loss, the metric, gradients.

    python bench/eight.py [--data ../shared/data] [--work DIR] [--sets e2e ...] [--arms bytes ...]
                          [--seeds 0 1 2]

LoRA on the bundled model over restaurant data to text, bank questions under 77 labels, and medical
documents, every weight trained over the first (`e2e_full`), and a head alone over the second
(`banking77_head`); same rows, order, seed and settings in every arm. `floats` is the plain base,
`bfloat16` the same with `train.arithmetic: bfloat16`, `bytes` is `model.bits: 8` with
`train.arithmetic: bytes`, and `weights` the same without rounding what is multiplied. Metrics are
of seed 0; of other seeds only the held-out loss is kept; an arm is judged by the mean over the
seeds it shares with floats. Resumes in the folder given; writes bench/results/eight.json.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from e2e import row
from machine import processor
from medquad import documents
from whole import carried_out, keep, lines, write_rows

from tunesmith import pipeline
from tunesmith.core.records import Batch
from tunesmith.core.rows import Chat, Message, Origin
from tunesmith.job import Job
from tunesmith.model import arithmetic, render
from tunesmith.model.bases import Base, ModelSpec, resolve
from tunesmith.model.load import load_model
from tunesmith.model.policy import Policy
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.run import from_mapping
from tunesmith.train.batches import cut
from tunesmith.train.methods.lora import Lora

ARMS: dict[str, dict[str, Any]] = {
    "floats": {"bits": None, "arithmetic": "floats"},
    "bfloat16": {"bits": None, "arithmetic": "bfloat16"},
    "bytes": {"bits": 8, "arithmetic": "bytes"},
    "weights": {"bits": 8, "arithmetic": "floats"},
}
BAR = 0.005
"""How much more held-out loss than in floats is let pass."""
TRAIN = {"method": {"kind": "lora", "rank": 16}, "lr": 1e-3, "probes": 0, "save_every": 10**6}


def e2e(home: Path, data: Path) -> dict[str, Any]:
    """200 inputs with a text each."""
    found = {}
    for part, count in (("train", 200), ("valid", 64), ("test", 32)):
        kept = lines(data / "e2e_nlg" / f"{part}.jsonl")[:count]
        rows = [row(r["mr"], r.get("refs") or [r["ref"]]) for r in kept]
        found[part] = write_rows(home / f"e2e-{part}.jsonl", rows)
    spec = {"batch": 4, "epochs": 1, "evaluate_every": 50}
    return whole(found, spec, {"metrics": ["perplexity"]})


def bleu(home: Path, data: Path) -> dict[str, Any]:
    """400 inputs with a text each; asked are the fixed 100 inputs of test."""
    source, found = data / "e2e_nlg", {}
    fixed = set(json.loads((source / "test100_ids.json").read_text()))
    for part, count in (("train", 400), ("valid", 64), ("test", None)):
        kept = [r for r in lines(source / f"{part}.jsonl") if part != "test" or r["id"] in fixed]
        rows = [row(r["mr"], r.get("refs") or [r["ref"]]) for r in kept[:count]]
        found[part] = write_rows(home / f"bleu-{part}.jsonl", rows)
    spec = {"batch": 4, "epochs": 1, "evaluate_every": 100}
    metrics = [{"kind": "bleu", "lowercase": True}, "perplexity"]
    return whole(found, spec, {"metrics": metrics, "sampling": {"max_tokens": 80}})


def banking77(home: Path, data: Path) -> dict[str, Any]:
    """Ten questions of each label."""
    shots = json.loads((data / "banking77" / "fewshot_ids.json").read_text())["train_10"]
    rows, test = (lines(data / "banking77" / f"{part}.jsonl") for part in ("train", "test"))
    chosen = set(shots)
    beside = [each for each in rows if each["id"] not in chosen]
    parts = {
        "train": [each for each in rows if each["id"] in chosen],
        "valid": beside[:: len(beside) // 231],
        "test": test[::10],
    }
    found = {part: write_rows(home / f"banking77-{part}.jsonl", parts[part]) for part in parts}
    spec = {"batch": 16, "epochs": 3, "evaluate_every": 10**6, "objective": "classify"}
    return whole(found, spec, {})


def banking77_head(home: Path, data: Path) -> dict[str, Any]:
    """As `banking77`, a head on the frozen model."""
    found = banking77(home, data)
    found["train"] |= {"method": "frozen", "lr": 1e-2, "epochs": 30}
    return found


def medquad(home: Path, data: Path) -> dict[str, Any]:
    """12 steps of 1,024 tokens of documents."""
    found = {}
    for part, rows in documents(data / "medquad_medical").items():
        short = sorted(rows, key=lambda each: len(each.text))[:24]
        kept = [{"text": each.text} for each in (rows if part == "train" else short)]
        found[part] = write_rows(home / f"medquad-{part}.jsonl", kept)
    spec = {"objective": "lm", "steps": 12, "batch": 2, "length": 512, "evaluate_every": 12}
    return whole(found, spec, {})


def e2e_full(home: Path, data: Path) -> dict[str, Any]:
    """As `e2e`, every weight trained."""
    found = e2e(home, data)
    found["train"] |= {"method": "full", "lr": 5e-5}
    return found


SETS = {
    "e2e": e2e,
    "e2e_full": e2e_full,
    "e2e_bleu": bleu,
    "banking77": banking77,
    "banking77_head": banking77_head,
    "medquad": medquad,
}


def whole(files: dict[str, str], train: dict[str, Any], evaluate: dict[str, Any]) -> dict[str, Any]:
    """A run's settings but for its name and base."""
    where = {"source": files["train"], "valid": files["valid"], "test": files["test"]}
    data = {**where, "leaks": "drop", "transforms": []}
    return {"data": data, "train": TRAIN | train, "evaluate": evaluate}


def settings_of(name: str, settings: dict[str, Any], arm: str) -> dict[str, Any]:
    """A run's settings, computed as an arm says."""
    train = {**settings["train"], "arithmetic": ARMS[arm]["arithmetic"]}
    model = {"source": "smollm2-135m-instruct", "bits": ARMS[arm]["bits"]}
    return {**settings, "name": name, "model": model, "train": train}


def fits(method: Any, arm: str) -> bool:
    """Whether there is such an arm: weights in bits do not move, and no row is kept in bytes."""
    if method == "frozen":
        return ARMS[arm]["arithmetic"] != "bytes"
    return method != "full" or ARMS[arm]["bits"] is None


def looks_of(home: Path, run: str) -> list[float]:
    """The held-out losses of a training."""
    curves = lines(home / "runs" / run / "train" / "curves.jsonl")
    return [line["held_out"]["loss"] for line in curves if "held_out" in line]


def taken(home: Path, name: str, settings: dict[str, Any], arm: str) -> dict[str, Any]:
    """One arm of one set: losses, metrics and speed."""
    run = f"{name}-{arm}"
    found = carried_out(home, settings_of(run, settings, arm))
    looks = looks_of(home, run)
    curves = lines(home / "runs" / run / "train" / "curves.jsonl")
    losses = [line["loss"] for line in curves if "loss" in line]
    return {
        "cpu": processor(),
        "held_out": {"before": looks[0], "after": looks[-1]},
        "train": sum(losses[-10:]) / len(losses[-10:]),
        "metrics": found["report"]["arms"]["tuned"],
        "tokens_per_second": found["train"]["tokens"] / found["train"]["seconds"],
        "rows": found["report"]["rows"],
        "steps": found["train"]["steps"],
    }


def seeded(home: Path, name: str, settings: dict[str, Any], arm: str, seed: int) -> dict[str, Any]:
    """The held-out loss that one arm of one set ends with under another seed."""
    run = f"{name}-{arm}-{seed}"
    loaded = from_mapping({**settings_of(run, settings, arm), "seed": seed}, {})
    pipeline.carry_out(Job.of(loaded, home=home), "train")
    return {"cpu": processor(), "after": looks_of(home, run)[-1]}


def gradients(data: Path) -> dict[str, Any]:
    """Cosine of every trained tensor's gradient to that in floats, on the first eight inputs."""
    base = resolve(ModelSpec())
    found: dict[str, list[torch.Tensor]] = {}
    for arm, given in ARMS.items():
        model = load_model(replace(base, bits=given["bits"])).requires_grad_(False)
        policy = Policy(Lora(rank=16).apply(model, 0).train(), None)
        arithmetic.choose(policy, given["arithmetic"])
        torch.manual_seed(0)
        for name, weight in policy.named():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
        for part in micro_batches(base, data):
            policy.nll(part).backward()
        found[arm] = [weight.grad for weight in policy.trainable() if weight.grad is not None]
    return {arm: likeness(found["floats"], found[arm]) for arm in ARMS if arm != "floats"}


def micro_batches(base: Base, data: Path) -> list[Batch]:
    """The first eight inputs of e2e with a text each."""
    tokenizer, examples = Tokenizer.load(base.folder), []
    for number, each in enumerate(lines(data / "e2e_nlg" / "train.jsonl")[:8], 1):
        found = row(each["mr"], [each["ref"]])
        turns = [*found["prompt"], {"role": "assistant", "content": found["completion"]}]
        messages = tuple(Message(**turn) for turn in turns)
        chat = Chat(messages, origin=Origin("train.jsonl", number))
        examples.append(render.encode(chat, tokenizer))
    return list(cut(examples, 512, torch.device("cpu")))


def likeness(wanted: list[torch.Tensor], found: list[torch.Tensor]) -> dict[str, float]:
    """The least, the tenth part's and the middle cosine, and that of all numbers together."""
    cosine = torch.nn.functional.cosine_similarity
    flat = [[t.flatten().double() for t in side] for side in (wanted, found)]
    each = sorted(cosine(a, b, dim=0).item() for a, b in zip(*flat, strict=True))
    together = [torch.cat(side) for side in flat]
    named = {"least": 0, "tenth": len(each) // 10, "middle": len(each) // 2}
    return {n: each[i] for n, i in named.items()} | {"whole": cosine(*together, dim=0).item()}


def judged(found: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """One arm of a set against floats, by the mean over the seeds of both."""
    ours, floats = losses_of(found), losses_of(plain)
    both = sorted(ours.keys() & floats.keys())
    ratio = sum(ours[seed] for seed in both) / sum(floats[seed] for seed in both) - 1
    return {"held_out_more": ratio, "holds": ratio <= BAR, "seeds": len(both)}


def losses_of(arm: dict[str, Any]) -> dict[str, float]:
    """The last held-out loss by seed."""
    others = {seed: each["after"] for seed, each in arm.get("other_seeds", {}).items()}
    return {"0": arm["held_out"]["after"], **others}


def main() -> None:
    """Every arm of every set asked for, beside those of earlier calls; then the gradients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    chosen = parser.parse_args()
    home = chosen.work or Path(tempfile.mkdtemp())
    home.mkdir(parents=True, exist_ok=True)
    path = Path(__file__).parent / "results" / "eight.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    sets, cosines = before.get("sets", {}), before.get("gradients", {})
    if len(cosines) < len(ARMS) - 1:
        cosines = gradients(chosen.data)
    for name in chosen.sets:
        arms = sets.setdefault(name, {})
        settings = SETS[name](home, chosen.data)
        for arm in (arm for arm in chosen.arms if fits(settings["train"]["method"], arm)):
            arms[arm] = arms.get(arm) or taken(home, name, settings, arm)
            others = arms[arm].setdefault("other_seeds", {})
            for seed in (seed for seed in chosen.seeds if seed and str(seed) not in others):
                others[str(seed)] = seeded(home, name, settings, arm, seed)
            for other in (other for other in arms if other != "floats" and "floats" in arms):
                arms[other] |= judged(arms[other], arms["floats"])
            print(name, arm, json.dumps(arms[arm]), flush=True)
            keep("eight", {"bar": BAR, "gradients": cosines, "sets": sets})


if __name__ == "__main__":
    main()
