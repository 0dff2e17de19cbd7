"""One fresh process of the benchmark: trains on a workload as one side does; prints what it took.

    python bench/side.py WORKLOAD ours|trl|trainer|litgpt|llamafactory ROWS '{"option": value}'

All sides start from the same numbers. Before the clock starts, the loss of the first rows is taken
without gradients, by each side's own way through the model: they must agree.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from clock import now, peak, spent
from rivals import RIVALS, python_of
from workloads import IGNORED, WORKLOADS, Encoded, Workload

from tunesmith.environment import collect_rarely
from tunesmith.model.bases import Base, ModelSpec, resolve
from tunesmith.model.load import load_model

RANK, ALPHA = 16, 32
RATES = {"lora": 2e-4, "full": 2e-5, "head": 1e-2}
CLASSES = 10
PROBED = 8
"""Rows whose loss is compared before training."""

Found = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a side trains, and which model: the bundled one, or one of random numbers."""

    device: str = "cpu"
    dtype: str = "float32"
    shape: Found | None = None
    """Of a Llama of random numbers, what its configuration says."""


HERE = Place()


def loaded(base: Base, place: Place) -> Any:
    """The model, the same numbers for every side."""
    if place.shape is None:
        return load_model(base, dtype=place.dtype, device=place.device)
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device(place.device):
        model = LlamaForCausalLM(LlamaConfig(**place.shape))
    return model.to(getattr(torch, place.dtype))


def adapted(base: Base, method: str, place: Place = HERE) -> Any:
    """The model with what is trained on it, the same numbers for every side."""
    from tunesmith.model import layout

    model = loaded(base, place).requires_grad_(method == "full")
    if method != "lora":
        return model.train()
    from peft import LoraConfig, get_peft_model

    names = sorted({name.rpartition(".")[2] for name in layout.linears(model)})
    torch.manual_seed(0)
    settings = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=names, task_type="CAUSAL_LM")
    return get_peft_model(model, settings).train()


def policy_of(model: Any, base: Base, kind: Any) -> Any:
    """The model as our loop sees it, its layers multiplied in floats, bfloat16 or bytes."""
    from tunesmith.model import arithmetic
    from tunesmith.model.policy import Policy
    from tunesmith.model.tokenizer import Tokenizer

    policy = Policy(model, Tokenizer.load(base.folder))
    arithmetic.choose(policy, kind)
    return policy


def ours(base: Base, work: Workload, encoded: list[Encoded], options: Found) -> Found:
    """tunesmith's loop, as the train stage runs it."""
    from tunesmith.train import optimiser
    from tunesmith.train.batches import Groups, common_start, cut, steps_in
    from tunesmith.train.loop import Train, steps
    from tunesmith.train.objectives.base import PassThrough
    from tunesmith.train.objectives.sft import Sft

    order, place = options.pop("in_order", False), options.pop("place", HERE)
    base = replace(base, bits=options.pop("bits", base.bits))
    spec = Train(lr=RATES[work.method], warmup=0.0, schedule="linear", batch=work.batch, **options)
    examples = [example(number, *row) for number, row in enumerate(encoded)]
    policy = policy_of(adapted(base, work.method, place), base, spec.arithmetic)
    told: Found = {"tokens": spec.pass_tokens(policy.device.type, common_start(examples))}
    told |= {"device": policy.device, "laid": policy.laid}
    with torch.no_grad():
        parts = cut(examples[:PROBED], **told)
        total = sum(policy.nll(part).item() for part in parts)
    optimizer = optimiser.adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    groups: Any = Groups(examples, rows=spec.batch, seed=0, **told)
    if order:
        starts = range(0, len(examples), spec.batch)
        groups = (cut(examples[i : i + spec.batch], **told) for i in starts)
    stream, count = PassThrough(groups), steps_in(len(examples), spec.batch)
    began, losses, norms, first = now(), [], [], 0.0
    for step in steps(policy, Sft(), stream, spec, total=count, optimizer=optimizer):
        first = first or spent(began)["seconds"]
        losses.append(step.loss)
        norms.append(step.norm)
    took = {**spent(began), "first": first, "probe": total / supervised(encoded[:PROBED])}
    return {**took, "losses": losses, "norms": norms}


def example(number: int, ids: list[int], labels: list[int]) -> Any:
    """A row as the objective would make it."""
    from tunesmith.core.records import IGNORE, Example, Sequence
    from tunesmith.core.rows import Origin

    targets = tuple(IGNORE if label == IGNORED else label for label in [*labels[1:], IGNORED])
    sequence = Sequence(tuple(ids), targets)
    return Example((sequence,), str(number), Origin("bench", number))


