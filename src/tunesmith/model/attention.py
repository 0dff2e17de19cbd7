"""Seam: several documents in one row without padding, each blind to the others.

`pack` lays the real tokens of a batch end to end; the linear layers then see no padding at all.
Attention runs document by document through torch's causal kernel, which skips what lies above the
diagonal; a mask would make it compute everything and copy keys and values for every head.
The reference path is the model's own attention on the padded batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.core.records import Batch

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
    borders: "torch.Tensor"  # [document + 1] int32, running total of lengths
    index: "torch.Tensor"  # [token], where each token stands in the flat padded batch


def pack(batch: Batch) -> Packed:
    """Lay the batch's documents end to end."""
    lengths = batch.mask.sum(dim=1)
    borders = functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    index = batch.mask.flatten().nonzero().squeeze(1)
    positions = index % batch.mask.shape[1]
    ids = batch.ids.flatten()[index]
    return Packed(ids.unsqueeze(0), positions.unsqueeze(0), borders, index)


def documents(
    module: Any,
    query: "torch.Tensor",  # [1, heads, token, size]
    key: "torch.Tensor",  # [1, key heads, token, size]
    value: "torch.Tensor",
    attention_mask: Any,
    *,
    cu_seq_lens_q: "torch.Tensor",
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **rest: Any,
) -> tuple["torch.Tensor", None]:
    """Causal attention inside each document; transformers' attention interface."""
    if softcap is not None:
        raise NotImplementedError("attention with a soft cap has no packed path")
    lengths = cu_seq_lens_q.diff().tolist()
    pieces = zip(*(t.split(lengths, dim=2) for t in (query, key, value)), strict=True)
    outputs = [
        one_document(q, k, v, scaling=scaling, dropout=dropout, window=sliding_window)
        for q, k, v in pieces
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def one_document(
    query: "torch.Tensor",  # [1, heads, time, size]
    key: "torch.Tensor",
    value: "torch.Tensor",
    *,
    scaling: float | None,
    dropout: float,
    window: int | None,
) -> "torch.Tensor":
    """Causal attention, without a mask unless the document is longer than the sliding window."""
    size, mask = query.shape[2], None
    if window is not None and size > window:
        distance = torch.arange(size, device=query.device)
        distance = distance.unsqueeze(1) - distance  # [query, key]
        mask = (distance >= 0) & (distance < window)
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


def works(model: Any) -> bool:
    """Whether a causal model gives its own answers through packed attention, by a probe.

    False where it does not take part in transformers' attention interface, or needs something
    the packed path lacks.
    """
    if not getattr(model, "_supports_attention_backend", False):
        return False
    expected = probe(model, packed=False)
    try:
        given = probe(model, packed=True)
    except (NotImplementedError, TypeError, RuntimeError):
        return False
    return torch.allclose(given, expected, rtol=1e-3, atol=1e-3)


@contextmanager
def switched(model: Any) -> Iterator[None]:
    """Packed attention for the time of one forward pass; anyone else sees the model's own."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, documents)
    AttentionMaskInterface.register(NAME, no_mask)
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def no_mask(*_: Any, **__: Any) -> None:
    """Packed attention needs no mask: borders say it all."""


def hidden(model: Any, packed: Packed) -> "torch.Tensor":
    """Hidden states of packed tokens, [token, width]."""
    with switched(model):
        output = model.base_model(
            input_ids=packed.ids,
            position_ids=packed.positions,
            cu_seq_lens_q=packed.borders,
            use_cache=False,
        )
    return output.last_hidden_state.squeeze(0)  # type: ignore[no-any-return]


PROBE_LENGTHS = (5, 3, 7)


def probe(model: Any, *, packed: bool) -> "torch.Tensor":
    """Hidden states of a few short documents, together or one by one; the model is left as is."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with torch.no_grad():
        states = _packed_probe(model, device) if packed else _single_probes(model, device)
    model.train(training)
    return states.float()


def _probe_ids(model: Any, device: Any) -> list["torch.Tensor"]:
    size = model.get_input_embeddings().weight.shape[0]
    return [(torch.arange(length, device=device) * 7 + length) % size for length in PROBE_LENGTHS]


def _packed_probe(model: Any, device: Any) -> "torch.Tensor":
    parts = _probe_ids(model, device)
    lengths = torch.tensor([0, *PROBE_LENGTHS], device=device)
    positions = torch.cat([torch.arange(n, device=device) for n in PROBE_LENGTHS])
    packed = Packed(
        torch.cat(parts).unsqueeze(0),
        positions.unsqueeze(0),
        lengths.cumsum(0).to(torch.int32),
        torch.arange(len(positions), device=device),
    )
    return hidden(model, packed)


def _single_probes(model: Any, device: Any) -> "torch.Tensor":
    parts = _probe_ids(model, device)
    states = [model.base_model(input_ids=p.unsqueeze(0)).last_hidden_state[0] for p in parts]
    return torch.cat(states)
