"""A new part is one file, or one entry point: nothing else is edited, and YAML accepts it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import tiny_model

SOURCE = Path(__file__).parents[2] / "src"

METHOD = '''"""BitFit: train the norms and the biases, and nothing else."""

from typing import Any, Literal

from tunesmith.train.methods.base import Method


class BitFit(Method):
    """Train the norms (and biases, where there are any) and nothing else."""

    kind: Literal["bitfit"] = "bitfit"
    share: float = 1.0
    """Share of the norms that move."""

    @property
    def default_lr(self) -> float:
        return 1e-3

    def apply(self, model: Any, seed: int) -> Any:
        for name, weight in model.named_parameters():
            weight.requires_grad_("norm" in name or name.endswith("bias"))
        return model

    @property
    def needs_copy(self) -> bool:
        return True
'''

METRIC = '''"""Shortness: the share of answers with at most `most` letters."""

from typing import TYPE_CHECKING, Literal

from tunesmith.core.late import late
from tunesmith.evaluate.metrics.base import Judged, Metric

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")


class Shortness(Metric):
    """How many answers are short."""

    kind: Literal["shortness"] = "shortness"
    most: int = 20
    """Letters that a short answer may have."""

    def counts(self, judged: Judged) -> "np.ndarray":
        return np.array([float(len(judged.answer) <= self.most), 1.0])

    def values(self, total: "np.ndarray") -> dict[str, float]:
        return {"shortness": 100 * float(total[0] / total[1]) if total[1] else float("nan")}
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package with two new files in it, to be imported instead of ours."""
    copy = tmp_path / "copy"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (copy / "tunesmith" / "train" / "methods" / "bitfit.py").write_text(METHOD)
    (copy / "tunesmith" / "evaluate" / "metrics" / "shortness.py").write_text(METRIC)
    return copy


def say(package: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the copied package."""
    code = (
        f"import sys; sys.path.insert(0, {str(package)!r})\n"
        "import tunesmith.cli\n"
        f"assert tunesmith.__file__.startswith({str(package)!r}), tunesmith.__file__\n"
        f"tunesmith.cli.main({list(words)!r})"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=home)


def test_a_file_in_a_family_is_a_part(package: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    tiny_model("llama", home / "tiny")
    lines = [{"prompt": f"say {i}", "completion": f"{i} {i}"} for i in range(24)]
    (home / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (home / "run.yaml").write_text(
        "model: tiny\n"
        "data: {source: rows.jsonl, split: {valid: 4, test: 4}}\n"
        "train: {method: {kind: bitfit, share: 0.5}, steps: 3, probes: 0, batch: 4}\n"
        "evaluate: {metrics: [{kind: shortness, most: 5}], sampling: {max_tokens: 4}}\n"
    )
    done = say(package, home, "evaluate", "run.yaml", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((home / "runs" / "run" / "evaluate" / "report.json").read_text())
    assert report["arms"]["tuned"]["shortness"]["value"] >= 0
    trained = json.loads((home / "runs" / "run" / "train" / "train.json").read_text())
    assert trained["method"] == {"kind": "bitfit", "share": 0.5}


def test_errors_reference_and_schema_know_it(package: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: {source: x}\ntrain: {method: bitfitt}\n")
    done = say(package, tmp_path, "train", "run.yaml")
    assert done.returncode == 2 and "did you mean 'bitfit'" in done.stderr
    assert "Share of the norms" in say(package, tmp_path, "explain", "train.method.bitfit").stdout
    assert "bitfit" in say(package, tmp_path, "schema").stdout


def test_an_installed_package_joins_by_entry_point(tmp_path: Path) -> None:
    (tmp_path / "brevity.py").write_text(METRIC.replace("shortness", "brevity"))
    described = tmp_path / "brevity-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: brevity\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[tunesmith.evaluate.metrics]\nbrevity = brevity\n")
    (tmp_path / "run.yaml").write_text(
        "data: {source: x.jsonl}\nevaluate: {metrics: [{kind: brevity, most: 3}]}\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from tunesmith.run import load\n"
        "print(load('run.yaml').evaluate.metrics)"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "kind='brevity', most=3" in done.stdout
