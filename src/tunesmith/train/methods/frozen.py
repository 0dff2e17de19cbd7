"""No weight of the model moves, only the head on top of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tunesmith.train.methods.base import Method
from tunesmith.train.weights import copy_into

if TYPE_CHECKING:
    import torch


class Frozen(Method):
    """Feature extraction: the model reads, a head on top learns.

    The states of every row are computed once, so that an epoch costs next to nothing: take many.
    One base serves any number of heads. Behind `full` and `lora` where the labels need what the
    model does not already tell apart.
    """

    kind: Literal["frozen"] = "frozen"

    moves: ClassVar[bool] = False

    @property
    def default_lr(self) -> float:
        return 1e-2

    def apply(self, model: Any, seed: int) -> Any:
        return model.requires_grad_(False)

    @contextmanager
    def disabled(self, model: Any, frozen: Any | None) -> Iterator[Any]:
        yield model

    def state(self, model: Any) -> dict[str, "torch.Tensor"]:
        return {}

    def restore(self, model: Any, state: Mapping[str, "torch.Tensor"]) -> None:
        copy_into({}, state)

    def save(self, model: Any, folder: Path) -> None:
        """Nothing: the model is its base, and the head is saved beside every result."""

    def load(self, model: Any, folder: Path) -> Any:
        return model.requires_grad_(False)
