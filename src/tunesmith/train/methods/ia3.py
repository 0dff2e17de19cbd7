"""Trained scales on keys, values and the feed-forward part, through peft."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tunesmith.core.late import late
from tunesmith.model import layout
from tunesmith.train import peft_folder
from tunesmith.train.methods.base import Method

if TYPE_CHECKING:
    from tunesmith.model import roles
else:
    roles = late("tunesmith.model.roles")  # needs torch to be defined


class Ia3(Method):
    """(IA)^3 (arXiv 2205.05638): one trained factor for each key, value and feed-forward number.

    A two-thousandth of the parameters, and merges without a trace. On a few hundred rows as good as
    LoRA (docs/methods.md), where there is more to learn behind it; wants a high learning rate.
    """

    kind: Literal["ia3"] = "ia3"

    leaves_adapter: ClassVar[bool] = True

    @property
    def default_lr(self) -> float:
        return 3e-2

    def apply(self, model: Any, seed: int) -> Any:
        from peft import IA3Config

        peft_folder.refuse_new_words(model, self.kind)
        everything = layout.linear_names(model)
        inward = roles.outlets(model, ("mlp",))
        outward = roles.key_and_value_layers(model)
        settings = IA3Config(
            target_modules=layout.endings([*outward, *inward], everything),
            feedforward_modules=layout.endings(inward, everything),
            fan_in_fan_out=layout.transposed(model),
            task_type=peft_folder.task(model),
        )
        return peft_folder.wrapped(model, settings, seed)
