"""A run: everything that one tuned model is made from, read from a file and the command line."""

import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from tunesmith.core.errors import SettingsError, TunesmithError
from tunesmith.core.parts import Spec
from tunesmith.core.textfile import unreadable
from tunesmith.data.hub import PREFIX
from tunesmith.data.policy import Policy
from tunesmith.data.stage import Data
from tunesmith.deploy.stage import Deploy
from tunesmith.evaluate.stage import Evaluate
from tunesmith.model.arithmetic import needless
from tunesmith.model.bases import ModelSpec
from tunesmith.overrides import KEYWORD, LINE, apply, lay_over
from tunesmith.places import grounded, run_file, run_names
from tunesmith.sentences import leaves, meant_as_words, sentences, switches
from tunesmith.train.loop import Train
from tunesmith.yaml_marks import Marked, marked_mapping, read

DEFAULT = "default"
"""Where a value was said that nobody said."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class Run(Spec):
    """What a run file says. `data.source` is all that it must."""

    name: Annotated[str, Field(pattern=NAME)] = "run"
    """Its folder under `runs/`; by default the run file's own name, without its ending."""
    model: ModelSpec = ModelSpec()
    """What is tuned: a bundled model's name, a folder, a GGUF file or a hub name."""
    data: Data
    """The rows, and what happens to them before training."""
    policy: Policy = Policy()
    """What must not be found in the rows, and what a person decided about them."""
    train: Train = Train()
    """How the weights are changed."""
    evaluate: Evaluate = Evaluate()
    """How base and tuned are compared."""
    deploy: Deploy = Deploy()
    """In which forms the result leaves."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Same run, same seed, same numbers."""


@dataclass(frozen=True)
class Loaded:
    """A run, and for each setting where its value was said: `run.yaml:7:9`, `default`, ..."""

    run: Run
    origins: Mapping[str, str]

    def says(self, path: str) -> bool:
        """Whether the value of a setting was said at all."""
        return self.origins.get(path, DEFAULT) != DEFAULT

    @contextmanager
    def naming(self, path: str) -> Iterator[None]:
        """A refusal of a setting's value, which begins with its name, begins with where it was
        said; one that was not said is left as it is."""
        try:
            yield
        except TunesmithError as error:
            if self.says(path) and str(error).startswith(f"{path}: "):
                raise type(error)(f"{self.origins[path]}: {error}") from error
            raise

    def overrides(self, path: str) -> bool:
        """Whether the value of a setting was said over the run file."""
        said = (f"{LINE} '", f"{KEYWORD} '")  # A file may be called override.yaml.
        return self.origins.get(path, DEFAULT).startswith(said)


def load(path: Path | str, overrides: Iterable[str] = ()) -> Run:
    """The run that a file and `a.b=c` overrides say. Raises SettingsError with every problem."""
    return load_with_origins(path, overrides).run


def load_with_origins(path: Path | str, overrides: Iterable[str] = ()) -> Loaded:
    """As `load`, and remembers where each value was said."""
    marked = written(Path(path))
    for override in overrides:
        apply(Run, marked, override)
    return resolve(marked)


def from_mapping(value: Mapping[str, Any], overrides: Mapping[str, Any]) -> Loaded:
    """A run said in Python. `overrides` are by dotted path, or nested like the run itself."""
    marked = marked_mapping(grounded((), value, Path.cwd()), "settings")
    for path, new in overrides.items():
        lay_over(Run, marked, path, new)
    return resolve(marked)


def from_file(file: Path | str, overrides: Mapping[str, Any]) -> Loaded:
    """A run file with overrides said in Python."""
    marked = written(Path(file))
    for path, new in overrides.items():
        lay_over(Run, marked, path, new)
    return resolve(marked)


def written(path: Path) -> Marked:
    """What a run file says, unchecked. A run's name or folder stands for its file; a file or a
    folder of rows, or a data set's name, for a run with nothing else in it."""
    path = run_file(path)
    elsewhere = str(path).startswith(PREFIX)
    if not elsewhere and not path.exists():
        raise missing(path)
    if elsewhere or path.suffix not in (".yaml", ".yml"):
        source = str(path) if elsewhere else os.path.abspath(path)
        return marked_mapping({"name": name_from(path), "data": {"source": source}}, str(path))
    marked = read(path)
    marked.value = grounded((), marked.value, path.parent)
    if "name" not in marked.value:
        marked.value["name"] = name_from(path)
        marked.marks[("name",)] = f"{path}:1:1"
    return marked


