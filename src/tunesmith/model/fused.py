"""Seam: a transformer block's parts by our own functions, found by structure, proven one by one.

Norms, gated feed-forward parts, and the way from a block's input to queries, keys and values are
recognised by what their modules hold, never by the model's name. One short pass then notes what
every such module was given and what it made of it; only those of which our function makes the same,
and which make it in training too, are switched, for the time of a forward pass. The reference path
is the module's own forward, which also serves whatever a call brings that we do not: a cache,
dropout, DoRA, numbers in few bits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.model import attention, forwards
from tunesmith.model.modes import evaluating

if TYPE_CHECKING:
    import torch

    from tunesmith.model import gated, lowrank, norms, rotary
else:
    torch = late("torch")
    # Autograd functions need torch to be defined.
    gated = late("tunesmith.model.gated")
    lowrank = late("tunesmith.model.lowrank")
    norms = late("tunesmith.model.norms")
    rotary = late("tunesmith.model.rotary")


@dataclass(frozen=True)
class Part:
    """A module, and the function that stands in for its forward."""

    module: Any
    forward: Callable[..., Any]


@dataclass
class Call:
    """What a module was given and what it made of it, and what it told its attention."""

    given: tuple[Any, ...]
    named: dict[str, Any]
    made: Any
    told: dict[str, Any] | None = None


CLOSE = {"float64": 1e-4, "float32": 1e-4, "bfloat16": 2e-2}
"""Largest difference of two right answers in a type, as a share of their length."""


def parts(model: Any, seen: Mapping[Any, Call]) -> list[Part]:
    """Every module of a packed causal model that a function of ours can stand in for, by what was
    `seen` of a short pass."""
    found = []
    with torch.no_grad(), evaluating(model), attention.switched(model):
        for module, call in seen.items():
            proven = (f for f in candidates(module, call.told or {}) if agrees(f, call))
            found += [Part(module, forward) for forward in proven if steady(module, call)][:1]
    return found


def candidates(module: Any, told: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    """The functions that may do what a module does, by what it holds."""
    if norms.epsilon(module) is not None:
        yield from (partial(norm, module, offset=offset) for offset in (0.0, 1.0))
    elif gated.layers(module) is not None:
        yield partial(feed_forward, module)
    elif all(hasattr(module, name) for name in ("q_proj", "k_proj", "v_proj", "o_proj")):
        yield partial(attend, module, told)


def agrees(forward: Callable[..., Any], call: Call) -> bool:
    """Whether a function makes of a call's input what the module made of it."""
    try:
        given = forward(*call.given, **call.named)
    except attention.BROKEN:
        return False
    if type(given) is not type(call.made):
        return False
    ours, theirs = (each[0] if isinstance(each, tuple) else each for each in (given, call.made))
    return ours.shape == theirs.shape and is_close(ours, theirs)


def is_close(ours: "torch.Tensor", theirs: "torch.Tensor") -> bool:
    """Whether two tensors may both be right answers."""
    bound = CLOSE[str(theirs.dtype).removeprefix("torch.")]
    return bool(torch.linalg.norm(ours - theirs) <= bound * torch.linalg.norm(theirs))


def steady(module: Any, call: Call) -> bool:
    """Whether a module makes the same in training: one that leaves numbers out by itself then is
    not ours to stand in for. Our functions are told of attention's own dropout, and see that of
    adapters."""
    modes = [(each, each.training) for each in module.modules()]
    adapted = (m for m in module.modules() if hasattr(m, "base_layer"))
    inside = {id(each) for layer in adapted for each in layer.modules()}
    drops = [
        m for m in module.modules() if isinstance(getattr(m, "attention_dropout", None), float)
    ]
    shares, place = [m.attention_dropout for m in drops], next(module.parameters()).device
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        try:
            for each, _ in modes:
                each.training = id(each) not in inside
            for each in drops:
                each.attention_dropout = 0.0
            return agrees(own(module), call)
        finally:
            for each, share in zip(drops, shares, strict=True):
                each.attention_dropout = share
            for each, training in modes:
                each.training = training


