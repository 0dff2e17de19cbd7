"""Reported numbers are those of sacrebleu, rouge-score, scikit-learn and transformers, to 1e-6."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trained import chat
from tunesmith.core.rows import Chat
from tunesmith.evaluate.compare import vectors
from tunesmith.evaluate.confusion import confusion
from tunesmith.evaluate.likelihood import last_answer, likelihoods
from tunesmith.evaluate.metrics.accuracy import Accuracy
from tunesmith.evaluate.metrics.base import Judged, Metric
from tunesmith.evaluate.metrics.bleu import Bleu
from tunesmith.evaluate.metrics.calibration import Calibration
from tunesmith.evaluate.metrics.chrf import Chrf
from tunesmith.evaluate.metrics.f1 import F1
from tunesmith.evaluate.metrics.perplexity import Perplexity
from tunesmith.evaluate.metrics.rouge import Rouge
from tunesmith.model.bases import ModelSpec, resolve
from tunesmith.model.load import load_model
from tunesmith.model.policy import Policy
from tunesmith.model.tokenizer import Tokenizer

DATA = Path(__file__).parents[3] / "shared" / "data" / "e2e_nlg" / "test.jsonl"
PLACES = ("The Eagle", "Blue Spice", "Cocum", "The Wrestlers")


def made_up(count: int) -> Iterator[tuple[str, list[str]]]:
    """Answers that are more or less right, an empty one among them, with 1 to 3 references."""
    for i in range(count):
        name = PLACES[i % 4]
        references = [
            f"{name} is a coffee shop with a rating of {i % 5} out of 5, near Burger King .",
            f"Near Burger King there is a coffee shop, {name}. It is rated {i % 5} of 5!",
            f"A coffee shop called {name}; {i} people don't like it.",
        ]
        answer = f"{name} serves coffee near Burger King. Its rating is {i % 3} out of 5."
        yield "" if i == 7 else answer, references[: 1 + i % 3]


def pairs() -> list[tuple[str, list[str]]]:
    """200 answers with several references: real texts where they are there, else made up."""
    if not DATA.is_file():
        return list(made_up(200))
    rows = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]
    found = [row["refs"] for row in rows if len(row["refs"]) > 1][:200]
    return [("" if i == 3 else refs[0], refs[1:]) for i, refs in enumerate(found)]


def judged(texts: Sequence[tuple[str, list[str]]]) -> list[Judged]:
    return [Judged(str(i), "", said, tuple(refs)) for i, (said, refs) in enumerate(texts)]


def value(metric: Metric, texts: Sequence[tuple[str, list[str]]]) -> dict[str, float]:
    return metric.values(vectors(metric, judged(texts)).sum(axis=0))


def streams(texts: Sequence[tuple[str, list[str]]]) -> tuple[list[str], list[list[str | None]]]:
    """As sacrebleu wants them: one list for each place in the references, None where missing."""
    width = max(len(refs) for _, refs in texts)
    padded = [[*refs, *[None] * (width - len(refs))] for _, refs in texts]
    return [said for said, _ in texts], [list(column) for column in zip(*padded, strict=True)]


@pytest.mark.parametrize("texts", [pairs(), list(made_up(200))], ids=["data", "made up"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_bleu_and_chrf_are_sacrebleus(texts: list[tuple[str, list[str]]], lowercase: bool) -> None:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    said, references = streams(texts)
    bleu = BLEU(lowercase=lowercase, force=True).corpus_score(said, references).score
    assert 5 < bleu < 95
    assert value(Bleu(lowercase=lowercase), texts)["bleu"] == pytest.approx(bleu, abs=1e-6)
    for words in (0, 2):
        chrf = CHRF(lowercase=lowercase, word_order=words).corpus_score(said, references).score
        found = value(Chrf(lowercase=lowercase, words=words), texts)["chrf"]
        assert found == pytest.approx(chrf, abs=1e-6)


def test_the_signature_is_printed() -> None:
    assert Bleu(lowercase=True).note().startswith("sacrebleu case:lc|eff:no|tok:13a|smooth:exp|")
    assert "case:mixed" in Bleu().note() and "nc:6|nw:0" in Chrf().note()


@pytest.mark.parametrize("stem", [False, True])
def test_rouge_is_rouge_scores(stem: bool) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    texts = pairs()
    types: list[Any] = ["rougeL", "rouge1", "rouge2"]
    scorer = RougeScorer(types, use_stemmer=stem)
    each = [scorer.score_multi(refs, said) for said, refs in texts]
    for name, found in value(Rouge(types=types, stem=stem), texts).items():
        mean = 100 * sum(score[name].fmeasure for score in each) / len(each)
        assert 10 < mean < 95
        assert found == pytest.approx(mean, abs=1e-6)


NAMES = tuple(f"label {i}" for i in range(9))


def labelled(rows: int = 400, *, many: bool = False) -> tuple[list[Judged], Any, Any, Any]:
    """Rows of uneven labels, one of them wanted by no row, with what a middling model says; then
    what was wanted, what was given, and the chances, as scikit-learn takes them."""
    draw = np.random.default_rng(3)
    chances = draw.dirichlet(np.full(len(NAMES), 0.3), size=rows)
    if many:
        chances = draw.random((rows, len(NAMES))) ** 2
        wanted = draw.random(chances.shape) < chances**0.7
        given = chances >= 0.5
    else:
        drawn = np.array([draw.choice(len(NAMES) - 1, p=p[:-1] / p[:-1].sum()) for p in chances])
        wanted = np.eye(len(NAMES), dtype=bool)[drawn]
        given = np.eye(len(NAMES), dtype=bool)[chances.argmax(axis=1)]
    named = np.array(NAMES)
    found = [
        Judged(
            str(i),
            "",
            "",
            ("",),
            wanted=tuple(named[wanted[i]]),
            given=tuple(named[given[i]]),
            labels=NAMES,
            chances=tuple(chances[i]),
            many=many,
        )
        for i in range(rows)
    ]
    return found, wanted, given, chances


def total(metric: Metric, rows: Sequence[Judged]) -> dict[str, float]:
    return metric.values(vectors(metric, rows).sum(axis=0))


@pytest.mark.parametrize("many", [False, True], ids=["one", "several"])
def test_accuracy_and_f1_are_scikit_learns(many: bool) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    rows, wanted, given, _ = labelled(many=many)
    met = (wanted | given).any(axis=0)
    assert total(Accuracy(), rows)["accuracy"] == pytest.approx(
        100 * accuracy_score(wanted, given), abs=1e-6
    )
    for average in ("macro", "micro"):
        score = 100 * f1_score(wanted[:, met], given[:, met], average=average, zero_division=0)
        assert 20 < score < 90
        assert total(F1(), rows)[f"f1_{average}"] == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("many", [False, True], ids=["one", "several"])
def test_calibration_is_scikit_learns(many: bool) -> None:
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss, log_loss

    rows, wanted, given, chances = labelled(many=many)
    found = total(Calibration(bins=10), rows)
    if many:
        sure, right = chances.ravel(), wanted.ravel()
        brier, loss = brier_score_loss(right, sure), log_loss(right, sure)
    else:
        sure, right = chances.max(axis=1), (wanted & given).any(axis=1)
        brier = brier_score_loss(
            wanted.argmax(axis=1), chances, labels=range(len(NAMES)), scale_by_half=False
        )
        loss = log_loss(wanted.argmax(axis=1), chances, labels=range(len(NAMES)))
    was, said = calibration_curve(right, sure, n_bins=10)
    counts = np.histogram(sure, bins=10, range=(0, 1))[0]
    error = (abs(was - said) * counts[counts > 0]).sum() / counts.sum()
    assert error > 0.02
    assert found["calibration_error"] == pytest.approx(error, abs=1e-6)
    assert found["brier"] == pytest.approx(brier, abs=1e-6)
    assert found["log_loss"] == pytest.approx(loss, abs=1e-6)


def test_sure_and_wrong_is_a_large_loss_and_no_infinite_one() -> None:
    (row,) = labelled(1)[0]
    wrong = replace(row, wanted=NAMES[:1], chances=(0.0, 1.0, *[0.0] * 7))
    assert total(Calibration(), [wrong])["log_loss"] == pytest.approx(52 * math.log(2))
    assert total(Calibration(), [wrong])["calibration_error"] == 1


@pytest.mark.parametrize("many", [False, True], ids=["one", "several"])
def test_the_confusion_is_scikit_learns(many: bool) -> None:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    rows, wanted, given, _ = labelled(many=many)
    found = confusion({"tuned": rows})
    each = found["arms"]["tuned"]["each"]
    scores = precision_recall_fscore_support(wanted, given, zero_division=0)
    for name, precision, recall, score, support in zip(NAMES, *scores, strict=True):
        assert each[name]["rows"] == support
        for key, value in (("precision", precision), ("recall", recall), ("f1", score)):
            assert (each[name][key] or 0.0) == pytest.approx(100 * value, abs=1e-6)
    assert found["names"] == list(NAMES)
    if many:
        assert "pairs" not in found["arms"]["tuned"]
        return
    matrix = confusion_matrix(wanted.argmax(axis=1), given.argmax(axis=1))
    pairs = {(a, b): count for a, b, count in found["arms"]["tuned"]["pairs"]}
    assert sum(pairs.values()) == len(rows)
    for i, one in enumerate(NAMES):
        assert [pairs.get((one, other), 0) for other in NAMES] == matrix[i].tolist()


@pytest.fixture
def policy(tiny: Callable[[str], Path]) -> Policy:
    base = resolve(ModelSpec(source=str(tiny("llama"))))
    return Policy(load_model(base), Tokenizer.load(base.folder))


def perplexity(policy: Policy, rows: Sequence[Chat], batch: int) -> float:
    found = likelihoods(policy, rows, batch=batch)
    total = vectors(
        Perplexity(), [Judged(f.row, "", "", ("",), nll=f.nll, tokens=f.tokens) for f in found]
    ).sum(axis=0)
    return Perplexity().values(total)["perplexity"]


def test_perplexity_is_transformers_cross_entropy(policy: Policy) -> None:
    rows = [chat(n) for n in range(9)]
    total, tokens = 0.0, 0
    for row in rows:
        (sequence,) = last_answer(row, policy.tokenizer).sequences
        labels = [-100, *sequence.targets[:-1]]  # transformers shifts by itself
        with torch.no_grad():
            output = policy.model(
                input_ids=torch.tensor([sequence.ids]), labels=torch.tensor([labels])
            )
        total += output.loss.double().item() * sequence.supervised
        tokens += sequence.supervised
    assert perplexity(policy, rows, 4) == pytest.approx(math.exp(total / tokens), rel=1e-6)


def test_only_the_last_answer_counts(policy: Policy) -> None:
    """What was said before is read, and its likelihood left out; its end of turn is in."""
    first, last = chat(3), chat(8)
    row = replace(last, messages=(*first.messages, *last.messages))
    (alone,) = last_answer(last, policy.tokenizer).sequences
    (found,) = last_answer(row, policy.tokenizer).sequences
    said = [target for target in found.targets if target != -100]
    assert said == [target for target in alone.targets if target != -100]
    assert said[-1] in policy.tokenizer.stop_ids and len(found.ids) > len(alone.ids)
    (likely,) = likelihoods(policy, [row])
    assert likely.tokens == len(said) and likely.row == row.digest


@pytest.mark.parametrize("kind", ["llama", "gpt2", "falcon"])
def test_perplexity_does_not_depend_on_the_batch(kind: str, tiny: Callable[[str], Path]) -> None:
    """T-EVAL: 1e-6 in float32, 1e-12 in float64; in any order."""
    base = resolve(ModelSpec(source=str(tiny(kind))))
    rows = [chat(n) for n in range(23)]
    for dtype, bound in (("float32", 1e-6), ("float64", 1e-12)):
        model = load_model(base, dtype=dtype)
        policy = Policy(model, Tokenizer.load(base.folder))
        alone = perplexity(policy, rows, 1)
        assert alone > 2
        for batch in (2, 3, 7, 64):
            assert perplexity(policy, rows, batch) == pytest.approx(alone, rel=bound)
        assert perplexity(policy, rows[::-1], 7) == pytest.approx(alone, rel=bound)
