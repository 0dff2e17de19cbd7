"""Text to ids and back, so that no text a user writes can become a control token.

`tokenizer.json` is the only source. From it three plain encoders are made, in which the control
strings do not exist: not as added tokens, and not in the model's own vocabulary or merges. They
differ in what they put before the first word, which depends on where in a text a stretch stands.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.disk import make_folders, write_json, write_text
from tunesmith.core.errors import IntegrityError
from tunesmith.core.rows import digest
from tunesmith.model.template import PLAIN, Template

Place = Literal["first", "after", "inside"]
"""Where a stretch stands: at the start of the text, after a control token, within running text."""

HIDDEN = "\U0010fffe{}"
"""What a control string is called in a plain encoder: a code point that no text may hold."""

WORD_STARTS = ("\u2581", "\u0120", "\u010a")
"""Marks some vocabularies use for a space or a line break."""

ROUNDTRIPS = (
    "Hello  world",
    " two leading",
    "Z\u00fcrich 007 don't\n\n\tx = [1,2]",
    "\u6771\u4eac \u2615 A b",
)
"""A tokenizer that gives all of these back is taken as lossless, and is then held to it."""

WORDS = "added_words"
"""The setting that tells words added as content from control strings, which a text cannot write."""

ROLES = (
    "bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token", "mask_token",
)  # fmt: skip


@dataclass(frozen=True)
class Control:
    """One control string, and how much space around it belongs to it."""

    text: str
    id: int
    special: bool
    left: bool
    right: bool
    word: bool


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer with its template and stop ids. Make one with `load`.

    One that has neither a template nor a token to end an answer with, as encoders', makes ids of
    plain texts and refuses conversations.
    """

    record: Mapping[str, Any]
    settings: Mapping[str, Any]
    generation: Mapping[str, Any]
    named: Mapping[str, str]
    name: str
    _chat: Template | None
    _whole: Any = field(repr=False)
    _plain: Mapping[Place, Any] = field(repr=False)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read `tokenizer.json` and what stands beside it in a folder that was checked before."""
        record = read(folder / "tokenizer.json")
        settings = read(folder / "tokenizer_config.json", {})
        generation = read(folder / "generation_config.json", {})
        config = read(folder / "config.json", {})
        record = completed(record, settings, folder)
        stops = generation.get("eos_token_id", config.get("eos_token_id"))
        named = roles(settings, read(folder / "special_tokens_map.json", {}))
        template = template_text(folder, settings)
        if template is None:
            named = ending(record, stops) | named
            template = PLAIN if "eos_token" in named else None
        words = words_of(settings, named, folder)
        name = f"{folder.name}: chat template"
        return cls(
            record=record,
            settings=settings,
            generation={**generation, "eos_token_id": stops},
            named=named,
            name=str(folder),
            _chat=None if template is None else Template(template, named, name=name),
            _whole=built(record, folder),
            _plain=encoders(record, words, folder),
        )

    def with_words(self, words: Sequence[str], record: Mapping[str, Any]) -> "Tokenizer":
        """The same tokenizer around a `record` in which `words` are added tokens too."""
        folder = Path(self.name)
        return replace(
            self,
            record=record,
            settings={**self.settings, WORDS: [*self.words, *words]},
            _whole=built(record, folder),
            _plain=encoders(record, [*self.words, *words], folder),
        )

    @property
    def words(self) -> tuple[str, ...]:
        """Added tokens that are content: found in any text, unlike control strings."""
        return tuple(self.settings.get(WORDS, ()))

    def encode(self, text: str, place: Place = "first") -> list[int]:
        """The ids of content: a control string in it is text like any other."""
        encoder = self._plain.get(place) or self._plain["first"]
        ids: list[int] = encoder.encode(text, add_special_tokens=False).ids
        return ids

    def written(self, texts: Sequence[str]) -> tuple[list[int], list[int]]:
        """The ids of a text, or of two, with what the tokenizer puts around texts, and for each id
        which text it belongs to. A control string in a text is text like any other."""
        encoder = self._plain["first"]
        found = [encoder.encode(text, add_special_tokens=False) for text in texts]
        whole = self._whole.post_process(*found, add_special_tokens=True)
        return whole.ids, whole.type_ids

    @property
    def chat(self) -> Template:
        """The chat template. IntegrityError where nothing could end an answer."""
        if self._chat is None:
            raise IntegrityError(
                f"{self.name}: the tokenizer has neither a chat template nor an end-of-sequence "
                "token, so nothing could end an answer. Add eos_token to tokenizer_config.json, "
                "or choose labels with train.objective=classify."
            )
        return self._chat

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of `ids`, without special tokens unless `special`."""
        text: str = self._whole.decode(list(ids), skip_special_tokens=not special)
        return text

    @cached_property
    def controls(self) -> dict[str, Control]:
        """Every added token by its text, but for runs of space and words: those are content."""
        added = self.record["added_tokens"]
        found = (control(token) for token in added if structural(token, self.words))
        return {each.text: each for each in found}

    @property
    def structural(self) -> dict[str, int]:
        """Control strings and their ids."""
        return {text: each.id for text, each in self.controls.items()}

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Finds control strings as tokenizers do: the first in the text, the longest there."""
        longest = sorted(self.controls, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest)) or "(?!)")

    @cached_property
    def lossless(self) -> bool:
        """Whether decoding gives texts back as they were, tried on a few."""
        return all(self.decode(self.encode(text)) == text for text in ROUNDTRIPS)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end an answer, in training and in use: the template's own first."""
        from tunesmith.model.render import end_of_turn

        own = [end_of_turn(self)] if self.chats else []
        return tuple(dict.fromkeys([*own, *self.declared_stops]))

    @property
    def chats(self) -> bool:
        """Whether an answer could end: our plain template ends it with the end of sequence."""
        return self._chat is not None

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """What the tokenizer itself puts before a text: its start token, or nothing."""
        first = self._whole.encode("a", add_special_tokens=True).ids[0]
        return (first,) if first == self.bos_id else ()

    @property
    def closing(self) -> int:
        """The id that ends a document: the tokenizer's end of sequence, else the model's."""
        own = self.id_of("eos_token")
        ends = [*([] if own is None else [own]), *self.declared_stops]
        if not ends:
            raise IntegrityError(
                f"{self.name}: the tokenizer has no end-of-sequence token, so nothing could "
                "end a document. Add eos_token to tokenizer_config.json."
            )
        return ends[0]

    @cached_property
    def declared_stops(self) -> tuple[int, ...]:
        """The end-of-sequence ids that the model's own files name."""
        eos = self.generation.get("eos_token_id")
        listed = eos if isinstance(eos, list) else [] if eos is None else [eos]
        own = self.id_of("eos_token")
        return tuple(dict.fromkeys([*listed, *([] if own is None else [own])]))

    def id_of(self, role: str) -> int | None:
        """The id of `bos_token`, `eos_token`, `pad_token` or `unk_token`, if there is one."""
        text = self.named.get(role)
        found: int | None = None if text is None else self._whole.token_to_id(text)
        return found

    @property
    def bos_id(self) -> int | None:
        """The id that starts a text, where the tokenizer has one. Templates write it themselves."""
        return self.id_of("bos_token")

    @cached_property
    def size(self) -> int:
        """One more than the highest id."""
        ids: Iterable[int] = self._whole.get_vocab(with_added_tokens=True).values()
        return max(ids) + 1

    @property
    def template(self) -> str:
        """The chat template's text; empty where there is none."""
        return "" if self._chat is None else self._chat.text

    @property
    def template_digest(self) -> str:
        """sha256 of the chat template's text; empty where there is none."""
        return "" if self._chat is None else self._chat.digest

    @cached_property
    def digest(self) -> str:
        """sha256 of what decides ids: `tokenizer.json`, the named special tokens, the words."""
        return digest([self.record, self.named, *self.words])

    def save(self, folder: Path) -> None:
        """Write every file that a server or a trainer may look for; the template in both places."""
        make_folders(folder)
        talk = {} if self._chat is None else {"chat_template": self.template}
        settings = {**self.settings, **self.named, **talk}
        write_text(folder / "tokenizer.json", json.dumps(self.record, ensure_ascii=False))
        write_json(folder / "tokenizer_config.json", settings)
        write_json(folder / "special_tokens_map.json", dict(self.named))
        if self._chat is not None:
            write_text(folder / "chat_template.jinja", self.template)
        kept = {k: v for k, v in self.generation.items() if v is not None}
        stops = {"eos_token_id": list(self.stop_ids)} if self.stop_ids else {}
        write_json(folder / "generation_config.json", {**kept, **stops})


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


def structural(token: Mapping[str, Any], words: Collection[str]) -> bool:
    """Whether an added token is a control string, not a word or a run of space added for length."""
    text = token["content"]
    if text in words and not token["special"]:
        return False
    for mark in WORD_STARTS:
        text = text.replace(mark, " ")
    return bool(token["special"]) or not (text.isspace() or not text)


def control(token: Mapping[str, Any]) -> Control:
    """A control string from its entry in `tokenizer.json`."""
    return Control(
        text=token["content"],
        id=token["id"],
        special=token["special"],
        left=token["lstrip"],
        right=token["rstrip"],
        word=token["single_word"],
    )


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


Change = Callable[[dict[str, Any]], dict[str, Any] | None]


def rewritten(step: Any, change: Change) -> Any:
    """A normalizer or pre-tokenizer with `change` made to each of its steps."""
    if not isinstance(step, Mapping):
        return step
    for key in ("normalizers", "pretokenizers"):
        if key in step:
            steps: Iterable[Any] = (rewritten(each, change) for each in step[key])
            return {**step, key: [each for each in steps if each is not None]}
    return change(dict(step))
