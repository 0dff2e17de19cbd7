"""The public names, and the commands, are those that are documented."""

import re
from pathlib import Path

import tunesmith
from tunesmith.cli import app

HOME = Path(__file__).parents[2]
COMMANDS = {
    "demo", "init", "doctor", "data", "train", "evaluate", "deploy", "run", "predict", "chat",
    "runs", "explain", "schema", "who-saw",
}  # fmt: skip


def test_public_names() -> None:
    assert tunesmith.__all__ == ["base", "load", "train"]
    assert callable(tunesmith.load) and callable(tunesmith.train)


def test_train_stays_callable_when_its_package_is_imported() -> None:
    import tunesmith.train.schedule  # noqa: F401

    assert callable(tunesmith.train)


def test_commands() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert names == COMMANDS


def said_in(path: Path) -> set[str]:
    """The commands that a page names in code."""
    text = path.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```.*?```|`[^`]+`", text, flags=re.DOTALL))
    return set(re.findall(r"\btunesmith ([a-z-]+)\b", code))


def test_every_command_in_the_pages_exists() -> None:
    pages = [HOME / "README.md", HOME / "CONTRIBUTING.md", *(HOME / "docs").rglob("*.md")]
    for page in pages:
        assert said_in(page) <= COMMANDS, page


def test_make_targets_in_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (HOME / "Makefile").read_text(), flags=re.MULTILINE))
    for page in (HOME / "README.md", HOME / "CONTRIBUTING.md"):
        named = set(re.findall(r"\bmake ([a-z]+)\b", page.read_text(encoding="utf-8")))
        assert named <= targets, page


def test_one_version() -> None:
    version = re.search(r'^version = "(.*)"', (HOME / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None and version[1] == tunesmith.__version__
    assert f"## {tunesmith.__version__}" in (HOME / "CHANGELOG.md").read_text()


def test_the_licence_is_whole() -> None:
    text = (HOME / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
