"""The reference is the settings' own text, and up to date."""

from pathlib import Path

import pytest

from tunesmith import reference
from tunesmith.core.errors import SettingsError
from tunesmith.fields import settings
from tunesmith.run import Run
from tunesmith.sentences import ELSEWHERE, path_of

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def test_pages_are_fresh() -> None:
    made = reference.pages()
    written = {p.name: p.read_text(encoding="utf-8") for p in FOLDER.glob("*.md")}
    assert sorted(written) == sorted(made), "run `make docs`"
    stale = [name for name, text in made.items() if written[name] != text]
    assert stale == [], "run `make docs`"


def test_every_setting_can_be_explained() -> None:
    for setting in settings(Run):
        assert reference.explain(setting.path)
        assert reference.explain(path_of(setting.path, Run))


@pytest.mark.parametrize(
    ("path", "meant"), [("train.methd", "train.method"), ("lr", "train.lr"), ("ran", "rank")]
)
def test_a_near_miss_is_told(path: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=meant):
        reference.explain(path)


def test_other_tools_names_lead_to_settings_that_exist() -> None:
    known = {path_of(setting.path, Run) for setting in settings(Run)}
    assert {name: path for name, path in ELSEWHERE.items() if path not in known} == {}
