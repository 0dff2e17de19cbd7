"""Seam: several documents in one row without padding, each blind to the others.

`pack` lays the real tokens of a batch end to end; the linear layers then see no padding at all.
What all documents begin with (a system prompt, say) may be laid once, before them all: every
document goes on from it, and its gradient is the sum of theirs. A trained prefix or prompt stands
before that as keys and values (`lead`).
Attention runs document by document through torch's causal kernel, which skips what lies above the
diagonal; a mask would make it compute everything and copy keys and values for every head.
The reference path is the model's own attention on the padded batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.core.records import IGNORE, Batch
from tunesmith.model.lead import Lead

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    torch = late("torch")
    functional = late("torch.nn.functional")

NAME = "tunesmith_packed"


@dataclass(frozen=True)
class Packed:
    """The real tokens of a batch as one row."""

    ids: "torch.Tensor"  # [1, token]
    positions: "torch.Tensor"  # [1, token], from 0 in every document
    borders: "torch.Tensor"  # [piece + 1] int32, running total of lengths
    place: "torch.Tensor"  # [flat padded position], the token that stands for it
    shared: bool = False
    """Whether the first piece is the beginning of all others, and no document of its own."""


LEAST_SHARED = 8
"""Tokens from which a common beginning is worth a mask."""


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


def documents(
    module: Any,
    query: "torch.Tensor",  # [1, heads, token, size]
    key: "torch.Tensor",  # [1, key heads, token, size]
    value: "torch.Tensor",
    attention_mask: Any,
    *,
    cu_seq_lens_q: "torch.Tensor",
    shared_start: bool = False,
    lead: Lead | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **rest: Any,
) -> tuple["torch.Tensor", None]:
    """Causal attention inside each document; transformers' attention interface.

    With `shared_start` the first piece is what all others go on from; with `lead`, all pieces go
    on from that.
    """
    if softcap is not None:
        raise NotImplementedError("attention with a soft cap has no packed path")
    lengths = cu_seq_lens_q.diff().tolist()
    pieces = list(zip(*(t.split(lengths, dim=2) for t in (query, key, value)), strict=True))
    if lead is not None:
        own = len(pieces) if not shared_start else 1  # the others follow on the first
        pieces[:own] = [after(lead.layers[module.layer_idx], piece) for piece in pieces[:own]]
    if shared_start:
        pieces[1:] = [after(pieces[0][1:], piece) for piece in pieces[1:]]
    outputs = [
        one_document(q, k, v, scaling=scaling, dropout=dropout, window=sliding_window)
        for q, k, v in pieces
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def after(
    before: "tuple[torch.Tensor, ...]", piece: "tuple[torch.Tensor, ...]"
) -> "tuple[torch.Tensor, ...]":
    """A piece's queries, keys and values, where the keys and values of `before` stand first."""
    query, key, value = piece
    return query, torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)


def one_document(
    query: "torch.Tensor",  # [1, heads, time, size]
    key: "torch.Tensor",
    value: "torch.Tensor",
    *,
    scaling: float | None,
    dropout: float,
    window: int | None,
) -> "torch.Tensor":
    """Causal attention of a document's last tokens, mostly all, to what stands before them.

    Without a mask unless keys stand before the first query, or beyond the sliding window.
    """
    size, mask = key.shape[2], None
    if query.shape[2] < size or (window is not None and size > window):
        places = torch.arange(size, device=query.device)
        distance = places[size - query.shape[2] :].unsqueeze(1) - places  # [query, key]
        mask = (distance >= 0) & (distance < (window or size))
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
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
    except (NotImplementedError, TypeError, RuntimeError, AttributeError):
        return False
    return torch.allclose(given, expected, rtol=1e-3, atol=1e-3)


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


def no_mask(*_: Any, **__: Any) -> None:
    """Packed attention needs no mask: borders say it all."""


def hidden(model: Any, packed: Packed, lead: Lead | None = None) -> "torch.Tensor":
    """Hidden states of packed tokens, [token, width]."""
    start = 0 if lead is None else lead.length
    with switched(model):
        output = model.base_model(
            input_ids=packed.ids,
            position_ids=packed.positions + start,
            cu_seq_lens_q=packed.borders,
            shared_start=packed.shared,
            lead=lead,
            use_cache=False,
        )
    return output.last_hidden_state.squeeze(0)  # type: ignore[no-any-return]


PROBE = ((3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5), (3, 1, 4, 1, 5, 9, 2, 6, 8), (2, 7, 1))
"""Short documents: the first two begin alike."""


def probe(model: Any, lead: Lead | None, *, packed: bool) -> "torch.Tensor":
    """Hidden states of a few short documents, together or one by one; the model is left as is."""
    device = next(model.parameters()).device
    documents = [torch.tensor(ids, device=device) for ids in PROBE]
    training = model.training
    model.eval()
    with torch.no_grad():
        if packed:
            groups = [(documents, False), (documents[:2], True)]
            states = [_together(model, group, lead, share=share) for group, share in groups]
        else:
            alone = [_alone(model, document, lead) for document in documents]
            states = [each.last_hidden_state[0] for each in (*alone, *alone[:2])]
    model.train(training)
    return torch.cat(states).float()


def _alone(model: Any, document: "torch.Tensor", lead: Lead | None) -> Any:
    given = {} if lead is None else {"past_key_values": lead.cache()}
    return model.base_model(input_ids=document.unsqueeze(0), **given)


def _together(
    model: Any, documents: list["torch.Tensor"], lead: Lead | None, *, share: bool
) -> "torch.Tensor":
    width, device = max(map(len, documents)), documents[0].device
    ids = torch.stack([functional.pad(d, (0, width - len(d))) for d in documents])
    lengths = torch.tensor([len(d) for d in documents], device=device)
    mask = torch.arange(width, device=device) < lengths.unsqueeze(1)
    none = torch.full_like(ids, IGNORE)
    batch = Batch(ids, mask, none, torch.ones(len(ids), device=device), (), ())
    packed = pack(batch, share=share)
    return hidden(model, packed, lead)[packed.place[mask.flatten()]]
