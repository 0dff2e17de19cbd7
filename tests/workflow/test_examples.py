"""Every run file in examples/ goes from rows to its report, on a tiny model."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith import door
from tunesmith.cli import app
from tunesmith.run import load

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
BUNDLED = Path(__file__).parents[2] / "src" / "tunesmith" / "examples" / "support.yaml"
QUICK = [
    "train.epochs=1",
    "train.steps=2",
    "train.batch=2",
    "train.evaluate_every=2",
    "train.probes=0",
    "evaluate.limit=2",
    "evaluate.sampling.max_tokens=4",
]


@pytest.mark.parametrize("path", [*EXAMPLES, BUNDLED], ids=lambda p: p.stem)
def test_an_example_runs(
    path: Path,
    tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert door.enter(app, ["evaluate", str(path), f"model={tiny('llama')}", *QUICK]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "evaluate" / "report.html").exists()


def test_examples_say_the_bundled_model_and_few_settings() -> None:
    for path in [*EXAMPLES, BUNDLED]:
        assert load(path).model.source == "smollm2-135m-instruct"
        settings = [line for line in path.read_text().splitlines() if ":" in line.split("#")[0]]
        assert len(settings) <= 25
