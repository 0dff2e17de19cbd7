"""Settings said over a run file: `train.lr=1e-4` on a command line, or keywords in Python."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tunesmith.core.errors import SettingsError
from tunesmith.core.parts import Part, Spec
from tunesmith.fields import declared, members, specs
from tunesmith.places import grounded
from tunesmith.sentences import secret
from tunesmith.yaml_marks import Marked, Place, deep, mark_below, parse

LINE, KEYWORD = "command line", "override"
"""What the mark of a setting said over a run file begins with."""


def apply(root: type[Spec], marked: Marked, override: str) -> None:
    """Put `path=value` of the command line, its value in YAML, over what the file says."""
    path, equals, text = override.partition("=")
    hidden = f"{path}=..." if secret(path.rpartition(".")[2]) else override
    source = f"{LINE} '{hidden}'"
    if not equals or not all(path.split(".")):
        marked.problems.append(f"{source}: write an override as path=value, like train.lr=1e-4")
        return
    try:
        said = parse(text, source)
    except SettingsError as error:
        marked.problems.extend(error.problems)
        return
    marked.problems.extend(re.sub(r"':\d+:\d+:", "':", problem) for problem in said.problems)
    put(root, marked, path, said.value, source)


def lay_over(root: type[Spec], marked: Marked, path: str, value: Any) -> None:
    """Put a value said in Python over what is written; nested settings leave their neighbours."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            lay_over(root, marked, f"{path}.{key}", inner)
    else:
        put(root, marked, path, deep(value), f"{KEYWORD} '{path}'")


def put(root: type[Spec], marked: Marked, path: str, value: Any, source: str) -> None:
    """Set one value. A path into a part keeps the part that the file or the default names."""
    place: Place = ()
    annotation: Any = root
    inside = marked.value
    *above, last = path.split(".")
    for word in above:
        step = step_into(inside, word)
        if step is None:
            marked.problems.append(f"{source}: {word} is not in that list")
            return
        place = (*place, step)
        field = declared(annotation).get(word)
        default = field.get_default(call_default_factory=True) if field else None
        annotation = field.annotation if field else annotation
        there = inside.get(step) if isinstance(inside, dict) else inside[step]
        inside[step] = inside = opened(there, default, annotation)
        annotation = part_of(inside, annotation)
        marked.marks.setdefault(place, source)
        marked.keys.setdefault(place, source)
    step = step_into(inside, last)
    if step is None:
        marked.problems.append(f"{source}: {last} is not in that list")
        return
    place = (*place, step)
    inside[step] = grounded(place, value, Path.cwd())
    for stale in [p for p in marked.marks if p[: len(place)] == place]:
        del marked.marks[stale]
    mark_below(marked, place, source)


def step_into(inside: Any, word: str) -> str | int | None:
    """A word of a path as a key, or as a place in a list that is that long."""
    if isinstance(inside, dict):
        return word
    return int(word) if word.isdigit() and int(word) < len(inside) else None


def opened(there: Any, default: Any, annotation: Any) -> Any:
    """The settings at a place as a mapping: `lora` is `{kind: lora}`, nothing is the default."""
    if isinstance(there, dict | list):
        return there
    if isinstance(there, str):
        parts = any(members(spec) for spec in specs(annotation))
        if parts:
            return {"kind": there}
        return {"source" if "source" in declared(annotation) else "path": there}
    if not isinstance(default, BaseModel):
        return {}
    kind = {"kind": default.kind} if isinstance(default, Part) else {}
    return default.model_dump(exclude_unset=True) | kind


def part_of(inside: Any, annotation: Any) -> Any:
    """The part that a mapping names, where a family's may stand."""
    parts = {kind: part for spec in specs(annotation) for kind, part in members(spec).items()}
    kind = str(inside.get("kind")) if isinstance(inside, dict) else ""
    return parts.get(kind, annotation)
