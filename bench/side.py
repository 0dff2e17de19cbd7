"""One fresh process of the benchmark: trains on W1 as one rival does, and prints what it took.

python bench/side.py ours|trl ROWS ROWS_A_STEP '{"option": value}'
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import rows
import torch

from tunesmith.model.bases import Base, ModelSpec, resolve
from tunesmith.model.load import load_model

RANK, ALPHA, RATE = 16, 32, 2e-4


def adapted(base: Base) -> Any:
    """The embedded model with LoRA on every linear layer, the same numbers for every rival."""
    from peft import LoraConfig, get_peft_model

    from tunesmith.model import layout

    model = load_model(base).requires_grad_(False)
    names = sorted({name.rpartition(".")[2] for name in layout.linears(model)})
    torch.manual_seed(0)
    settings = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=names, task_type="CAUSAL_LM")
    return get_peft_model(model, settings).train()


def ours(base: Base, encoded: list[Any], batch: int, options: dict[str, Any]) -> dict[str, Any]:
    """tunesmith's loop, as the train stage runs it."""
    from tunesmith.core.records import IGNORE, Example, Sequence
    from tunesmith.core.rows import Origin
    from tunesmith.model.policy import Policy
    from tunesmith.model.render import Tokenizer
    from tunesmith.train import optimiser
    from tunesmith.train.batches import Groups, steps_in
    from tunesmith.train.loop import Train, steps
    from tunesmith.train.objectives.base import PassThrough
    from tunesmith.train.objectives.sft import Sft

    examples = []
    for number, (ids, start) in enumerate(encoded):
        shifted = [*ids[1:], IGNORE]
        targets = [t if n >= start - 1 else IGNORE for n, t in enumerate(shifted)]
        sequence = Sequence(tuple(ids), tuple(targets))
        examples.append(Example((sequence,), str(number), Origin("w1", number)))
    spec = Train(lr=RATE, warmup=0.0, schedule="linear", batch=batch, **options)
    policy = Policy(adapted(base), Tokenizer.load(base.folder))
    optimizer = optimiser.adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    groups: Any = Groups(
        examples, rows=batch, tokens=spec.micro_batch, seed=0, device=policy.device
    )
    if os.environ.get("IN_ORDER"):
        groups = in_order(examples, batch, spec.micro_batch)
    total = steps_in(len(examples), batch)
    began, losses, norms, first = time.monotonic(), [], [], 0.0
    for step in steps(policy, Sft(), PassThrough(groups), spec, total=total, optimizer=optimizer):
        first = first or time.monotonic() - began
        losses.append(step.loss)
        norms.append(step.norm)
    return {"seconds": time.monotonic() - began, "first": first, "losses": losses, "norms": norms}


def in_order(examples: list[Any], batch: int, tokens: int) -> Any:
    """Steps in the rows' own order, for comparing curves step by step."""
    from tunesmith.train.batches import cut

    for start in range(0, len(examples), batch):
        yield cut(examples[start : start + batch], tokens, "cpu")


def trl(base: Base, encoded: list[Any], batch: int, options: dict[str, Any]) -> dict[str, Any]:
    """TRL's SFTTrainer in fp32 without checkpointing, as `options` tune it."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    records = [{"input_ids": ids, "labels": [-100] * start + ids[start:]} for ids, start in encoded]
    micro = options.pop("micro_batch", 2)
    if os.environ.get("IN_ORDER"):
        options["train_sampling_strategy"] = "sequential"
    settings = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=micro,
        use_cpu=True,
        gradient_accumulation_steps=batch // micro,
        learning_rate=RATE,
        bf16=False,
        lr_scheduler_type="linear",
        warmup_steps=0,
        weight_decay=0.0,
        max_length=None,
        num_train_epochs=1,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        gradient_checkpointing=False,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        **options,
    )
    trainer = SFTTrainer(
        model=adapted(base),
        args=settings,
        train_dataset=Dataset.from_list(records),
        processing_class=AutoTokenizer.from_pretrained(base.folder),
    )
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    losses = [entry["loss"] for entry in history]
    return {"seconds": seconds, "losses": losses, "norms": [e["grad_norm"] for e in history]}


def peak() -> float:
    """The most memory this process ever held, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6


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


def main() -> None:
    """Train once and print one JSON line."""
    side, count, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    from transformers import AutoTokenizer

    base = resolve(ModelSpec())
    encoded = rows.encoded(AutoTokenizer.from_pretrained(base.folder), count)
    gemm = ceiling()
    result = {"ours": ours, "trl": trl}[side](base, encoded, batch, options)
    tokens = sum(len(ids) for ids, _ in encoded)
    facts = {"side": side, "tokens": tokens, "tokens_per_second": tokens / result["seconds"]}
    print(json.dumps({**facts, "peak_gb": peak(), "gemm_gflops": gemm, **result}))


if __name__ == "__main__":
    main()
