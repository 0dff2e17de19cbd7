"""Names in a text, by a token-classification model that the user names: safetensors, checked."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import IntegrityError
from tunesmith.core.late import late
from tunesmith.model import bases, layout
from tunesmith.model.bases import ModelSpec
from tunesmith.model.load import load_model
from tunesmith.model.tensors import read_tensors, shards

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

HEAD = ("classifier.weight", "classifier.bias")
"""What transformers calls the layer that labels tokens, in every encoder that has one."""


class Tagger:
    """An encoder with a label for each token, in the B-, I-, O scheme or with bare labels.

    Raises IntegrityError for a folder that is damaged, could run code, or labels no tokens.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        base = bases.resolve(ModelSpec(source=str(folder)))
        self.body = load_model(base)
        self.weight, self.bias = head(base.folder)  # [label, width], [label]
        self.labels = labels(base.folder, len(self.bias))
        self.tokenizer: Any = Tokenizer.from_file(str(base.folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.window = layout.context(self.body) or 512

    def spans(self, text: str) -> list[tuple[str, int, int]]:
        """Kind, start and end of each name. A long text is read in windows, side by side."""
        read = self.tokenizer.encode(text)
        found: list[tuple[str, int, int]] = []
        for first in range(0, len(read.ids), self.window):
            ids = read.ids[first : first + self.window]
            with torch.inference_mode():
                state = self.body(input_ids=torch.tensor([ids], device="cpu")).last_hidden_state[0]
                best = (state @ self.weight.T + self.bias).argmax(-1).tolist()
            places = read.offsets[first : first + self.window]
            found += joined([self.labels[label] for label in best], places)
        return found


def joined(tags: list[str], places: list[tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    """Tokens of one kind that follow each other, as one span; `B-` begins a new one."""
    kind, start, end = "", 0, 0
    for tag, (left, right) in zip(tags, places, strict=True):
        if left == right:  # [CLS] and its like stand for no character.
            continue
        named = "" if tag == "O" else tag.partition("-")[2] or tag
        if kind and (named != kind or tag.startswith("B-")):
            yield kind, start, end
            kind = ""
        if named:
            kind, start, end = named, start if kind else left, right
    if kind:
        yield kind, start, end


def head(folder: Path) -> "tuple[torch.Tensor, torch.Tensor]":
    """The layer that labels tokens."""
    found: dict[str, torch.Tensor] = {}
    for shard in shards(folder):
        found |= {n: t for n, t in read_tensors(folder / shard).items() if n in HEAD}
    if set(found) != set(HEAD):
        raise IntegrityError(
            f"{folder}: labels no tokens ({HEAD[0]} is missing). Name the folder of a "
            "token-classification model, such as one trained to find names."
        )
    return found[HEAD[0]].float(), found[HEAD[1]].float()


def labels(folder: Path, count: int) -> list[str]:
    """The labels in their order, as config.json names them."""
    named = json.loads((folder / "config.json").read_text("utf-8")).get("id2label") or {}
    found = [str(named.get(str(number), "")) for number in range(count)]
    if not all(found):
        raise IntegrityError(f"{folder}/config.json: id2label does not name {count} labels.")
    return found
