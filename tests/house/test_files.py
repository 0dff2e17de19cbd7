"""Every file has one idea and says it; no drawer, no dead end, nothing of this machine."""

import ast
import re
from pathlib import Path

HOME = Path(__file__).parents[2]
FILES = sorted((HOME / "src" / "tunesmith").rglob("*.py"))
TESTS = sorted((HOME / "tests").rglob("*.py"))
BANNED = {"utils", "util", "common", "misc", "helpers", "helper", "manager", "handler", "base2"}


MOST_BY_PLACE = 4
BY_KEYWORD = {
    "src/tunesmith/data/intake.py",
    "src/tunesmith/train/ahead.py",
    "src/tunesmith/train/selfcheck.py",
}


def named(path: Path) -> str:
    return path.relative_to(HOME).as_posix()


def test_the_first_line_says_the_idea() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if path.name == "__init__.py" and not text:
            continue
        first = (ast.get_docstring(ast.parse(text)) or "").splitlines()[:1]
        assert first, f"{path} has no first line"
        assert "this module" not in first[0].lower(), path


def test_no_drawers() -> None:
    assert [named(path) for path in FILES + TESTS if path.stem in BANNED] == []


def test_nothing_is_left_for_later() -> None:
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    files = FILES + TESTS
    assert [named(p) for p in files if mark.search(p.read_text(encoding="utf-8"))] == []


def test_source_is_ascii() -> None:
    assert [named(path) for path in FILES if not path.read_bytes().isascii()] == []


def test_public_functions_and_classes_have_docstrings() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    bare = [
        f"{named(path)}:{node.lineno}: {node.name}"
        for path in FILES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, kinds) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert bare == []


def test_what_goes_by_place_is_little() -> None:
    """Of five things in a row a reader confuses two. These files hold to it; more may join them."""
    files = [path for path in FILES if named(path) in BY_KEYWORD]
    long = [
        f"{named(path)}:{node.lineno}: {node.name}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and len(node.args.args) > MOST_BY_PLACE
    ]
    assert len(files) == len(BY_KEYWORD) and long == []


def test_no_path_of_a_machine_is_in_the_repository() -> None:
    folders = [HOME / name for name in ("src", "tests", "docs", "examples", "bench", ".ci")]
    files = [p for folder in folders for p in folder.rglob("*") if p.suffix != ".pyc"]
    files += [p for p in HOME.iterdir() if p.name != ".git"]
    path = re.compile(r"(?<![\w.])/(home|root|work)/[a-z]")
    texts = {p: p.read_text(errors="replace") for p in files if p.is_file()}
    assert [named(p) for p, text in texts.items() if path.search(text)] == []
