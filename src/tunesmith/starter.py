"""A first run file that fits the rows, with example rows where there are none yet."""

import os
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import count
from pathlib import Path

from tunesmith.core.disk import make_folders, write_text
from tunesmith.core.errors import DataError, SettingsError, TunesmithError
from tunesmith.core.quote import listed
from tunesmith.core.rows import Chat, Labelled, Row, Text
from tunesmith.core.tables import is_rows, read, under
from tunesmith.data.source import Reading, detected, rows
from tunesmith.run import NAME
from tunesmith.yaml_marks import parse

EXAMPLES = Path(__file__).parent / "examples"
NEAR = 0.8
"""How alike two names are, of 1, where one is taken for a slip of the other."""

TEMPLATE = """\
# `tunesmith explain train.lr` says what a setting means; `tunesmith run {file}` does it all.
{name}model: {model}  # or a folder, a GGUF file, a hub name

data:
  source: {source}
{columns}  # A share (0.1) or a number (100) of rows is held out, to choose and to judge by.
  split: {{valid: 0.1, test: 0.1}}

train:
{train}

evaluate:
{evaluate}

deploy:
  exports: {exports}

seed: 0
"""
COLUMNS = """\
  # No format has the keys {keys}. {said}:
  {mark}format: {{kind: columns, user: {user}, assistant: {assistant}}}
"""
UNSAID = "# format:"
"""In a run file that waits for somebody to say what is in its columns."""
ASKED = ("question", "query", "request", "ask", "user", "prompt", "input", "message")
ANSWERED = ("answer", "reply", "response", "assistant", "completion", "output")
LORA = """\
  method:
    kind: lora  # or full
    rank: 16
"""


@dataclass(frozen=True)
class Goal:
    """What differs between the run files of two kinds of rows."""

    model: str
    train: str
    evaluate: str
    exports: str


GOALS: Mapping[type[Row], Goal] = {
    Chat: Goal(
        model="smollm2-135m-instruct",
        train=f"""\
{LORA}\
  objective: sft
  epochs: 3
  lr: 5e-4
  batch: 8  # rows in one step
  length: 1024  # a longer row is refused, never cut""",
        evaluate="""\
  metrics: [exact, rouge, perplexity]
  sampling:
    max_tokens: 256""",
        exports="[adapter, merged]",
    ),
    Labelled: Goal(
        model="all-minilm-l6-v2",
        train="""\
  method: full  # or frozen: only a head on top of the model learns
  objective: classify
  epochs: 5
  lr: 3e-4
  batch: 16  # rows in one step
  length: 512  # a longer row is refused, never cut""",
        evaluate="  metrics: [accuracy, f1, calibration]",
        exports="[merged]",
    ),
    Text: Goal(
        model="smollm2-135m-instruct",
        train=f"""\
{LORA}\
  objective: lm
  epochs: 3
  lr: 5e-4
  batch: 8  # windows in one step
  length: 512  # a longer document goes on in the next window, never cut""",
        evaluate="  metrics: [perplexity]",
        exports="[adapter, merged]",
    ),
}
"""The goal that rows of a kind serve; other kinds serve none yet."""


@dataclass(frozen=True)
class Plan:
    """The run file, the name of its rows beside it, and whether those are example ones."""

    path: Path
    source: str
    copies: bool = False

    @property
    def rows(self) -> Path:
        """Where the rows are; the folders between need not be there yet."""
        return Path(os.path.normpath(self.path.parent / self.source))

    @property
    def files(self) -> list[Path]:
        """What is written, the run file first."""
        return [self.path, self.path.parent / self.source] if self.copies else [self.path]


def init(where: Path, to: Path | None = None) -> list[Path]:
    """Write a run file beside a file or a folder of rows, or as `to`; or a new folder with example
    rows. What was written. Nothing that exists is replaced."""
    made = plan(where) if to is None else plan_as(to, where)
    text = run_file(made)
    make_folders(made.path.parent.absolute())
    if made.copies:
        shutil.copyfile(EXAMPLES / "support" / "train.jsonl", made.path.parent / made.source)
    write_text(made.path, text)
    return made.files


def planned(where: Path, to: Path | None = None) -> list[Path]:
    """What `init` would write."""
    made = plan(where) if to is None else plan_as(to, where)
    run_file(made)
    return made.files


def run_file(made: Plan) -> str:
    """The text of the run file, after a look at the first row."""
    kind, columns = (Chat, "") if made.copies else looked(made.rows)
    if kind not in GOALS:
        known = ", ".join(sorted(goal.kind for goal in GOALS))
        raise DataError(
            f"{made.rows}: these are rows of kind {kind.kind}, and no "
            f"objective of this version trains on them; it trains on rows of kind {known}"
        )
    name = made.path.absolute().parent.name
    line = f"name: {name}\n" if made.path.stem == "run" and re.match(NAME, name) else ""
    source = quoted(made.source)
    settings = vars(GOALS[kind])
    return TEMPLATE.format(
        file=made.path.name, source=source, name=line, columns=columns, **settings
    )


