"""New words for a tokenizer: each is one piece wherever a text holds it.

A word within a sentence has a space before it, which most tokenizers keep in the word's first
piece. Such a tokenizer gets the word twice, with that space and without: otherwise the space would
be left over as a piece of its own, which hardly occurs in the text that the model was trained on.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import SettingsError
from tunesmith.core.quote import quoted
from tunesmith.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tunesmith.model.bases import Base

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def tokenizer_of(base: "Base") -> Tokenizer:
    """The tokenizer of a base model with the words that its run adds."""
    return extended(Tokenizer.load(base.folder), base.tokens)


def extended(tokenizer: Tokenizer, words: Sequence[str]) -> Tokenizer:
    """The tokenizer with `words` added behind its last id.

    Raises SettingsError for a word that is a control string, is one piece already, or that this
    tokenizer could not give back as it was.
    """
    if not words:
        return tokenizer
    new = [form for word in words for form in forms(word, tokenizer)]
    twice = [form for place, form in enumerate(new) if form in new[:place]]
    if twice:
        raise SettingsError(f"model.tokens: {quoted(twice[0])} is added twice; name each word once")
    entries = [
        {"id": tokenizer.size + place, "content": form, **dict.fromkeys(FLAGS, False)}
        for place, form in enumerate(new)
    ]
    record = {**tokenizer.record, "added_tokens": [*tokenizer.record["added_tokens"], *entries]}
    grown = tokenizer.with_words(new, record)
    for entry in entries:
        check(entry, tokenizer, grown)
    return grown


def forms(word: str, tokenizer: Tokenizer) -> list[str]:
    """The texts that are added for a word: itself and, where they differ, itself after a space."""
    refuse_control(word, tokenizer)
    spaced, bare = (tokenizer.encode(text, "inside") for text in (f" {word}", word))
    whole = word != word.strip() or spaced == bare
    found = [word] if whole else [f" {word}", word]
    if one_piece(found[0], tokenizer):
        raise SettingsError(
            f"model.tokens: {quoted(word)} is one piece of this tokenizer already; leave it out"
        )
    return [form for form in found if not one_piece(form, tokenizer)]


def refuse_control(word: str, tokenizer: Tokenizer) -> None:
    """A control string in a text must stay text (it could end an answer), so it is no word."""
    found = tokenizer.pattern.search(word)
    if found:
        raise SettingsError(
            f"model.tokens: {quoted(word)} is or holds {quoted(found.group())}, a control token of "
            "this tokenizer; leave it out"
        )


def one_piece(text: str, tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has a piece for the whole text; the one for the unknown is none."""
    ids = tokenizer.encode(text, "inside")
    return len(ids) == 1 and tokenizer.decode(ids, special=True).strip() == text.strip()


def check(entry: dict[str, Any], before: Tokenizer, after: Tokenizer) -> None:
    """Refuse a word that does not become the one piece it should, or that spoils its neighbours."""
    word, number = entry["content"], entry["id"]
    if after.encode(word, "inside") != [number]:
        raise SettingsError(
            f"model.tokens: {quoted(word)} cannot be added to this tokenizer, which keeps the text "
            "for something else; leave it out"
        )
    around = f"a{word} b c"
    if before.lossless and after.decode(after.encode(around)) != around:
        raise SettingsError(
            f"model.tokens: this tokenizer would change the text around {quoted(word)}; it cannot "
            "take new words. Use another model, or leave model.tokens out"
        )


def pieces(before: Tokenizer, after: Tokenizer) -> Iterator[tuple[int, list[int]]]:
    """Each added word's id, and the pieces it was made of before."""
    ids = {token["content"]: token["id"] for token in after.record["added_tokens"]}
    for word in after.words[len(before.words) :]:
        yield ids[word], before.encode(word, "inside")
