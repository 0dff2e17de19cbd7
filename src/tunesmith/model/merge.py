"""A tuned model as a plain one: adapters folded into the weights they stand beside."""

from typing import Any

from tunesmith.core.errors import SettingsError
from tunesmith.model import layout
from tunesmith.model.trained import ADVICE


def merge(model: Any) -> Any:
    """A plain model in float32 that answers like `model`. Consumes `model`.

    What stands under peft is folded in; a model whose own weights were trained is plain already.
    SettingsError where no weights of the base can do what was trained.
    """
    from peft import PeftModel

    from tunesmith.model import bottleneck

    if layout.virtual(model):
        raise SettingsError(f"virtual tokens before every row are no weights of the base; {ADVICE}")
    if bottleneck.inside(model):
        raise SettingsError(
            f"a bottleneck adapter bends what it adds, which no weights of the base can; {ADVICE}"
        )
    model = model.float()
    return model.merge_and_unload(safe_merge=True) if isinstance(model, PeftModel) else model
