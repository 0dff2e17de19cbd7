"""Encoders made of `tokenizer.json`: whole, and for content, in which control strings do not exist.

Not as added tokens, and not in the model's own vocabulary or merges. Encoders of content differ in
what they put before the first word, which depends on where in a text a stretch stands.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.errors import IntegrityError
from tunesmith.model.controls import structural

Place = Literal["first", "after", "inside"]
"""Where a stretch stands: at the start of the text, after a control token, within running text."""

HIDDEN = "\U0010fffe{}"
"""What a control string is called in a plain encoder: a code point that no text may hold."""

Change = Callable[[dict[str, Any]], dict[str, Any] | None]
"""What becomes of a step of a normalizer or pre-tokenizer; nothing where it goes."""


def built(record: Mapping[str, Any], folder: Path) -> Any:
    """A `tokenizers` object from its JSON."""
    from tokenizers import Tokenizer as Engine

    try:
        return Engine.from_str(json.dumps(record))
    except Exception as error:  # the library raises plain Exception for every flaw
        raise IntegrityError(
            f"{folder}/tokenizer.json: the tokenizers library cannot read it ({error}). "
            "Get the file again."
        ) from error


def places(record: Mapping[str, Any]) -> tuple[Place, ...]:
    """The places at which this tokenizer encodes a text differently."""
    text = json.dumps([record.get("normalizer"), record.get("pre_tokenizer")])
    depends = any(mark in text for mark in ('"Prepend"', '"Metaspace"', '"add_prefix_space": true'))
    return ("first", "after", "inside") if depends else ("first",)


def encoders(record: Mapping[str, Any], words: Collection[str], folder: Path) -> dict[Place, Any]:
    """An encoder of content for every place at which this tokenizer has its own."""
    return {place: built(plain(record, words, place), folder) for place in places(record)}


def plain(record: Mapping[str, Any], words: Collection[str], place: Place) -> dict[str, Any]:
    """The encoder for one place, in which control strings do not exist."""
    added = record["added_tokens"]
    controls = [token for token in added if structural(token, words)]
    hidden = {token["content"]: HIDDEN.format(token["id"]) for token in controls}
    kept = [token for token in added if token not in controls]
    changes = {"first": unchanged, "after": once, "inside": never}[place]
    return {
        **record,
        "added_tokens": kept,
        "post_processor": None,
        "normalizer": rewritten(record.get("normalizer"), changes),
        "pre_tokenizer": rewritten(record.get("pre_tokenizer"), changes),
        "model": concealed(record["model"], hidden),
    }


def concealed(model: Mapping[str, Any], hidden: Mapping[str, str]) -> dict[str, Any]:
    """A model that can make none of the `hidden` strings out of text.

    Unigram and WordPiece look whole strings up, BPE with `ignore_merges` does too, and merges
    converted from other formats may spell a control string.
    """
    model = dict(model)
    vocabulary = model["vocab"]
    if isinstance(vocabulary, Mapping):
        model["vocab"] = {hidden.get(text, text): number for text, number in vocabulary.items()}
        if model.get("unk_token") is not None:
            model["unk_token"] = hidden.get(model["unk_token"], model["unk_token"])
    else:
        model["vocab"] = [[hidden.get(text, text), score] for text, score in vocabulary]
    if "merges" in model:
        model["merges"] = [each for each in model["merges"] if not spells(each, hidden)]
    return model


def spells(merge: Sequence[str] | str, hidden: Mapping[str, str]) -> bool:
    """Whether a merge makes or uses a hidden string."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in hidden or right in hidden or left + right in hidden


def unchanged(step: dict[str, Any]) -> dict[str, Any] | None:
    """At the start of a text: as the tokenizer says."""
    return step


def once(step: dict[str, Any]) -> dict[str, Any] | None:
    """After a control token: what is put before the first word of a text only, is not put."""
    if step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first":
        return {**step, "prepend_scheme": "never"}
    return step


def never(step: dict[str, Any]) -> dict[str, Any] | None:
    """Within running text: nothing is put before the first word."""
    if step.get("type") == "Prepend":
        return None
    if step.get("type") == "Metaspace":
        return {**step, "prepend_scheme": "never"}
    if step.get("add_prefix_space"):
        return {**step, "add_prefix_space": False}
    return step


def rewritten(step: Any, change: Change) -> Any:
    """A normalizer or pre-tokenizer with `change` made to each of its steps."""
    if not isinstance(step, Mapping):
        return step
    for key in ("normalizers", "pretokenizers"):
        if key in step:
            steps: Iterable[Any] = (rewritten(each, change) for each in step[key])
            return {**step, key: [each for each in steps if each is not None]}
    return change(dict(step))
