"""`Policy`: a model with its tokenizer, and the only door through which a loss sees it.

An objective asks for sums or log-probabilities of a padded `Batch`; whether tokens are packed,
which attention runs and how the head is multiplied is decided here, by trying the fast seams on
the model at hand and keeping them only where they give its own answers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from tunesmith.core.late import late
from tunesmith.core.records import IGNORE, Batch
from tunesmith.model import attention, layout, newrows

if TYPE_CHECKING:
    import torch

    from tunesmith.model import losshead, lowrank
    from tunesmith.model.render import Tokenizer
else:
    torch = late("torch")
    # Autograd functions need torch to be defined.
    losshead = late("tunesmith.model.losshead")
    lowrank = late("tunesmith.model.lowrank")


class Undoable(Protocol):
    """What the policy needs of a tuning method: the model as it was before."""

    def disabled(self, model: Any, frozen: Any | None) -> Any: ...


class Policy:
    """A causal model under training or in use.

    `method` and `frozen` serve `reference()`. `fast=False` keeps to the reference seams: the
    model's own attention on padded rows and materialised logits.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: "Tokenizer",
        *,
        method: Undoable | None = None,
        frozen: Any | None = None,
        fast: bool = True,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.method, self.frozen = method, frozen
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.splits_head = fast and head_is_plain(layout.causal(model))
        self.packs = self.splits_head and attention.works(layout.causal(model))
        self.low_rank = lowrank.layers(model) if self.splits_head else []
        self.new_rows = newrows.embeddings(model) if self.splits_head else []

    def trainable(self) -> list["torch.nn.Parameter"]:
        """The parameters that take gradients, in the model's order."""
        return layout.trainable(self.model.parameters())

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
            before.model = model
            yield before

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
        pairs = zip(states.split(losshead.CHUNK), targets.split(losshead.CHUNK), strict=True)
        found = [(head(rows).argmax(dim=1) == wanted).sum() for rows, wanted in pairs]
        return torch.stack(found).sum() if found else torch.zeros((), device=self.device)

    def hidden(self, batch: Batch, chosen: "torch.Tensor") -> "torch.Tensor":
        """Hidden states at the flat padded positions `chosen`, [position, width]."""
        plain = layout.causal(self.model)
        with lowrank.switched(self.low_rank), newrows.switched(self.new_rows):
            if not self.packs:
                output = plain.base_model(input_ids=batch.ids, attention_mask=batch.mask.long())
                return output.last_hidden_state.flatten(0, 1)[chosen]  # type: ignore[no-any-return]
            packed = attention.pack(batch)
            place = torch.zeros(batch.mask.numel(), dtype=torch.long, device=batch.mask.device)
            place[packed.index] = torch.arange(len(packed.index), device=batch.mask.device)
            return attention.hidden(plain, packed)[place[chosen]]

    def _reference_logps(
        self, batch: Batch, chosen: "torch.Tensor", targets: "torch.Tensor"
    ) -> "torch.Tensor":
        return losshead.token_logps(self._logits(batch)[chosen], targets)

    def _logits(self, batch: Batch) -> "torch.Tensor":
        """All logits by the model's own forward pass on the padded batch, [position, size]."""
        output = self.model(input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False)
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


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode for a while; each module's own mode is restored after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
