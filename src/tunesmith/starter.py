"""A first run file, with example rows where there are none yet."""

import re
import shutil
from pathlib import Path

from tunesmith.core.disk import make_folders, write_text
from tunesmith.core.errors import SettingsError, TunesmithError
from tunesmith.core.tables import is_rows
from tunesmith.run import NAME
from tunesmith.yaml_marks import parse

EXAMPLES = Path(__file__).parent / "examples"

TEMPLATE = """\
# `tunesmith explain train.lr` says what a setting means; `tunesmith run {file}` does it all.
{name}model: smollm2-135m-instruct  # or a folder, a GGUF file, a hub name

data:
  source: {source}
  # A share (0.1) or a number (100) of rows is kept from training to choose and to judge by.
  split: {{valid: 0.1, test: 0.1}}

train:
  method:
    kind: lora  # or full
    rank: 16
  objective: sft
  epochs: 3
  lr: 2e-4
  batch: 8  # rows in one step
  length: 1024  # a longer row is refused, never cut

evaluate:
  metrics: [exact, rouge, perplexity]
  sampling:
    max_tokens: 256

deploy:
  exports: [adapter, merged]

seed: 0
"""


def init(where: Path) -> list[Path]:
    """Write a run file into a folder, or beside a file of rows; what was written.

    A folder without rows gets the example ones. Nothing that exists is replaced.
    """
    path, source, copies = plan(where)
    make_folders(path.parent.absolute())
    if copies:
        shutil.copyfile(EXAMPLES / "support" / "train.jsonl", path.parent / source)
    name = path.absolute().parent.name
    line = f"name: {name}\n" if path.stem == "run" and re.match(NAME, name) else ""
    write_text(path, TEMPLATE.format(file=path.name, source=quoted(source), name=line))
    return planned_files(path, source, copies)


def planned(where: Path) -> list[Path]:
    """What `init` would write."""
    return planned_files(*plan(where))


def planned_files(path: Path, source: str, copies: bool) -> list[Path]:
    """The run file first."""
    return [path, path.parent / source] if copies else [path]


def plan(where: Path) -> tuple[Path, str, bool]:
    """The run file, the name of its rows beside it, and whether those are example ones."""
    if is_rows(where.name):
        if not where.is_file():
            raise SettingsError(f"{where}: there is no such file; name your file of rows")
        return free(where.with_suffix(".yaml")), where.name, False
    path = free(where if where.suffix in (".yaml", ".yml") else where / "run.yaml")
    if path.parent.exists() and not path.parent.is_dir():
        raise SettingsError(f"{path.parent}: is a file; name a folder")
    there = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    found = [p.name for p in there if is_rows(p.name)]
    return path, found[0] if found else "rows.jsonl", not found


def free(path: Path) -> Path:
    """Nothing of a person's is overwritten."""
    if path.exists():
        raise SettingsError(f"{path}: is there already; move it away, or name another place")
    return path


def quoted(name: str) -> str:
    """A file name as YAML reads it back."""
    try:
        plain = parse(f"x: {name}", "").value == {"x": name}
    except TunesmithError:
        plain = False
    return name if plain else "'" + name.replace("'", "''") + "'"
