"""Continued pre-training, from prepared documents to a report with general text beside."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.documents import document, prepared_documents
from tests.trained import base_of, prepared, settings, trained
from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.records import collate
from tunesmith.core.rows import Text
from tunesmith.core.tables import read_part
from tunesmith.deploy.stage import Deploy, deploy
from tunesmith.evaluate.likelihood import likelihoods
from tunesmith.evaluate.metrics.exact import Exact
from tunesmith.evaluate.metrics.perplexity import Perplexity
from tunesmith.evaluate.stage import Evaluate, evaluate
from tunesmith.model.bases import Base
from tunesmith.model.load import load_model
from tunesmith.model.policy import Policy
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.train.objectives.lm import Lm

Tiny = Callable[[str], Path]


def spec(**changes: Any) -> Any:
    return settings(objective=Lm(), length=16, epochs=2, **changes)


def policy_of(base: Base, dtype: str = "auto", **named: Any) -> Policy:
    return Policy(load_model(base, dtype=dtype), Tokenizer.load(base.folder), **named)


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Base]:
    base = base_of(tiny("llama"))
    folder = prepared_documents(tmp_path_factory.mktemp("documents") / "run", held=8)
    return trained(folder, base, spec(lr=3e-2, probes=2)), base


def test_long_documents_go_on_in_windows_and_count_as_one_row(run: tuple[RunFolder, Base]) -> None:
    path = run[0].stage("train").path
    facts = json.loads((path / "train.json").read_text())
    rows = read_part(run[0].stage("data").path, "train")
    kept = json.loads((path / "rows.json").read_text())["trained_on"]
    assert kept == [row.digest for row in rows] and facts["rows"]["train"] == len(rows)
    tokenizer = Tokenizer.load(path)
    tokens = sum(len(tokenizer.encode(row.texts()[0])) for row in rows)
    assert facts["start"]["trained_tokens"] == tokens  # each but the first, and the end
    assert facts["steps"] > 2 * math.ceil(len(rows) / 4)
    assert not (path / "probes.jsonl").exists() and "ends_with_stop" not in facts["start"]


def test_packed_documents_do_not_see_each_other_and_agree_with_the_reference(tiny: Tiny) -> None:
    """One micro-batch of many windows: each alone, and by the model's own attention."""
    base = base_of(tiny("llama"))
    fast, slow = policy_of(base, "float64"), policy_of(base, "float64", fast=False)
    lm = Lm()
    rows = [document(n) for n in range(6)]
    pieces = [p for row in rows for p in lm.cut(row, lm.encode(row, fast.tokenizer), 10)]
    batch = collate(pieces, "cpu")
    assert fast.packs and len(pieces) > 6
    together = fast.logps(batch)
    torch.testing.assert_close(together, slow.logps(batch), rtol=1e-12, atol=1e-12)
    for row, piece in zip(together, pieces, strict=True):
        (alone,) = fast.logps(collate([piece], "cpu"))
        torch.testing.assert_close(row[: len(alone)], alone, rtol=1e-12, atol=1e-12)


def test_rows_of_another_kind_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows of kind text"):
        trained(prepared(tmp_path / "run"), base_of(tiny("llama")), spec())


def measured(run: tuple[RunFolder, Base], **changes: Any) -> dict[str, Any]:
    folder, base = run
    evaluate(folder, Evaluate(**changes), base, seed=0, log=Log(folder, quiet=True))
    found: dict[str, Any] = json.loads((folder.path / "evaluate/report.json").read_text())
    return found


def test_domain_and_general_perplexity_stand_in_one_report(run: tuple[RunFolder, Base]) -> None:
    from tunesmith.cards import model_card, page

    found = measured(run)
    assert found["main"] == "perplexity" and "perplexity" in found["verdict"]["headline"]
    for values in (*found["arms"].values(), found["difference"]):
        assert set(values) == {"perplexity", "general_perplexity"}
        for value in values.values():
            assert value["low"] <= value["value"] <= value["high"]
    assert found["difference"]["perplexity"]["high"] < 0
    assert "do not overlap" in found["notes"]["windows"]
    assert "60 texts" in found["notes"]["general_perplexity"]
    shown = page.write(run[0]).read_text() + model_card.write(run[0]).read_text()
    assert shown.count("general perplexity") >= 2
    assert "read the same documents" in shown and "go on as the documents" in shown
    for absent in ("Side by side", "Probe answers", "answered", "seconds answering", "asked"):
        assert absent not in shown, absent


def test_general_text_of_ones_own_or_none(run: tuple[RunFolder, Base], tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps({"text": document(n).text}) + "\n" for n in range(30, 38)))
    found = measured(run, general=str(own))
    assert "own.jsonl, 8 texts" in found["notes"]["general_perplexity"]
    assert set(measured(run, general="none")["arms"]["base"]) == {"perplexity"}
    own.write_text('{"text": " "}\n')
    with pytest.raises(DataError, match=r"own\.jsonl:1: evaluate\.general: "):
        measured(run, general=str(own))
    with pytest.raises(DataError, match="is no file"):
        measured(run, general="bundeld")
    for beside in ([], [Perplexity()]):
        with pytest.raises(SettingsError, match=r"exact: documents have no answers to judge"):
            measured(run, metrics=[Exact(), *beside])


def test_perplexity_of_a_document_is_the_sum_over_its_windows(tiny: Tiny) -> None:
    """By hand: each window through the model by itself, and in any batch."""
    base = base_of(tiny("llama"))
    policy = policy_of(base)
    rows = [document(n, words=400 if n == 2 else 20) for n in range(7)]
    whole = policy.tokenizer.encode(rows[2].text)
    assert len(whole) > 2 * 512, "the test needs a document longer than the model's context"
    for batch in (1, 3, 16):
        found = {each.row: each for each in likelihoods(policy, rows, batch=batch)}
        assert len(found) == len(rows)
        for row in rows:
            nll, tokens = by_hand(policy, row)
            assert found[row.digest].tokens == tokens
            assert found[row.digest].nll == pytest.approx(nll, rel=1e-6)


def by_hand(policy: Policy, row: Text) -> tuple[float, int]:
    ids = [*policy.tokenizer.encode(row.text), policy.tokenizer.closing]
    size = len(ids) - 1
    count = 1 if len(ids) <= 512 else -(-size // 512)
    borders = [size * n // count for n in range(count + 1)]
    total = 0.0
    for low, high in zip(borders, borders[1:], strict=False):
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([ids[low:high]])).logits[0].double()
        wanted = torch.tensor(ids[low + 1 : high + 1])
        total += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
    return total, size


def test_a_run_of_documents_is_exported_and_verified(run: tuple[RunFolder, Base]) -> None:
    deploy(run[0], Deploy(), run[1], seed=0, log=Log(run[0], quiet=True))
    assert (run[0].path / "deploy/adapter/adapter_model.safetensors").is_file()


def test_a_document_shorter_than_its_batch_is_padded_and_not_counted(tiny: Tiny) -> None:
    policy = policy_of(base_of(tiny("llama")))
    rows = [Lm().encode(document(n), policy.tokenizer) for n in (1, 5)]
    loss = Lm().loss(policy, collate(rows, "cpu"))
    assert loss.logs.pairs["loss"][1] == sum(e.length - 1 for e in rows)
