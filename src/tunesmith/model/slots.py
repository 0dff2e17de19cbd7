"""Seam: attention over rows of different lengths, each with its keys and values in its own slot.

Prompts enter packed end to end, without padding, and go on from what they have in common with the
first row; then every row adds one token a pass. Keys and values stand in buffers with room ahead,
so few passes copy the past (transformers' own cache does, every token), and a row that is done
leaves the others where they are; `sight` attends over them. A trained prefix or prompt stands at
the beginning of every slot, as if each row had read it. With enough rows the parts of a block are
those of `decode`. The reference path, `Alone`, runs each row by itself through the model's plain
forward pass; `chosen` takes the fast path only where a probe gives its logits.
"""

from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.masking_utils import AttentionMaskInterface

from tunesmith.model import attention, decode, fused, layout, lead
from tunesmith.model.sight import attend, sight

NAME = "tunesmith_slots"
PASS_TOKENS = 4096
"""Prompt tokens in one pass: bounds the memory of entering, and no longer pass is faster."""
GROWTH = 128
"""Tokens of room that a buffer is given beyond what it must hold."""
BLOCK = 8
"""Rows that attend in one call, as far back as the longest of them."""
LEAST = 4
"""Rows from which a copy of the weights, made for few rows, is worth its time."""
AFTER = 24
"""Steps after which it is: making it costs about as much as that many steps save, and short answers
to a few prompts never get there."""


class Rows(Protocol):
    """Rows in generation, in the order they entered; a dropped one's place goes to the last."""

    def enter(self, prompts: list[tuple[int, ...]]) -> torch.Tensor:
        """Read new prompts; logits of each one's next token, [new, size]."""

    def extend(self, ids: list[int]) -> torch.Tensor:
        """Give each row one more token; logits of each one's next token, [row, size]."""

    def drop(self, row: int) -> None:
        """Forget a row. The last row takes its number."""


class Alone:
    """The reference: one row at a time, by the model's own forward pass and its own cache."""

    def __init__(self, model: Any) -> None:
        self.plain, self.lead = layout.causal(model), lead.of(model)
        self.rows: list[tuple[list[int], Any]] = []

    def enter(self, prompts: list[tuple[int, ...]]) -> torch.Tensor:
        self.rows += [(list(ids), None) for ids in prompts]
        return torch.cat([self._pass(row) for row in range(-len(prompts), 0)])

    def extend(self, ids: list[int]) -> torch.Tensor:
        for (past, _), new in zip(self.rows, ids, strict=True):
            past.append(new)
        return torch.cat([self._pass(row) for row in range(len(self.rows))])

    def drop(self, row: int) -> None:
        self.rows[row] = self.rows[-1]
        self.rows.pop()

    def _pass(self, row: int) -> torch.Tensor:
        """Where the model keeps no cache that can be handed back, the whole row is read again."""
        ids, cache = self.rows[row]
        unread = ids if cache is None else ids[-1:]
        device = next(self.plain.parameters()).device
        if cache is None and self.lead is not None:
            cache = self.lead.cache()
        given = {} if cache is None else {"past_key_values": cache}
        tokens = torch.tensor([unread], device=device)
        output = self.plain(input_ids=tokens, use_cache=True, **given)
        self.rows[row] = (ids, getattr(output, "past_key_values", None))
        return output.logits[:, -1]  # type: ignore[no-any-return]


