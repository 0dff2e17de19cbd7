"""A head: one linear layer over the pooled states of a text, and what its outputs mean.

It lies beside an adapter or a model as `head.safetensors`, with the meaning in the file's metadata,
so that one file says all.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tunesmith.core.disk import disk_errors
from tunesmith.core.errors import IntegrityError
from tunesmith.core.late import late
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


@dataclass(frozen=True)
class Head:
    """Scores of a text. `labels` name the outputs; with `many`, any number of them may hold."""

    linear: "nn.Linear"
    pooling: Pooling
    labels: tuple[str, ...] = ()
    many: bool = False

    def named(self) -> Iterator[tuple[str, "nn.Parameter"]]:
        """Its parameters by the names they have in files."""
        for name, weight in self.linear.named_parameters():
            yield f"{PREFIX}{name}", weight

    def state(self) -> dict[str, "torch.Tensor"]:
        """Its numbers, as they are in files."""
        return {name: weight.detach() for name, weight in self.named()}

    def probabilities(self, scores: "torch.Tensor") -> "torch.Tensor":
        """Scores as probabilities: of one label among all, or of each by itself."""
        return scores.sigmoid() if self.many else scores.softmax(dim=-1)


def fresh(labels: tuple[str, ...], width: int, *, pooling: Pooling, many: bool, seed: int) -> Head:
    """An untrained head, in float32 on the CPU, the same for the same seed."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    weight = torch.empty(len(labels), width, device="cpu").normal_(std=SPREAD, generator=generator)
    linear = linear_of(weight, torch.zeros(len(labels), device="cpu"))
    return Head(linear, pooling, labels, many)


def linear_of(weight: "torch.Tensor", bias: "torch.Tensor") -> "nn.Linear":
    """A linear layer of given numbers; none are drawn, so no random state moves."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return linear


def save(head: Head, folder: Path) -> dict[str, "torch.Tensor"]:
    """Write `head.safetensors`; the tensors written, from memory, by name."""
    from safetensors.torch import save_file

    state = {name: tensor.cpu().contiguous() for name, tensor in head.state().items()}
    meaning = {"labels": head.labels, "pooling": head.pooling, "many": head.many}
    metadata = {MEANING: json.dumps(meaning)}
    with disk_errors(folder, "save the head"):
        save_file(state, folder / NAME, metadata=metadata)
    return state


def load(folder: Path, width: int) -> Head | None:
    """The head in a folder, on the CPU, without gradients; None where there is none.

    IntegrityError when it is damaged or was made for another width of hidden states.
    """
    from tunesmith.model.load import read_tensors

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
    return Head(linear, meaning.pooling, meaning.labels, meaning.many)


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
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{path}: does not say what its outputs mean ({error}). Get the file again."
        ) from error
    named = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    if not (named and pooling in ("mean", "last") and isinstance(many, bool)):
        raise IntegrityError(
            f"{path}: what its outputs mean is not stated as we state it. Get the file again."
        )
    return Meaning(tuple(labels), pooling, many)
