"""What a tuning method promises: which weights may move, and how to undo or keep the change.

Undoing, saving and loading are asked of the model, so most methods say `apply` and no more.
"""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.core.parts import Part
from tunesmith.train import tuned

if TYPE_CHECKING:
    import torch

    from tunesmith.model.tokenizer import Tokenizer


class Method(Part):
    """A way to change a model. It decides what may move and never sees rows or losses."""

    moves: ClassVar[bool] = True
    """Whether any weight of the model itself moves; without, only a head on top of it learns."""
    leaves_adapter: ClassVar[bool] = False
    """Whether `save` leaves something to put on the base; else a whole model, or nothing."""
    mergeable: ClassVar[bool] = True
    """Whether what it trains can be folded into the weights of the base."""
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

    def begin(self, model: Any, tokenizer: "Tokenizer") -> None:  # noqa: B027 (most start at once)
        """Settle where training starts, for a method that starts from words."""

    def pace(self, name: str) -> float:
        """The learning rate of a parameter as a multiple of the run's."""
        return 1.0

    @property
    def converts(self) -> bool:
        """Whether `save` writes something else than `state`, that no later run can go on from."""
        return False

    @property
    def needs_copy(self) -> bool:
        """Whether `disabled` needs a frozen copy of the base because weights change in place."""
        return False

    @property
    def needs_floats(self) -> bool:
        """Whether it writes to the base's own weights, which `model.bits` then cannot hold."""
        return self.needs_copy

    def disabled(self, model: Any, frozen: Any | None) -> AbstractContextManager[Any]:
        """A context whose value answers like the model before `apply`; `frozen` is its copy, if
        the method needs one to undo itself (see `needs_copy`)."""
        return tuned.undone(model, frozen)

    def state(self, model: Any) -> dict[str, "torch.Tensor"]:
        """The tensors that training changes, by stable name: what a checkpoint carries."""
        return tuned.state(model)

    def restore(self, model: Any, state: Mapping[str, "torch.Tensor"]) -> None:
        """Put tensors of `state` back; refuses missing, unexpected or misshapen ones."""
        tuned.restore(model, state)

    def save(self, model: Any, folder: Path) -> None:
        """Write the trained result as the field expects it: a PEFT folder or a model folder."""
        tuned.save(model, folder)

    def load(self, model: Any, folder: Path) -> Any:
        """The base `model` with the result of `save` in place, gradients off."""
        return tuned.load(model, folder)
