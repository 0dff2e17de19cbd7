"""The loop: rates, stopping, and what happens when numbers or memory give out."""

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.rows import batch, examples
from tunesmith.core.errors import ResourceError, TrainError
from tunesmith.core.records import collate
from tunesmith.model.policy import Policy
from tunesmith.train import optimiser, randomness, schedule
from tunesmith.train.batches import Groups, cut
from tunesmith.train.loop import Train, Watch, steps, tallied
from tunesmith.train.methods.lora import Lora
from tunesmith.train.objectives.sft import Sft
from tunesmith.train.streams import PassThrough

Tiny = Callable[[str], Path]
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
LENGTHS = (9, 14, 5, 7, 21, 11, 6, 8, 17, 12, 9, 10)


def policy_of(folder: Path, method: Lora | None = None) -> Policy:
    model = AutoModelForCausalLM.from_pretrained(folder).requires_grad_(False)
    return Policy((method or Lora(rank=4)).apply(model, 0).train(), None)


def run(policy: Policy, spec: Train, *, total: int = 6, tokens: int = 64) -> Iterator[Any]:
    optimizer = optimiser.adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    groups = Groups(examples(LENGTHS, 300), rows=4, tokens=tokens, seed=0, device="cpu")
    return steps(policy, Sft(), PassThrough(groups), spec, total=total, optimizer=optimizer)


def weights(policy: Policy) -> list[torch.Tensor]:
    return [p.detach().clone() for p in policy.trainable()]


@pytest.mark.parametrize("curve", ["linear", "cosine", "constant"])
def test_the_rate_equals_transformers_at_every_step_after_warm_up(curve: Any) -> None:
    """T-LR, against the field's own schedules."""
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if curve == "constant" else curve
    oracle = get_scheduler(name, optimizer, num_warmup_steps=3, num_training_steps=40)
    for step in range(40):
        given = schedule.factor(step, total=40, warmup=3, curve=curve)
        wanted = (step + 1) / 4 if step < 3 else optimizer.param_groups[0]["lr"]
        assert given == pytest.approx(wanted, abs=1e-12)
        optimizer.step()
        oracle.step()


def test_the_rate_in_force_is_the_closed_form(tiny: Tiny) -> None:
    spec = Train(lr=1e-2, warmup=0.4)
    rates = [step.rate for step in run(policy_of(tiny("llama")), spec, total=6)]
    wanted = [schedule.factor(n, total=6, warmup=3, curve="cosine") * 1e-2 for n in range(6)]
    assert rates == wanted


def test_the_same_seed_gives_the_same_weights_to_the_bit(tiny: Tiny) -> None:
    spec = Train(lr=1e-2, method=Lora(rank=4, dropout=0.2))
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        policy = policy_of(tiny("llama"), Lora(rank=4, dropout=0.2))
        list(run(policy, spec))
        results.append(weights(policy))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_loss_falls(tiny: Tiny) -> None:
    losses = [s.loss for s in run(policy_of(tiny("llama")), Train(lr=1e-2), total=40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("tokens", [16, 32, 1000])
def test_micro_batches_change_nothing(tokens: int, tiny: Tiny) -> None:
    wanted, given = policy_of(tiny("llama")), policy_of(tiny("llama"))
    before = [s.loss for s in run(wanted, Train(lr=1e-3), tokens=64)]
    after = [s.loss for s in run(given, Train(lr=1e-3), tokens=tokens)]
    assert after == pytest.approx(before, rel=1e-6)


class Faulty(Sft):
    """SFT that fails on the third call, in the way it is told."""

    calls: list[int] = []
    fault: str = "memory"

    def loss(self, policy: Any, batch: Any) -> Any:
        self.calls.append(batch.ids.numel())
        if self.fault == "memory" and len(self.calls) == 3:
            raise MemoryError
        if self.fault == "first" and len(self.calls) == 1:
            raise MemoryError
        if self.fault == "always" and batch.ids.shape[0] >= 1:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
        return super().loss(policy, batch)


def test_out_of_memory_halves_the_micro_batch_on_the_same_trajectory(tiny: Tiny) -> None:
    """T-OOM."""
    wanted = [s.loss for s in run(policy_of(tiny("llama")), Train(lr=1e-2), tokens=1000)]
    objective = Faulty(calls=[])
    policy = policy_of(tiny("llama"))
    optimizer = optimiser.adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    groups = Groups(examples(LENGTHS, 300), rows=4, tokens=1000, seed=0, device="cpu")
    taken = steps(
        policy, objective, PassThrough(groups), Train(lr=1e-2), total=6, optimizer=optimizer
    )
    assert [s.loss for s in taken] == pytest.approx(wanted, rel=1e-6)
    assert max(objective.calls[3:]) < max(objective.calls[:3])


class Drawing(Faulty):
    """Also draws from every generator, on every device there is, as a stream or a reward may."""

    drawn: list[list[float]] = []

    def loss(self, policy: Any, batch: Any) -> Any:
        numbers = [random.random(), numpy.random.rand(), float(torch.rand(()))]
        numbers.append(float(torch.rand((), device=policy.device)))
        self.drawn.append(numbers)
        return super().loss(policy, batch)


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, gpu])],
)
def test_after_out_of_memory_it_is_the_run_that_knew_the_limit(device: str, tiny: Tiny) -> None:
    """Dropout and all other random numbers of the repeated step are drawn as if for the first
    time: the weights are equal to the bit."""

    def trained(limit: int | None, fault: str) -> tuple[list[torch.Tensor], Drawing, int | None]:
        randomness.seed_everything(0)
        policy = policy_of(tiny("llama"), Lora(rank=4, dropout=0.2))
        policy.model.to(device)
        objective = Drawing(calls=[], drawn=[], fault=fault)
        optimizer = optimiser.adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
        groups = Groups(examples(LENGTHS, 300), rows=4, tokens=1000, seed=0, device=device)
        spec, stream = Train(lr=1e-2), PassThrough(groups)
        taken = list(
            steps(policy, objective, stream, spec, total=3, optimizer=optimizer, limit=limit)
        )
        return weights(policy), objective, taken[-1].limit

    given, failing, limit = trained(None, "first")
    wanted, calm, same = trained(limit, "none")
    assert limit == same and failing.drawn[1:] == calm.drawn
    assert all(torch.equal(a, b) for a, b in zip(given, wanted, strict=True))


