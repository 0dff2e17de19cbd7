"""Text to ids and back, so that no text a user writes can become a control token.

`tokenizer.json` is the only source. Content is encoded by what `content` makes of it, in which the
control strings do not exist.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesmith.core.disk import make_folders, write_json, write_text
from tunesmith.core.errors import IntegrityError
from tunesmith.core.rows import digest
from tunesmith.model.content import Place, built, encoders
from tunesmith.model.controls import Control, control, structural
from tunesmith.model.template import PLAIN, Template
from tunesmith.model.tokenizer_files import (
    WORDS,
    completed,
    ending,
    read,
    roles,
    template_text,
    words_of,
)

ROUNDTRIPS = (
    "Hello  world",
    " two leading",
    "Z\u00fcrich 007 don't\n\n\tx = [1,2]",
    "\u6771\u4eac \u2615 A b",
)
"""A tokenizer that gives all of these back is taken as lossless, and is then held to it."""


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
