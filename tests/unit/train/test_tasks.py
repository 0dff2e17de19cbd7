"""One head for each source over one trunk: each its own, whatever the others learn."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trained import base_of, labelled, prepared, settings, trained
from tunesmith.core.errors import DataError, IntegrityError, SettingsError
from tunesmith.core.records import Batch, Tally, collate
from tunesmith.core.rows import Labelled, Origin
from tunesmith.evaluate.questions import head_labels
from tunesmith.evaluate.scores import by_shares
from tunesmith.model import classify, heads, layout
from tunesmith.model.load import load_model
from tunesmith.model.policy import Policy
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.trained import load_trained
from tunesmith.train.loop import tallied
from tunesmith.train.methods.frozen import Frozen
from tunesmith.train.objectives.classify import Classify

Tiny = Callable[[str], Path]


def row(text: str, source: str, *labels: str, many: bool = False) -> Labelled:
    origin = Origin("rows.jsonl", 1)
    return Labelled((text,), labels, many=many, origin=origin, source=source)


def rows_of(*, many: bool = False) -> list[Labelled]:
    """Two tasks that share the name of a label."""
    return [
        row("red cat", "tone", "good", many=many),
        row("green dog runs", "tone", "bad", many=many),
        row("blue bird", "topic", "good", many=many),
        row("cat sleeps", "topic", "animal", many=many),
        row("fast", "topic", "speed", many=many),
    ]


def fitted(*, many: bool = False) -> Classify:
    return Classify(heads="per_source").fitted(rows_of(many=many))


def policy_of(folder: Path, objective: Classify) -> Policy:
    base = base_of(folder)
    model = load_model(base).requires_grad_(False)
    return Policy(model, Tokenizer.load(base.folder), head=objective.head(model, 0))


def batch_of(policy: Policy, objective: Classify, rows: list[Labelled]) -> Batch:
    return collate([objective.encode(each, policy.tokenizer) for each in rows], "cpu")


def test_each_source_has_its_labels_also_where_their_names_are_equal() -> None:
    objective = fitted()
    assert objective.labels == {"tone": ["bad", "good"], "topic": ["animal", "good", "speed"]}
    assert [objective.label(each) for each in rows_of()] == [1, 0, 3, 2, 4]
    assert objective.meaning().tasks == ("tone", "tone", "topic", "topic", "topic")


def test_what_has_no_head_or_no_label_there_is_refused() -> None:
    with pytest.raises(DataError, match="no training row is of the source 'mood'"):
        fitted().accept([row("x", "mood", "good")])
    with pytest.raises(DataError, match="the label 'speed' is on no training row"):
        fitted().accept([row("x", "tone", "speed")])
    with pytest.raises(DataError, match="training rows of 'mood' have 1"):
        Classify(heads="per_source").fitted([*rows_of(), row("x", "mood", "one")])
    with pytest.raises(ValueError, match="takes labels by source"):
        Classify(heads="per_source", labels=["a", "b"])
    with pytest.raises(ValueError, match="takes labels by source"):
        Classify(labels={"tone": ["a", "b"]})


@pytest.mark.parametrize("many", [False, True], ids=["one label", "many labels"])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_the_rows_of_one_source_never_touch_the_head_of_another(
    tiny: Tiny, kind: str, many: bool
) -> None:
    objective = fitted(many=many)
    policy = policy_of(tiny(kind), objective)
    rows = rows_of(many=many)
    objective.loss(policy, batch_of(policy, objective, rows[:2])).total.backward()
    assert policy.head is not None
    weight, bias = policy.head.linear.weight.grad, policy.head.linear.bias.grad
    assert weight is not None and bias is not None
    assert torch.equal(weight[2:], torch.zeros_like(weight[2:])) and not bias[2:].any()
    assert weight[:2].abs().sum() > 0
    alone = weight.clone()
    policy.head.linear.weight.grad = None
    objective.loss(policy, batch_of(policy, objective, rows)).total.backward()
    both = policy.head.linear.weight.grad
    assert both is not None
    torch.testing.assert_close(both[:2], alone[:2])


@pytest.mark.parametrize("many", [False, True], ids=["one label", "many labels"])
def test_a_head_beside_others_is_the_head_it_would_be_alone(tiny: Tiny, many: bool) -> None:
    objective = fitted(many=many)
    policy = policy_of(tiny("bert"), objective)
    assert policy.head is not None
    single = Classify(labels=["animal", "good", "speed"], many=many)
    linear = policy.head.linear
    part = heads.linear_of(linear.weight[2:].detach(), linear.bias[2:].detach())
    alone = Policy(policy.model, policy.tokenizer, head=heads.over(part, replace(single.meaning())))
    rows = rows_of(many=many)[2:]
    one = objective.loss(policy, batch_of(policy, objective, rows))
    other = single.loss(alone, batch_of(alone, single, rows))
    torch.testing.assert_close(one.total, other.total)
    assert one.logs.pairs["accuracy"] == other.logs.pairs["accuracy"]
    said = [found for _, found in classify.probabilities(policy, rows)]
    wanted = [found for _, found in classify.probabilities(alone, rows)]
    for found, expected in zip(said, wanted, strict=True):
        assert found[:2] == [0, 0]
        assert found[2:] == pytest.approx(expected)


def test_heads_come_back_to_the_bit_and_a_broken_list_of_tasks_is_refused(
    tiny: Tiny, tmp_path: Path
) -> None:
    policy = policy_of(tiny("bert"), fitted())
    assert policy.head is not None
    heads.save(policy.head, tmp_path)
    again = heads.load(tmp_path, layout.width(policy.model))
    assert again is not None
    assert (again.labels, again.tasks) == (policy.head.labels, policy.head.tasks)
    assert torch.equal(again.linear.weight, policy.head.linear.weight)
    heads.save(replace(policy.head, tasks=policy.head.tasks[1:]), tmp_path)
    with pytest.raises(IntegrityError, match="what its outputs mean"):
        heads.load(tmp_path, layout.width(policy.model))


def test_losses_of_sources_add_up_to_the_whole(tiny: Tiny) -> None:
    objective = fitted()
    policy = policy_of(tiny("bert"), objective)
    rows = rows_of()
    parts = [rows[:2], rows[2:]]
    apart = [tallied(policy, objective, [batch_of(policy, objective, part)]) for part in parts]
    whole = tallied(policy, objective, [batch_of(policy, objective, rows)])
    total = sum(apart, Tally())
    for name, (value, count) in whole.pairs.items():
        assert total.pairs[name][1] == count
        assert total.pairs[name][0] == pytest.approx(value, rel=1e-6)


def test_a_base_is_stood_in_for_by_the_shares_of_each_task(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "run", rows=18, row=tasked)
    meaning = Classify(heads="per_source").fitted([tasked(n) for n in range(18)]).meaning()
    labels = head_labels(folder.stage("data").path, meaning, None)
    for _, found in by_shares([tasked(0), tasked(1)], labels):
        assert sum(found) == pytest.approx(1) and found.count(0) == 3
    with pytest.raises(SettingsError, match="belongs to no task"):
        head_labels(folder.stage("data").path, meaning, "none")


def test_a_task_that_no_row_has_is_refused() -> None:
    own = ["blue", "green", "red"]
    spec = Classify(heads="per_source", labels={"first": own, "ghost": ["a", "b"]})
    with pytest.raises(DataError, match="no training row is of the source 'ghost'.*first"):
        spec.fitted([tasked(number) for number in range(12)])
    some = Classify(heads="per_source", labels={"first": own})
    assert some.fitted([tasked(n) for n in range(12)]).labels == {"first": own, "second": own}


def test_one_text_without_labels_in_two_tasks_is_refused() -> None:
    from tunesmith.evaluate.questions import in_tasks

    rows = [replace(tasked(n), labels=(), many=True, given=("same",)) for n in range(2)]
    meaning = Classify(heads="per_source").fitted([tasked(n) for n in range(12)]).meaning()
    with pytest.raises(DataError, match="no label in two tasks"):
        in_tasks(rows, meaning)


def tasked(number: int) -> Labelled:
    """Rows of two tasks in turn, which call their labels alike."""
    return replace(labelled(number // 2), source=("first", "second")[number % 2])


@pytest.mark.parametrize("method", [Frozen(), None], ids=["frozen", "lora"])
def test_a_run_learns_every_task_and_comes_back(
    tiny: Tiny, tmp_path: Path, method: Frozen | None
) -> None:
    base = base_of(tiny("bert"))
    changes = {"method": method} if method else {}
    spec = settings(objective=Classify(heads="per_source"), epochs=20, save_every=100, **changes)
    folder = trained(prepared(tmp_path / "run", rows=24, held=6, row=tasked), base, spec)
    policy = load_trained(folder.stage("train").path, base)
    assert policy.head is not None
    assert [*dict.fromkeys(policy.head.tasks)] == ["first", "second"]
    rows = [tasked(number) for number in range(24)]
    names = policy.head.labels
    right = 0
    for each, (_, found) in zip(rows, classify.probabilities(policy, rows), strict=True):
        best = names[max(range(len(found)), key=found.__getitem__)]
        assert best.startswith(f"{each.source}/")
        right += best == f"{each.source}/{each.labels[0]}"
    assert right >= 20
