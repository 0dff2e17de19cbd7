"""What a tuning method promises: which weights may move, and how to undo or keep the change."""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.core.parts import Part

if TYPE_CHECKING:
    import torch


class Method(Part):
    """A way to change a model. It decides what may move and never sees rows or losses."""

    moves: ClassVar[bool] = True
    """Whether any weight of the model itself moves; without, only a head on top of it learns."""
    leaves_adapter: ClassVar[bool] = False
    """Whether `save` leaves a PEFT folder to put on the base; else a whole model, or nothing."""
    passing: ClassVar[tuple[str, ...]] = ()
    """Settings that matter in training only: another run may go on from the weights without them.
    All others say what the saved weights mean."""

    @property
    @abstractmethod
    def default_lr(self) -> float:
        """The learning rate used when the run names none."""

    @abstractmethod
    def apply(self, model: Any, seed: int) -> Any:
        """The model with exactly this method's parameters trainable; new ones start from `seed`."""

    @abstractmethod
    def disabled(self, model: Any, frozen: Any | None) -> AbstractContextManager[Any]:
        """A context whose value answers like the model before `apply`; `frozen` is its copy, if
        the method needs one to undo itself (see `needs_copy`)."""

    @property
    def needs_copy(self) -> bool:
        """Whether `disabled` needs a frozen copy of the base because weights change in place."""
        return False

    @property
    def needs_floats(self) -> bool:
        """Whether it writes to the base's own weights, which `model.bits` then cannot hold."""
        return self.needs_copy

    @abstractmethod
    def state(self, model: Any) -> dict[str, "torch.Tensor"]:
        """The tensors that training changes, by stable name: what a checkpoint carries."""

    @abstractmethod
    def restore(self, model: Any, state: Mapping[str, "torch.Tensor"]) -> None:
        """Put tensors of `state` back; refuses missing, unexpected or misshapen ones."""

    @abstractmethod
    def save(self, model: Any, folder: Path) -> None:
        """Write the trained result as the field expects it: a PEFT folder or a model folder."""

    @abstractmethod
    def load(self, model: Any, folder: Path) -> Any:
        """The base `model` with the result of `save` in place, gradients off."""
