"""Labels from training rows, thresholds from valid ones, and what may not be measured."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tunesmith.core.errors import DataError, IntegrityError, SettingsError
from tunesmith.core.rows import Chat, Labelled, Message, Origin, Pair, Row, Text
from tunesmith.core.tables import write_rows
from tunesmith.evaluate.labels import Labels, headed, labels_of, learned, threshold
from tunesmith.evaluate.metrics.accuracy import Accuracy
from tunesmith.evaluate.metrics.exact import Exact
from tunesmith.evaluate.metrics.perplexity import Perplexity
from tunesmith.evaluate.metrics.scope import Scope
from tunesmith.evaluate.questions import Questions, questions, settled
from tunesmith.evaluate.stage import Evaluate
from tunesmith.model.generate import Sampling
from tunesmith.model.heads import Meaning


def said(answer: str, asked: str = "?", line: int = 1) -> Chat:
    turns = (Message("user", asked), Message("assistant", answer))
    return Chat(turns, origin=Origin("rows.jsonl", line))


def labelled(*labels: str, line: int = 1, many: bool = False) -> Labelled:
    return Labelled(
        given=(f"text {line}",), labels=labels, many=many, origin=Origin("rows.jsonl", line)
    )


def folder(home: Path, **parts: Sequence[Row]) -> Path:
    for part, rows in parts.items():
        write_rows(home / f"{part}.jsonl", [row.record() for row in rows])
    return home


TRAIN = [labelled("b"), labelled("a"), labelled("b")]


def of(*names: str, many: bool = False) -> Meaning:
    """What a head for these labels says."""
    return Meaning(names, "last", many)


def chosen(rows: Sequence[Labelled], unknown: str | None = None) -> Labels:
    """The labels of a head that was trained on these rows."""
    return headed(of(*sorted({name for row in rows for name in row.labels})), rows, unknown)


def of_head(data: Path, spec: Evaluate, head: Meaning | None = None) -> Questions:
    """What a head for two labels, or another, is asked."""
    return questions(data, spec, seed=0, head=head or of("a", "b"))


def test_labels_are_those_of_training_in_order() -> None:
    chats = learned([said(" lost"), said("late"), said(" lost")])
    assert chats.names == ("late", "lost") and chats.texts == ("late", " lost")
    assert chats.shares == (1 / 3, 2 / 3)
    assert chats.answer(["lost"]) == " lost" and labels_of(said(" lost\n")) == ("lost",)


def test_labels_of_a_head_are_its_own_whatever_training_rows_have() -> None:
    found = headed(of("c", "b", "a"), TRAIN)
    assert found.names == ("c", "b", "a") and found.shares == (0, 2 / 3, 1 / 3)
    assert found.likeliest([0.5, 0.3, 0.2]) == ["c"] and not found.many
    several = headed(of("a", "b", many=True), TRAIN)
    assert several.many and several.answer(["b", "a"]) == '["b","a"]'
    assert several.likeliest([0.5, 0.49]) == ["a"] and several.likeliest([0.1, 0.2]) == []


def brute(labels: Sequence[str], rows: Sequence[Labelled], chances: np.ndarray) -> float:
    """The best accuracy that any threshold gives."""
    found = chosen([labelled(name) for name in labels], "oos")
    cuts = [0.0, *(chances.max(axis=1) + 1e-9)]
    return max(
        sum(
            found.likeliest(list(p), cut) == list(row.labels)
            for row, p in zip(rows, chances, strict=True)
        )
        for cut in cuts
    )


def test_the_threshold_makes_most_rows_right() -> None:
    """Against trying every one, on rows whose probabilities often tie."""
    for seed in range(30):
        draw = np.random.default_rng(seed)
        chances = draw.dirichlet(np.ones(3), size=25).round(1)
        names = ["a", "b", "c", "oos"]
        rows = [labelled(names[draw.integers(4)], line=i) for i in range(25)]
        found = chosen([labelled(name) for name in "abc"], "oos")
        cut = threshold(found, rows, chances.tolist())
        right = sum(
            found.likeliest(list(p), cut) == list(row.labels)
            for row, p in zip(rows, chances, strict=True)
        )
        assert right == brute("abc", rows, chances), seed


def test_the_threshold_lies_between_what_it_parts() -> None:
    found = chosen(TRAIN, "oos")
    rows = [labelled("a"), labelled("oos"), labelled("b")]
    assert threshold(found, rows, [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]) == pytest.approx(0.7)
    everything = threshold(found, [labelled("oos")] * 2, [[0.6, 0.4], [1.0, 0.0]])
    assert everything > 1.0
    assert threshold(found, [labelled("a"), labelled("b")], [[0.6, 0.4], [0.3, 0.7]]) == 0.0


def test_a_label_that_the_head_does_not_know_is_refused(tmp_path: Path) -> None:
    data = folder(tmp_path, train=TRAIN, test=[labelled("a"), labelled("c", line=7)])
    with pytest.raises(DataError, match=r"rows\.jsonl:7: the label 'c' is not among the 2 of"):
        of_head(data, Evaluate())
    assert of_head(data, Evaluate(), of("a", "b", "c")).labels is not None
    folder(tmp_path, valid=[labelled("c", line=8), labelled("a", line=9)])
    assert of_head(data, Evaluate(unknown="c")).labels is not None
    with pytest.raises(IntegrityError, match="has no head"):
        questions(data, Evaluate(), seed=0)


def test_a_listed_choice_must_hold_every_label(tmp_path: Path) -> None:
    data = folder(tmp_path, train=[said("a")], test=[said("a"), said("b", line=4)])
    spec = Evaluate(sampling=Sampling(choices=["a", "c"]))
    with pytest.raises(DataError, match=r"rows\.jsonl:4: .* 2 of evaluate\.sampling\.choices"):
        questions(data, spec, seed=0)


def test_the_unknown_needs_valid_rows_of_both_kinds(tmp_path: Path) -> None:
    data = folder(tmp_path, train=TRAIN, test=[labelled("a"), labelled("oos")], valid=TRAIN)
    with pytest.raises(DataError, match="and 0 of the 3 valid rows do"):
        of_head(data, Evaluate(unknown="oos"))
    folder(tmp_path, valid=[labelled("oos")])
    with pytest.raises(DataError, match="and 1 of the 1 valid rows do"):
        of_head(data, Evaluate(unknown="oos"))
    folder(tmp_path, valid=[labelled("oos"), labelled("a")])
    asked = of_head(data, Evaluate(unknown="oos"))
    assert len(asked.valid) == 2 and asked.metrics[-1].kind == "scope"
    like_any_other = of_head(data, Evaluate(unknown="oos"), of("a", "b", "oos"))
    assert like_any_other.valid == ()
    with pytest.raises(SettingsError, match="say `none of them` by an empty set"):
        of_head(data, Evaluate(unknown="oos"), of("a", "b", many=True))


def test_a_written_answer_cannot_be_unknown_without_probabilities(tmp_path: Path) -> None:
    rows = [said("a"), said("b"), said("oos")]
    data = folder(tmp_path, train=rows[:2], valid=rows, test=rows)
    with pytest.raises(SettingsError, match="set evaluate.by=likelihood"):
        questions(data, Evaluate(unknown="oos"), seed=0)
    asked = questions(data, Evaluate(unknown="oos", by="likelihood", metrics=[Accuracy()]), seed=0)
    assert asked.scores and not asked.writes and len(asked.valid) == 3


def test_rows_that_cannot_be_asked_are_refused(tmp_path: Path) -> None:
    turns = (Message("user", "a"),)
    pair = Pair(asked=turns, chosen=turns, rejected=turns, origin=Origin("rows.jsonl", 2))
    data = folder(tmp_path, train=TRAIN, test=[pair])
    with pytest.raises(DataError, match=r"rows\.jsonl:2: a row of kind pair cannot be asked"):
        questions(data, Evaluate(), seed=0)
    folder(tmp_path, test=[labelled("a"), Text(text="a", origin=Origin("rows.jsonl", 3))])
    with pytest.raises(DataError, match=r"rows\.jsonl:3: a row of kind text, where"):
        questions(data, Evaluate(), seed=0)
    folder(tmp_path, test=[labelled("a")])
    with pytest.raises(SettingsError, match="perplexity reads how likely an answer is"):
        of_head(data, Evaluate(metrics=[Perplexity()]))
    folder(tmp_path, train=[said("a")], test=[said("a")])
    with pytest.raises(DataError, match="nothing to choose"):
        questions(data, Evaluate(metrics=[Accuracy()]), seed=0)


def test_scope_without_an_unknown_label_is_refused(tmp_path: Path) -> None:
    data = folder(tmp_path, train=TRAIN, test=TRAIN)
    with pytest.raises(SettingsError, match="scope measures .* as evaluate.unknown"):
        of_head(data, Evaluate(metrics=[Accuracy(), Scope()]))


def test_what_is_asked_follows_from_the_metrics(tmp_path: Path) -> None:
    rows = [said("a"), said("b")]
    data = folder(tmp_path, train=rows, test=rows)
    free = questions(data, Evaluate(), seed=0)
    assert free.labels is None and free.writes and not free.scores
    assert [metric.kind for metric in free.metrics] == ["exact", "rouge", "perplexity"]
    written = questions(data, Evaluate(metrics=[Accuracy()]), seed=0)
    assert written.labels is not None and written.writes and not written.scores
    assert written.sampling.choices == "free"
    likely = questions(data, Evaluate(by="likelihood", metrics=[Exact()]), seed=0)
    assert likely.scores and not likely.writes
    closed = questions(data, Evaluate(sampling=Sampling(choices="labels")), seed=0)
    assert closed.sampling.choices == ["a", "b"] and closed.labels is not None
    assert settled(Sampling(choices="labels"), data).choices == ["a", "b"]
    folder(tmp_path, train=TRAIN, test=TRAIN)
    scored = of_head(data, Evaluate())
    assert scored.headed and scored.scores and not scored.writes
    assert [metric.kind for metric in scored.metrics] == ["accuracy", "f1", "calibration"]