def looked(source: Path) -> tuple[type[Row], str]:
    """The kind of the first row; and where no format has its keys, what to say about that."""
    first = next(read(source))
    try:
        form = detected(first.fields)
    except DataError:
        return Chat, columns(list(first.fields))
    _, row = next(rows(Reading(source, form)))
    return type(row), ""


def columns(keys: list[str]) -> str:
    """The line that says what is in the columns; a comment where their names do not tell."""
    lower = {key.lower(): key for key in keys}
    found = [[lower[name] for name in names if name in lower] for names in (ASKED, ANSWERED)]
    known = all(len(names) == 1 for names in found)
    user, assistant = (names[0] for names in found) if known else ("question", "answer")
    return COLUMNS.format(
        keys=listed(keys),
        said="Going by their names" if known else "Say what is in them",
        mark="" if known else "# ",
        user=quoted(user),
        assistant=quoted(assistant),
    )


def plan(where: Path) -> Plan:
    """What is meant by a name: rows that are there, or a new place for example ones."""
    if where.suffix in (".yaml", ".yml"):
        return Plan(free(where), *rows_in(where.parent))
    if where.is_file():
        if not is_rows(where.name):
            raise SettingsError(f"{where}: is no file of rows; name one, or a folder")
        return Plan(free(where.with_suffix(".yaml"), where), where.name)
    if not where.exists():
        refuse_slip(where)
        return Plan(where / "run.yaml", "rows.jsonl", True)
    if where.samefile(Path.cwd()):
        source, copies = rows_in(where)
        if copies:
            return Plan(free(where / "run.yaml"), source, copies)
        return Plan(free(Path(source).with_suffix(".yaml"), Path(source)), source)
    free(where / "run.yaml")
    if next(under(where), None) is None:
        return Plan(where / "run.yaml", "rows.jsonl", True)
    # Beside the folder: a run file inside would change what the folder's name means.
    folder = where if where.name.strip(".") else Path(os.path.abspath(where))
    return Plan(free(folder.with_name(f"{folder.name}.yaml"), folder), folder.name)


def plan_as(to: Path, where: Path) -> Plan:
    """A run file where it is asked for, of rows that are there."""
    if to.suffix not in (".yaml", ".yml"):
        raise SettingsError(f"{to}: is no name of a run file; end it in .yaml")
    if not where.exists():
        refuse_slip(where)
        raise SettingsError(f"{where}: there are no such rows; name a file or a folder of them")
    if where.is_dir() and where.samefile(Path.cwd()):
        name, absent = rows_in(where)
        if absent:
            raise SettingsError(f"{where}: no rows are in it; name a file or a folder of them")
        where = where / name
    if where.is_file() and not is_rows(where.name):
        raise SettingsError(f"{where}: is no file of rows; name one, or a folder")
    return Plan(free(to, where), os.path.relpath(where, to.parent))


def rows_in(folder: Path) -> tuple[str, bool]:
    """The one file of rows right in a folder; where there is none, a name for example ones."""
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder}: is a file; name a folder")
    found = sorted(path.name for path in folder.glob("*") if is_rows(path.name))
    if len(found) > 1:
        raise SettingsError(
            f"{folder}: has several files of rows: {listed(found, 4)}; name one of them, or put "
            "those that belong together into a folder and name that"
        )
    return (found[0], False) if found else ("rows.jsonl", True)


def refuse_slip(where: Path) -> None:
    """Refuse a name that was meant for rows: it has an ending, or comes near that of rows."""
    beside = [path for path in where.parent.glob("*") if holds_rows(path)]
    names = {word: path for path in beside for word in (path.stem, path.name)}
    near = get_close_matches(where.name, names, 1, NEAR)
    if near:
        raise SettingsError(f"{where}: there is no such file; did you mean {names[near[0]]}?")
    if where.suffix:
        raise SettingsError(
            f"{where}: there is no such file; name your file of rows, or for example rows a new "
            "folder without an ending"
        )


def holds_rows(path: Path) -> bool:
    """Whether a name leads to rows: a file of them, or a folder with some right in it that is no
    project of its own."""
    if path.is_dir():
        inside = [file.name for file in path.glob("*")]
        return "run.yaml" not in inside and any(map(is_rows, inside))
    return is_rows(path.name)


def free(path: Path, rows: Path | None = None) -> Path:
    """Nothing of a person's is overwritten; where the rows are known, another name can be given."""
    if path.exists():
        names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
        other = next(name for name in names if not name.exists())
        words = shlex.join(["tunesmith", "init", str(rows), str(other)])
        way = "name another place" if rows is None else f"name another: {words}"
        raise SettingsError(f"{path}: is there already; move it away, or {way}")
    return path


def quoted(name: str) -> str:
    """A file name as YAML reads it back."""
    try:
        plain = parse(f"x: {name}", "").value == {"x": name}
    except TunesmithError:
        plain = False
    return name if plain else "'" + name.replace("'", "''") + "'"
