"""Where the tests of the command line stand: a folder, a finished run, a stopped one."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command import QUICK, Command, Said, project, rows
from tests.tiny import tiny_model
from tunesmith import door
from tunesmith.cli import app


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process."""

    def run(*words: str) -> Said:
        capsys.readouterr()
        code = door.enter(app, words)
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The door sets the umask, the environment and more of its process: put them back."""
    mask, environment = os.umask(0o022), dict(os.environ)
    os.umask(mask)
    garbage = gc.get_threshold()
    yield
    gc.set_threshold(*garbage)
    os.umask(mask)
    os.environ.clear()
    os.environ.update(environment)
    door.Visit.folder = None


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, rows, a run file, and the finished run `bot`."""
    home = tmp_path_factory.mktemp("home")
    tiny_model("llama", home / "tiny")
    rows(home / "rows.jsonl")
    (home / "bot.yaml").write_text(
        "model: tiny\ndata: {source: rows.jsonl, split: {valid: 4, test: 4}}\n"
        "evaluate: {metrics: [exact, rouge, perplexity]}\ndeploy: {exports: [adapter, merged]}\n"
    )
    before = Path.cwd()
    os.chdir(home)
    try:
        assert door.enter(app, ["run", "bot.yaml", *QUICK, "--json"]) == 0
    finally:
        os.chdir(before)
    return home


@pytest.fixture
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is the one with the finished run."""
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stopped(home: Path, empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training that was stopped after its first saved step."""
    from tunesmith.core.errors import Preempted
    from tunesmith.train.session import Session

    save: Callable[..., None] = Session._save

    def and_stop(self: Session, done: int) -> None:
        save(self, done)
        raise Preempted("stopped")

    project(home, empty)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_save", and_stop)
        assert say("train", "bot.yaml", *QUICK).code == 75
    return empty
