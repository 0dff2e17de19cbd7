"""Bottleneck adapters in every block; ours."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.core.late import late
from tunesmith.train import peft_folder
from tunesmith.train.methods.base import Method

if TYPE_CHECKING:
    from tunesmith.model import bottleneck, roles
else:
    bottleneck = late("tunesmith.model.bottleneck")
    roles = late("tunesmith.model.roles")


class Adapter(Method):
    """Bottleneck adapters (arXiv 1902.00751): narrow layers that add to what each block gives back.

    Near full fine-tuning when wide enough, a few per cent of the parameters, swappable on one base.
    They stay layers of their own: they cannot be merged, and answering costs a little more.
    """

    kind: Literal["adapter"] = "adapter"
    size: Annotated[int, Field(gt=0)] = 64
    """Width of the narrow state."""
    after: Literal["both", "mlp"] = "both"
    """Where they stand: after attention and feed-forward, or after feed-forward only
    (arXiv 2005.00247), which costs half."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = "gelu"
    """The non-linearity in the narrow state; under `relu` a narrow one may begin dead."""

    leaves_adapter: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False

    @property
    def default_lr(self) -> float:
        return 1e-3

    def apply(self, model: Any, seed: int) -> Any:
        peft_folder.refuse_new_words(model, self.kind)
        kinds = ("attention", "mlp") if self.after == "both" else ("mlp",)
        names = roles.outlets(model, kinds)
        return bottleneck.insert(
            model, names, size=self.size, activation=self.activation, seed=seed
        )
