"""What the files of a folder say of its tokenizer: vocabulary, added tokens, names, template."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.core.errors import IntegrityError

WORDS = "added_words"
"""The setting that tells words added as content from control strings, which a text cannot write."""

ROLES = (
    "bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token", "mask_token",
)  # fmt: skip


def read(path: Path, absent: Any = None) -> Any:
    """A JSON object from a folder; `absent` where the file is not there and need not be."""
    if absent is not None and not path.is_file():
        return absent
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise IntegrityError(
            f"{path}: is missing. Save the tokenizer with a current transformers: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        ) from error
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path}: is not JSON ({error}). Get the file again.") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{path}: is not a JSON object. Get the file again.")
    return value


def completed(record: dict[str, Any], settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`tokenizer.json` with the added tokens that only `tokenizer_config.json` names."""
    added = list(record.get("added_tokens") or [])
    known = {token["content"] for token in added}
    more = settings.get("added_tokens_decoder") or {}
    for number, token in sorted(more.items(), key=lambda item: int(item[0])):
        if token["content"] not in known:
            flags = {k: bool(token.get(k)) for k in ("single_word", "lstrip", "rstrip")}
            added.append(
                {"id": int(number), "content": token["content"], **flags}
                | {k: bool(token.get(k)) for k in ("normalized", "special")}
            )
    record = {**record, "added_tokens": added, "truncation": None, "padding": None}
    vocabulary = record.get("model", {}).get("vocab")
    if not vocabulary:
        raise IntegrityError(f"{folder}/tokenizer.json: has no vocabulary. Get the file again.")
    return record


def roles(settings: Mapping[str, Any], fallback: Mapping[str, Any]) -> dict[str, str]:
    """The named special tokens as texts."""
    named = {}
    for role in ROLES:
        value = settings.get(role, fallback.get(role))
        if isinstance(value, Mapping):
            value = value.get("content")
        if isinstance(value, str):
            named[role] = value
    return named


def words_of(
    settings: Mapping[str, Any], named: Mapping[str, str], folder: Path
) -> tuple[str, ...]:
    """The added tokens that are content. One that ends or fills a text may not be among them."""
    words = settings.get(WORDS, [])
    plain = isinstance(words, list) and all(isinstance(word, str) for word in words)
    if not plain or set(words) & set(named.values()):
        raise IntegrityError(
            f"{folder}/tokenizer_config.json: {WORDS} is not a list of words that are no special "
            "tokens. Get the file again."
        )
    return tuple(words)


def ending(record: Mapping[str, Any], stops: Any) -> dict[str, str]:
    """The end of sequence by name, where only the model's files say its id."""
    texts = {token["id"]: token["content"] for token in record["added_tokens"]}
    listed = stops if isinstance(stops, list) else [stops]
    return {"eos_token": texts[listed[0]]} if listed and listed[0] in texts else {}


def template_text(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The chat template: the file first, then the field, as transformers reads them."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise IntegrityError(f"{path}: is not UTF-8 text. Get the file again.") from error
    found = settings.get("chat_template")
    if isinstance(found, list):
        named = {each["name"]: each["template"] for each in found}
        found = named.get("default")
    return found if isinstance(found, str) else None
