"""Seam: a block's parts for the time of answers: weights laid out anew, adapters folded in.

A step of generation multiplies every weight by a handful of rows, and at that the layout that
oneDNN would choose for itself is 1.5 to 2.7 times as quick as a plain matrix (docs/decisions/0019).
So every linear layer is copied into it once; layers that read the same input become one product;
W + scale * B A becomes one matrix, and no narrow product is paid for a token. Attention and
feed-forward parts are those that `fused` has proven. The copy follows the model: where a weight or
an adapter changed since, it is made anew; a change through `.data` is not seen, nor a fused
optimiser's unless it is told (`Policy.weights_moved`). The reference path is the modules' own
forward.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as functional

from tunesmith.model import attention, devices, fused, layout, lowrank
from tunesmith.model.fused import Part
from tunesmith.model.products import onednn

LARGEST = 2 << 30
"""Bytes of weights beyond which they are not copied."""

Layers = Callable[[], Sequence[Any]]
"""Asked of the parent every time, as an adapter may have come to stand around a layer."""


class Product:
    """The outputs of linear layers that share an input, side by side, by one product."""

    def __init__(self, layers: Layers) -> None:
        self.layers, self.read = layers, state(layers())
        told = [linear for linear, _ in self.read or ()]
        if not told or any(each.weight is None for each in told):
            raise LookupError("more than weights")
        self.sizes = [len(each.weight) for each in told if each.weight is not None]
        weights = [whole(each) for each in told]
        self.bias = joined_bias(told, self.sizes)
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach())

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        multiply = onednn()
        assert multiply is not None
        return multiply(x, self.weight, self.bias, "none", [], "")  # type: ignore[no-any-return]

    @property
    def current(self) -> bool:
        """Whether the layers still are what they were when this was made."""
        return same(state(self.layers()), self.read)


State = list[tuple[lowrank.Linear, tuple[int, ...]]]


def state(layers: Sequence[Any]) -> State | None:
    """What some layers compute now, with the places of their numbers and counters of changes."""
    nothing = torch.empty(0, dtype=torch.float32, device="cpu")
    found = []
    for layer in layers:
        told = lowrank.read(layer, nothing)
        if told is None or told.coarse is not None or not lowrank.fits(told, nothing):
            return None
        changes = tuple(n for part in tensors(told) for n in (part._version, part.data_ptr()))
        found.append((told, changes))
    return found


def tensors(linear: lowrank.Linear) -> list[torch.Tensor]:
    """The tensors of a layer that are there."""
    parts = (linear.weight, linear.bias, linear.first, linear.second)
    return [part for part in parts if part is not None]


def same(one: State | None, other: State | None) -> bool:
    """Whether two states are of the same tensors, unchanged in between."""
    if one is None or other is None or len(one) != len(other):
        return False
    for (left, before), (right, after) in zip(one, other, strict=True):
        ours, theirs = tensors(left), tensors(right)
        if before != after or left.scale != right.scale or len(ours) != len(theirs):
            return False
        if any(a is not b for a, b in zip(ours, theirs, strict=True)):
            return False
    return True


def whole(linear: lowrank.Linear) -> torch.Tensor:
    """A layer's weight with its adapter in it."""
    assert linear.weight is not None
    if linear.first is None or linear.second is None:
        return linear.weight
    return torch.addmm(linear.weight, linear.second, linear.first, alpha=linear.scale)


def joined_bias(told: Sequence[lowrank.Linear], sizes: Sequence[int]) -> torch.Tensor | None:
    """The layers' biases side by side; None where none has one."""
    if all(each.bias is None for each in told):
        return None
    parts = [
        torch.zeros(size, device="cpu") if each.bias is None else each.bias
        for each, size in zip(told, sizes, strict=True)
    ]
    return torch.cat(parts).detach()


