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
    """Notes the losses that the loop logs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.losses: list[float] = []

    def log_dict(self, metrics: Any, step: int | None = None) -> None:
        """Called with losses by the loop, with counts by its monitor."""
        self.losses += [metrics["loss"]] if "loss" in metrics else []


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


def main() -> None:
    """Train once and print one JSON line."""
    folder = Path(sys.argv[1])
    work = json.loads((folder / "work.json").read_text())
    place = converted(Path(work["model"]), folder / "model")
    micro = work["options"]["micro_batch"]
    fabric = Watched(accelerator="cpu", devices=1, precision="32-true")
    rows = [sample(*row) for row in work["rows"]]
    model = loaded(fabric, work, place)
    probe = probed(model, rows[: work["probed"]])
    settings = {"lr": work["rate"], "weight_decay": 0.0, "betas": (0.9, 0.999)}
    adamw = {"class_path": "torch.optim.AdamW", "init_args": settings}
    inner = instantiate_torch_optimizer(adamw, model.parameters())
    first, norms = [], []

    def before(*_: Any) -> None:
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        norms.append(torch.nn.utils.get_total_norm(grads).item())

    inner.register_step_pre_hook(before)
    inner.register_step_post_hook(lambda *_: first.append(time.monotonic()))
    optimizer = fabric.setup_optimizers(inner)
    steps = -(-len(rows) // work["batch"])
    linear = torch.optim.lr_scheduler.LambdaLR(inner, lambda step: 1 - step / steps)
    draw = torch.Generator().manual_seed(0)
    collate = get_sft_collate_fn()
    loader = torch.utils.data.DataLoader(
        rows, batch_size=micro, shuffle=True, generator=draw, collate_fn=collate
    )
    nothing = torch.utils.data.DataLoader([], batch_size=micro, collate_fn=collate)
    train, held_out = fabric.setup_dataloaders(loader, nothing)
    logged = work["batch"] // micro
    began = now()
    fit(
        fabric=fabric,
        model=model,
        optimizer=optimizer,
        scheduler=linear,
        train_dataloader=train,
        val_dataloader=held_out,
        devices=1,
        checkpoint_dir=place,
        out_dir=place,
        train=TrainArgs(
            save_interval=None,
            log_interval=logged,
            global_batch_size=work["batch"],
            micro_batch_size=micro,
            lr_warmup_steps=0,
            epochs=2,  # The last of an epoch's steps would else be answered by an example.
            max_steps=steps,
        ),
        eval=EvalArgs(interval=steps + 1, max_new_tokens=1, max_iters=1),
        data=None,
    )
    took = spent(began)
    found = {**took, "first": first[0] - began[0], "probe": probe, "peak_gb": peak()}
    print(json.dumps({**found, "losses": fabric.losses, "norms": norms}))


if __name__ == "__main__":
    main()
