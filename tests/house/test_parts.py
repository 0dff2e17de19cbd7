"""Parts and settings keep their shape: kind = file name, a string under every field."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunesmith
from tunesmith.core.parts import Part, Spec
from tunesmith.fields import settings
from tunesmith.run import Run

SOURCE = Path(tunesmith.__file__).parent
FAMILIES = sorted(base.parent for base in SOURCE.rglob("base.py"))


def promise(folder: Path) -> type[Part]:
    """The family's promise."""
    name = ".".join(("tunesmith", *folder.relative_to(SOURCE).parts, "base"))
    module = importlib.import_module(name)
    (found,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Part) and value.__module__ == name
    ]
    return found


def specs() -> Iterator[type[Spec]]:
    """Every spec of ours."""
    for file in pkgutil.walk_packages([str(SOURCE)], "tunesmith."):
        if not file.name.endswith("__main__"):
            importlib.import_module(file.name)
    waiting = [Spec]
    while waiting:
        spec = waiting.pop()
        waiting += spec.__subclasses__()
        if spec.__module__.startswith("tunesmith."):
            yield spec


@pytest.mark.parametrize("folder", FAMILIES, ids=lambda p: p.name)
def test_each_file_of_a_family_is_one_part_called_like_it(folder: Path) -> None:
    files = {p.stem for p in folder.glob("*.py")} - {"__init__", "base"}
    members = promise(folder).members()
    assert {k for k, part in members.items() if part.__module__.startswith("tunesmith")} == files
    for kind, part in members.items():
        assert part.__module__.rpartition(".")[2] == kind
        assert part.__doc__, f"{kind} does not say what it is good for"


@pytest.mark.parametrize("folder", FAMILIES, ids=lambda p: p.name)
def test_a_family_has_an_empty_init_and_a_short_promise(folder: Path) -> None:
    assert (folder / "__init__.py").read_text() == ""
    assert len((folder / "base.py").read_text().splitlines()) <= 120


def test_every_field_has_a_string_under_it() -> None:
    bare = [
        f"{spec.__module__}.{spec.__name__}.{name}"
        for spec in specs()
        for name, field in spec.model_fields.items()
        if not field.description and name != "kind"
    ]
    assert bare == []


def test_every_section_says_what_it_is() -> None:
    assert [s.__name__ for s in specs() if not (s.__doc__ or "").strip()] == []


def test_every_setting_has_a_usable_default_but_the_source() -> None:
    required = [s.path for s in settings(Run) if s.field.is_required()]
    assert [p for p in required if p.count(".") <= 1] == ["data", "data.source"]