class Parts:
    """What stands in for a model's modules while it answers."""

    def __init__(self, model: Any, over: Callable[..., Any]) -> None:
        """`over` attends to the past: transformers' attention interface."""
        self.over = over
        self.products: list[Product] = []
        self.found = list(self._made(model))

    @property
    def current(self) -> bool:
        """Whether the model still is what this was made from."""
        return all(each.current for each in self.products)

    def _made(self, model: Any) -> Iterator[Part]:
        """Whole parts where they can be, and every linear layer that is in none of them."""
        inside: set[int] = set()
        for part in known(layout.causal(model)):
            made = self._whole(part)
            if made is None:
                continue
            if made is not part:
                inside |= {id(each) for each in part.module.modules()}
            yield made
        for module in lone(model, inside):
            product = self._product(partial(list, (module,)))
            if product is not None:
                yield Part(module, product)

    def _whole(self, part: Part) -> Part | None:
        """A part that `fused` knows with products of ours; as it is where it has none."""
        kind, module = getattr(part.forward, "func", None), part.module
        if kind is fused.norm:
            return part
        if kind is fused.feed_forward:
            both = self._product(lambda: [module.gate_proj, module.up_proj])
            down = self._product(lambda: [module.down_proj])
            return Part(module, partial(feed_forward, both, down)) if both and down else None
        if kind is fused.attend:
            first = self._product(lambda: [module.q_proj, module.k_proj, module.v_proj])
            last = self._product(lambda: [module.o_proj])
            over = partial(self.over, module, **part.forward.args[1])  # type: ignore[attr-defined]
            if first and last:
                return Part(module, partial(attend, module, over, first, last))
        return None

    def _product(self, layers: Layers) -> Product | None:
        """The product of some layers; None where they compute more than that."""
        try:
            made = Product(layers)
        except LookupError:
            return None
        self.products.append(made)
        return made


def lone(model: Any, inside: set[int]) -> Iterator[Any]:
    """Linear layers, with their adapters where these can be folded in, that no part has taken."""
    wanted = {id(each) for each in layout.linears(model).values()} | {id(layout.head(model))}
    taken = set(inside)
    for module in layout.causal(model).modules():
        base = getattr(module, "base_layer", None)
        if id(module) in taken or (id(module) not in wanted and id(base) not in wanted):
            continue
        if base is not None and state([module]) is not None:
            taken |= {id(each) for each in module.modules()}
            yield module
        elif base is not None:
            # What else an adapter holds stays with it; its base alone is a product.
            taken |= {id(each) for each in module.modules() if each is not base}
        elif type(module) is torch.nn.Linear:
            yield module


def feed_forward(both: Product, down: Product, x: torch.Tensor) -> torch.Tensor:
    """A gated feed-forward part, down(silu(gate) * up)."""
    gate, up = both(x).split(both.sizes, dim=-1)
    return down(functional.silu(gate).mul_(up))


def attend(
    module: Any,
    over: Callable[..., Any],
    first: Product,
    last: Product,
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    attention_mask: Any = None,
    past_key_values: Any = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Self-attention with rotary positions over slots."""
    states = first(hidden_states).split(first.sizes, dim=-1)
    query, key, value = fused.by_head(module, states, position_embeddings)
    key, value = past_key_values.update(key, value, module.layer_idx)
    output, _ = over(query, key, value, attention_mask, **rest)
    return last(output.reshape(*hidden_states.shape[:-1], -1)), None


_KNOWN: WeakKeyDictionary[Any, tuple[list[Any], list[Part]]] = WeakKeyDictionary()


def known(plain: Any) -> list[Part]:
    """The parts of a plain model that `fused` can prove, asked once for the modules it has; none
    where it reads no packed rows."""
    modules = [(id(module), type(module)) for module in plain.modules()]
    if plain not in _KNOWN or _KNOWN[plain][0] != modules:
        try:
            _KNOWN[plain] = modules, fused.parts(plain, fused.watched(plain))
        except attention.BROKEN:
            _KNOWN[plain] = modules, []
    return _KNOWN[plain][1]


def possible(model: Any) -> bool:
    """Whether a copy of a model's weights can be had here, and is small enough to be made."""
    weights = [each.weight for each in layout.linears(model).values()]
    weights.append(layout.head(model).weight)
    single = all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)
    size = sum(w.numel() * w.element_size() for w in weights)
    if not single or size > min(LARGEST, devices.free_memory() // 2):
        return False
    return onednn() is not None and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
