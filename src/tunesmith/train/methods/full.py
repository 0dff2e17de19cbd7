"""Every weight moves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.disk import disk_errors
from tunesmith.model.load import quiet
from tunesmith.train.methods.base import Method
from tunesmith.train.weights import copy_into, saved

if TYPE_CHECKING:
    import torch


class Full(Method):
    """Full fine-tuning: the reference for quality, and the most expensive.

    It needs 16 bytes a parameter in fp32 (weights, gradients, two Adam moments), moves what the
    model knew the most, and leaves a whole model behind.
    """

    kind: Literal["full"] = "full"

    @property
    def default_lr(self) -> float:
        return 2e-5

    @property
    def needs_copy(self) -> bool:
        return True

    def apply(self, model: Any, seed: int) -> Any:
        return model.requires_grad_(True)

    @contextmanager
    def disabled(self, model: Any, frozen: Any | None) -> Iterator[Any]:
        if frozen is None:
            raise ValueError("full fine-tuning is undone by a frozen copy, and there is none")
        yield frozen

    def state(self, model: Any) -> dict[str, "torch.Tensor"]:
        return {name: weight.detach() for name, weight in model.named_parameters()}

    def restore(self, model: Any, state: Mapping[str, "torch.Tensor"]) -> None:
        copy_into(self.state(model), state)

    def save(self, model: Any, folder: Path) -> None:
        with disk_errors(folder, "save the trained model"), quiet():
            model.save_pretrained(folder)

    def load(self, model: Any, folder: Path) -> Any:
        copy_into(self.state(model), saved(folder))
        return model.requires_grad_(False)
