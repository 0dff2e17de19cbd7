"""Seam: several documents in one row without padding, each blind to the others.

`pack` lays the real tokens of a batch end to end; the linear layers then see no padding at all.
What all documents begin with (a system prompt, say) may be laid once, before them all: every
document goes on from it, and its gradient is the sum of theirs. A trained prefix or prompt stands
before that as keys and values (`lead`).
Attention runs document by document through torch's causal kernel, which skips what lies above the
diagonal; a mask would make it compute everything and copy keys and values for every head. A GPU
waits for every launch instead: there all documents go through one padded call (`together`).
The reference path is the model's own attention on the padded batch.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.core.records import IGNORE, Batch
from tunesmith.model import coarse
from tunesmith.model.lead import Lead
from tunesmith.model.modes import evaluating

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional

    from tunesmith.model import coarse_attention
else:
    torch = late("torch")
    functional = late("torch.nn.functional")
    # Autograd functions need torch to be defined.
    coarse_attention = late("tunesmith.model.coarse_attention")

NAME = "tunesmith_packed"
BROKEN = (NotImplementedError, TypeError, ValueError, AttributeError, RuntimeError, LookupError)
"""What a model may say to a probe of a seam that it needs more of."""
NEAR = {"bfloat16": 1e-1, "float16": 1e-2}
"""How far a token's states may be from the model's own, as a share of their length, where a type
rounds them in every layer; a token that sees too much or too little is further."""


@dataclass(frozen=True)
class Packed:
    """The real tokens of a batch as one row."""

    ids: "torch.Tensor"  # [1, token]
    positions: "torch.Tensor"  # [1, token], from 0 in every document
    borders: "torch.Tensor"  # [piece + 1] int32, running total of lengths
    place: "torch.Tensor"  # [flat padded position], the token that stands for it
    shared: bool = False
    """Whether the first piece is the beginning of all others, and no document of its own."""


@dataclass(frozen=True)
class Grid:
    """The documents of a packed row, padded on the right to the longest."""

    tokens: "torch.Tensor"  # [document, time], the token that stands there; any where none does
    real: "torch.Tensor"  # [token], its flat place in [document, time]


@dataclass(frozen=True)
class Plan:
    """How the attention of a pass is carried out, made once for all its layers."""

    lengths: list[int]  # of the pieces
    shared: bool = False
    """Whether the first piece is what all others go on from."""
    grid: Grid | None = None
    """Where all documents go through one call."""
    rounds: bool = False
    """Whether training steps round what they multiply (`coarse_attention`)."""
    asked: "torch.Tensor | None" = None
    """The tokens whose states are asked for, where the last block may leave out the others."""


LEAST_SHARED = 8
"""Tokens from which a common beginning is worth a mask."""


def beginning(rows: Collection[tuple[int, ...]]) -> int:
    """How many ids all rows begin with alike, where they are worth laying once; else 0. Each row
    keeps one of its own."""
    longest = min(map(len, rows)) - 1
    first, last = min(rows), max(rows)  # in order of ids, so that all others lie between
    alike = next((at for at in range(longest) if first[at] != last[at]), longest)
    return alike if alike >= LEAST_SHARED else 0


def pack(batch: Batch, *, share: bool = False) -> Packed:
    """Lay the batch's documents end to end; with `share`, what they all begin with only once."""
    width = batch.mask.shape[1]
    lengths = batch.mask.sum(dim=1)
    common = common_start(batch, lengths) if share and len(lengths) > 1 else 0
    kept = batch.mask.clone()
    kept[1:, :common] = False
    index = kept.flatten().nonzero().squeeze(1)
    pieces = torch.cat([lengths.new_tensor([common]), lengths - common]) if common else lengths
    place = torch.zeros(batch.mask.numel(), dtype=torch.long, device=batch.mask.device)
    place[index] = torch.arange(len(index), device=index.device)
    place.view(-1, width)[1:, :common] = torch.arange(common, device=index.device)
    return Packed(
        ids=batch.ids.flatten()[index].unsqueeze(0),
        positions=(index % width).unsqueeze(0),
        borders=functional.pad(pieces.cumsum(0), (1, 0)).to(torch.int32),
        place=place,
        shared=common > 0,
    )


def common_start(batch: Batch, lengths: "torch.Tensor") -> int:
    """How many tokens all documents begin with alike; each keeps one of its own."""
    longest = int(lengths.min()) - 1
    differs = (batch.ids[:, :longest] != batch.ids[:1, :longest]).any(dim=0)
    alike = int(differs.long().argmax()) if bool(differs.any()) else longest
    return alike if alike >= LEAST_SHARED else 0


@dataclass(frozen=True)
class Shape:
    """What attention is beside who sees whom."""

    scaling: float | None
    dropout: float
    window: int | None
    rounds: bool


