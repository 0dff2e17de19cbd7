"""Reported numbers are sacrebleu's, rouge-score's and transformers' own, to 1e-6."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trained import chat
from tunesmith.core.rows import Chat
from tunesmith.evaluate.compare import vectors
from tunesmith.evaluate.likelihood import last_answer, likelihoods
from tunesmith.evaluate.metrics.base import Judged, Metric
from tunesmith.evaluate.metrics.bleu import Bleu
from tunesmith.evaluate.metrics.chrf import Chrf
from tunesmith.evaluate.metrics.perplexity import Perplexity
from tunesmith.evaluate.metrics.rouge import Rouge
from tunesmith.model.load import ModelSpec, load_model, resolve
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
