"""Which settings name files, and where those files are."""

import os
from pathlib import Path
from typing import Any

from tunesmith.data.hub import PREFIX
from tunesmith.yaml_marks import Place

# Settings that name files. In a run file they are relative to it, on a command line to the
# current folder. A name, of a model say, that is no path there stays a name.
FILES: tuple[tuple[str, str], ...] = (("data", "source"), ("data", "valid"), ("data", "test"))
ITEM = "*"
"""Any place in a list."""
IN_LISTS: tuple[tuple[str, ...], ...] = (
    ("data", "source", ITEM),
    *(("data", "source", ITEM, name) for name in ("path", "valid", "test")),
    *(("data", "audits", ITEM, name) for name in ("classifier", "names")),
)
PERHAPS_FILES: tuple[Place, ...] = (("model",), ("model", "source"), ("evaluate", "general"))


def grounded(place: Place, value: Any, base: Path) -> Any:
    """`value`, in which every setting that names a file holds its absolute path."""
    if isinstance(value, dict):
        return {key: grounded((*place, key), inner, base) for key, inner in value.items()}
    if isinstance(value, list):
        return [grounded((*place, ITEM), inner, base) for inner in value]
    if not isinstance(value, str) or not value or "://" in value:
        return value
    if value.startswith(PREFIX):
        return value
    place = tuple(ITEM if isinstance(step, int) else step for step in place)
    path = os.path.abspath(base / os.path.expanduser(value))
    if place in FILES or place in IN_LISTS or (place in PERHAPS_FILES and os.path.exists(path)):
        return path
    return value
