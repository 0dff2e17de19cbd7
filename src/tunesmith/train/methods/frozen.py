"""No weight of the model moves, only the head on top of it."""

from typing import Any, ClassVar, Literal

from tunesmith.train.methods.base import Method


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
