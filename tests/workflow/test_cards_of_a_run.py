"""Cards read what the stages really write: a whole tiny run leaves no gap in card or page."""

from collections.abc import Callable
from pathlib import Path

from tests.trained import base_of, chat, settings
from tunesmith.cards import model_card, page
from tunesmith.cards.sections import UNMEASURED
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.tables import write_rows
from tunesmith.data.stage import Data, prepare
from tunesmith.deploy.stage import Deploy, deploy
from tunesmith.evaluate.metrics.exact import Exact
from tunesmith.evaluate.metrics.perplexity import Perplexity
from tunesmith.evaluate.stage import Evaluate, evaluate
from tunesmith.model.generate import Sampling
from tunesmith.train.loop import Train
from tunesmith.train.stage import train

# Written by the pipeline, not by a stage; tests/unit/test_cards.py has it.
FROM_THE_PIPELINE = "manifest.json"


def whole_run(path: Path, base_folder: Path) -> RunFolder:
    """Every stage once, on 80 rows and a tiny model."""
    rows = [{"messages": chat(n).content()["messages"]} for n in range(80)]
    write_rows(path / "rows.jsonl", rows)
    run, base = RunFolder(path / "bot"), base_of(base_folder)
    run.create()
    log = Log(run, quiet=True)
    prepare(run, Data(source=str(path / "rows.jsonl")), seed=0, log=log)
    spec: Train = settings(epochs=1, probes=2)
    train(run, spec, base, seed=0, log=log)
    judged = Evaluate(
        metrics=[Exact(), Perplexity()], sampling=Sampling(max_tokens=8), bootstrap=100
    )
    evaluate(run, judged, base, seed=0, log=log)
    deploy(run, Deploy(), base, seed=0, log=log)
    return run


def test_a_whole_run_leaves_no_gap(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    run = whole_run(tmp_path, tiny("llama"))
    sections = model_card.card(run.path).sections
    facts = [fact for section in sections for fact in (*section.facts, *section.behind)]
    gaps = {fact.label for fact in facts if fact.value is None}
    known = {fact.label for fact in facts if fact.source.startswith(FROM_THE_PIPELINE)}
    assert gaps - known == set(UNMEASURED)
    assert len(facts) > 50
    text = page.write(run).read_text("utf-8")
    assert text.count("<svg") >= 3 and "held out" in text and 'class="sample"' in text
    assert text.count(": not measured.") == 1, "the settings, which the pipeline writes"
    assert run.stage("evaluate").manifest() and run.stage("deploy").manifest()
