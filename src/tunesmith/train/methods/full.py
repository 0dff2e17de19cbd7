"""Every weight moves, or those of the last blocks."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.core.errors import SettingsError
from tunesmith.model import layout
from tunesmith.train import peft_folder
from tunesmith.train.methods.base import Method


class Full(Method):
    """Full fine-tuning: the reference for quality, and the most expensive.

    It needs 16 bytes a parameter in fp32 (weights, gradients, two Adam moments), moves what the
    model knew the most, and leaves a whole model behind. With `blocks` only the last ones move and
    the norm after them; what stands below needs no gradients, so a step costs less.
    """

    kind: Literal["full"] = "full"
    blocks: Annotated[int, Field(gt=0)] | None = None
    """Train the last so many blocks; by default every weight."""

    @property
    def default_lr(self) -> float:
        return 5e-5

    @property
    def needs_copy(self) -> bool:
        return True

    def apply(self, model: Any, seed: int) -> Any:
        narrow = {str(p.dtype) for p in model.parameters() if p.dtype.itemsize < 4}
        if narrow:
            raise SettingsError(
                f"model.dtype: the weights are held in {min(narrow).removeprefix('torch.')}, in "
                "which small updates would be lost, and full moves them themselves. Set "
                "model.dtype=float32, or train.method=lora, whose own weights are float32"
            )
        if self.blocks is None:
            return model.requires_grad_(True)
        peft_folder.refuse_new_words(model, f"full with blocks: {self.blocks}")
        stack = layout.blocks(model)
        if self.blocks > len(stack):
            raise SettingsError(
                f"train.method.full.blocks: {self.blocks} is more than the {len(stack)} blocks of "
                "this model; take fewer, or leave it out to train every weight"
            )
        model.requires_grad_(False)
        for module in (*stack[-self.blocks :], *layout.after_blocks(model)):
            module.requires_grad_(True)
        return model
