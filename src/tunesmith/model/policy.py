"""`Policy`: a model with its tokenizer, and the only door through which a loss sees it.

An objective asks for sums or log-probabilities of a padded `Batch`; whether tokens are packed,
which attention runs and how the head is multiplied is decided here, by trying the fast seams on
the model at hand and keeping them only where they give its own answers.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tunesmith.core.late import late
from tunesmith.core.records import IGNORE, Batch
from tunesmith.model import attention, coarse, ending, fused, layout, lead, newrows, recompute
from tunesmith.model.modes import evaluating

if TYPE_CHECKING:
    import torch

    from tunesmith.model import arithmetic, losshead, lowrank
    from tunesmith.model.features import Features
    from tunesmith.model.heads import Head
    from tunesmith.model.tokenizer import Tokenizer
else:
    torch = late("torch")
    # Autograd functions need torch to be defined.
    losshead = late("tunesmith.model.losshead")
    lowrank = late("tunesmith.model.lowrank")


Laid = Literal["padded", "packed", "shared"]
"""How the rows of a batch reach the model: with padding, end to end, or so that what all of them
begin with stands once before them."""


class Undoable(Protocol):
    """What the policy needs of a tuning method: the model as it was before."""

    def disabled(self, model: Any, frozen: Any | None) -> Any: ...


@dataclass
class Look:
    """A batch under evaluation, and the states that its first measure asked for."""

    batch: Batch
    chosen: "torch.Tensor | None" = None
    states: "torch.Tensor | None" = None


class Policy:
    """A causal model or an encoder under training or in use.

    `method` and `frozen` serve `reference()`. With a `head` it gives scores of whole texts, and
    what no score depends on takes no gradients. `fast=False` keeps to the reference seams: the
    model's own attention on padded rows and materialised logits.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: "Tokenizer",
        *,
        method: Undoable | None = None,
        frozen: Any | None = None,
        head: "Head | None" = None,
        fast: bool = True,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.method, self.frozen, self.head = method, frozen, head
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        plain, writes = layout.causal(model), layout.writes(model)
        self.splits_head = fast and writes and head_is_plain(plain)
        self.packs = self.splits_head and attention.works(plain, self._lead())
        self.low_rank = lowrank.layers(model) if self.splits_head or (fast and not writes) else []
        self.fused = self._parts_of(plain)
        self._copied: list[fused.Part] | None = None
        self.recomputed: list[Any] = []
        """Blocks that keep only their input in training (`recompute`)."""
        self.new_rows = newrows.embeddings(model) if self.splits_head else []
        self.copies: list[arithmetic.Copy] = []
        """Weights that steps multiply in bfloat16."""
        self.rounds = False
        """Whether steps round what attention multiplies."""
        self._looked: Look | None = None
        self._segmented = layout.segmented(model)
        self.features: Features | None = None
        self.features_of_steps: Features | None = None
        """Those that steps take, which may be made in coarser numbers."""
        if head is not None:
            head.linear.to(self.device)
            self._settle_idle()

    def _settle_idle(self) -> None:
        """Freeze what no hidden state depends on: a pooler, or the model's own head."""
        named = dict(layout.causal(self.model).named_parameters())
        moving = {name: weight for name, weight in named.items() if weight.requires_grad}
        if moving:
            with evaluating(self.model):
                for name in layout.idle(self.model, moving):
                    named[name].requires_grad_(False)

    @property
    def labels(self) -> tuple[str, ...]:
        """What the scores are of, in their order; none without a head."""
        return self.head.labels if self.head is not None else ()

    def named(self) -> Iterator[tuple[str, "torch.nn.Parameter"]]:
        """Every parameter by a stable name, the head's last."""
        yield from self.model.named_parameters()
        if self.head is not None:
            yield from self.head.named()

    def trainable(self) -> list["torch.nn.Parameter"]:
        """The parameters that take gradients, in the model's order, the head's last."""
        return layout.trainable(parameter for _, parameter in self.named())

    @property
    def recomputes(self) -> bool:
        """Whether a block may run twice: one that writes into a cache may not, and on mps torch
        does not put random numbers back."""
        once = layout.writes(self.model) and not self.packs
        return not once and self.device.type != "mps"

    @property
    def laid(self) -> Laid:
        """How rows reach the model as it is now: dropout leaves no two beginnings alike."""
        if not self.packs:
            return "padded"
        return "packed" if layout.drops(self.model) else "shared"

    @property
    def still(self) -> bool:
        """Whether the head alone learns, so that the states below it stay what they are."""
        return self.head is not None and not layout.trainable(self.model.parameters())

    @contextmanager
    def reference(self) -> "Iterator[Policy]":
        """The model as it was before tuning; no gradients, evaluation mode, restored after."""
        if self.method is None:
            raise ValueError("a policy without a method has no reference")
        with (
            torch.no_grad(),
            evaluating(self.model),
            self.method.disabled(self.model, self.frozen) as model,
        ):
            before = Policy.__new__(Policy)
            before.__dict__.update(self.__dict__)
            before.model, before._looked = model, None
            if model is not self.model:  # parts are bound to the modules that they stand in for
                if self._copied is None:
                    self._copied = self._parts_of(layout.causal(model))
                before.fused = self._copied
            yield before

    def _parts_of(self, plain: Any) -> list[fused.Part]:
        """What functions of ours stand in for in a plain model, its last block among it where that
        can leave out the tokens that nobody asks for."""
        if not self.packs:
            return []
        seen = fused.watched(plain, [layout.blocks(plain)[-1]])
        found = fused.parts(plain, seen)
        return [*found, *ending.parts(plain, found, seen)]

    @contextmanager
    def looking(self, batch: Batch) -> Iterator[None]:
        """Evaluation without gradients, in which all measures of `batch` share one pass."""
        with torch.no_grad(), evaluating(self.model):
            self._looked = Look(batch)
            try:
                yield
            finally:
                self._looked = None

    def weights_moved(self) -> None:
        """To be told after every step of an optimiser: what a fused one writes is not counted as a
        change of its weights, by which whoever made something of them would know."""
        torch.autograd.graph.increment_version(self.trainable())
        for copy in self.copies:
            copy.weight_moved()

    def nll(self, batch: Batch) -> "torch.Tensor":
        """Weighted sum of -log p over supervised tokens: a scalar, fp32 or better."""
        chosen, targets = supervised(batch)
        weights = batch.weights.repeat_interleave(batch.mask.shape[1])[chosen]
        if not self.splits_head:
            return -(self._reference_logps(batch, chosen, targets) * weights).sum()
        return losshead.nll(self.hidden(batch, chosen), newrows.head(self.model), targets, weights)

    def logps(self, batch: Batch) -> "torch.Tensor":
        """log p of every supervised token, [sequence, time]; 0 where no loss is taken."""
        chosen, targets = supervised(batch)
        if self.splits_head:
            states = self.hidden(batch, chosen)
            values = losshead.logps(states, newrows.head(self.model), targets)
        else:
            values = self._reference_logps(batch, chosen, targets)
        flat = values.new_zeros(batch.mask.numel()).index_put((chosen,), values)
        return flat.view(batch.mask.shape)

    def hits(self, batch: Batch) -> "torch.Tensor":
        """How many supervised tokens are the model's first choice, a count."""
        chosen, targets = supervised(batch)
        if not self.splits_head:
            best = self._logits(batch)[chosen].argmax(dim=1)
            return (best == targets).sum()
        states, head = self.hidden(batch, chosen), newrows.head(self.model)
        size = losshead.rows_at_once(self.device)
        pairs = zip(states.split(size), targets.split(size), strict=True)
        found = [(head(rows).argmax(dim=1) == wanted).sum() for rows, wanted in pairs]
        return torch.stack(found).sum() if found else torch.zeros((), device=self.device)

    def scores(self, batch: Batch) -> "torch.Tensor":
        """What the head says of each sequence, [sequence, out], in at least its own precision."""
        if self.head is None:
            raise ValueError("a policy without a head has no scores")
        weight: torch.Tensor = self.head.linear.weight
        return self.head.linear(self.states(batch).to(weight.dtype))  # type: ignore[no-any-return]

    def states(self, batch: Batch) -> "torch.Tensor":
        """`pooled`; with `features`, and in evaluation mode, what is kept of it. Whoever sets them
        knows that no weight of the model changes."""
        if self.features is None or self.model.training:
            return self.pooled(batch)
        if self.features_of_steps is None or not torch.is_grad_enabled():
            return self.features.of(batch, self.pooled).to(self.device)
        return self.features_of_steps.of(batch, self._pooled_for_steps).to(self.device)

    def _pooled_for_steps(self, batch: Batch) -> "torch.Tensor":
        """`pooled` as steps multiply, though no gradient passes through it."""
        with coarse.as_in_steps():
            return self.pooled(batch)

    def pooled(self, batch: Batch) -> "torch.Tensor":
        """One state for each sequence, [sequence, width]: the mean over its real tokens
        (arXiv 1908.10084), or the last of them."""
        lengths = batch.mask.sum(dim=1)
        if self.head is not None and self.head.pooling == "last":
            starts = torch.arange(len(lengths), device=lengths.device) * batch.mask.shape[1]
            return self.hidden(batch, starts + lengths - 1)
        states = self.hidden(batch, batch.mask.flatten().nonzero().squeeze(1))
        # Text by text: the same sum whether the rows were packed or padded.
        return torch.stack([rows.mean(dim=0) for rows in states.split(lengths.tolist())])

    def hidden(self, batch: Batch, chosen: "torch.Tensor") -> "torch.Tensor":
        """Hidden states at the flat padded positions `chosen`, [position, width]."""
        look = self._looked
        if look is None or look.batch is not batch:
            return self._pass(batch, chosen)
        if look.chosen is None or look.states is None or not torch.equal(look.chosen, chosen):
            look.chosen, look.states = chosen, self._pass(batch, chosen)
        return look.states

    def _lead(self) -> "lead.Lead | None":
        """What stands before every row, without gradients."""
        with torch.no_grad(), evaluating(self.model):
            return lead.of(self.model)

    def _pass(self, batch: Batch, chosen: "torch.Tensor") -> "torch.Tensor":
        plain = layout.causal(self.model)
        again = recompute.switched(self.recomputed, partial(self._seams, back=True))
        if not self.packs:
            told = {} if batch.segments is None else {"token_type_ids": batch.segments}
            told = told if self._segmented else {}
            with self._seams(), again:
                output = plain.base_model(input_ids=batch.ids, **self._behind(batch), **told)
            return output.last_hidden_state.flatten(0, 1)[chosen]  # type: ignore[no-any-return]
        packed = attention.pack(batch, share=self.laid == "shared")
        with self._seams():
            before = lead.of(self.model)  # a pass of its own, which writes into a cache
            with again:
                return self._states(packed, packed.place[chosen], before)

    def _states(
        self, packed: attention.Packed, tokens: "torch.Tensor", before: "lead.Lead | None"
    ) -> "torch.Tensor":
        """Hidden states of some tokens of a packed row, [position, width]; several may be one."""
        asked, places = tokens.unique(return_inverse=True)
        part = 0 < len(asked) < packed.ids.shape[1]
        states = attention.hidden(
            layout.causal(self.model),
            packed,
            before,
            # What is kept of a row without gradients must not depend on what it is laid with, and
            # which attention is rounded does (`attention.is_coarse`).
            rounds=self.rounds and torch.is_grad_enabled(),
            asked=asked if part else None,
        )
        return states[places if part and len(states) == len(asked) else tokens]

    @contextmanager
    def _seams(self, *, back: bool = False) -> Iterator[None]:
        """What every pass runs in. On the way `back` a block is alone: what switches attention for
        a whole pass is not there to do it."""
        layers = lowrank.switched(self.low_rank), newrows.switched(self.new_rows)
        parts = fused.switched(self.fused)
        packed = attention.switched(layout.causal(self.model)) if back and self.packs else None
        with layers[0], layers[1], parts, packed or nullcontext():
            yield

    def _behind(self, batch: Batch) -> dict[str, Any]:
        """The mask of a padded batch, and what stands before its rows in the model's own cache."""
        before, mask = lead.of(self.model), batch.mask.long()
        if before is None:
            return {"attention_mask": mask}
        ones = mask.new_ones(len(mask), before.length)
        cache = before.cache(len(mask))
        return {"attention_mask": torch.cat([ones, mask], dim=1), "past_key_values": cache}

    def _reference_logps(
        self, batch: Batch, chosen: "torch.Tensor", targets: "torch.Tensor"
    ) -> "torch.Tensor":
        return losshead.token_logps(self._logits(batch)[chosen], targets)

    def _logits(self, batch: Batch) -> "torch.Tensor":
        """All logits by the model's own forward pass on the padded batch, [position, size]."""
        plain, told = layout.causal(self.model), self._behind(batch)
        output = plain(input_ids=batch.ids, **told, use_cache="past_key_values" in told)
        return output.logits.flatten(0, 1)  # type: ignore[no-any-return]


def supervised(batch: Batch) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Flat padded positions that carry loss, and the ids they must predict."""
    targets = batch.targets.flatten()
    chosen = (targets != IGNORE).nonzero().squeeze(1)
    return chosen, targets[chosen]


def head_is_plain(model: Any) -> bool:
    """Whether the logits are nothing but the head applied to the hidden states.

    Some models cap or scale them; a probe tells without knowing which.
    """
    ids = torch.arange(6, device=next(model.parameters()).device).unsqueeze(0)
    with torch.no_grad(), evaluating(model):
        states = model.base_model(input_ids=ids).last_hidden_state
        logits = model(input_ids=ids).logits
        return torch.allclose(layout.head(model)(states), logits, rtol=1e-4, atol=1e-4)