def test_out_of_memory_on_one_row_is_one_sentence(tiny: Tiny) -> None:
    policy = policy_of(tiny("llama"))
    optimizer = optimiser.adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    groups = PassThrough(iter([[batch((5, 6), 300)]]))
    objective = Faulty(calls=[], fault="always")
    with pytest.raises(ResourceError, match="single row"):
        list(steps(policy, objective, groups, Train(), total=1, optimizer=optimizer))


@pytest.mark.parametrize("where", ["loss", "gradient", "parameter"])
def test_a_number_that_is_not_finite_stops_before_the_step(where: str, tiny: Tiny) -> None:
    """T-NAN: names the step and the row or the tensor; no weight has moved."""
    policy = policy_of(tiny("llama"))
    running = run(policy, Train(lr=1e-2))
    next(running)
    poison(policy, where)
    before = weights(policy)
    with pytest.raises(TrainError, match=r"step 2: .*(rows\.jsonl:\d+|lora_)") as caught:
        next(running)
    assert where in str(caught.value) or where == "parameter"
    for old, new in zip(before, weights(policy), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0, equal_nan=True)


def poison(policy: Policy, where: str) -> None:
    parameter = policy.trainable()[3]
    if where == "parameter":
        with torch.no_grad():
            parameter[0, 0] = math.nan
    elif where == "gradient":
        parameter.register_hook(lambda grad: grad * math.inf)
    else:
        norm = policy.model.base_model.model.model.norm
        norm.register_forward_hook(lambda module, inputs, output: output * math.nan)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_held_out_measures_do_not_depend_on_the_batch(size: int, tiny: Tiny) -> None:
    """T-EVAL: a sum over tokens divided by a count."""
    policy = policy_of(tiny("llama"))
    policy.model.double()
    rows = examples(LENGTHS, 300)
    whole = tallied(policy, Sft(), [collate(rows, "cpu")]).means()
    parts = [collate(rows[i : i + size], "cpu") for i in range(0, len(rows), size)]
    given = tallied(policy, Sft(), parts[::-1]).means()
    assert given["loss"] == pytest.approx(whole["loss"], rel=1e-12)
    assert given["token_accuracy"] == whole["token_accuracy"]


def test_held_out_runs_without_dropout_and_puts_the_mode_back(tiny: Tiny) -> None:
    """T-MODE."""
    policy = policy_of(tiny("llama"), Lora(rank=4, dropout=0.5))
    rows = cut(examples(LENGTHS, 300), 64, "cpu")
    assert tallied(policy, Sft(), rows).means() == tallied(policy, Sft(), rows).means()
    assert policy.model.training


def test_a_look_takes_one_pass_a_batch_and_none_of_it_is_kept(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policy_of(tiny("llama"))
    policy.method = Lora(rank=4)
    rows = [collate(examples([9, 7], 300), "cpu"), collate(examples([5, 8, 6], 300), "cpu")]
    passes: list[int] = []
    plain = Policy._pass
    counted = lambda self, *given: passes.append(1) or plain(self, *given)  # noqa: E731
    monkeypatch.setattr(Policy, "_pass", counted)
    before = tallied(policy, Sft(), rows).means()
    assert len(passes) == len(rows)
    with policy.looking(rows[0]), policy.reference() as other:
        policy.nll(rows[0])
        other.nll(rows[0])
        policy.nll(rows[1])
    assert len(passes) == 2 * len(rows) + 1, (
        "another model's states, or another batch's, are not its"
    )
    for parameter in policy.trainable():
        parameter.data.add_(0.1)
    assert tallied(policy, Sft(), rows).means() != before


def test_the_best_is_the_best_and_ties_keep_the_earliest() -> None:
    """T-BEST, both directions."""
    low, high = Watch("loss", 2), Watch("token_accuracy", None)
    for step, value in enumerate([3.0, 2.0, 2.0, 2.5]):
        low.see(step, value)
        high.see(step, value)
    assert (low.best_step, low.best_value, low.exhausted) == (1, 2.0, True)
    assert (high.best_step, high.best_value, high.exhausted) == (0, 3.0, False)


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="token_accuracy"):
        Train.model_validate({"best": "bleu"})
