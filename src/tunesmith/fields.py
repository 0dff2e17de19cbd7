"""Walks over the declared settings: which fields a spec has and what may stand in each."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from pydantic.fields import FieldInfo

from tunesmith.core.parts import Part, Spec
from tunesmith.yaml_marks import Place


def specs(annotation: Any) -> list[type[Spec]]:
    """The specs an annotation mentions: in a list, a union, or alone."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return [annotation]
    return [spec for inner in get_args(annotation) for spec in specs(inner)]


@cache
def members(spec: type[Spec]) -> dict[str, type[Part]]:
    """The parts of a family's promise by kind; empty for any other spec."""
    if issubclass(spec, Part) and spec.__module__.endswith(".base"):
        return spec.members()
    return {}


def declared(annotation: Any) -> dict[str, FieldInfo]:
    """The settings that may stand below a value of this annotation, by name."""
    found: dict[str, FieldInfo] = {}
    for spec in specs(annotation):
        found |= spec.model_fields
    return found


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted path (a part's kind included), its field, and who declares it."""

    path: str
    field: FieldInfo
    owner: type[Spec]


def settings(root: type[Spec], path: str = "") -> Iterator[Setting]:
    """Every setting below `root`, depth first, in the order of declaration."""
    for name, field in root.model_fields.items():
        here = f"{path}{name}"
        yield Setting(here, field, root)
        for spec in specs(field.annotation):
            for kind, part in members(spec).items():
                yield from settings(part, f"{here}.{kind}.")
            if not members(spec):
                yield from settings(spec, f"{here}.")


@dataclass(frozen=True)
class Spot:
    """Where an error's location leads: a place in what was written, and the settings there."""

    place: Place
    """Keys from the top, as far as they were written."""
    words: str
    """The dotted path for a reader; a part's kind is named in it."""
    annotation: Any
    """What is declared at the end of the path."""
    parent: Any
    """What is declared one step before."""


def locate(root: type[Spec], location: Place, value: Any) -> Spot:
    """Follow a location of pydantic's, which also names kinds, classes and union members."""
    place: Place = ()
    words = ""
    annotation: Any = root
    parent: Any = root
    for step in location:
        kinds = {k: p for s in specs(annotation) for k, p in members(s).items()}
        classes = {spec.__name__: spec for spec in specs(annotation)}
        if isinstance(step, int):
            words += f"[{step}]"
        elif step in kinds:
            words, annotation, parent = f"{words}.{step}", kinds[step], annotation
            continue
        elif step in declared(annotation):
            words, parent = f"{words}.{step}", annotation
            annotation = declared(annotation)[step].annotation
        elif isinstance(value, dict) and step in value:
            words, parent, annotation = f"{words}.{step}", annotation, None
        else:
            annotation = classes.get(step, annotation)
            continue
        if (isinstance(value, dict) and step in value) or (
            isinstance(value, list) and isinstance(step, int) and step < len(value)
        ):
            value = value[step]  # type: ignore[index]
            place = (*place, step)
        else:
            value = None
    return Spot(place, words.lstrip("."), annotation, parent)
