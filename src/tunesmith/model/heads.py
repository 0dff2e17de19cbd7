"""A head: one linear layer over the pooled states of a text, and what its outputs mean.

It lies beside an adapter or a model as `head.safetensors`, with the meaning in the file's metadata,
so that one file says all.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.disk import disk_errors
from tunesmith.core.errors import DataError, IntegrityError
from tunesmith.core.late import late
from tunesmith.core.quote import listed, quoted
from tunesmith.model.safe import check_safetensors

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = late("torch")
    nn = late("torch.nn")

NAME = "head.safetensors"
PREFIX = "head."
"""What the head's tensors are called, in its file and in checkpoints."""
MEANING = "tunesmith"
"""One entry of the file's metadata holds it all: the library writes several in any order, and two
equal runs leave equal files."""
SPREAD = 0.02
"""Standard deviation of a fresh head's weights, as transformers starts BERT's."""

Pooling = Literal["mean", "last"]


@dataclass(frozen=True)
class Meaning:
    """What a head's outputs say, without its numbers."""

    labels: tuple[str, ...]
    pooling: Pooling
    many: bool
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Head:
    """Scores of a text. `labels` name the outputs; with `many`, any number of them may hold.

    With `tasks`, the task of each output, it is one head a task, side by side in one layer: an
    output's numbers are its own, and a text is given the labels of its own task only, see `routed`.
    """

    linear: "nn.Linear"
    pooling: Pooling
    labels: tuple[str, ...] = ()
    many: bool = False
    tasks: tuple[str, ...] = ()

    def named(self) -> Iterator[tuple[str, "nn.Parameter"]]:
        """Its parameters by the names they have in files."""
        for name, weight in self.linear.named_parameters():
            yield f"{PREFIX}{name}", weight

    def state(self) -> dict[str, "torch.Tensor"]:
        """Its numbers, as they are in files."""
        return {name: weight.detach() for name, weight in self.named()}

    def outputs(self, task: str) -> list[int]:
        """The places of a task's outputs; all of them where there are no tasks."""
        of = self.tasks or (task,) * len(self.labels)
        return [place for place, each in enumerate(of) if each == task]

    def label(self, place: int) -> str:
        """What an output is called within its task."""
        return (
            self.labels[place].removeprefix(of_task(self.tasks[place], ""))
            if self.tasks
            else (self.labels[place])
        )

    def own(self, sources: Sequence[str]) -> "torch.Tensor":
        """Which outputs each text may be given: those of its own task, [sequence, label]."""
        for source in sources:
            if source not in self.tasks:
                raise DataError(
                    f"no head was trained for {quoted(source)}; the tasks are "
                    f"{listed(dict.fromkeys(self.tasks))}"
                )
        rows = [[task == source for task in self.tasks] for source in sources]
        return torch.tensor(rows, device=self.linear.weight.device)

    def routed(self, scores: "torch.Tensor", sources: Sequence[str]) -> "torch.Tensor":
        """Scores with minus infinity for the labels of other tasks: they have no probability and
        take no gradient, to the bit."""
        if not self.tasks:
            return scores
        return scores.masked_fill(~self.own(sources), float("-inf"))

    def probabilities(self, scores: "torch.Tensor") -> "torch.Tensor":
        """Scores as probabilities: of one label among all, or of each by itself."""
        return scores.sigmoid() if self.many else scores.softmax(dim=-1)


def of_task(task: str, label: str) -> str:
    """What the label of a task is called among those of all tasks."""
    return f"{task}/{label}"


def fresh(meaning: Meaning, width: int, *, seed: int) -> Head:
    """An untrained head, in float32 on the CPU, the same for the same seed."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    size = len(meaning.labels)
    weight = torch.empty(size, width, device="cpu").normal_(std=SPREAD, generator=generator)
    return over(linear_of(weight, torch.zeros(size, device="cpu")), meaning)


def over(linear: "nn.Linear", meaning: Meaning) -> Head:
    """A layer with what its outputs mean."""
    return Head(linear, meaning.pooling, meaning.labels, meaning.many, meaning.tasks)


def linear_of(weight: "torch.Tensor", bias: "torch.Tensor") -> "nn.Linear":
    """A linear layer of given numbers; none are drawn, so no random state moves."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return linear


def save(head: Head, folder: Path) -> dict[str, "torch.Tensor"]:
    """Write `head.safetensors`; the tensors written, from memory, by name."""
    from safetensors.torch import save_file

    state = {name: tensor.cpu().contiguous() for name, tensor in head.state().items()}
    meaning: dict[str, Any] = {"labels": head.labels, "pooling": head.pooling, "many": head.many}
    if head.tasks:
        meaning["tasks"] = head.tasks
    metadata = {MEANING: json.dumps(meaning)}
    with disk_errors(folder, "save the head"):
        save_file(state, folder / NAME, metadata=metadata)
    return state


def load(folder: Path, width: int) -> Head | None:
    """The head in a folder, on the CPU, without gradients; None where there is none.

    IntegrityError when it is damaged or was made for another width of hidden states.
    """
    from tunesmith.model.tensors import read_tensors

    meaning = meaning_of(folder)
    if meaning is None:
        return None
    path = folder / NAME
    state = read_tensors(path, (f"{PREFIX}weight", f"{PREFIX}bias"))
    weight, bias = state[f"{PREFIX}weight"], state[f"{PREFIX}bias"]
    if weight.shape != (len(meaning.labels), width) or bias.shape != weight.shape[:1]:
        raise IntegrityError(
            f"{path}: the head is {list(weight.shape)}, and {len(meaning.labels)} labels over "
            f"states of width {width} are wanted. Head and model do not belong together: get both "
            "again."
        )
    linear = linear_of(weight, bias).requires_grad_(False)
    return over(linear, meaning)


def meaning_of(folder: Path) -> Meaning | None:
    """What the head in a folder says; None where there is none. Needs no torch."""
    from safetensors import safe_open

    path = folder / NAME
    if not path.is_file():
        return None
    check_safetensors(path)
    with safe_open(path, "np") as file:
        return meant(path, file.metadata() or {})


def meant(path: Path, metadata: Mapping[str, str]) -> Meaning:
    """What a head's outputs mean, from its file's metadata."""
    try:
        found = json.loads(metadata[MEANING])
        labels, pooling, many = found["labels"], found["pooling"], found["many"]
        tasks = found.get("tasks", [])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{path}: does not say what its outputs mean ({error}). Get the file again."
        ) from error
    named = all(
        isinstance(each, list) and all(isinstance(name, str) for name in each)
        for each in (labels, tasks)
    )
    named = named and len(tasks) in (0, len(labels))
    if not (named and pooling in ("mean", "last") and isinstance(many, bool)):
        raise IntegrityError(
            f"{path}: what its outputs mean is not stated as we state it. Get the file again."
        )
    return Meaning(tuple(labels), pooling, many, tuple(tasks))