class Layer(CacheLayerMixin):
    """One layer's keys and values, [slot, key heads, time, size] each."""

    def __init__(self, slots: "Slots", number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.slots = slots
        self.lead: Any = None if slots.lead is None else slots.lead.layers[number]
        self.keys: Any = None
        self.values: Any = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Buffers are made in `update`, which knows how long they must be."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        slots = self.slots
        self.keys = room(self.keys, key_states, slots.capacity, slots.width)
        self.values = room(self.values, value_states, slots.capacity, slots.width)
        self.is_initialized = True
        live = len(slots.lengths)
        if slots.entering:
            key_states, value_states = self.led(key_states), self.led(value_states, 1)
            first, start = live - len(slots.entering), 0
            for row, length in enumerate(slots.lengths[first:], first):
                stretch = slice(start, start + length)
                self.keys[row, :, :length] = key_states[0, :, stretch]
                self.values[row, :, :length] = value_states[0, :, stretch]
                start += length
            return key_states, value_states
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            flat = buffer.view(-1, buffer.shape[-1])
            flat.index_copy_(0, slots.places(buffer), states.reshape(-1, buffer.shape[-1]))
        return self.keys[:live, :, : slots.width], self.values[:live, :, : slots.width]

    def led(self, states: torch.Tensor, which: int = 0) -> torch.Tensor:
        """Packed prompts' keys (0) or values (1), each behind what stands before all of them: what
        they have in common with the first row, or else a trained beginning."""
        slots = self.slots
        if not slots.before:
            return states
        pieces = states.split(slots.entering, dim=2)
        if slots.shared:
            before = (self.keys, self.values)[which][:1, :, : slots.before]
        else:
            before = self.lead[which].to(states.dtype)
        return torch.cat([part for piece in pieces for part in (before, piece)], dim=2)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row into another slot, and blank its old one: a stale NaN times 0 is NaN."""
        for buffer in (self.keys, self.values):
            buffer[target].zero_()
            buffer[target, :, :length] = buffer[source, :, :length]
            if source != target:
                buffer[source].zero_()

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


def room(buffer: torch.Tensor | None, like: torch.Tensor, rows: int, width: int) -> torch.Tensor:
    """`buffer` when it holds `width` tokens, else a longer one with its content.

    Not twice as long: to touch fresh memory costs more than the copy, one in `GROWTH` passes.
    """
    if buffer is not None and buffer.shape[2] >= width:
        return buffer
    grown = like.new_zeros(rows, like.shape[1], width + GROWTH, like.shape[3])
    if buffer is not None:
        grown[:, :, : buffer.shape[2]] = buffer
    return grown


class Slots(Cache):
    """The fast path: `capacity` slots of keys and values, and the passes that fill them.

    From `least` rows on, and once `after` steps were taken, the model's parts are those of
    `decode`; never where `least` is None.
    """

    def __init__(
        self, model: Any, capacity: int, *, least: int | None = None, after: int = 0
    ) -> None:
        super().__init__(layers=[])
        self.layers: Any
        self.model, self.plain, self.lead = model, layout.causal(model), lead.of(model)
        self.start = self.lead.length if self.lead is not None else 0
        self.device = next(model.parameters()).device
        self.capacity, self.lengths = capacity, list[int]()
        self.prompts, self.entering = list[tuple[int, ...]](), list[int]()
        self.shared, self.before = 0, self.start
        self.index = self.at = torch.zeros(0, dtype=torch.long, device=self.device)
        self.blocks, self._places = list[tuple[slice, int]](), dict[Any, torch.Tensor]()
        self.least, self.after, self.taken = least, after, 0
        self.parts: decode.Parts | None = None

    @property
    def width(self) -> int:
        """The longest live row, its new token counted."""
        return max(self.lengths)

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What transformers' attention layers call, each with its number."""
        while len(self.layers) <= layer_idx:
            self.layers.append(Layer(self, len(self.layers)))
        return self.layers[layer_idx].update(key_states, value_states)  # type: ignore[no-any-return]

    def places(self, buffer: torch.Tensor) -> torch.Tensor:
        """Where each row's new token stands in each key head, [row x head], of a flat buffer."""
        _, heads, wide, _ = buffer.shape
        if (heads, wide) not in self._places:
            head = torch.arange(heads, device=self.device)
            found = (self.index[:, None] * heads + head) * wide + self.at[:, None]
            self._places[heads, wide] = found.flatten()
        return self._places[heads, wide]

    def enter(self, prompts: list[tuple[int, ...]]) -> torch.Tensor:
        self._lay_out(len(self.lengths) + len(prompts))
        found, group = [], list[tuple[int, ...]]()
        if len(prompts) > 1 and not self.lengths and attention.beginning(prompts):
            found, prompts = [self._enter(prompts[:1])], prompts[1:]  # the others go on from it
        for ids in prompts:
            if group and sum(map(len, group)) + len(ids) > PASS_TOKENS:
                found.append(self._enter(group))
                group = []
            group.append(ids)
        found.append(self._enter(group))
        return torch.cat(found)

    def _lay_out(self, rows: int) -> None:
        """Have `decode`'s parts, where so many rows are worth it or the model has changed."""
        early = self.least is None or rows < self.least or self.taken < self.after
        if self.least is None or (self.parts is None and early):
            return
        if self.parts is None or not self.parts.current:
            self.parts = None  # its memory is given back first
            self.parts = decode.Parts(self.model, attend)
            if not agrees(self.model, self.parts):
                self.least = self.parts = None

    def _enter(self, prompts: list[tuple[int, ...]]) -> torch.Tensor:
        self.shared = attention.beginning([self.prompts[0], *prompts]) if self.prompts else 0
        self.before = self.start + self.shared
        self.entering = [len(ids) - self.shared for ids in prompts]
        self.lengths += [self.before + length for length in self.entering]
        self.prompts += prompts
        positions = [self.before + torch.arange(n, device=self.device) for n in self.entering]
        ends = torch.tensor(self.entering, device=self.device).cumsum(0) - 1
        unread = [i for ids in prompts for i in ids[self.shared :]]
        given = torch.tensor(unread, device=self.device)[None]
        logits = self._pass(given, torch.cat(positions)[None], ends)[0]
        self.entering = []
        return logits if len(logits) == len(prompts) else logits[ends]

    def extend(self, ids: list[int]) -> torch.Tensor:
        self.taken += 1
        if self.parts is None and self.taken == self.after:
            self._lay_out(len(ids))
        self.index = torch.arange(len(ids), device=self.device)
        self.at = torch.tensor(self.lengths, device=self.device)
        self.lengths = [length + 1 for length in self.lengths]
        self._places = {}
        size = len(ids) if attention.waits(self.device) else BLOCK
        starts = range(0, len(ids), size)
        self.blocks = [(slice(a, a + size), max(self.lengths[a : a + size])) for a in starts]
        given = torch.tensor(ids, device=self.device)[:, None]
        return self._pass(given, self.at[:, None], torch.zeros_like(self.at[:1]))[:, -1]

    def drop(self, row: int) -> None:
        last = len(self.lengths) - 1
        length = self.lengths[last] if row != last else 0
        for layer in self.layers:
            layer.move(last, row, length)
        self.lengths[row], self.prompts[row] = self.lengths[last], self.prompts[last]
        self.lengths.pop(), self.prompts.pop()

    def _pass(
        self, ids: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor
    ) -> torch.Tensor:
        """Logits of one forward pass; at the `wanted` times only where the model can do that."""
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sight)
        before = self.plain.config._attn_implementation
        self.plain.config._attn_implementation = NAME
        try:
            with fused.switched(self.parts.found if self.parts else []):
                output = self.plain(
                    input_ids=ids,
                    position_ids=positions,
                    past_key_values=self,
                    use_cache=True,
                    logits_to_keep=wanted,
                    slots=self,
                )
        finally:
            self.plain.config._attn_implementation = before
        return output.logits  # type: ignore[no-any-return]


