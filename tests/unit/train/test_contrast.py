"""Contrast: the published formula, its exact gradient however a step is cut, and a fitted head."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import exp, log, sqrt
from pathlib import Path

import pytest
import torch

from tests.trained import base_of, labelled, prepared, settings, trained
from tests.workflow.test_resume import stop_after
from tunesmith.core.errors import Preempted, SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.records import Batch, Example, collate
from tunesmith.model import heads, layout, plain
from tunesmith.model.bases import Base
from tunesmith.model.load import load_model
from tunesmith.model.policy import Policy
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.trained import load_trained
from tunesmith.train import contrast
from tunesmith.train.batches import cut, halves
from tunesmith.train.contrast import Contrast
from tunesmith.train.loop import Train, _backward
from tunesmith.train.methods.base import Method
from tunesmith.train.methods.frozen import Frozen
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.lora import Lora
from tunesmith.train.objectives.classify import Classify

Tiny = Callable[[str], Path]
METHODS: dict[str, Method] = {"lora": Lora(rank=4, dropout=0.1), "full": Full()}
WARM = Classify(contrast=Contrast())
NAMES = ["blue", "green", "red"]
FITTED = WARM.model_copy(update={"labels": NAMES, "many": False})


def by_hand(states: list[list[float]], partners: list[set[int]], temperature: float) -> list[float]:
    """Eq. 2 of arXiv 2004.11362, row by row."""

    def cosine(a: list[float], b: list[float]) -> float:
        inner = sum(x * y for x, y in zip(a, b, strict=True))
        return inner / sqrt(sum(x * x for x in a)) / sqrt(sum(y * y for y in b))

    found = []
    for i, row in enumerate(states):
        others = [a for a in range(len(states)) if a != i]
        near = {a: exp(cosine(row, states[a]) / temperature) for a in others}
        logs = [log(near[p] / sum(near.values())) for p in partners[i]]
        found.append(-sum(logs) / len(logs) if logs else 0.0)
    return found


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_the_loss_is_the_published_formula(temperature: float) -> None:
    states = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = [0, 1, 0, 2, 1, 0, 3]
    every = list(enumerate(labels))
    partners = [{j for j, b in every if a == b and i != j} for i, a in every]
    found, paired = contrast.terms(states, torch.tensor(labels), temperature)
    wanted = by_hand(states.tolist(), partners, temperature)
    assert found.tolist() == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    assert paired.tolist() == [bool(each) for each in partners]


def test_rows_of_many_labels_are_partners_where_they_share_one() -> None:
    states = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
    found, paired = contrast.terms(states, labels, 0.5)
    assert found.tolist() == pytest.approx(
        by_hand(states.tolist(), [{1, 2}, {0}, {0}, set()], 0.5), rel=1e-12
    )
    assert paired.tolist() == [True, True, True, False]


def policy_of(base: Base, objective: Classify) -> Policy:
    model = load_model(base).double().requires_grad_(True).train()
    head = objective.head(model, 0)
    head.linear.double()
    return Policy(model, Tokenizer.load(base.folder), head=head)


def rows_of(base: Base, objective: Classify, count: int = 12) -> list[Example]:
    tokenizer = Tokenizer.load(base.folder)
    rows = [objective.encode(labelled(n), tokenizer) for n in range(count)]
    return [*rows[:3], replace(rows[3], weight=0.5), *rows[4:]]


def gradient(policy: Policy, objective: Classify, group: list[Batch]) -> tuple[float, torch.Tensor]:
    for parameter in policy.trainable():
        parameter.grad = None
    (prepared_group,) = [next(objective.stream(policy, iter([group])))]
    value, _ = _backward(policy, objective, prepared_group)
    return value, torch.cat([p.grad.flatten() for p in policy.trainable() if p.grad is not None])


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_the_gradient_is_that_of_the_whole_step_however_it_is_cut(kind: str, tiny: Tiny) -> None:
    base, objective = base_of(tiny(kind)), FITTED
    policy, rows = policy_of(base, objective), rows_of(base, objective)
    whole = collate(rows, "cpu")
    policy.model.eval()
    each, _ = contrast.terms(policy.pooled(whole), whole.labels, 0.05)
    total = (each * whole.weights).sum() / whole.weights.sum()
    wanted = torch.autograd.grad(total, policy.trainable(), allow_unused=True)
    flat = torch.cat([g.flatten() for g in wanted if g is not None])
    policy.model.train()
    for tokens in (8, 24, 10**6):
        group = cut(rows, tokens, "cpu", laid=policy.laid)
        value, found = gradient(policy, objective, group)
        assert value == pytest.approx(float(total.detach()), rel=1e-12)
        assert (found - flat).norm() <= 1e-10 * flat.norm(), tokens


def test_memory_that_runs_out_halves_what_the_stream_prepared(tiny: Tiny) -> None:
    base, objective = base_of(tiny("bert")), FITTED
    policy, rows = policy_of(base, objective), rows_of(base, objective)
    (batch,) = next(objective.stream(policy, iter([[collate(rows, "cpu")]])))
    parts = halves(batch)
    assert len(parts) == 2
    whole, half = _backward(policy, objective, [batch])[0], _backward(policy, objective, parts)[0]
    assert half == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("many", [False, True])
def test_the_head_is_the_best_there_is(many: bool, tiny: Tiny) -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    base = base_of(tiny("bert"))
    objective = WARM.model_copy(update={"labels": NAMES, "many": many})
    policy, tokenizer = policy_of(base, objective), Tokenizer.load(base.folder)
    rows = [labelled(n, many=many) for n in range(24)]
    batch = collate([objective.encode(row, tokenizer) for row in rows], "cpu")
    contrast.fit(policy, policy.head, [batch], 0.5)
    with torch.no_grad():
        policy.model.eval()
        states, scores = policy.pooled(batch), policy.scores(batch)
    head = policy.head.linear
    if many:
        for place in range(len(NAMES)):
            wanted = sklearn.LogisticRegression(C=2.0, tol=1e-8, max_iter=2000)
            wanted.fit(states.numpy(), batch.labels[:, place].numpy())
            assert head.weight[place].tolist() == pytest.approx(wanted.coef_[0], abs=2e-3)
        return
    wanted = sklearn.LogisticRegression(C=2.0, tol=1e-8, max_iter=2000)
    wanted.fit(states.numpy(), batch.labels.numpy())
    told = torch.from_numpy(wanted.predict_proba(states.numpy()))
    assert torch.allclose(scores.softmax(dim=1).double(), told, atol=2e-3)
    assert torch.allclose(head.weight.double(), torch.from_numpy(wanted.coef_), atol=5e-3)


def run_of(path: Path, base: Base, method: Method, **changes: object) -> tuple[RunFolder, Train]:
    given = {"epochs": 4, "batch": 9, "save_every": 100, "lr": 1e-3, **changes}
    spec = settings(method=method, objective=WARM, **given)
    return trained(prepared(path, rows=18, held=6, row=labelled), base, spec), spec


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_run_learns_and_its_head_fits_its_model(
    method: str, kind: str, tiny: Tiny, tmp_path: Path
) -> None:
    base = base_of(tiny(kind))
    # All rows in every step: first and last loss are then of the same rows.
    folder, _ = run_of(tmp_path / "run", base, METHODS[method], batch=18, epochs=8)
    stage = folder.stage("train").path
    record = json.loads((stage / "train.json").read_text())
    assert record["last_loss"] < record["first_loss"]
    policy = load_trained(stage, base)
    kept = policy.head.linear.weight.clone()
    rows = [plain.encode(labelled(n), policy.tokenizer, n % 3) for n in range(18)]
    order = {"red": 2, "green": 1, "blue": 0}
    rows = [replace(r, label=order[labelled(n).labels[0]]) for n, r in enumerate(rows)]
    contrast.fit(policy, policy.head, cut(rows, 512, "cpu"), Contrast().penalty)
    assert torch.allclose(policy.head.linear.weight, kept, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_resumed_it_is_the_run_that_never_stopped(
    method: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.train.progress import Progress

    base = base_of(tiny("bert"))
    whole, spec = run_of(tmp_path / "whole", base, METHODS[method], save_every=3)
    folder = prepared(tmp_path / "cut", rows=18, held=6, row=labelled)
    note = Progress.note

    def dies(self: Progress, step: object) -> None:
        note(self, step)  # type: ignore[arg-type]
        if len(self.losses) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "note", dies)
        with pytest.raises(KeyboardInterrupt):
            trained(folder, base, spec)
    trained(folder, base, spec)
    one, two = whole.stage("train").path, folder.stage("train").path
    for name in sorted(path.name for path in one.glob("*.safetensors")):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    curves = [(stage / "curves.jsonl").read_text() for stage in (one, two)]
    assert curves[0] == curves[1]


def test_a_stop_at_the_best_look_leaves_no_head_of_an_earlier_one(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is saved before the look: the head in it was fitted to another model."""
    base = base_of(tiny("bert"))
    whole, spec = run_of(tmp_path / "whole", base, Full(), evaluate_every=2)
    best = json.loads((whole.stage("train").path / "train.json").read_text())["best_step"]
    folder = prepared(tmp_path / "cut", rows=18, held=6, row=labelled)
    with monkeypatch.context() as patched:
        stop_after(patched, best)
        with pytest.raises(Preempted):
            trained(folder, base, spec)
    trained(folder, base, spec)
    kept = [run.stage("train").path / "head.safetensors" for run in (whole, folder)]
    assert kept[0].read_bytes() == kept[1].read_bytes()


def test_without_valid_rows_the_head_is_fitted_too(tiny: Tiny, tmp_path: Path) -> None:
    base = base_of(tiny("bert"))
    spec = settings(method=Full(), objective=WARM, batch=9, lr=1e-3)
    folder = trained(prepared(tmp_path / "run", rows=18, held=0, row=labelled), base, spec)
    head = heads.load(folder.stage("train").path, 32)
    fresh = heads.fresh(heads.Meaning(tuple(NAMES), "mean", False), 32, seed=0)
    assert head is not None and not torch.equal(head.linear.weight, fresh.linear.weight)


def test_steps_without_partners_and_models_that_stay_are_refused(
    tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="0 of the 1 rows .* set train.batch=6, two rows a"):
        run_of(tmp_path / "run", base_of(tiny("bert")), Full(), batch=1)
    with pytest.raises(ValueError, match=r"moves no weight .*\(without contrast\)"):
        Train(method=Frozen(), objective=WARM)


def test_only_the_model_is_trained(tiny: Tiny) -> None:
    objective = FITTED
    model = load_model(base_of(tiny("bert")))
    assert not any(p.requires_grad for p in objective.head(model, 0).linear.parameters())
    assert layout.width(model) == 32
