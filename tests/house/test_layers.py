"""Imports go one way: cli > pipeline and its neighbours > run > stages > model > core."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "tunesmith"
FILES = sorted(SOURCE.rglob("*.py"))

STAGES = ("advise", "data", "train", "feedback", "evaluate", "deploy", "cards")
# Files beside the folders, lowest first. Those of one rank may import each other.
RANKS = (
    ("environment", "yaml_marks"),
    ("fields", "places"),
    ("sentences",),
    ("overrides",),
    ("run",),
    ("costs", "resolved"),
    ("job",),
    ("answered", "answers", "chat", "demo", "doctor", "forecast", "looks", "pipeline", "predict")
    + ("rows_told",),
    ("shared",),
    ("reference", "shelf", "starter", "testing", "lineage"),
    ("door",),
    ("cli",),
    ("__init__", "__main__"),
)
RANK = {"core": 0, "model": 1} | dict.fromkeys(STAGES, 2)
RANK |= {name: rank for rank, names in enumerate(RANKS, 3) for name in names}
# Ground to stand on for everybody, although it is a file beside the folders.
RANK["environment"] = 0


def home(path: Path) -> str:
    """The folder of the package a file is in, or the file itself."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Every module of ours that a file imports, anywhere in it, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def wrong(path: Path) -> list[str]:
    """Imports of a file that go up, or across from stage to stage."""
    here = home(path)
    found = []
    for module, line in imported(path):
        parts = module.split(".")
        if parts[0] != "tunesmith" or len(parts) < 2:
            continue
        there = parts[1]
        if there not in RANK and len(parts) == 2:  # a name of the package itself
            continue
        across = there in STAGES and here in STAGES and there != here
        if RANK[there] > RANK[here] or across:
            found.append(f"{path.name}:{line}: {here} imports {there}")
    return found


def test_every_file_has_a_place_in_the_layers() -> None:
    assert {home(path) for path in FILES} <= set(RANK)


def test_imports_go_down() -> None:
    assert [fault for path in FILES for fault in wrong(path)] == []


def test_the_rule_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    (tmp_path / "data").mkdir()
    up = tmp_path / "data" / "stage.py"
    up.write_text("from tunesmith.run import Run\nfrom tunesmith.train import loop\n")
    assert len(wrong(up)) == 2


def test_the_promise_of_a_family_is_imported_by_its_own_stage_only() -> None:
    for path in FILES:
        for module, line in imported(path):
            parts = module.split(".")
            if parts[:1] == ["tunesmith"] and "base" in parts[2:]:
                assert parts[1] == home(path), f"{path.name}:{line}: imports {module}"
