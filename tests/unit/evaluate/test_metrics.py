"""What single metrics say of single answers."""

import json
import math

import pytest

from tunesmith.core.errors import DataError
from tunesmith.evaluate.compare import vectors
from tunesmith.evaluate.metrics.base import Judged, Metric
from tunesmith.evaluate.metrics.bleu import Bleu
from tunesmith.evaluate.metrics.exact import Exact
from tunesmith.evaluate.metrics.json_fields import JsonFields
from tunesmith.evaluate.metrics.perplexity import Perplexity
from tunesmith.evaluate.metrics.rouge import Rouge


def score(metric: Metric, answer: str, *references: str) -> dict[str, float]:
    return metric.values(vectors(metric, [Judged("r", "", answer, references)])[0])


WANTED = json.dumps({"intent": "refund", "order": "48213", "urgent": True, "product": None})
FIELDS = JsonFields(fields=["intent", "order", "urgent", "product"])


@pytest.mark.parametrize(
    ("answer", "right", "valid"),
    [
        (WANTED, 4, 1),
        (WANTED.replace("refund", "Refund"), 3, 1),
        ('{"product": null, "urgent": true, "order": "48213", "intent": "refund"}', 4, 1),
        ('{"intent": "refund", "order": 48213, "urgent": 1, "product": ""}', 1, 1),
        ('{"intent": "refund", "order": "48213", "urgent": true}', 3, 1),
        (f"Here it is: {WANTED}", 0, 0),
        (f"{WANTED} I hope this helps", 0, 0),
        (f"```json\n{WANTED}\n```", 0, 0),
        (f"  {WANTED}\n", 4, 1),
        (WANTED[:-1], 0, 0),
        (f"[{WANTED}]", 0, 0),
        ('{"intent": "refund", "intent": "refund"}', 0, 0),
        ("[" * 10_000, 0, 0),
        ("", 0, 0),
    ],
)
def test_json_fields(answer: str, right: int, valid: int) -> None:
    found = score(FIELDS, answer, WANTED)
    assert found["field_accuracy"] == 25 * right
    assert found["valid_json"] == 100 * valid
    assert sum(found[f"field_accuracy.{name}"] for name in FIELDS.fields) == 100 * right


@pytest.mark.parametrize("reference", ["not JSON", '{"intent": "refund"}'])
def test_json_fields_refuses_a_reference_it_cannot_judge_by(reference: str) -> None:
    with pytest.raises(DataError, match="its reference"):
        score(FIELDS, WANTED, reference)


def test_exact_options() -> None:
    assert score(Exact(), " Paris\n", "Paris") == {"exact": 100}
    assert score(Exact(strip=False), " Paris\n", "Paris") == {"exact": 0}
    assert score(Exact(), "paris", "Paris") == {"exact": 0}
    assert score(Exact(case=False), "paris", "Rome", "Paris") == {"exact": 100}
    assert score(Exact(field="product"), '{"product": null}', WANTED) == {"product.exact": 100}


def test_a_field_of_a_json_answer() -> None:
    wanted = json.dumps({"summary": "the parcel is late again", "n": 1})
    given = json.dumps({"summary": "the parcel is late", "n": 2})
    whole = score(Rouge(), "the parcel is late", "the parcel is late again")["rougeL"]
    assert score(Rouge(field="summary"), given, wanted) == {"summary.rougeL": whole}
    assert score(Rouge(field="summary"), "the parcel is late again", wanted)["summary.rougeL"] == 0
    assert score(Bleu(field="summary"), wanted, wanted)["summary.bleu"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("answer", "wanted", "expected"),
    [
        ("посылка опоздала", "посылка опоздала", 100),
        ("包裹迟到了", "包裹迟到了", 100),
        ("包裹到了", "包裹迟到了", 100 * 8 / 9),
        ("посылка", "посылка опоздала", 100 * 2 / 3),
        ("αργό δέμα", "γρήγορο δέμα", 50),
    ],
)
def test_rouge_reads_other_scripts(answer: str, wanted: str, expected: float) -> None:
    assert score(Rouge(), answer, wanted)["rougeL"] == pytest.approx(expected)


def test_perplexity_is_one_mean_over_all_tokens() -> None:
    rows = [
        Judged("a", "", "", ("",), nll=2.0, tokens=1),
        Judged("b", "", "", ("",), nll=9.0, tokens=9),
    ]
    total = vectors(Perplexity(), rows).sum(axis=0)
    assert Perplexity().values(total)["perplexity"] == pytest.approx(math.exp(1.1))
    rows.append(Judged("c", "", "", ("",), nll=math.nan, tokens=2))
    assert math.isnan(Perplexity().values(vectors(Perplexity(), rows).sum(axis=0))["perplexity"])
    huge = vectors(Perplexity(), [Judged("d", "", "", ("",), nll=1e9, tokens=1)])[0]
    assert Perplexity().values(huge)["perplexity"] == math.inf