def supervised(encoded: list[Encoded]) -> int:
    """How many tokens carry loss; the first of a row is never predicted."""
    return sum(label != IGNORED for _, labels in encoded for label in labels[1:])


def trl(base: Base, work: Workload, encoded: list[Encoded], options: Found) -> Found:
    """TRL's SFTTrainer, in fp32 on a processor, as `options` tune it."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    records = [{"input_ids": ids, "labels": labels} for ids, labels in encoded]
    micro, place = options.pop("micro_batch"), options.pop("place", HERE)
    place = replace(place, dtype=options.pop("dtype", place.dtype))
    if options.pop("in_order", False):
        options["train_sampling_strategy"] = "sequential"
    settings = SFTConfig(
        **common(work, micro, place),
        bf16=options.pop("bf16", place.dtype == "bfloat16"),
        max_length=None,
        num_train_epochs=1,
        gradient_checkpointing=options.pop("gradient_checkpointing", False),
        dataset_kwargs={"skip_prepare_dataset": True},
        **options,
    )
    model, clock = adapted(base, work.method, place), callback()
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(records),
        processing_class=AutoTokenizer.from_pretrained(base.folder),
        callbacks=[clock],
    )
    total = 0.0
    with torch.no_grad():
        for ids, labels in encoded[:PROBED]:
            row = {"input_ids": ids, "labels": labels}
            loss = model(**{k: torch.tensor([v], device=place.device) for k, v in row.items()}).loss
            total += loss.item() * supervised([(ids, labels)])
    began = now()
    trainer.train()
    took = spent(began)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        **took,
        "first": clock.first - began[0],
        "probe": total / supervised(encoded[:PROBED]),
        "losses": [entry["loss"] for entry in history],
        "norms": [entry["grad_norm"] for entry in history],
    }


def common(work: Workload, micro: int, place: Place = HERE) -> Found:
    """What the trainers of transformers and TRL are given alike."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": work.batch // micro,
        "use_cpu": place.device == "cpu",
        "learning_rate": RATES[work.method],
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }


