"""The guide about rows: every format is in it, and every example is read as it says."""

import re
from pathlib import Path

import pytest
import yaml

from tunesmith.data.formats.base import Format
from tunesmith.data.source import Reading, rows
from tunesmith.data.stage import Data

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "rows.md"
SECTIONS = {
    title: text
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", GUIDE.read_text(), re.M | re.S)
}


def blocks(text: str, language: str) -> list[str]:
    """The code of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def test_every_format_has_a_section() -> None:
    assert [title for title in SECTIONS if title.islower()] != []
    assert {title for title in SECTIONS if title.islower()} == set(Format.members())


@pytest.mark.parametrize("kind", sorted(Format.members()))
def test_the_examples_of_a_format_are_read_as_it(kind: str, tmp_path: Path) -> None:
    """Found out from its keys, and the last one also as the section's run file states."""
    (examples,) = blocks(SECTIONS[kind], "json")
    lines = examples.splitlines()
    stated = [
        Data(**yaml.safe_load(text)["data"]).format for text in blocks(SECTIONS[kind], "yaml")
    ]
    found = [(line, None) for line in lines if kind != "columns"]
    for line, form in [*found, *((lines[-1], form) for form in stated)]:
        path = tmp_path / "rows.jsonl"
        path.write_text(line)
        reading = Reading(path, form)
        ((_, row),) = rows(reading)
        assert row.texts() and reading.format is not None and reading.format.kind == kind
        assert set(reading.unused) <= {"stars"}


def test_every_run_file_in_it_can_be_meant() -> None:
    found = blocks(GUIDE.read_text(), "yaml")
    assert len(found) == 3
    for text in found:
        assert Data(**yaml.safe_load(text)["data"]).source == "rows.jsonl"
