"""Labels from training rows, thresholds from valid ones, and what may not be measured."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.rows import Chat, Labelled, Message, Origin, Pair, Row, Text
from tunesmith.core.tables import write_rows
from tunesmith.evaluate.labels import labels_of, learned, threshold
from tunesmith.evaluate.metrics.accuracy import Accuracy
from tunesmith.evaluate.metrics.exact import Exact
from tunesmith.evaluate.metrics.perplexity import Perplexity
from tunesmith.evaluate.questions import questions, settled
from tunesmith.evaluate.stage import Evaluate
from tunesmith.model.generate import Sampling


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


def test_labels_are_those_of_training_in_order() -> None:
    found = learned(TRAIN)
    assert found.names == ("a", "b") and found.shares == (1 / 3, 2 / 3)
    chats = learned([said(" lost"), said("late"), said(" lost")])
    assert chats.names == ("late", "lost") and chats.texts == ("late", " lost")
    assert chats.answer(["lost"]) == " lost" and labels_of(said(" lost\n")) == ("lost",)
    several = learned([labelled("a", "b", many=True), labelled(many=True)])
    assert several.many and several.shares == (0.5, 0.5)
    assert several.answer(["b", "a"]) == '["b","a"]'
    assert several.likeliest([0.5, 0.49]) == ["a"] and several.likeliest([0.1, 0.2]) == []


def brute(labels: Sequence[str], rows: Sequence[Labelled], chances: np.ndarray) -> float:
    """The best accuracy that any threshold gives."""
    found = learned([labelled(name) for name in labels], "oos")
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
        found = learned([labelled(name) for name in "abc"], "oos")
        chosen = threshold(found, rows, chances.tolist())
        right = sum(
            found.likeliest(list(p), chosen) == list(row.labels)
            for row, p in zip(rows, chances, strict=True)
        )
        assert right == brute("abc", rows, chances), seed


def test_the_threshold_lies_between_what_it_parts() -> None:
    found = learned(TRAIN, "oos")
    rows = [labelled("a"), labelled("oos"), labelled("b")]
    assert threshold(found, rows, [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]) == pytest.approx(0.7)
    everything = threshold(found, [labelled("oos")] * 2, [[0.6, 0.4], [1.0, 0.0]])
    assert everything > 1.0
    assert threshold(found, [labelled("a"), labelled("b")], [[0.6, 0.4], [0.3, 0.7]]) == 0.0


def test_a_label_that_no_training_row_has_is_refused(tmp_path: Path) -> None:
    data = folder(tmp_path, train=TRAIN, test=[labelled("a"), labelled("c", line=7)])
    with pytest.raises(DataError, match=r"rows\.jsonl:7: the label 'c' is not among the 2 of the"):
        questions(data, Evaluate(), 0)
    folder(tmp_path, valid=[labelled("c", line=8), labelled("a", line=9)])
    assert questions(data, Evaluate(unknown="c"), 0).labels is not None


def test_a_listed_choice_must_hold_every_label(tmp_path: Path) -> None:
    data = folder(tmp_path, train=[said("a")], test=[said("a"), said("b", line=4)])
    spec = Evaluate(sampling=Sampling(choices=["a", "c"]))
    with pytest.raises(DataError, match=r"rows\.jsonl:4: .* 2 of evaluate\.sampling\.choices"):
        questions(data, spec, 0)


def test_the_unknown_needs_valid_rows_of_both_kinds(tmp_path: Path) -> None:
    data = folder(tmp_path, train=TRAIN, test=[labelled("a"), labelled("oos")], valid=TRAIN)
    with pytest.raises(DataError, match="there are no row of it among the 3 valid ones"):
        questions(data, Evaluate(unknown="oos"), 0)
    folder(tmp_path, valid=[labelled("oos")])
    with pytest.raises(DataError, match="only rows of it among the 1 valid ones"):
        questions(data, Evaluate(unknown="oos"), 0)
    folder(tmp_path, valid=[labelled("oos"), labelled("a")])
    asked = questions(data, Evaluate(unknown="oos"), 0)
    assert len(asked.valid) == 2 and asked.metrics[-1].kind == "scope"
    folder(tmp_path, train=[*TRAIN, labelled("oos")])
    assert questions(data, Evaluate(unknown="oos"), 0).valid == (), "a class like any other"


def test_a_written_answer_cannot_be_unknown_without_probabilities(tmp_path: Path) -> None:
    rows = [said("a"), said("b"), said("oos")]
    data = folder(tmp_path, train=rows[:2], valid=rows, test=rows)
    with pytest.raises(SettingsError, match="set evaluate.by=likelihood"):
        questions(data, Evaluate(unknown="oos"), 0)
    asked = questions(data, Evaluate(unknown="oos", by="likelihood", metrics=[Accuracy()]), 0)
    assert asked.scores and not asked.writes and len(asked.valid) == 3


def test_rows_that_cannot_be_asked_are_refused(tmp_path: Path) -> None:
    turns = (Message("user", "a"),)
    pair = Pair(asked=turns, chosen=turns, rejected=turns, origin=Origin("rows.jsonl", 2))
    data = folder(tmp_path, train=TRAIN, test=[pair])
    with pytest.raises(DataError, match=r"rows\.jsonl:2: a row of kind pair cannot be asked"):
        questions(data, Evaluate(), 0)
    folder(tmp_path, test=[labelled("a"), Text(text="a", origin=Origin("rows.jsonl", 3))])
    with pytest.raises(DataError, match=r"rows\.jsonl:3: a row of kind text, where"):
        questions(data, Evaluate(), 0)
    folder(tmp_path, test=[labelled("a")])
    with pytest.raises(SettingsError, match="perplexity reads how likely an answer is"):
        questions(data, Evaluate(metrics=[Perplexity()]), 0)
    folder(tmp_path, train=[labelled("a")])
    with pytest.raises(DataError, match="nothing to choose"):
        questions(data, Evaluate(), 0)


def test_what_is_asked_follows_from_the_metrics(tmp_path: Path) -> None:
    rows = [said("a"), said("b")]
    data = folder(tmp_path, train=rows, test=rows)
    free = questions(data, Evaluate(), 0)
    assert free.labels is None and free.writes and not free.scores
    assert [metric.kind for metric in free.metrics] == ["exact", "rouge", "perplexity"]
    written = questions(data, Evaluate(metrics=[Accuracy()]), 0)
    assert written.labels is not None and written.writes and not written.scores
    assert written.sampling.choices == "free"
    likely = questions(data, Evaluate(by="likelihood", metrics=[Exact()]), 0)
    assert likely.scores and not likely.writes
    closed = questions(data, Evaluate(sampling=Sampling(choices="labels")), 0)
    assert closed.sampling.choices == ["a", "b"] and closed.labels is not None
    assert settled(Sampling(choices="labels"), data).choices == ["a", "b"]
    folder(tmp_path, train=TRAIN, test=TRAIN)
    headed = questions(data, Evaluate(), 0)
    assert headed.headed and headed.scores and not headed.writes
    assert [metric.kind for metric in headed.metrics] == ["accuracy", "f1", "calibration"]
