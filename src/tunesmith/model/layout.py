"""What a transformers model is made of, read from its modules and never from names of models."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import SettingsError
from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = late("torch")
    nn = late("torch.nn")


def causal(model: Any) -> Any:
    """The plain causal language model inside any wrapper peft has put around it."""
    unwrap = getattr(model, "get_base_model", None)
    return unwrap() if unwrap is not None else model


def body(model: Any) -> Any:
    """The part that turns ids into hidden states."""
    return causal(model).base_model


def head(model: Any) -> Any:
    """The linear layer that turns hidden states into logits."""
    return causal(model).get_output_embeddings()


def width(model: Any) -> int:
    """The size of a hidden state."""
    return int(head(model).weight.shape[1])


def context(model: Any) -> int | None:
    """The longest sequence the model was made for, when its configuration says."""
    return getattr(causal(model).config, "max_position_embeddings", None)


def blocks(model: Any) -> "nn.ModuleList":
    """The stack of equal transformer blocks: the longest list of modules in the body."""
    lists = [m for m in body(model).modules() if isinstance(m, torch.nn.ModuleList) and len(m)]
    if not lists:
        raise SettingsError("model: no stack of blocks was found; is it a transformer?")
    return max(lists, key=len)


def is_linear(module: Any) -> bool:
    """Whether a module multiplies its input by one weight matrix."""
    weight = getattr(module, "weight", None)
    if weight is None or isinstance(module, torch.nn.Embedding):
        return False
    return weight.dim() == 2 and not list(module.children())


def linears(model: Any) -> dict[str, Any]:
    """The linear layers inside the blocks by full name, as GPT-2's `Conv1D` or as `nn.Linear`."""
    inside = {id(m) for block in blocks(model) for m in block.modules()}
    named = causal(model).named_modules()
    return {name: m for name, m in named if id(m) in inside and is_linear(m)}


def target_kind(name: str) -> str:
    """`attention` or `mlp`, by the module a layer sits in; fused layers count where they are."""
    parents = name.lower().split(".")[:-1]
    return "attention" if any("attn" in p or "attention" in p for p in parents) else "mlp"


def tied(model: Any) -> bool:
    """Whether the head and the input embedding are one tensor."""
    plain = causal(model)
    embedding = plain.get_input_embeddings()
    return head(model).weight is embedding.weight


def trainable(parameters: Iterable[Any]) -> list[Any]:
    """Those that take gradients."""
    return [p for p in parameters if p.requires_grad]
