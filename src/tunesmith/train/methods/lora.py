"""Low-rank adapters beside the linear layers, through peft."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tunesmith.core.errors import SettingsError
from tunesmith.model import layout, vocabulary
from tunesmith.train import peft_folder, pissa
from tunesmith.train.methods.base import Method

if TYPE_CHECKING:
    import torch


class Lora(Method):
    """LoRA (arXiv 2106.09685): W + (alpha / rank) B A, with W frozen and 1-4 % of it trained.

    As good as full fine-tuning on small data when every linear layer is adapted, at ten times its
    learning rate; switched off, the base answers again to the bit; merges without a trace.
    """

    leaves_adapter: ClassVar[bool] = True
    passing: ClassVar[tuple[str, ...]] = ("dropout", "ratio")

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
    """Train magnitude and direction apart (DoRA, arXiv 2402.09353); about a third slower."""
    init: Literal["standard", "pissa"] = "standard"
    """`pissa` starts from the largest singular values of the weights (arXiv 2404.02948): quicker at
    first, and saved as ordinary LoRA of twice the rank."""
    ratio: Annotated[float, Field(gt=0)] = 1.0
    """Learning rate of B as a multiple of A's (LoRA+, arXiv 2402.12354: 4 to 16)."""

    @model_validator(mode="after")
    def _one_way_to_start(self) -> "Lora":
        if self.init == "pissa" and self.dora:
            raise ValueError(
                "init: pissa takes part of the weights into the adapter and dora splits them "
                "otherwise; choose one"
            )
        return self

    @property
    def default_lr(self) -> float:
        return 5e-4

    def apply(self, model: Any, seed: int) -> Any:
        from peft import LoraConfig

        wanted = self._wanted(model)
        settings = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha if self.alpha is not None else 2 * self.rank,  # type: ignore[arg-type]
            target_modules=layout.endings(wanted, layout.linear_names(model)),
            lora_dropout=self.dropout,
            use_rslora=self.scaling == "rslora",
            use_dora=self.dora,
            fan_in_fan_out=layout.transposed(model),
            init_lora_weights=pissa.INIT if self.init == "pissa" else True,  # type: ignore[arg-type]
            task_type=peft_folder.task(model),
            trainable_token_indices=vocabulary.trained_alone(model),
        )
        tuned = peft_folder.wrapped(model, settings, seed)
        return pissa.remembered(tuned) if self.init == "pissa" else tuned

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

    @property
    def needs_floats(self) -> bool:
        return self.init == "pissa"

    @property
    def converts(self) -> bool:
        return self.init == "pissa"

    def pace(self, name: str) -> float:
        return self.ratio if ".lora_B." in name else 1.0

    def disabled(self, model: Any, frozen: Any | None) -> AbstractContextManager[Any]:
        return pissa.undone(model) if self.init == "pissa" else super().disabled(model, frozen)

    def state(self, model: Any) -> dict[str, "torch.Tensor"]:
        return pissa.state(model) if self.init == "pissa" else super().state(model)

    def restore(self, model: Any, state: Mapping[str, "torch.Tensor"]) -> None:
        if self.init == "pissa":
            pissa.restore(model, state)
        else:
            super().restore(model, state)

    def save(self, model: Any, folder: Path) -> None:
        if self.init == "pissa":
            peft_folder.save(*pissa.as_lora(model), folder)
        else:
            super().save(model, folder)
