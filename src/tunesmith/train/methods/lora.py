"""Low-rank adapters beside the linear layers, through peft."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.core.disk import disk_errors
from tunesmith.core.errors import SettingsError
from tunesmith.core.late import late
from tunesmith.model import layout, vocabulary
from tunesmith.train.methods.base import Method
from tunesmith.train.weights import copy_into, saved

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

WEIGHTS = "adapter_model.safetensors"


class Lora(Method):
    """LoRA (arXiv 2106.09685): W + (alpha / rank) B A, with W frozen and 1-4 % of it trained.

    As good as full fine-tuning on small data when every linear layer is adapted, at ten times its
    learning rate; switched off, the base answers again to the bit; merges without a trace.
    """

    leaves_adapter: ClassVar[bool] = True
    passing: ClassVar[tuple[str, ...]] = ("dropout",)

    kind: Literal["lora"] = "lora"
    rank: Annotated[int, Field(gt=0)] = 16
    """Width of the adapters."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """Strength of the adapters; by default twice the rank."""
    targets: Literal["all", "attention", "mlp"] | list[str] = "all"
    """Linear layers to adapt: all in the blocks, one kind, or names (`[q_proj, v_proj]`)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapters' input set to zero in training; above 0 the fast path is not taken."""
    scaling: Literal["standard", "rslora"] = "standard"
    """`rslora` divides by the root of the rank (arXiv 2312.03732); better above rank 32."""
    dora: bool = False
    """Train magnitude and direction apart (DoRA, arXiv 2402.09353); about a quarter slower."""

    @property
    def default_lr(self) -> float:
        return 2e-4

    def apply(self, model: Any, seed: int) -> Any:
        from peft import LoraConfig, get_peft_model

        wanted = self._wanted(model)
        settings = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha if self.alpha is not None else 2 * self.rank,  # type: ignore[arg-type]
            target_modules=endings(wanted, layout.linear_names(model)),
            lora_dropout=self.dropout,
            use_rslora=self.scaling == "rslora",
            use_dora=self.dora,
            fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in wanted.values()),
            task_type="CAUSAL_LM" if layout.writes(model) else "FEATURE_EXTRACTION",
            trainable_token_indices=vocabulary.trained_alone(model),
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # peft 0.21 asks transformers 5.23 a question by its old name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            torch.manual_seed(seed)
            return get_peft_model(model, settings)

    def _wanted(self, model: Any) -> dict[str, Any]:
        linears = layout.linears(model)
        if self.targets == "all":
            return linears
        if isinstance(self.targets, str):
            chosen = {n: m for n, m in linears.items() if layout.target_kind(n) == self.targets}
        else:
            names = self.targets
            chosen = {
                n: m for n, m in linears.items() if n.rpartition(".")[2] in names or n in names
            }
        if not chosen:
            kinds = sorted({name.rpartition(".")[2] for name in linears})
            raise SettingsError(
                f"train.method.lora.targets: {self.targets} names no linear layer of this model; "
                f"it has: {', '.join(kinds)}"
            )
        return chosen

    @contextmanager
    def disabled(self, model: Any, frozen: Any | None) -> Iterator[Any]:
        with model.disable_adapter():
            yield model

    def state(self, model: Any) -> dict[str, "torch.Tensor"]:
        from peft import get_peft_model_state_dict

        return dict(get_peft_model_state_dict(model, save_embedding_layers=False))

    def restore(self, model: Any, state: Mapping[str, "torch.Tensor"]) -> None:
        copy_into(self.state(model), state)

    def save(self, model: Any, folder: Path) -> None:
        from safetensors.torch import save_file

        state = {k: v.contiguous() for k, v in self.state(model).items()}
        settings = model.peft_config["default"]
        with disk_errors(folder, "save the trained model"):
            save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
            settings.inference_mode = True
            settings.save_pretrained(folder)
            settings.inference_mode = False

    def load(self, model: Any, folder: Path) -> Any:
        adapted = self.apply(model, seed=0)
        copy_into(self.state(adapted), saved(folder))
        return adapted.requires_grad_(False).eval()


def endings(wanted: Iterable[str], everything: Iterable[str]) -> list[str]:
    """The shortest name endings that pick out exactly `wanted`: what other tools expect to read.

    GPT-2 calls a layer of its attention and one of its feed-forward both `c_proj`, so one word is
    not always enough.
    """
    wanted, everything = set(wanted), set(everything)
    for words in range(1, 6):
        found = {".".join(name.split(".")[-words:]) for name in wanted}
        picked = {n for n in everything if any(n == f or n.endswith("." + f) for f in found)}
        if picked == wanted:
            return sorted(found)
    return sorted(wanted)
