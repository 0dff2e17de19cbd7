"""What every objective promises, whatever it asks of the model."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.rows import example, examples
from tunesmith.core.records import IGNORE, Batch, Example, Sequence, collate
from tunesmith.core.rows import Labelled
from tunesmith.model import attention
from tunesmith.model.policy import Policy
from tunesmith.train.batches import bins, cut, halves, largest, shelves
from tunesmith.train.loop import Train
from tunesmith.train.objectives.base import Objective
from tunesmith.train.objectives.classify import Classify
from tunesmith.train.objectives.sft import Sft

Tiny = Callable[[str], Path]
LABELS = ("blue", "green", "red")


def member(part: type[Objective]) -> Objective:
    """The objective by its defaults, fitted to a few rows of its kind where it needs that."""
    named = [Labelled(given=("a",), labels=(name,)) for name in LABELS]
    return part().fitted(named) if part.row is Labelled else part()


MEMBERS = [
    *(member(part) for part in Objective.members().values()),
    Classify(labels=list(LABELS), many=True, pooling="mean"),
]
LENGTHS = (9, 3, 14, 5, 7, 21, 4, 11, 6, 8, 17, 3, 5, 12, 9, 10)


def rows_of(objective: Objective) -> list[Example]:
    """Sixteen rows of unequal length; one carries no loss, one half a weight."""
    rows = examples(LENGTHS, 300)
    rows[3] = example(5, 300, 3, share=0.0)
    rows[6] = example(4, 300, 6, weight=0.5)
    if not objective.scores:
        return rows
    names = [LABELS[i % 3 : i % 3 + 1] for i in range(len(rows))]
    labels = [objective.label(Labelled(given=("a",), labels=name)) for name in names]
    return [replace(row, label=label) for row, label in zip(rows, labels, strict=True)]


def policy_for(objective: Objective, folder: Path, dtype: torch.dtype) -> Policy:
    """A policy over a whole model, with the head that the objective asks for."""
    model = AutoModelForCausalLM.from_pretrained(folder).to(dtype)
    head = objective.head(model, 0)
    if head is not None:
        head.linear.to(dtype)
    return Policy(model, None, head=head)


def gradient(objective: Objective, policy: Policy, group: list[Batch]) -> torch.Tensor:
    for parameter in policy.trainable():
        parameter.grad = None
    weight = sum(float(objective.weight(b)) for b in group)
    for rows in group:
        (objective.loss(policy, rows).total / weight).backward()
    grads = [p.grad for p in policy.trainable() if p.grad is not None]
    return torch.cat([g.flatten().double() for g in grads])


@pytest.mark.parametrize("objective", MEMBERS, ids=str)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_gradient_does_not_depend_on_how_a_step_is_cut(
    objective: Objective, dtype: torch.dtype, bound: float, tiny: Tiny
) -> None:
    policy, rows = policy_for(objective, tiny("llama"), dtype), rows_of(objective)
    whole = gradient(objective, policy, [collate(rows, "cpu")])
    assert whole.norm() > 0
    for size in (1, 2, 4, 8):
        parts = [collate(rows[i : i + size], "cpu") for i in range(0, 16, size)]
        cut = gradient(objective, policy, parts)
        assert (cut - whole).norm() <= bound * whole.norm(), f"micro-batches of {size}"


@pytest.mark.parametrize("objective", MEMBERS, ids=str)
def test_weight_is_positive_and_loss_finite(objective: Objective, tiny: Tiny) -> None:
    policy = policy_for(objective, tiny("llama"), torch.float32)
    rows = collate(rows_of(objective), "cpu")
    assert float(objective.weight(rows)) > 0
    loss = objective.loss(policy, rows)
    assert torch.isfinite(loss.total)
    assert objective.guessing(policy) > 0
    assert set(objective.measures) <= {*loss.logs.pairs, "token_accuracy"}


@pytest.mark.parametrize("objective", MEMBERS, ids=lambda o: o.kind)
def test_pieces_of_a_row_train_what_the_row_trains(objective: Objective) -> None:
    whole = example(50, 300, 0, share=1.0)
    for kind in (objective.row, *objective.beside):
        row = kind.__new__(kind)
        found = [s for piece in objective.cut(row, whole, 16) for s in piece.sequences]
        assert [t for s in found for t in s.targets if t != IGNORE] == [
            t for s in whole.sequences for t in s.targets if t != IGNORE
        ]


def test_a_model_that_knows_the_next_token_has_no_loss_and_sees_no_future(tiny: Tiny) -> None:
    """T-SHIFT: targets are the next ids, and no loss term before t depends on token t."""
    rows = collate(examples((8, 6), 300, share=1.0), "cpu")
    for i, length in enumerate((8, 6)):
        assert torch.equal(rows.targets[i, : length - 1], rows.ids[i, 1:length])
        assert (rows.targets[i, length - 1 :] == IGNORE).all()
    policy = Policy(AutoModelForCausalLM.from_pretrained(tiny("llama")).double(), None)
    before = policy.logps(rows).detach()
    for t in range(1, 7):
        ids = rows.ids.clone()
        ids[0, t] = (ids[0, t] + 1) % 300
        changed = policy.logps(Batch(**{**vars(rows), "ids": ids})).detach()
        assert torch.equal(changed[0, :t], before[0, :t])
        assert torch.equal(changed[1], before[1])
        assert not torch.equal(changed[0, t:7], before[0, t:7])


def test_bins_hold_every_row_once_within_the_limit() -> None:
    lengths = [5, 900, 30, 30, 77, 1200, 400, 8, 8, 999]
    groups = bins(lengths, 1000)
    assert sorted(chain(*groups)) == list(range(len(lengths)))
    assert all(len(g) == 1 or sum(lengths[i] for i in g) <= 1000 for g in groups)
    assert len(groups) <= 5


def test_shelves_hold_every_row_once_and_count_padding() -> None:
    lengths = [5, 9, 30, 29, 7, 120, 40, 8, 8, 9]
    groups = shelves(lengths, 64)
    assert sorted(chain(*groups)) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or max(lengths[i] for i in group) * len(group) <= 64
    padding = sum(max(lengths[i] for i in g) - lengths[j] for g in groups for j in g)
    assert padding <= 12


def test_what_all_rows_begin_with_counts_once_in_a_pass(tiny: Tiny) -> None:
    """Rows of 50 tokens, 40 of which all share: a pass of 100 tokens holds four, not two, and an
    eighth of what they share for each, whose keys and values are copied."""
    rows = examples((50,) * 8, 300)
    start = rows[0].sequences[0].ids[:40]
    whole = [replace(r.sequences[0], ids=(*start, *r.sequences[0].ids[40:])) for r in rows]
    rows = [replace(r, sequences=(s,)) for r, s in zip(rows, whole, strict=True)]
    assert [len(b.rows) for b in cut(rows, 100, "cpu")] == [2] * 4
    parts = cut(rows, 100, "cpu", laid="shared")
    assert [len(b.rows) for b in parts] == [4, 4]
    assert all(attention.pack(b, share=True).ids.numel() == 80 for b in parts)
    policy = policy_for(Sft(), tiny("llama"), torch.float32)
    assert policy.laid == "shared"
    wanted = gradient(Sft(), policy, cut(rows, 50, "cpu"))
    found = gradient(Sft(), policy, parts)
    assert (found - wanted).norm() <= 1e-6 * wanted.norm() > 0


def test_no_more_memory_is_planned_for_than_a_step_can_take() -> None:
    assert largest(7500, longest=1600, common=1500, rows=8) == 1500 + 8 * (100 + 187)
    assert largest(1024, longest=300, common=0, rows=8) == 1024
    assert largest(1024, longest=1500, common=0, rows=8) == 1500
    assert largest(1024, longest=100, common=0, rows=2) == 200


def test_a_long_beginning_widens_the_pass_unless_its_size_is_set() -> None:
    assert Train().pass_tokens("cpu", 40) == 1024
    assert Train().pass_tokens("cpu", 300) == 1500
    assert Train(micro_batch=256).pass_tokens("cpu", 300) == 256


def test_labels_and_segments_travel_with_halves() -> None:
    rows = examples((5, 9, 2), 300)
    told = [replace(row, label=place) for place, row in enumerate(rows)]
    second = replace(rows[1].sequences[0], segments=(0,) * 4 + (1,) * 5)
    told[1] = replace(told[1], sequences=(second,))
    first, rest = halves(collate(told, "cpu"))
    assert first.labels is not None and first.labels.tolist() == [0]
    assert rest.labels is not None and rest.labels.tolist() == [1, 2]
    assert rest.segments is not None and rest.segments.sum() == 5
    assert first.segments is not None and first.segments.shape == (1, 5)


def test_halves_are_the_same_rows_without_needless_padding() -> None:
    whole = collate(examples((5, 9, 2), 300), "cpu")
    first, second = halves(whole)
    assert first.rows + second.rows == whole.rows
    assert second.ids.shape == (2, 9)
    assert first.ids.shape == (1, 5)
    assert halves(first) == [first]


def test_a_sequence_counts_its_supervised_positions() -> None:
    assert Sequence((1, 2, 3), (2, IGNORE, IGNORE)).supervised == 1
