"""THE training loop: what a run may set, one optimiser step after another, and held-out loss."""

import gc
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tunesmith.core.errors import ResourceError, TrainError, out_of_memory
from tunesmith.core.late import late
from tunesmith.core.parts import Spec
from tunesmith.core.records import Batch, Loss, Tally
from tunesmith.model.arithmetic import Arithmetic
from tunesmith.model.devices import Device
from tunesmith.model.policy import Policy
from tunesmith.train import randomness, schedule
from tunesmith.train.batches import halves
from tunesmith.train.methods.base import Method
from tunesmith.train.methods.lora import Lora
from tunesmith.train.objectives.base import Objective
from tunesmith.train.objectives.sft import Sft
from tunesmith.train.schedule import Curve
from tunesmith.train.sinks.base import Sink
from tunesmith.train.streams import Group, Stream

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Fading = Annotated[float, Field(ge=0, lt=1)]


class Train(Spec):
    """How the weights are changed."""

    method: Method = Lora()
    """What may move: `lora`, `full`, `adapter`, `prefix`, `prompt`, `ia3`, `frozen`."""
    objective: Objective = Sft()
    """What is asked of the model: `sft` for answers, `lm` for documents, `classify` for labels."""
    epochs: Positive = 3
    """How often every row is seen; of a mixture, how often `data.mix` is gone through."""
    steps: Positive | None = None
    """Optimiser steps; overrides `epochs`."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate; by default the method's own, which its page names."""
    batch: Positive = 8
    """Rows in one optimiser step; of documents (`lm`), windows."""
    length: Positive = 1024
    """Longest row, in tokens; longer documents (`lm`) go on in another window. Nothing is ever
    cut; see `too_long`."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """What happens to a longer row: the run is refused, or the row is left out and counted."""
    micro_batch: Positive | None = None
    """Tokens in one forward pass; by default 1,024 on a processor and 8,192 on a GPU, or five times
    what all rows begin with. Less needs less memory and changes nothing else, but what
    `arithmetic: bytes` rounds."""
    gradient_checkpointing: Literal["auto", "off"] | Positive = "auto"
    """Whose inner states are computed again on the way back: those of every block (1), of every
    second (2) and so on. Less memory, more time, the same gradients. `auto` keeps what fits. Not on
    mps, nor for models whose own attention writes into a cache."""
    schedule: Curve = "cosine"
    """How the learning rate falls after warm-up: `linear`, `cosine` or `constant`."""
    warmup: Share = 0.03
    """Share of the steps in which the learning rate rises to its peak."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Longest gradient; a longer one is scaled down to it."""
    decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of matrices."""
    betas: tuple[Fading, Fading] = (0.9, 0.999)
    """AdamW's memory of the gradient and of its square."""
    evaluate_every: Positive | None = None
    """Optimiser steps between looks at the held-out rows; by default about five in a run."""
    save_every: Positive = 50
    """Optimiser steps between checkpoints."""
    keep: Positive = 2
    """Checkpoints kept, beside the best."""
    best: Literal["loss", "token_accuracy", "accuracy"] = "loss"
    """The held-out measure that decides which checkpoint is the result."""
    patience: Positive | None = None
    """Looks without a better value after which training stops early; by default never."""
    probes: Annotated[int, Field(ge=0)] = 3
    """Held-out prompts answered at every look, to see the answers change."""
    sinks: list[Sink] = []
    """Where the numbers are copied to besides the run folder: `tensorboard`, `mlflow`, `wandb`,
    `trackio`."""
    arithmetic: Arithmetic = "floats"
    """What numbers training steps multiply in by the model's linear layers, and in `bfloat16` in
    the attention of long rows; looks and answers stay exact. `bfloat16` is faster on processors
    with AVX512-BF16, and takes a copy of the layers in two bytes a number
    (docs/decisions/0022-steps-in-bfloat16.md). `bytes`, for `model.bits: 8`, is
    so on processors with AVX512-VNNI, and makes coarser gradients
    (docs/decisions/0015-steps-in-bytes.md)."""
    device: Device = "auto"
    """`cpu`, `cuda` or `mps`; `auto` takes the fastest there is. `mps` is untested."""
    seams: Literal["fast", "reference"] = "fast"
    """`reference` trains through the model's own attention and all logits: slow, for comparison."""

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _no_truth(cls, setting: Any) -> Any:
        if setting is True:
            raise ValueError("for what others call true say 1, every block; or auto, off, a number")
        return setting

    @model_validator(mode="after")
    def _something_can_be_learned(self) -> "Train":
        learns = self.objective.scores and not self.objective.fits_head
        if not (self.method.moves or learns):
            raise ValueError(
                f"method {self.method.kind} moves no weight and objective {self.objective.kind} "
                "trains no head, so nothing would be learned; set method to lora or full, or "
                "objective to classify (without contrast)"
            )
        if self.best not in self.objective.measures:
            raise ValueError(
                f"best: {self.best} is not measured by objective {self.objective.kind}; "
                f"it measures {' and '.join(self.objective.measures)}"
            )
        return self

    @property
    def rate(self) -> float:
        """The peak learning rate in force."""
        return self.lr if self.lr is not None else self.method.default_lr

    def pass_tokens(self, device: str, common: int = 0) -> int:
        """Tokens in one forward pass on a type of device, where all rows begin with so many
        `common` ones, which a pass reads once (docs/decisions/0002)."""
        usual = 1024 if device == "cpu" else 8192
        return self.micro_batch or max(usual, REPAYS * common)