def documents(
    module: Any,
    query: "torch.Tensor",  # [1, heads, token, size]
    key: "torch.Tensor",  # [1, key heads, token, size]
    value: "torch.Tensor",
    attention_mask: Any,
    *,
    plan: Plan,
    lead: Lead | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **rest: Any,
) -> tuple["torch.Tensor", None]:
    """Causal attention inside each document; transformers' attention interface.

    With `lead`, all documents go on from that. `attention_mask` is what `no_mask` says.
    """
    if softcap is not None:
        raise NotImplementedError("attention with a soft cap has no packed path")
    if attention_mask is not None and sliding_window is None:
        raise NotImplementedError("how far this layer looks is said by its mask alone")
    states, shape = (query, key, value), Shape(scaling, dropout, sliding_window, plan.rounds)
    before = None if lead is None else lead.layers[module.layer_idx]
    way = one_by_one if plan.grid is None else together
    return way(states, before, plan, shape).transpose(1, 2), None


def one_by_one(
    states: "tuple[torch.Tensor, ...]",
    before: "tuple[torch.Tensor, ...] | None",
    plan: Plan,
    shape: Shape,
) -> "torch.Tensor":
    """A call for each piece, [1, heads, token, size]."""
    pieces = list(zip(*(t.split(plan.lengths, dim=2) for t in states), strict=True))
    if before is not None:
        own = len(pieces) if not plan.shared else 1  # the others follow on the first
        pieces[:own] = [after(before, piece) for piece in pieces[:own]]
    if plan.shared:
        pieces[1:] = [after(pieces[0][1:], piece) for piece in pieces[1:]]
    return torch.cat([masked(piece, shape) for piece in pieces], dim=2)


