"""Supervised contrast: what a model makes of rows of a label draws together, of others apart.

The loss of a row depends on all rows of its step, and a step is cut into micro-batches. So the
stream reads the whole step first, without gradients, and hands each micro-batch the gradient of
the loss in its states (arXiv 2101.06983): memory is that of a micro-batch, and the cut changes
nothing. Both passes leave dropout out, so the gradient is exact in floats.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tunesmith.core.errors import SettingsError
from tunesmith.core.late import late
from tunesmith.core.parts import Spec
from tunesmith.core.records import Batch, Loss, Tally
from tunesmith.model.modes import evaluating
from tunesmith.model.policy import Policy
from tunesmith.train.streams import Group

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional

    from tunesmith.model.heads import Head
else:
    torch = late("torch")
    functional = late("torch.nn.functional")

PULL, TERMS = "pull", "terms"
"""What a micro-batch carries: the gradient in each state, and each row's loss."""
PAIRED = 0.5
"""Share of the rows of the first step that must share their label with another of them."""
TURNS = 200
"""Iterations in which the head is fitted; it has come to rest long before."""


class Contrast(Spec):
    """How the model is warmed up before the head is fitted."""

    temperature: Annotated[float, Field(gt=0)] = 0.05
    """How far apart is far: lower looks at the nearest wrong rows alone."""
    penalty: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the head's squared length beside the rows' losses, when it is fitted."""


def terms(
    states: "torch.Tensor", labels: "torch.Tensor", temperature: float
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Each row's loss, and whether it has a partner; without one its loss is 0. Both [row].

    The mean over partners p of -log softmax(cos(row, p) / temperature) among all other rows:
    L_out of arXiv 2004.11362, eq. 2. Rows of many labels are partners where they share one.
    """
    near = functional.normalize(states, dim=1)
    alike = near @ near.t() / temperature  # [row, row]
    itself = torch.eye(len(states), dtype=torch.bool, device=states.device)
    held = labels.to(states.dtype)  # no GPU multiplies whole numbers
    shared = held @ held.t() > 0 if labels.dim() == 2 else labels[:, None] == labels[None]
    partners = shared & ~itself
    logs = alike.masked_fill(itself, float("-inf")).log_softmax(dim=1).masked_fill(~partners, 0.0)
    count = partners.sum(dim=1)
    return -logs.sum(dim=1) / count.clamp(min=1), count > 0


class Contrasted:
    """The groups, each micro-batch with the pull on its states by all rows of its step."""

    def __init__(self, policy: Policy, groups: Iterator[Group], temperature: float) -> None:
        self.policy, self.groups, self.temperature = policy, groups, temperature
        self.begun = False

    def __iter__(self) -> Iterator[Group]:
        return self

    def __next__(self) -> Group:
        group = next(self.groups)
        with torch.no_grad(), evaluating(self.policy.model):
            states = torch.cat([precise(self.policy.pooled(batch)) for batch in group])
        labels = torch.cat([batch.labels for batch in group if batch.labels is not None])
        weights = torch.cat([batch.weights for batch in group])
        states.requires_grad_()
        each, paired = terms(states, labels, self.temperature)
        if not self.begun:
            refuse_lonely(paired, self.policy)
        self.begun = True
        (pull,) = torch.autograd.grad((each * weights).sum(), states)
        sizes = [len(batch.rows) for batch in group]
        parts = zip(group, pull.split(sizes), each.detach().split(sizes), strict=True)
        return [replace(b, extra={**b.extra, PULL: p, TERMS: t}) for b, p, t in parts]

    def state(self) -> dict[str, Any]:
        return {"begun": self.begun}

    def restore(self, state: dict[str, Any]) -> None:
        self.begun = state["begun"]


def refuse_lonely(paired: "torch.Tensor", policy: Policy) -> None:
    """Refuse steps so small that most rows meet no other of their label."""
    count = int(paired.sum())
    if count < PAIRED * len(paired):
        raise SettingsError(
            f"train.batch: {count} of the {len(paired)} rows of the first step share their label "
            "with another of them, and contrast learns from those alone; set "
            f"train.batch={2 * len(policy.labels)}, two rows a label, or more"
        )


def loss(policy: Policy, batch: Batch) -> Loss:
    """The contrast of a micro-batch that the stream has prepared: its value, with its gradient."""
    with evaluating(policy.model):
        states = precise(policy.pooled(batch))
    value = (batch.extra[TERMS] * batch.weights).sum()
    total = value + (batch.extra[PULL] * (states - states.detach())).sum()
    return Loss(total, Tally({"contrast": (float(value), float(batch.weights.sum()))}))


def precise(states: "torch.Tensor") -> "torch.Tensor":
    """In float32 or better."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def fit(policy: Policy, head: "Head", batches: Iterable[Batch], penalty: float) -> None:
    """Put the one best head over the states of these rows in place of `head`'s numbers.

    Logistic regression: the sum of the rows' losses, with many labels over each, and `penalty` / 2
    times the squared weights; in float64 from zero, so that the same states give the same head.
    """
    with torch.no_grad(), evaluating(policy.model):
        read = [(policy.pooled(batch).double(), batch) for batch in batches]
    states = torch.cat([found for found, _ in read])
    labels = torch.cat([batch.labels for _, batch in read if batch.labels is not None])
    weights = torch.cat([batch.weights for _, batch in read]).double()
    weight = torch.zeros_like(head.linear.weight, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros_like(head.linear.bias, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=TURNS, line_search_fn="strong_wolfe")

    def cost() -> "torch.Tensor":
        solver.zero_grad()
        scores = functional.linear(states, weight, bias)
        if head.many:
            each = functional.binary_cross_entropy_with_logits(
                scores, labels.double(), reduction="none"
            ).sum(dim=1)
        else:
            each = functional.cross_entropy(scores, labels, reduction="none")
        total: torch.Tensor = (each * weights).sum() + penalty / 2 * weight.square().sum()
        (total / len(states)).backward()
        return total.detach() / len(states)

    with torch.enable_grad():
        solver.step(cost)
    head.linear.weight.data.copy_(weight.detach())
    head.linear.bias.data.copy_(bias.detach())