def callback() -> Any:
    """Notes when the first step of a trainer was done."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        first = 0.0

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.first = self.first or time.monotonic()

    return Clock()


def head(base: Base, work: Workload, encoded: list[Encoded], options: Found) -> Found:
    """tunesmith's train stage with a frozen model and a head, from rows to a saved folder."""
    import transformers.modeling_utils  # noqa: F401  The rival has it before its clock starts too.
    from banking77 import folder_of, spec_of

    from tunesmith.core.log import Log
    from tunesmith.core.rows import Labelled, Origin
    from tunesmith.model.tokenizer import Tokenizer
    from tunesmith.train.stage import train

    os.environ["TUNESMITH_CACHE"] = tempfile.mkdtemp()  # nothing read by an earlier process
    tokenizer = Tokenizer.load(base.folder)
    rows = [
        Labelled((tokenizer.decode(ids),), (label(n),), origin=Origin("bench", n))
        for n, (ids, _) in enumerate(encoded)
    ]
    settings = {"lr": RATES["head"], "batch": work.batch, "epochs": work.epochs, **options}
    fixed = {"schedule": "linear", "warmup": 0.0}
    folder = folder_of({"train": rows, "valid": rows[:PROBED], "test": []})
    began = now()
    train(folder, spec_of("frozen", fixed | settings), base, seed=0, log=Log(folder, quiet=True))
    took = spent(began)
    curves = (folder.path / "train" / "curves.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in curves]
    looks = [line["held_out"]["loss"] for line in lines if "held_out" in line]
    losses = [line["loss"] for line in lines if "loss" in line]
    norms = [line["norm"] for line in lines if "norm" in line]
    return {**took, "probe": looks[0], "losses": losses, "norms": norms}


def label(number: int) -> str:
    """The label of a row."""
    return f"label {number % CLASSES}"


def trainer(base: Base, work: Workload, encoded: list[Encoded], options: Found) -> Found:
    """transformers' Trainer over a frozen model and a linear layer on the last token's state."""
    from transformers import Trainer, TrainingArguments

    from tunesmith.model import heads, layout

    began = now()
    body = load_model(base).requires_grad_(False)
    meaning = heads.Meaning(tuple(sorted({label(n) for n in range(CLASSES)})), "last", False)
    linear = heads.fresh(meaning, layout.width(body), seed=0).linear

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.linear = body.base_model, linear

        def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> Any:
            with torch.no_grad():
                found = self.body(input_ids=input_ids, attention_mask=attention_mask)
            last = attention_mask.sum(dim=1) - 1
            scores = self.linear(found.last_hidden_state[torch.arange(len(last)), last])
            return {"loss": torch.nn.functional.cross_entropy(scores, labels), "logits": scores}

    def together(rows: list[Any]) -> Found:
        width = max(len(row["input_ids"]) for row in rows)
        ids = [row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows]
        mask = [[int(i < len(row["input_ids"])) for i in range(width)] for row in rows]
        labels = [row["labels"] for row in rows]
        named = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return {name: torch.tensor(value) for name, value in named.items()}

    micro = options.pop("micro_batch")
    settings = TrainingArguments(**common(work, micro), num_train_epochs=work.epochs, **options)
    records = [{"input_ids": ids, "labels": n % CLASSES} for n, (ids, _) in enumerate(encoded)]
    model = Model()
    with torch.no_grad():
        probe = model(**together(records[:PROBED]))["loss"].item()
    made = Trainer(model=model, args=settings, train_dataset=records, data_collator=together)
    made.train()
    took = spent(began)
    history = [entry for entry in made.state.log_history if "loss" in entry]
    return {
        **took,
        "probe": probe,
        "losses": [entry["loss"] for entry in history],
        "norms": [entry["grad_norm"] for entry in history],
    }


def elsewhere(name: str) -> Callable[[Base, Workload, list[Encoded], Found], Found]:
    """The side of a rival with an environment of its own: what it needs goes there in a folder."""

    def trained(base: Base, work: Workload, encoded: list[Encoded], options: Found) -> Found:
        python = python_of(name)
        with tempfile.TemporaryDirectory() as folder:
            adapter = f"{folder}/adapter"
            adapted(base, work.method).save_pretrained(adapter)
            handed = {"model": str(base.folder), "adapter": adapter, "rank": RANK, "alpha": ALPHA}
            handed |= {"batch": work.batch, "rate": RATES[work.method], "probed": PROBED}
            handed |= {"rows": encoded, "options": options}
            Path(folder, "work.json").write_text(json.dumps(handed))
            script = Path(__file__).with_name(f"side_{name}.py")
            done = subprocess.run([python, script, folder], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"{RIVALS[name].title} failed; what it said is above.")
        found: Found = json.loads(done.stdout.strip().splitlines()[-1])
        return found

    return trained


def ceiling(seconds: float = 3.0) -> float:
    """GFLOP/s of fp32 products of the model's shapes, weighted by their share of the work."""
    shapes = [(800, 576, 576), (800, 576, 1536), (800, 1536, 576), (256, 576, 49152)]
    work = spent = 0.0
    for m, k, n in shapes:
        left, right, out = torch.randn(m, k), torch.randn(n, k), torch.empty(m, n)
        torch.mm(left, right.t(), out=out)
        began = time.monotonic()
        while time.monotonic() - began < seconds / len(shapes):
            torch.mm(left, right.t(), out=out)
            work += 2 * m * k * n
        spent += time.monotonic() - began
    return work / spent / 1e9


def floor(base: Base, work: Workload, share: float) -> float:
    """GFLOP a real token cannot do without, `share` of tokens carrying loss: forward, gradients of
    inputs, and of weights where they are trained. A head reads every text once."""
    from tunesmith.model import layout
    from tunesmith.model.load import outline

    model = outline(base)
    linears = layout.linears(model).values()
    body = sum(each.weight.numel() for each in linears)
    narrow = RANK * sum(sum(each.weight.shape) for each in linears)
    top = layout.head(model).weight.numel()
    counts = {
        "lora": 4 * body + 4 * top * share + 6 * narrow,
        "full": 6 * body + 6 * top * share,
        "head": 2 * body,
    }
    return counts[work.method] / 1e9


def main() -> None:
    """Train once and print one JSON line."""
    name, side, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    from transformers import AutoTokenizer

    work = WORKLOADS[name]
    work = replace(work, batch=options.pop("batch", work.batch))
    base = replace(resolve(ModelSpec()), bits=work.bits)
    encoded = work.make(AutoTokenizer.from_pretrained(base.folder), count)
    sides = {"ours": head if work.method == "head" else ours, "trl": trl, "trainer": trainer}
    sides |= {name: elsewhere(name) for name in RIVALS}
    tokens, losing = sum(len(ids) for ids, _ in encoded), supervised(encoded)
    gemm = ceiling()
    collect_rarely()  # Ours does at its ways in, and a rival gains by it too.
    result = sides[side](base, work, encoded, options)
    speed = tokens * work.epochs / result["seconds"]
    facts = {
        "tokens": tokens,
        "tokens_per_second": speed,
        "supervised_per_second": losing * work.epochs / result["seconds"],
        "gemm_gflops": gemm,
        "ceiling_share": speed * floor(base, work, losing / tokens) / gemm,
        "load": os.getloadavg()[0],
    }
    print(json.dumps({**facts, "peak_gb": peak(), **result}))


if __name__ == "__main__":
    main()
