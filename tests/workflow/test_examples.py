"""Every run file in examples/ goes from rows to its report, on a tiny model, and so does every run
file that a guide shows. Those with a head go on to their export."""

import re
import shutil
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


ROOT = Path(__file__).parents[2]
SHOWN = [
    (page.stem, number, text)
    for page in sorted((ROOT / "docs" / "guides").glob("*.md"))
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
    if text.startswith("model:")
]
EARLIER = "runs/documents"
EXPORTED = ("features", "classification", "multi-task")
"""Run files whose model is exported too: what they leave is no adapter."""
ADAPTERS = ("adapter", "prefix")
"""Run files whose adapter is exported: no LoRA, which others show."""


def tiny_for(text: str, tiny: Callable[[str], Path]) -> list[str]:
    """The override that puts a tiny model of the same kind in the place of a bundled one."""
    kind = "bert" if "all-minilm" in text else "llama"
    return [] if EARLIER in text else [f"model.source={tiny(kind)}"]


def run(path: Path, overrides: list[str], until: str = "evaluate") -> None:
    """From rows to the report, or to the exports too."""
    assert door.enter(app, [until, str(path), *overrides, *QUICK]) == 0
    folder = Path("runs") / (load(path).name)
    assert (folder / "evaluate" / "report.html").exists()
    merged = folder / "deploy" / "merged" / "head.safetensors"
    assert merged.exists() == (path.stem in EXPORTED)
    assert (folder / "deploy" / "adapter" / "tunesmith.json").exists() == (path.stem in ADAPTERS)


@pytest.mark.parametrize("path", [*EXAMPLES, BUNDLED], ids=lambda p: p.stem)
def test_an_example_runs(
    path: Path,
    tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = path.parent
    if EARLIER in path.read_text():
        folder = Path(shutil.copytree(path.parent, tmp_path / "there"))
    monkeypatch.chdir(folder if folder != path.parent else tmp_path)
    if folder != path.parent:
        earlier = folder / "documents.yaml"
        run(earlier, tiny_for(earlier.read_text(), tiny))
    until = "run" if path.stem in (*EXPORTED, *ADAPTERS) else "evaluate"
    run(folder / path.name, tiny_for(path.read_text(), tiny), until)


@pytest.mark.parametrize(("page", "number", "text"), SHOWN)
def test_what_a_guide_shows_runs(
    page: str,
    number: int,
    text: str,
    tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(shutil.copytree(ROOT / "examples", tmp_path / "there"))
    monkeypatch.chdir(folder)
    if EARLIER in text:
        earlier = folder / "documents.yaml"
        run(earlier, tiny_for(earlier.read_text(), tiny))
    (folder / "shown.yaml").write_text(text)
    run(folder / "shown.yaml", tiny_for(text, tiny))


def test_examples_name_bundled_models_and_few_settings() -> None:
    for path in [*EXAMPLES, BUNDLED]:
        assert load(path).model.source.removeprefix(str(path.parent) + "/") in (
            "smollm2-135m-instruct",
            "all-minilm-l6-v2",
            EARLIER,
        )
        settings = [line for line in path.read_text().splitlines() if ":" in line.split("#")[0]]
        assert len(settings) <= 25
