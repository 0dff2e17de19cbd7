"""LitGPT's turn in the benchmark, in its own environment: its LoRA model, its loop, its loss.

    python bench/side_litgpt.py FOLDER

FOLDER is what bench/side.py handed over. Its own loop and not its whole command, because that has
a warm-up of one step at least and a cosine after it. It knows no grouping by length and no
clipping, and takes the mean of micro-batches' means, as its users get it.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from clock import now, peak, spent
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import get_sft_collate_fn
from litgpt.finetune.lora import fit
from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
from litgpt.utils import chunked_cross_entropy, instantiate_torch_optimizer, load_checkpoint
from safetensors.torch import load_file

NAME = "SmolLM2-135M-Instruct"
ALL = ("query", "key", "value", "projection", "mlp")
PLACES = {
    "self_attn.o_proj": "attn.proj",
    "mlp.gate_proj": "mlp.fc_1",
    "mlp.up_proj": "mlp.fc_2",
    "mlp.down_proj": "mlp.proj",
}
"""Where LitGPT keeps what peft names so; it has query, key and value in one."""


class Watched(lightning.Fabric):
    """Notes the losses that the loop logs, and of every step its end and the norm of gradients."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.ends: list[float] = []

    def log_dict(self, metrics: Any, step: int | None = None) -> None:
        """Called with losses by the loop, with counts by its monitor."""
        self.losses += [metrics["loss"]] if "loss" in metrics else []

    def watch(self, optimizer: Any, model: Any) -> None:
        """LitGPT takes no norm of its own: it does not clip."""

        def before(*_: Any) -> None:
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            self.norms.append(torch.nn.utils.get_total_norm(grads).item())

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(lambda *_: self.ends.append(time.monotonic()))


def converted(folder: Path, place: Path) -> Path:
    """The model in LitGPT's form. In a process of its own, whose memory is not the trainer's."""
    place.mkdir()
    for path in folder.iterdir():
        (place / path.name).symlink_to(path)
    command = [sys.executable, "-m", "litgpt", "convert_to_litgpt", str(place)]
    subprocess.run([*command, "--model_name", NAME], check=True, stdout=sys.stderr)
    return place


def loaded(fabric: Any, work: dict[str, Any], place: Path) -> Any:
    """Base and adapters, the same numbers as everyone's."""
    settings = {f"lora_{part}": True for part in ALL}
    settings |= {"lora_r": work["rank"], "lora_alpha": work["alpha"], "lora_dropout": 0.0}
    model = GPT(Config.from_file(place / "model_config.yaml", **settings))
    mark_only_lora_as_trainable(model)
    model = fabric.setup_module(model)
    load_checkpoint(fabric, model, place / "lit_model.pth", strict=False)
    given = load_file(Path(work["adapter"]) / "adapter_model.safetensors")
    named = dict(model.named_parameters())
    with torch.no_grad():
        for number in range(len(model.transformer.h)):
            at = f"base_model.model.model.layers.{number}"
            fused = [given[f"{at}.self_attn.{x}_proj.lora_A.weight"] for x in "qkv"]
            parts = {"attn.qkv": torch.cat(fused)}
            parts |= {new: given[f"{at}.{old}.lora_A.weight"] for old, new in PLACES.items()}
            for part, values in parts.items():
                own = next(n for n in named if n.endswith(f".h.{number}.{part}.lora_A"))
                named[own].copy_(values)
    return model


def sample(ids: list[int], labels: list[int]) -> dict[str, Any]:
    """A row as LitGPT's data sets give it."""
    counts = {"raw": len(ids), "raw_plus_prompt_template": len(ids)}
    tensors = {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}
    return {**tensors, "token_counts": counts}


def probed(model: Any, rows: list[dict[str, Any]]) -> float:
    """The loss of a token in rows, by the way that the loop takes through the model."""
    total = count = 0.0
    with torch.no_grad():
        for row in rows:
            targets = row["labels"][None, 1:]
            logits = model(row["input_ids"][None], lm_head_chunk_size=128)
            logits[-1] = logits[-1][..., :-1, :]
            losing = (targets != -100).sum().item()
            total += chunked_cross_entropy(logits, targets).item() * losing
            count += losing
    return total / count


def trained(fabric: Any, model: Any, work: dict[str, Any], place: Path) -> None:
    """Its loop, once over the rows."""
    rows, batch = [sample(*row) for row in work["rows"]], work["batch"]
    steps, micro = len(rows) // batch, work["options"]["micro_batch"]
    settings = {"lr": work["rate"], "weight_decay": 0.0, "betas": (0.9, 0.999)}
    adamw = {"class_path": "torch.optim.AdamW", "init_args": settings}
    optimizer = instantiate_torch_optimizer(adamw, model.parameters())
    fabric.watch(optimizer, model)
    given = {"batch_size": micro, "collate_fn": get_sft_collate_fn()}
    draw = torch.Generator().manual_seed(0)
    shuffled = torch.utils.data.DataLoader(rows, shuffle=True, generator=draw, **given)
    train, held_out = fabric.setup_dataloaders(shuffled, torch.utils.data.DataLoader([], **given))
    fit(
        fabric=fabric,
        model=model,
        optimizer=fabric.setup_optimizers(optimizer),
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps),
        train_dataloader=train,
        val_dataloader=held_out,
        devices=1,
        checkpoint_dir=place,
        out_dir=place,
        train=TrainArgs(
            save_interval=None,
            log_interval=batch // micro,
            global_batch_size=batch,
            micro_batch_size=micro,
            lr_warmup_steps=0,
            epochs=1,
            max_steps=steps,
        ),
        eval=EvalArgs(interval=steps + 1, max_iters=0),
        data=None,
    )


def main() -> None:
    """Train once and print one JSON line."""
    folder = Path(sys.argv[1])
    work = json.loads((folder / "work.json").read_text())
    if len(work["rows"]) % work["batch"]:
        raise SystemExit(f"LitGPT trains whole steps only; give rows for steps of {work['batch']}")
    place = converted(Path(work["model"]), folder / "model")
    fabric = Watched(accelerator="cpu", devices=1, precision="32-true")
    model = loaded(fabric, work, place)
    probe = probed(model, [sample(*row) for row in work["rows"][: work["probed"]]])
    began = now()
    trained(fabric, model, work, place)
    found = {**spent(began), "first": fabric.ends[0] - began[0], "probe": probe}
    print(json.dumps({**found, "peak_gb": peak(), "losses": fabric.losses, "norms": fabric.norms}))


if __name__ == "__main__":
    main()
