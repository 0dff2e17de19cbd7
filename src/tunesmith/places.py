"""What a name means: a run by its name, its folder or its file; and which settings name files."""

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

RUNS = Path("runs")
"""Where runs lie, from the folder that a command is given in."""
RUN_FILE = "run.yaml"
"""What the run file in a folder is called; a run keeps its own so."""


def run_file(given: Path) -> Path:
    """The run file that is meant: of a folder its own, of a run's name the one under `runs/`; else
    the path as it is. A path that is there comes before a name."""
    if given.is_dir():
        own = given / RUN_FILE
        return own if own.is_file() else given
    kept = RUNS / given / RUN_FILE
    named = len(given.parts) == 1 and not os.path.lexists(given) and os.path.isfile(kept)
    return kept if named else given


def run_of(file: Path) -> Path | None:
    """The run that keeps this file beside its results; None of a file that a person wrote."""
    beside = (file.parent / name for name in ("manifest.json", "lock"))
    return file.parent if file.name == RUN_FILE and any(p.is_file() for p in beside) else None


def run_names() -> list[str]:
    """The runs of this folder."""
    return sorted(path.parent.name for path in RUNS.glob(f"*/{RUN_FILE}"))


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