def missing(path: Path) -> TunesmithError:
    """The error for a path that is not there, with the nearest name that is. An ending that is no
    run file's says that rows were meant."""
    if path.suffix not in ("", ".yaml", ".yml"):
        return unreadable(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    bare = len(path.parts) == 1
    near = difflib.get_close_matches(path.name, [*beside, *(run_names() if bare else ())], 1)
    advice = f"did you mean {path.with_name(near[0])}?" if near else "`tunesmith init` writes one"
    run = " and no run of this name" if bare and not path.suffix else ""
    return SettingsError(f"{path}: there is no such file{run}; {advice}")


def name_from(path: Path) -> str:
    """A run's name from a file's: what a name may not hold becomes a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:64] or "run"


def resolve(marked: Marked) -> Loaded:
    """Check what was written against the schema; every problem at once."""
    told = meant_as_words(Run, marked)
    try:
        run = Run.model_validate(marked.value)
    except ValidationError as error:
        found = [*told, *sentences(Run, error, marked)]
        raise SettingsError(*sorted(found, key=line_and_column)) from None
    problems = [
        *told,
        *switches(run, marked),
        *unfit(run, marked),
        *unmergeable(run, marked),
        *unheard(run, marked),
    ]
    if problems:
        raise SettingsError(*sorted(problems, key=line_and_column))
    return Loaded(run, origins(run, marked))


def unfit(run: Run, marked: Marked) -> Iterable[str]:
    """Settings that are right alone and cannot be meant together."""
    method, bits = run.train.method, run.model.bits
    narrow = {
        "bits": f"{bits}-bit weights cannot be trained" if bits is not None else "",
        "dtype": "in 16 bits small updates would be lost" if run.model.dtype == "bfloat16" else "",
    }
    for name, why in narrow.items():
        if not why or not method.needs_floats:
            continue
        yield (
            f"{marked.marks[('model', name)]}: model.{name}: {why}, and train.method: "
            f"{method.kind} writes to the base's own; use a method that leaves the base's weights "
            f"alone, such as lora, or leave model.{name} out"
        )
    kind = run.train.arithmetic
    if reason := needless(kind, dtype=run.model.dtype, moves=method.moves):
        where = marked.marks.get(("train", "arithmetic"), "train.arithmetic")
        yield f"{where}: train.arithmetic: {reason}"


def unmergeable(run: Run, marked: Marked) -> Iterable[str]:
    """Exports that fold in what cannot be folded, or into what is not there."""
    for export in run.deploy.exports:
        where = marked.marks.get(("deploy", "exports"), "deploy.exports")
        if export.merges and not run.train.method.mergeable:
            yield (
                f"{where}: deploy.exports: {export.kind}: what train.method: "
                f"{run.train.method.kind} trains cannot be folded into the weights; say [adapter]"
            )
        if export.needs_bits and run.model.bits is None:
            yield (
                f"{where}: deploy.exports: {export.kind}: onto: original is for a base that "
                "model.bits holds in few bits, and this one is its own original; leave it out"
            )


def unheard(run: Run, marked: Marked) -> Iterable[str]:
    """Rules about what no audit looks for."""
    for name, rule in run.policy.unheard({audit.kind for audit in run.data.audits}):
        where = marked.marks.get(("policy", name), "policy")
        yield (
            f"{where}: policy.{name}: {rule} needs the {name} audit, which is not in data.audits; "
            "add it there"
        )


def line_and_column(problem: str) -> tuple[int, int]:
    """Sorts problems as a reader meets them; those of the command line come last."""
    found = re.match(r"[^:]*:(\d+):(\d+): ", problem)
    return (int(found[1]), int(found[2])) if found else (2**31, 0)


def origins(run: Run, marked: Marked) -> dict[str, str]:
    """Where each plain value of the resolved run was said."""
    words = {place: value for place, value in leaves(marked.value) if isinstance(value, str)}
    found = {}
    for path, value in plain(run.model_dump(mode="json"), ()):
        above = path[:-1]  # `method: lora` says train.method.kind
        source = above if above in words and words[above] == value else path
        found[".".join(path)] = marked.marks.get(source, DEFAULT)
    return found


def plain(value: Any, path: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], Any]]:
    """Every setting that holds no further settings, with its path; a list counts as one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from plain(inner, (*path, key))
    else:
        yield path, value