def watched(model: Any, beside: Sequence[Any] = ()) -> dict[Any, Call]:
    """What each module that a function of ours may stand in for, and each `beside` them, was given
    and made in one short pass of a packed causal model, which is left as it was. Nothing in a type
    in which it is not known what is close."""
    if str(next(model.parameters()).dtype).removeprefix("torch.") not in CLOSE:
        return {}
    modules = [m for m in model.modules() if any(True for _ in candidates(m, {})) or m in beside]
    calls: dict[Any, Call] = {}
    told: dict[Any, dict[str, Any]] = {}

    def note(module: Any, given: Any, named: Any, made: Any) -> None:
        calls[module] = Call(given, named, made, told.get(module))

    def listen(module: Any, *states: Any, **named: Any) -> Any:
        told[module] = {name: named[name] for name in SETTINGS if name in named}
        return attention.documents(module, *states, **named)

    hooks = [module.register_forward_hook(note, with_kwargs=True) for module in modules]
    try:
        with torch.no_grad(), evaluating(model), attention.listening(listen):
            attention.hidden(model, attention.probed(model, share=True))
    finally:
        for hook in hooks:
            hook.remove()
    return calls


SETTINGS = ("scaling", "sliding_window", "softcap")
"""What a module tells its attention, the same in every call."""


@contextmanager
def switched(found: Sequence[Part]) -> Iterator[None]:
    """Our functions for the time of one forward pass; anyone else sees the modules' own."""
    with forwards.standing_in({part.module: part.forward for part in found}):
        yield


def own(module: Any) -> Callable[..., Any]:
    """A module's forward as its class has it."""
    return partial(type(module).forward, module)


def norm(module: Any, x: "torch.Tensor", *, offset: float) -> "torch.Tensor":
    """An RMSNorm; `offset` is 1 where the weight is kept as its distance from that.

    In double precision the modules round to single inside, and so keep their own.
    """
    epsilon = norms.epsilon(module)
    if epsilon is None or not x.dtype == module.weight.dtype == torch.float32:
        return own(module)(x)  # type: ignore[no-any-return]
    return norms.normed(x, module.weight, epsilon=epsilon, offset=offset)


def feed_forward(module: Any, x: "torch.Tensor") -> "torch.Tensor":
    """A gated feed-forward part."""
    told = lowrank.read_all(gated.layers(module) or [], x)
    if told is None:
        return own(module)(x)  # type: ignore[no-any-return]
    return gated.feed_forward(x, told)


def attend(
    module: Any,
    settings: dict[str, Any],
    hidden_states: "torch.Tensor",
    position_embeddings: "tuple[torch.Tensor, torch.Tensor] | None" = None,
    attention_mask: Any = None,
    past_key_values: Any = None,
    plan: attention.Plan | None = None,
    only: "torch.Tensor | None" = None,
    **rest: Any,
) -> tuple["torch.Tensor", None]:
    """Self-attention with rotary positions, its three projections as one function; what it gives is
    of the tokens in `only`, where that is said."""
    told = lowrank.read_all([module.q_proj, module.k_proj, module.v_proj], hidden_states)
    if told is None or plan is None or position_embeddings is None or past_key_values is not None:
        named = {"position_embeddings": position_embeddings, "past_key_values": past_key_values}
        named |= {} if plan is None else {"plan": plan}
        output, _ = own(module)(hidden_states, attention_mask=attention_mask, **named, **rest)
        return output if only is None else output[:, only], None
    states = lowrank.together(hidden_states, told)
    query, key, value = by_head(module, states, position_embeddings)
    dropout = module.attention_dropout if module.training else 0.0
    named_too = settings | rest | {"dropout": dropout}
    output, _ = attention.documents(module, query, key, value, None, plan=plan, **named_too)
    output = output.reshape(*hidden_states.shape[:-1], -1)
    return module.o_proj(output if only is None else output[:, only]), None


def by_head(
    module: Any,
    states: "Sequence[torch.Tensor]",  # queries, keys and values: [row, token, heads x size] each
    position_embeddings: "tuple[torch.Tensor, torch.Tensor]",  # [row, token, size] each
) -> "tuple[torch.Tensor, ...]":
    """Queries, keys and values at their positions, [row, heads, token, size] each."""
    query, key, value = (each.unflatten(-1, (-1, module.head_dim)) for each in states)
    if hasattr(module, "q_norm"):
        query, key = module.q_norm(query), module.k_norm(key)
    cos, sin = (each.unsqueeze(-2) for each in position_embeddings)  # [row, token, 1, size]
    query, key = rotary.rotated(query, cos, sin), rotary.rotated(key, cos, sin)
    return tuple(each.transpose(1, 2) for each in (query, key, value))
