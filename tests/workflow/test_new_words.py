"""Words added to a model, from training to every folder it leaves, and back."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.documents import prepared_documents
from tests.saved import saved
from tests.trained import base_of, reloaded, settings, trained
from tunesmith import pipeline
from tunesmith.core.errors import IntegrityError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.rows import Text
from tunesmith.core.tables import read_part
from tunesmith.data.words import told
from tunesmith.deploy.exports.adapter import Adapter
from tunesmith.deploy.exports.merged import Merged
from tunesmith.deploy.stage import Deploy, deploy
from tunesmith.evaluate.stage import Evaluate, evaluate
from tunesmith.job import Job
from tunesmith.model.bases import Base
from tunesmith.model.documents import encode
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.trained import load_trained
from tunesmith.model.words import tokenizer_of
from tunesmith.run import from_mapping
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.lora import Lora
from tunesmith.train.objectives.lm import Lm

Tiny = Callable[[str], Path]
WORDS = ("sleeps", "over", "nowhere else")
CASES = [(kind, method) for kind in ("llama", "llama-untied") for method in (Lora(rank=4), Full())]
IDS = torch.tensor([[5, 9, 480, 40, 483, 300, 481]])


def spec(method: Any) -> Any:
    return settings(objective=Lm(), method=method, length=24, epochs=2, lr=1e-2)


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]}.{c[1].kind}")
def case(
    request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, Base, Any]:
    kind, method = request.param
    base = replace(base_of(tiny(kind)), tokens=WORDS)
    folder = prepared_documents(tmp_path_factory.mktemp("words") / "run", held=8)
    return trained(folder, base, spec(method)), base, method


def test_reloaded_it_is_what_was_trained_and_the_base_is_the_base(
    case: tuple[RunFolder, Base, Any],
) -> None:
    folder, base, method = case
    path = folder.stage("train").path
    live = answers(reloaded(folder, spec(method), base).model)
    found = load_trained(path, base)
    assert torch.equal(answers(found.model), live) and found.tokenizer.words
    before = load_trained(path, base, tuned=False)
    assert before.tokenizer.digest == Tokenizer.load(base.folder).digest
    assert before.model.get_input_embeddings().weight.shape[0] == 480
    assert json.loads((path / "train.json").read_text())["words"] == list(WORDS)
    with pytest.raises(IntegrityError, match="other words in model.tokens"):
        load_trained(path, replace(base, tokens=WORDS[:1]))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_exports_load_in_plain_tools(case: tuple[RunFolder, Base, Any], tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, base, method = case
    policy = load_trained(folder.stage("train").path, base)
    live = answers(policy.model)
    if isinstance(method, Lora):
        Adapter().write(policy, base, tmp_path / "adapter")
        plain = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
        torch.testing.assert_close(answers(plain), live, rtol=1e-6, atol=1e-6)
    Merged().write(policy, base, tmp_path / "merged")
    merged = answers(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    torch.testing.assert_close(merged, live, rtol=1e-5, atol=1e-5)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "merged")) == 486


def test_an_adapter_with_new_rows_is_verified_in_a_fresh_process(
    tiny: Tiny, tmp_path: Path
) -> None:
    base = replace(base_of(tiny("llama")), tokens=WORDS)
    folder = saved(tmp_path / "run", base, Lora(rank=2))
    deploy(folder, Deploy(), base, seed=0, log=Log(folder, quiet=True))
    verified = json.loads((folder.path / "deploy/verified.json").read_text())
    assert verified["adapter"]["numbers"]["relative"] <= 1e-6
    text = (folder.path / "deploy/adapter/README.md").read_text()
    assert "AutoPeftModelForCausalLM" in text


def test_checkpoints_carry_the_rows(case: tuple[RunFolder, Base, Any]) -> None:
    from tunesmith.train import checkpoint

    saved = checkpoint.newest(case[0].stage("train").path / "checkpoints")
    assert saved is not None
    wide = [t.shape[0] for n, t in saved.model.items() if "embed_tokens" in n]
    assert wide == [6 if isinstance(case[2], Lora) else 486]


def test_both_arms_are_measured_per_token_of_the_base(case: tuple[RunFolder, Base, Any]) -> None:
    folder, base, _ = case
    evaluate(folder, Evaluate(general="none"), base, seed=0, log=Log(folder, quiet=True))
    rows = [r for r in read_part(folder.stage("data").path, "test") if isinstance(r, Text)]
    plain = Tokenizer.load(base.folder)
    wanted = {row.digest: encode(row, plain).sequences[0].supervised for row in rows}
    for arm in ("base", "tuned"):
        lines = (folder.path / f"evaluate/likelihoods-{arm}.jsonl").read_text().splitlines()
        assert {e["row"]: e["tokens"] for e in map(json.loads, lines)} == wanted
    report = json.loads((folder.path / "evaluate/report.json").read_text())
    assert report["difference"]["perplexity"]["high"] < 0


def test_pieces_before_and_after_are_told(tiny: Tiny) -> None:
    base = replace(base_of(tiny("llama")), tokens=("hypothyroidism",))
    said = "hypothyroidism is not hypothyroidism, 12345678 tires, hemodialysis"
    rows = [Text(text=said), Text(text="x")]
    before, after = Tokenizer.load(base.folder), tokenizer_of(base)
    first, all_of_them, left = told(base.tokens, rows, before, after)
    size, other = (
        len(before.encode(f" {w}", "inside")) for w in ("hypothyroidism", "hemodialysis")
    )
    assert first == f"  hypothyroidism: {size} pieces, now 1" and size > 3
    ends = [(2 * size + other) / 3, (2 + other) / 3]
    said = f"{ends[0]:.3f} pieces a word, now {ends[1]:.3f}"
    assert all_of_them == f"the 2 commonest long words of the rows: {said}"
    assert left == f"what costs the most pieces yet: hemodialysis ({other})"


def test_a_run_of_answers_takes_words_too(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a run file: pieces are told with the data, and probes and answers use the words."""
    rows = [
        {"prompt": f"Is {n} hyperthyroidism?", "completion": f"No, hypothyroidism {n}."}
        for n in range(20)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    monkeypatch.setattr(Log, "say", lambda self, text: said.append(text))
    run = from_mapping(
        {
            "model": {"source": str(tiny("llama")), "tokens": ["hypothyroidism"]},
            "data": {"source": "rows.jsonl"},
            "train": {"epochs": 2, "probes": 1, "lr": 1e-2, "device": "cpu"},
            "evaluate": {"sampling": {"max_tokens": 4}},
        },
        {},
    )
    pipeline.carry_out(Job.of(run), "data")
    assert any(line.startswith("  hypothyroidism: ") and "now 1" in line for line in said)
    assert any("commonest long words" in line for line in said)
    pipeline.carry_out(Job.of(run), "evaluate")
    report = json.loads((tmp_path / "runs/run/evaluate/report.json").read_text())
    assert report["difference"]["perplexity"]["value"] < 0
    kept = (tmp_path / "runs/run/run.yaml").read_text()
    assert "tokens: [hypothyroidism]" in kept


def test_a_word_in_no_row_is_told(tiny: Tiny, tmp_path: Path) -> None:
    class Said(Log):
        lines: list[str] = []

        def say(self, text: str) -> None:
            self.lines.append(text)

    from tunesmith.train.stage import train

    base = replace(base_of(tiny("llama")), tokens=("nowhere",))
    log = Said(quiet=True)
    train(prepared_documents(tmp_path / "run"), spec(Lora(rank=2)), base, seed=0, log=log)
    assert any("2 of 2 new forms of words are in no training row" in line for line in log.lines)
