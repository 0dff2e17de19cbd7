"""A tuned model as a plain one: adapters folded into the weights they stand beside."""

from typing import Any


def merge(model: Any) -> Any:
    """A plain model in float32 that answers like `model`. Consumes `model`.

    What stands under peft is folded in; a model whose own weights were trained is plain already.
    """
    from peft import PeftModel

    model = model.float()
    return model.merge_and_unload(safe_merge=True) if isinstance(model, PeftModel) else model
