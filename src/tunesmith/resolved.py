"""The resolved run as YAML, each value with where it was said: what a run folder keeps."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith.places import FILES, IN_LISTS, ITEM
from tunesmith.run import Loaded
from tunesmith.yaml_marks import Marked, Place, scalar

PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")


def text(loaded: Loaded, folder: Path, home: Path) -> str:
    """The resolved run as YAML to keep in `folder`, each value with where it was said.

    Loading it gives an equal run. Files under `home` are written relative to `folder`, so that
    a project may move.
    """
    value = loaded.run.model_dump(mode="json")
    for section, name in (*FILES, ("model", "source"), ("evaluate", "general")):
        value[section][name] = relative((section, name), value[section][name], folder, home)
    lines = ["# The resolved run, every setting with where its value was said."]
    return "\n".join([*lines, *yaml_lines(value, loaded.origins, "", "")]) + "\n"


def relative(place: Place, value: Any, folder: Path, home: Path) -> Any:
    """A setting with the paths in it made relative to `folder`, where they are under `home`."""
    if isinstance(value, list):
        return [relative((*place, ITEM), inner, folder, home) for inner in value]
    if isinstance(value, dict):
        return {key: relative((*place, key), v, folder, home) for key, v in value.items()}
    named = place[2:] == () or place in IN_LISTS
    if named and isinstance(value, str) and os.path.isabs(value):
        return os.path.relpath(value, folder) if Path(value).is_relative_to(home) else value
    return value


def yaml_lines(value: Any, said: Mapping[str, str], path: str, indent: str) -> Iterator[str]:
    """A mapping as block YAML, one line a plain value."""
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield f"{indent}{key}:"
            yield from yaml_lines(inner, said, f"{path}{key}.", indent + "  ")
            continue
        yield f"{indent}{key}: {flow(inner)}  # {one_line(said.get(path + key, 'default'))}"


def flow(value: Any) -> str:
    """A value on one line of YAML, as our own reader reads it back."""
    if isinstance(value, str):
        return word(value)
    if isinstance(value, list):
        return f"[{', '.join(flow(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{word(key)}: {flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, float) and "." not in repr(value):
        return repr(value).replace("e", ".0e")  # 1e-05 would be text
    return json.dumps(value)


def word(text: str) -> str:
    """A text without quotes where it can only be read as itself, else with escapes."""
    bare = Marked(None)
    if PLAIN.fullmatch(text) and scalar(text, "", bare) == text and not bare.problems:
        return text
    return f'"{"".join(escaped(letter) for letter in text)}"'


def escaped(letter: str) -> str:
    """A letter inside double quotes."""
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"


def one_line(source: str) -> str:
    """A mark fit for a comment."""
    return re.sub(r"[^\x20-\x7e]", "?", source)