_PROVED: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
PROBE = ((1, 5, 2, 4, 3, 1, 5, 2, 3), (1, 5, 2, 4, 3, 1, 5, 2, 4, 4, 3), (3, 1, 2))
"""Short prompts of ids that every vocabulary has; two begin alike."""


def chosen(model: Any, capacity: int) -> Rows:
    """Slots where a probe gives the reference's logits on this model, else the reference."""
    if model not in _PROVED:
        _PROVED[model] = works(model)
    if not _PROVED[model]:
        return Alone(model)
    least = LEAST if decode.possible(model) else None
    return Slots(model, capacity, least=least, after=AFTER)


def works(model: Any) -> bool:
    """Whether entering, extending, dropping and extending again all give the reference's logits."""
    if not getattr(layout.causal(model), "_supports_attention_backend", False):
        return False
    try:
        given = probe(Slots(model, len(PROBE)))
    except attention.BROKEN:
        return False
    return close(given, probe(Alone(model)))


def agrees(model: Any, parts: decode.Parts) -> bool:
    """Whether slots give the same logits with parts as without, entering and extending."""
    ready, plain = (Slots(model, len(PROBE)) for _ in range(2))
    ready.parts = parts
    try:
        given = [ready.enter(list(PROBE)), ready.extend([4, 5, 2])]
    except attention.BROKEN:
        return False
    expected = [plain.enter(list(PROBE)), plain.extend([4, 5, 2])]
    return close(torch.cat(given), torch.cat(expected))


def close(given: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits are the same, as far as their type can tell."""
    bound = 1e-4 if expected.dtype in (torch.float32, torch.float64) else 3e-2
    return bool((given - expected).abs().max() <= bound * expected.abs().max())


def probe(rows: Rows) -> torch.Tensor:
    """Logits of a short life of three rows, [pass and row, size]."""
    found = [rows.enter(list(PROBE[:2])), rows.enter(list(PROBE[2:])), rows.extend([4, 5, 2])]
    rows.drop(0)
    return torch.cat([*found, rows.extend([6, 3])])
