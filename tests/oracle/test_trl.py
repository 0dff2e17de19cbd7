"""The same rows, weights and settings give the same losses as TRL's SFTTrainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.rows import examples
from tunesmith.core.records import IGNORE
from tunesmith.model.policy import Policy
from tunesmith.train import optimiser
from tunesmith.train.batches import Groups, step_rows
from tunesmith.train.loop import Train, steps
from tunesmith.train.methods.full import Full
from tunesmith.train.mixture import whole
from tunesmith.train.objectives.sft import Sft
from tunesmith.train.streams import PassThrough

trl = pytest.importorskip("trl", reason="trl, the oracle, is not installed")

STEPS, ROWS, RATE = 100, 4, 1e-3
LENGTHS = [5 + (7 * i) % 23 for i in range(48)]


def ours(folder: Path, seams: str) -> list[float]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    spec = Train(method=Full(), lr=RATE, schedule="linear", warmup=0.0, clip=1.0)
    policy = Policy(Full().apply(model, 0).train(), None, fast=seams == "fast")
    optimizer = optimiser.adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    groups = Groups(examples(LENGTHS, 300), rows=ROWS, tokens=64, seed=0, device="cpu")
    taken = steps(policy, Sft(), PassThrough(groups), spec, total=STEPS, optimizer=optimizer)
    return [step.loss for step in taken]


def theirs(folder: Path, output: Path) -> list[float]:
    """TRL on token ids and labels of ours, in our order."""
    from datasets import Dataset

    rows = examples(LENGTHS, 300)
    order = [place for step in range(STEPS) for place in step_rows(whole(len(rows)), ROWS, 0, step)]
    records: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    for place in order:
        sequence = rows[place].sequences[0]
        records["input_ids"].append(list(sequence.ids))
        records["labels"].append([IGNORE, *sequence.targets[:-1]])

    class InOrder(trl.SFTTrainer):  # type: ignore[misc,name-defined]
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    settings = trl.SFTConfig(
        output_dir=str(output),
        max_steps=STEPS,
        per_device_train_batch_size=ROWS,
        learning_rate=RATE,
        lr_scheduler_type="linear",
        warmup_steps=0,
        weight_decay=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        max_length=None,
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
    )
    trainer = InOrder(
        model=AutoModelForCausalLM.from_pretrained(folder),
        args=settings,
        train_dataset=Dataset.from_dict(records),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    losses: list[float] = []
    step = trainer.training_step

    def keep(*args: Any, **named: Any) -> Any:
        loss = step(*args, **named)
        losses.append(float(loss))
        return loss

    trainer.training_step = keep
    trainer.train()
    return losses


@pytest.mark.filterwarnings("ignore")
def test_a_hundred_adamw_steps_have_trls_losses(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    wanted = theirs(tiny("llama"), tmp_path)
    assert len(wanted) == STEPS
    assert wanted[-1] < wanted[0]
    for seams, bound in (("reference", 2e-6), ("fast", 1e-5)):
        worst = max(abs(a - b) for a, b in zip(ours(tiny("llama"), seams), wanted, strict=True))
        print(f"largest difference of {STEPS} losses, {seams} seams: {worst:.2e}")
        assert worst <= bound
