"""What the linear layers of a block are for, found by watching the model read.

Which of them make keys and values is asked of the attention itself: every linear layer's output is
cut off from what made it, so the keys and values that attention receives depend on exactly the
layers that make them. Names of layers say nothing that holds for all models.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as functional
from torch.overrides import TorchFunctionMode

from tunesmith.core.errors import SettingsError
from tunesmith.model import layout
from tunesmith.model.modes import evaluating


def key_and_value_layers(model: Any) -> list[str]:
    """Full names of the linear layers that make keys and values; one that makes queries too, where
    the model has them in one."""
    named = layout.linears(model)
    with torch.enable_grad(), evaluating(model), _cut_off(named) as outputs, _Watch() as watch:
        layout.body(model)(input_ids=_ids(model))
        sums = [seen.sum() for seen in watch.seen if seen.requires_grad]
        if not sums:
            raise SettingsError(
                "train.method: which layers make this model's keys and values cannot be seen, as "
                "it does not use torch's attention. Use lora"
            )
        total = torch.stack([each.double() for each in sums]).sum()
        found = torch.autograd.grad(total, list(outputs.values()), allow_unused=True)
    return [n for n, gradient in zip(outputs, found, strict=True) if gradient is not None]


def outlets(model: Any, kinds: tuple[str, ...]) -> list[str]:
    """The linear layers that give a block's result back to the stream of states, by full name: the
    last of its attention, the last of its feed-forward part (`mlp`), whichever is in `kinds`."""
    linears, width = layout.linears(model), layout.width(model)
    found = []
    for block in layout.blocks(model):
        inside = {id(module) for module in block.modules()}
        own = {name: module for name, module in linears.items() if id(module) in inside}
        for kind in kinds:
            of_kind = [name for name in own if layout.target_kind(name) == kind]
            if not of_kind or layout.sides(own[of_kind[-1]])[1] != width:
                raise SettingsError(
                    f"train.method: the {kind} part of this model's blocks does not end in a "
                    f"linear layer of {width} outputs. Use lora"
                )
            found.append(of_kind[-1])
    return found


def _ids(model: Any) -> torch.Tensor:
    return torch.arange(4, device=next(model.parameters()).device).unsqueeze(0)


@contextmanager
def _cut_off(named: dict[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    """Every layer's output as the beginning of a graph of its own, in the order they come."""
    outputs: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Any:
        def cut(module: Any, given: Any, output: torch.Tensor) -> torch.Tensor:
            outputs[name] = output.detach().requires_grad_(True)
            return outputs[name].clone()  # what comes next may write into it

        return cut

    handles = [module.register_forward_hook(hook(name)) for name, module in named.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


class _Watch(TorchFunctionMode):
    """Keeps the keys and values that torch's attention is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            self.seen += [given["key"], given["value"]]
        return func(*args, **kwargs)
