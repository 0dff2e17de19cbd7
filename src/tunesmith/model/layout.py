"""What a transformers model is made of, read from its modules and never from names of models."""

from collections.abc import Iterable, Iterator, Mapping
from inspect import signature
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
    """The plain model, a language model or an encoder, inside any wrapper peft put around it."""
    unwrap = getattr(model, "get_base_model", None)
    return unwrap() if unwrap is not None else model


def body(model: Any) -> Any:
    """The part that turns ids into hidden states."""
    return causal(model).base_model


def head(model: Any) -> Any:
    """The linear layer that turns hidden states into logits; None in an encoder."""
    return causal(model).get_output_embeddings()


def writes(model: Any) -> bool:
    """Whether the model predicts tokens; an encoder ends in hidden states."""
    return head(model) is not None


def width(model: Any) -> int:
    """The size of a hidden state."""
    if writes(model):
        return int(head(model).weight.shape[1])
    return int(causal(model).config.hidden_size)


def vocabulary(model: Any) -> int:
    """How many different tokens the model can read."""
    return int(causal(model).get_input_embeddings().weight.shape[0])


def virtual(model: Any) -> int:
    """Tokens that a trained prefix or prompt takes up before every row."""
    settings = getattr(model, "peft_config", None)
    return sum(getattr(each, "num_virtual_tokens", 0) or 0 for each in (settings or {}).values())


def context(model: Any) -> int | None:
    """The longest row the model was made for, when its configuration says.

    RoBERTa counts positions from behind its padding id, so that many of its table are never used.
    """
    length: int | None = getattr(causal(model).config, "max_position_embeddings", None)
    if length is None:
        return None
    lookups = (m for m in body(model).modules() if isinstance(m, torch.nn.Embedding))
    padding = [m.padding_idx for m in lookups if m.num_embeddings == length]
    unused = max((place + 1 for place in padding if place is not None), default=0)
    return length - unused - virtual(model)


def segmented(model: Any) -> bool:
    """Whether the model is told which of two texts a token belongs to."""
    return "token_type_ids" in signature(body(model).forward).parameters


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


def sides(linear: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear layer; its weight may be packed in few bits, or stand the
    other way round as in GPT-2's `Conv1D`."""
    if hasattr(linear, "in_features"):
        return linear.in_features, linear.out_features
    inputs, outputs = linear.weight.shape
    return inputs, outputs


def linears(model: Any) -> dict[str, Any]:
    """The linear layers inside the blocks by full name, as GPT-2's `Conv1D` or as `nn.Linear`."""
    inside = {id(m) for block in blocks(model) for m in block.modules()}
    named = causal(model).named_modules()
    return {name: m for name, m in named if id(m) in inside and is_linear(m)}


def linear_names(model: Any) -> list[str]:
    """Every linear layer by full name, those outside the blocks too."""
    return [name for name, module in causal(model).named_modules() if is_linear(module)]


def endings(wanted: Iterable[str], everything: Iterable[str]) -> list[str]:
    """The shortest name endings that pick out exactly `wanted`: what other tools expect to read.

    GPT-2 calls a layer of its attention and one of its feed-forward both `c_proj`, so one word is
    not always enough.
    """
    wanted, everything = set(wanted), set(everything)
    for words in range(1, 6):
        found = {".".join(name.split(".")[-words:]) for name in wanted}
        picked = {n for n in everything if any(n == f or n.endswith("." + f) for f in found)}
        if picked == wanted:
            return sorted(found)
    return sorted(wanted)


def transposed(model: Any) -> bool:
    """Whether the blocks' weights stand the other way round, as in GPT-2's `Conv1D`."""
    return any(type(m).__name__ == "Conv1D" for m in linears(model).values())


def after_blocks(model: Any) -> list[Any]:
    """What the body does with the states of its last block: the modules that stand behind the
    stack, on any level above it."""
    stack, found = blocks(model), []
    for module in body(model).modules():
        children = list(module.children())
        places = [
            at for at, child in enumerate(children) if any(m is stack for m in child.modules())
        ]
        found += children[places[0] + 1 :] if places else []
    return found


def idle(model: Any, named: Mapping[str, "torch.nn.Parameter"]) -> list[str]:
    """Those of some parameters that no hidden state depends on, found by following a gradient.

    A pooler, or a language model's own head: what is not used may be missing, and cannot learn.
    """
    before = [weight.requires_grad for weight in named.values()]
    device = next(causal(model).parameters()).device
    ids = torch.arange(4, device=device).unsqueeze(0)
    try:
        for weight in named.values():
            weight.requires_grad_(True)
        with torch.enable_grad():
            total = body(model)(input_ids=ids).last_hidden_state.float().square().sum()
            found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    finally:
        for weight, wanted in zip(named.values(), before, strict=True):
            weight.requires_grad_(wanted)
    return [name for name, gradient in zip(named, found, strict=True) if gradient is None]


def target_kind(name: str) -> str:
    """`attention` or `mlp`, by the module a layer sits in; fused layers count where they are."""
    parents = name.lower().split(".")[:-1]
    return "attention" if any("attn" in p or "attention" in p for p in parents) else "mlp"


def tied(model: Any) -> bool:
    """Whether the head and the input embedding are one tensor."""
    plain = causal(model)
    embedding = plain.get_input_embeddings()
    return writes(model) and head(model).weight is embedding.weight


def sizes(parameters: Iterable[Any]) -> tuple[int, int]:
    """How many numbers training moves, and how many there are, those it adds among them."""
    found = list(parameters)
    return sum(p.numel() for p in trainable(found)), sum(map(numbers, found))


def numbers(parameter: Any) -> int:
    """How many numbers a parameter stands for: 4-bit ones lie two in a byte."""
    packed = getattr(parameter, "quant_state", None)
    return int((parameter if packed is None else packed).shape.numel())


def trainable(parameters: Iterable[Any]) -> list[Any]:
    """Those that take gradients."""
    return [p for p in parameters if p.requires_grad]


def drops(model: Any) -> bool:
    """Whether the model leaves numbers out at random now, so that no two rows read alike: by a
    module, or by a function, which only its settings tell of."""
    dropouts = (m for m in model.modules() if isinstance(m, torch.nn.Dropout))
    inside = any(m.training and m.p > 0 for m in dropouts)
    return inside or (model.training and any(shares(causal(model).config)))


def shares(config: Any) -> Iterator[float]:
    """The shares of numbers that a model's settings have left out in training: `attention_dropout`,
    `resid_pdrop`, `layerdrop` and kin."""
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float):
            yield value
