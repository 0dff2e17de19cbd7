"""LLaMA-Factory's turn in the benchmark, in its own environment: its whole run of `sft`.

    python bench/side_llamafactory.py FOLDER

FOLDER is what bench/side.py handed over. Rows come as the tokenised data set that LLaMA-Factory
keeps for a second run; the clock covers its trainer's `train`, as with TRL.
"""

import json
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# Imported by every run of it and used for sound only; no wheel of it goes with a CPU build.
sys.modules["torchaudio"] = ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)

import torch  # noqa: E402
from clock import now, peak, spent  # noqa: E402
from datasets import Dataset, DatasetDict  # noqa: E402
from llamafactory.train.tuner import run_exp  # noqa: E402
from transformers import TrainerCallback  # noqa: E402


class Watched(TrainerCallback):
    """The loss of the first rows before the clock starts, then the clock."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows, self.first = rows, 0.0
        self.found: dict[str, Any] = {}

    def on_init_end(self, *_: Any, model: Any, **__: Any) -> None:
        """The trainer is made; `train` is the next thing called."""
        self.found["probe"] = probed(model, self.rows)
        self.began = now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """After an optimiser step."""
        self.first = self.first or time.monotonic()

    def on_train_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        """Before anything is saved."""
        self.found |= {**spent(self.began), "first": self.first - self.began[0], "peak_gb": peak()}
        history = [entry for entry in state.log_history if "grad_norm" in entry]
        self.found["losses"] = [entry["loss"] for entry in history]
        self.found["norms"] = [entry["grad_norm"] for entry in history]


def probed(model: Any, rows: list[Any]) -> float:
    """The loss of a token in rows."""
    total = count = 0.0
    with torch.no_grad():
        for ids, labels in rows:
            losing = sum(label != -100 for label in labels[1:])
            loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
            total += loss.item() * losing
            count += losing
    return total / count


def main() -> None:
    """Train once and print one JSON line."""
    folder = Path(sys.argv[1])
    work = json.loads((folder / "work.json").read_text())
    rows = [{"input_ids": i, "attention_mask": [1] * len(i), "labels": t} for i, t in work["rows"]]
    DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(folder / "rows")
    options = work["options"]
    micro = options.pop("micro_batch")
    watched = Watched(work["rows"][: work["probed"]])
    settings = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": work["model"],
        "adapter_name_or_path": work["adapter"],
        "finetuning_type": "lora",
        "infer_dtype": "float32",
        "disable_gradient_checkpointing": True,
        "dataset": "rows",
        "tokenized_path": str(folder / "rows"),
        "template": "empty",
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": work["batch"] // micro,
        "num_train_epochs": 1,
        "use_cpu": True,
        "learning_rate": work["rate"],
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    run_exp(settings | options, callbacks=[watched])
    print(json.dumps(watched.found))


if __name__ == "__main__":
    main()