REPAYS = 5
"""Times the common beginning that a pass should hold: it is then a fifth of the work at most."""
HIGHER_IS_BETTER = {"loss": False, "token_accuracy": True, "accuracy": True}


@dataclass(frozen=True)
class Step:
    """What one optimiser step did. `loss` is per supervised token, `norm` before clipping."""

    number: int
    loss: float
    norm: float
    rate: float
    tokens: int
    supervised: int
    means: dict[str, float]
    limit: int | None
    """The largest micro-batch that memory holds, in padded tokens, once it was seen to run out."""


def steps(
    policy: Policy,
    objective: Objective,
    stream: Stream,
    spec: Train,
    *,
    total: int,
    optimizer: "torch.optim.Optimizer",
    start: int = 0,
    limit: int | None = None,
) -> Iterator[Step]:
    """Train, one optimiser step per item. The caller logs, evaluates, saves and stops.

    `limit` is what the last step before `start` said: sums are then made in the same order.
    """
    parameters = policy.trainable()
    warmup = schedule.warmup_steps(spec.warmup, total)
    held = Limit(limit)
    for number, group in enumerate(islice(stream, total - start), start):
        shape = schedule.factor(number, total=total, warmup=warmup, curve=spec.schedule)
        for settings in optimizer.param_groups:
            settings["lr"] = settings["scale"] * spec.rate * shape
        loss, tally, group = accumulate(policy, objective, group, held)
        norm = torch.nn.utils.clip_grad_norm_(parameters, spec.clip)
        if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
            raise TrainError(diagnose(policy, objective, group, number + 1))
        optimizer.step()
        policy.weights_moved()
        optimizer.zero_grad(set_to_none=True)
        yield Step(
            number=number,
            loss=loss,
            norm=float(norm),
            rate=spec.rate * shape,
            tokens=sum(batch.tokens for batch in group),
            supervised=sum(batch.supervised for batch in group),
            means=tally.means(),
            limit=held.tokens,
        )


@dataclass
class Limit:
    """The largest micro-batch that memory was seen to hold, in padded tokens."""

    tokens: int | None = None

    def cut(self, group: Group) -> Group:
        """The group with every larger micro-batch halved until it fits or is one sequence."""
        if self.tokens is None:
            return group
        parts = [p for b in group for p in (halves(b) if b.ids.numel() > self.tokens else [b])]
        return group if len(parts) == len(group) else self.cut(parts)


