"""A prepared run on a tiny model, for tests of the train stage and of what follows it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.rows import Chat, Labelled, Message, Origin, Row
from tunesmith.core.tables import write_rows
from tunesmith.model.bases import Base, ModelSpec, resolve
from tunesmith.model.load import load_model
from tunesmith.model.policy import Policy
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.train.loop import Train
from tunesmith.train.methods.lora import Lora
from tunesmith.train.objectives.base import Objective
from tunesmith.train.stage import train

TEXT = "red green blue cat dog bird runs sleeps eats over under fast slow one two three"
WORDS = TEXT.split()


def chat(number: int) -> Chat:
    """A short row; its answer follows from its prompt."""
    words = [WORDS[(number * k + k) % len(WORDS)] for k in range(1, 3 + number % 5)]
    messages = (Message("user", " ".join(words)), Message("assistant", " ".join(reversed(words))))
    return Chat(messages, origin=Origin("rows.jsonl", number + 1), source="rows.jsonl")


def labelled(number: int, *, many: bool = False) -> Labelled:
    """A short row whose label follows from its first word; with `many`, from all of its words."""
    words = [WORDS[(number * k + k) % len(WORDS)] for k in range(1, 3 + number % 5)]
    names = ("red", "green", "blue")
    chosen = tuple(n for n in names if n in words) if many else (names[number % 3],)
    text = (" ".join(words) if many else " ".join([names[number % 3], *words]),)
    origin = Origin("rows.jsonl", number + 1)
    return Labelled(given=text, labels=chosen, many=many, origin=origin, source="rows.jsonl")


def prepared(
    path: Path, *, rows: int = 12, held: int = 3, row: Callable[[int], Row] = chat
) -> RunFolder:
    """A run folder whose data stage is finished; `row` makes each row from its number."""
    folder = RunFolder(path)
    folder.create()
    stage = folder.stage("data")
    stage.begin({"rows": rows})
    made = [row(n) for n in range(rows + 2 * held)]
    parts: Mapping[str, Sequence[Row]] = {
        "train": made[:rows],
        "valid": made[rows : rows + held],
        "test": made[rows + held :],
    }
    for part, found in parts.items():
        write_rows(stage.path / f"{part}.jsonl", [each.record() for each in found])
    stage.finish()
    return folder


def settings(**changes: Any) -> Train:
    """Nine steps of LoRA with dropout, so that the random state matters."""
    given: dict[str, Any] = {
        "method": Lora(rank=4, dropout=0.1),
        "lr": 1e-2,
        "batch": 4,
        "epochs": 3,
        "save_every": 2,
        "evaluate_every": 3,
        "probes": 0,
        "device": "cpu",
    }
    objective = changes.pop("objective", None)
    if type(objective) in Objective.members().values():
        return Train(**{**given, "objective": objective, **changes})
    spec = Train(**{**given, **changes})
    return spec if objective is None else spec.model_copy(update={"objective": objective})


def base_of(folder: Path, **named: Any) -> Base:
    """A tiny model folder as the base of a run."""
    return resolve(ModelSpec(source=str(folder), **named))


def trained(folder: RunFolder, base: Base, spec: Train | None = None, **named: Any) -> RunFolder:
    """The train stage done, quietly."""
    train(folder, spec or settings(), base, seed=0, log=Log(folder, quiet=True), **named)
    return folder


def reloaded(folder: RunFolder, spec: Train, base: Base) -> Policy:
    """The trained policy of a finished run, through its method."""
    model = load_model(base).requires_grad_(False)
    tuned = spec.method.load(model, folder.stage("train").path)
    return Policy(tuned, Tokenizer.load(base.folder), method=spec.method)