def together(
    states: "tuple[torch.Tensor, ...]",
    before: "tuple[torch.Tensor, ...] | None",
    plan: Plan,
    shape: Shape,
) -> "torch.Tensor":
    """One call for all documents, and one for what they share, [1, heads, token, size]: no real
    token looks at the padding behind it."""
    heads, grid = states[0].shape[1], plan.grid
    assert grid is not None
    # The kernel that holds no square of scores wants as many key heads as query heads.
    states = tuple(t.repeat_interleave(heads // t.shape[1], dim=1) for t in states)
    if before is not None:
        before = tuple(t.repeat_interleave(heads // t.shape[1], dim=1) for t in before)
    found = []
    if plan.shared:
        shared = tuple(t[:, :, : plan.lengths[0]] for t in states)
        piece = shared if before is None else after(before, shared)
        found, before = [masked(piece, shape)], piece[1:]
    rows = grid.tokens.shape[0]
    piece = tuple(t[0].index_select(1, grid.tokens.flatten()) for t in states)
    piece = tuple(t.unflatten(1, grid.tokens.shape).transpose(0, 1) for t in piece)
    if before is not None:
        piece = after(tuple(t.expand(rows, -1, -1, -1) for t in before), piece)
    flat = masked(piece, shape).transpose(0, 1).flatten(1, 2)  # [heads, flat place, size]
    return torch.cat([*found, flat.index_select(1, grid.real).unsqueeze(0)], dim=2)


def after(
    before: "tuple[torch.Tensor, ...]", piece: "tuple[torch.Tensor, ...]"
) -> "tuple[torch.Tensor, ...]":
    """A piece's queries, keys and values, where the keys and values of `before` stand first."""
    query, key, value = piece
    return query, torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)


def masked(
    states: "tuple[torch.Tensor, ...]",  # queries, keys, values: [row, heads, time, size] each
    shape: Shape,
) -> "torch.Tensor":
    """Causal attention of a document's last tokens, mostly all, to what stands before them.

    Without a mask unless keys stand before the first query, or beyond the sliding window.
    """
    query, key, value = states
    if shape.rounds and is_coarse(states, shape):
        return coarse_attention.attended(query, key, value, shape.scaling)
    size, mask, window = key.shape[2], None, shape.window
    if query.shape[2] < size or (window is not None and size > window):
        places = torch.arange(size, device=query.device)
        distance = places[size - query.shape[2] :].unsqueeze(1) - places  # [query, key]
        mask = (distance >= 0) & (distance < (window or size))
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=shape.dropout,
        is_causal=mask is None,
        scale=shape.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def is_coarse(states: "tuple[torch.Tensor, ...]", shape: Shape) -> bool:
    """Whether a document's attention is quicker, and no other, in bfloat16."""
    time, size = (each.shape[2] for each in states[:2])
    whole = shape.dropout == 0 and (shape.window is None or size <= shape.window)
    return (
        whole
        and len(states[0]) == 1
        and time >= coarse_attention.LEAST
        and coarse.rounds(states[0])
    )


def works(model: Any, lead: Lead | None = None) -> bool:
    """Whether a causal model gives its own answers through packed attention, by a probe.

    With `lead`, whether it does so behind that. False where it does not take part in transformers'
    attention interface, or needs something the packed path lacks.
    """
    if not getattr(model, "_supports_attention_backend", False):
        return False
    expected = probe(model, lead, packed=False)
    try:
        given = probe(model, lead, packed=True)
    except BROKEN:
        return False
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    apart = torch.linalg.norm(given - expected, dim=1)  # [token]
    return bool((apart <= NEAR.get(dtype, 1e-3) * torch.linalg.norm(expected, dim=1)).all())


@contextmanager
def switched(model: Any) -> Iterator[None]:
    """Packed attention for the time of one forward pass; anyone else sees the model's own."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, _attend[-1])
    AttentionMaskInterface.register(NAME, no_mask)
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


_attend: list[Callable[..., Any]] = [documents]


@contextmanager
def listening(attend: Callable[..., Any]) -> Iterator[None]:
    """Another function in the place of `documents` for a while, to hear what it is told."""
    _attend.append(attend)
    try:
        yield
    finally:
        _attend.pop()


def no_mask(*_: Any, local_size: int | None = None, **__: Any) -> int | None:
    """Packed attention needs no mask: borders say it all, but for how far a layer looks, which its
    attention must be told of too."""
    return local_size


def hidden(
    model: Any,
    packed: Packed,
    lead: Lead | None = None,
    *,
    rounds: bool = False,
    asked: "torch.Tensor | None" = None,
) -> "torch.Tensor":
    """Hidden states of packed tokens, [token, width]; of those `asked` for, where the last block
    of the model may end with them (`ending`)."""
    start = 0 if lead is None else lead.length
    plan = replace(planned(packed), rounds=rounds, asked=asked)
    with switched(model):
        output = model.base_model(
            input_ids=packed.ids,
            position_ids=packed.positions + start,
            plan=plan,
            lead=lead,
            use_cache=False,
        )
    return output.last_hidden_state.squeeze(0)  # type: ignore[no-any-return]


def planned(packed: Packed) -> Plan:
    """Piece by piece, or all documents side by side."""
    lengths, device = packed.borders.diff().tolist(), packed.ids.device
    grid = gridded(lengths, int(packed.shared), device) if waits(device) else None
    return Plan(lengths, packed.shared, grid)


def waits(device: "torch.device") -> bool:
    """Whether a launch costs more than what padding adds to it."""
    return device.type != "cpu"


def gridded(lengths: list[int], skipped: int, device: "torch.device") -> Grid:
    """The pieces but the first `skipped`, side by side."""
    own = torch.tensor(lengths[skipped:], device=device).unsqueeze(1)  # [document, 1]
    time = torch.arange(max(lengths[skipped:]), device=device).unsqueeze(0)  # [1, time]
    starts = own.cumsum(0) - own + sum(lengths[:skipped])
    real = time < own
    tokens = torch.where(real, starts + time, starts)
    return Grid(tokens, real.flatten().nonzero().squeeze(1))


PROBE = ((3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5), (3, 1, 4, 1, 5, 9, 2, 6, 8), (2, 7, 1))
"""Short documents: the first two begin alike."""


def probe(model: Any, lead: Lead | None, *, packed: bool) -> "torch.Tensor":
    """Hidden states of a few short documents, together or one by one; the model is left as is."""
    device = next(model.parameters()).device
    documents = [torch.tensor(ids, device=device) for ids in PROBE]
    with torch.no_grad(), evaluating(model):
        if packed:
            groups = [(documents, False), (documents[:2], True)]
            states = [_together(model, group, lead, share=share) for group, share in groups]
        else:
            alone = [_alone(model, document, lead) for document in documents]
            states = [each.last_hidden_state[0] for each in (*alone, *alone[:2])]
    return torch.cat(states).float()


def _alone(model: Any, document: "torch.Tensor", lead: Lead | None) -> Any:
    given = {} if lead is None else {"past_key_values": lead.cache()}
    return model.base_model(input_ids=document.unsqueeze(0), **given)


def _together(
    model: Any, documents: list["torch.Tensor"], lead: Lead | None, *, share: bool
) -> "torch.Tensor":
    batch = _batch(documents)
    packed = pack(batch, share=share)
    return hidden(model, packed, lead)[packed.place[batch.mask.flatten()]]


def probed(model: Any, *, share: bool) -> Packed:
    """The probe's documents as one row; to `share`, the two that begin alike, with that once."""
    device = next(model.parameters()).device
    documents = [torch.tensor(ids, device=device) for ids in (PROBE[:2] if share else PROBE)]
    return pack(_batch(documents), share=share)


def _batch(documents: list["torch.Tensor"]) -> Batch:
    width, device = max(map(len, documents)), documents[0].device
    ids = torch.stack([functional.pad(d, (0, width - len(d))) for d in documents])
    lengths = torch.tensor([len(d) for d in documents], device=device)
    mask = torch.arange(width, device=device) < lengths.unsqueeze(1)
    none = torch.full_like(ids, IGNORE)
    return Batch(ids, mask, none, torch.ones(len(ids), device=device), (), ())