def accumulate(
    policy: Policy, objective: Objective, group: Group, limit: Limit
) -> tuple[float, Tally, Group]:
    """Gradients of one step: the sum over its micro-batches, divided once by the whole weight.

    Out of memory halves the micro-batches and does the same step again, from the random numbers
    it began with: the trajectory is the one of a run that had these micro-batches all along.
    """
    group = limit.cut(group)
    before = randomness.capture()
    while True:
        try:
            return (*_backward(policy, objective, group), group)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        for parameter in policy.trainable():
            parameter.grad = None
        gc.collect()
        randomness.restore(before)
        limit.tokens = max(batch.ids.numel() for batch in group) - 1
        smaller = limit.cut(group)
        if len(smaller) == len(group):
            again = policy.recomputes and not policy.recomputed
            advice = "set train.gradient_checkpointing=1, " if again else ""
            raise ResourceError(
                f"out of memory on a single row ({group[0].origins[0]}): lower train.length, "
                f"{advice}or use a smaller model or train.method=lora"
            )
        group = smaller


def _backward(policy: Policy, objective: Objective, group: Group) -> tuple[float, Tally]:
    weight = sum(float(objective.weight(batch)) for batch in group)
    total, tally = 0.0, Tally()
    for batch in group:
        loss: Loss = objective.loss(policy, batch)
        (loss.total / max(weight, 1e-30)).backward()
        total += float(loss.total.detach())
        tally += loss.logs
    return total / max(weight, 1e-30), tally


def diagnose(policy: Policy, objective: Objective, group: Group, number: int) -> str:
    """One sentence on where a non-finite number came from: parameter, rows, or gradient."""
    for name, parameter in policy.named():
        if not torch.isfinite(parameter).all():
            return (
                f"step {number}: {name} holds a number that is not finite; the last checkpoint "
                "does not. Go on from it with a lower rate: train.lr=... --accept-change train.lr"
            )
    bad = [str(o) for batch in group for o in _not_finite_rows(policy, objective, batch)]
    if bad:
        return (
            f"step {number}: the loss is not finite on {', '.join(bad[:5])}. Look at these rows, "
            "or lower train.lr"
        )
    named = policy.named()
    grads = [n for n, p in named if p.grad is not None and not torch.isfinite(p.grad).all()]
    where = f" in {grads[0]} (and {len(grads) - 1} more)" if grads else ""
    rows = ", ".join(str(o) for batch in group for o in batch.origins[:3])
    return (
        f"step {number}: the gradient is not finite{where}; rows {rows}. Lower train.lr, or look "
        "at these rows"
    )


def _not_finite_rows(policy: Policy, objective: Objective, batch: Batch) -> Iterable[object]:
    with torch.no_grad():
        for row in _singles(batch):
            if not torch.isfinite(objective.loss(policy, row).total):
                yield row.origins[0]


def _singles(batch: Batch) -> list[Batch]:
    parts = halves(batch)
    return [batch] if len(parts) == 1 else [single for part in parts for single in _singles(part)]


def tallied(policy: Policy, objective: Objective, batches: Iterable[Batch]) -> Tally:
    """The sums and counts behind held-out measures; those of several sources add up."""
    tally = Tally()
    for batch in batches:
        with policy.looking(batch):
            tally += objective.loss(policy, batch).logs
            if "token_accuracy" in objective.measures:
                hits, count = float(policy.hits(batch)), float(batch.supervised)
                tally += Tally({"token_accuracy": (hits, count)})
    return tally


def improves(measure: str, value: float, other: float) -> bool:
    """Whether a value is better than another; the direction belongs to the measure."""
    return value > other if HIGHER_IS_BETTER[measure] else value < other


@dataclass
class Watch:
    """Remembers the best held-out value, and says when to stop looking for a better one.

    Of equal values the earliest stays the best.
    """

    measure: str
    patience: int | None
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0
    seen: list[tuple[int, float]] = field(default_factory=list)

    def see(self, step: int, value: float) -> bool:
        """Take note of a value; True when it is the best so far."""
        self.seen.append((step, value))
        is_best = self.best_value is None or improves(self.measure, value, self.best_value)
        if is_best:
            self.best_step, self.best_value, self.stale = step, value, 0
        else:
            self.stale += 1
        return is_best

    def has_seen(self, step: int) -> bool:
        """Whether the value after `step` steps is known."""
        return any(seen == step for seen, _ in self.seen)

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.stale >= self.patience
