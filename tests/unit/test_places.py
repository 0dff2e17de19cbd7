"""What a name means where a run is asked for: a path that is there, or else a run under `runs/`."""

from pathlib import Path

import pytest

from tunesmith.places import run_file, run_names, run_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the run `bot`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "bot").mkdir(parents=True)
    for name in ("run.yaml", "manifest.json"):
        (tmp_path / "runs" / "bot" / name).touch()
    return tmp_path


@pytest.mark.parametrize("given", ["bot", "runs/bot", "runs/bot/run.yaml"])
def test_a_run_has_three_names(home: Path, given: str) -> None:
    file = run_file(Path(given))
    assert file == Path("runs/bot/run.yaml") and run_of(file) == Path("runs/bot")
    assert run_file(home / "runs" / "bot") == home / "runs" / "bot" / "run.yaml"
    assert run_names() == ["bot"]


def test_a_path_that_is_there_comes_before_a_name(home: Path) -> None:
    Path("bot").mkdir()
    assert run_file(Path("bot")) == Path("bot"), "a folder of rows"
    Path("bot/run.yaml").touch()
    assert run_file(Path("bot")) == Path("bot/run.yaml"), "a project"
    assert run_of(Path("bot/run.yaml")) is None


@pytest.mark.parametrize("given", ["bott", "bot.yaml", "../bot", "./sub/bot", "", ".", "bot/run"])
def test_what_is_no_run_stays_as_it_is(home: Path, given: str) -> None:
    assert run_file(Path(given)) == Path(given)
    Path("bot.yaml").touch()
    assert run_of(Path("bot.yaml")) is None
