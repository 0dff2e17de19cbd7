"""A closed set of answers as a trie of token ids, each with the end of turn that closes it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunesmith.core.errors import DataError
from tunesmith.core.quote import quoted
from tunesmith.core.records import IGNORE
from tunesmith.core.rows import Chat, Message
from tunesmith.model.render import encode, encode_prompt
from tunesmith.model.tokenizer import Tokenizer

ROOT = 0


@dataclass(frozen=True)
class Trie:
    """What may follow what. Nodes are numbers from the root, 0, parents before their children.

    `paths` are the ids of each choice, its stop token last. Because every choice is closed by it,
    one that begins another (`card`, `card lost`) still ends in a leaf of its own.
    """

    texts: tuple[str, ...]
    paths: tuple[tuple[int, ...], ...]
    children: tuple[dict[int, int], ...]  # of each node: token -> node
    ends: dict[int, int]  # leaf -> the choice it is

    @property
    def depth(self) -> int:
        """Tokens of the longest choice, its stop token counted."""
        return max(map(len, self.paths))

    def walk(self, choice: int) -> Iterator[tuple[int, int]]:
        """(node, token that leaves it) from the root to the end of a choice."""
        node = ROOT
        for token in self.paths[choice]:
            yield node, token
            node = self.children[node][token]

    def forced(self, node: int) -> Iterator[tuple[int, int]]:
        """(token, node) of the steps below `node` that leave no choice."""
        while len(self.children[node]) == 1:
            ((token, node),) = self.children[node].items()
            yield token, node


def closed(texts: Sequence[str], tokenizer: Tokenizer) -> Trie:
    """The trie of answers, tokenised as training does. Raises DataError for one that cannot be
    said, or that two of `texts` share."""
    return grown(texts, [answer_ids(text, tokenizer) for text in texts])


def grown(texts: Sequence[str], paths: Sequence[tuple[int, ...]]) -> Trie:
    """The trie of these paths."""
    children: list[dict[int, int]] = [{}]
    ends: dict[int, int] = {}
    for choice, path in enumerate(paths):
        node = ROOT
        for token in path:
            if token not in children[node]:
                children[node][token] = len(children)
                children.append({})
            node = children[node][token]
        if node in ends:
            first = quoted(texts[ends[node]])
            raise DataError(
                f"the answers {first} and {quoted(texts[choice])} are the same tokens for this "
                "model, so it cannot tell them apart; write one of them differently"
            )
        ends[node] = choice
    return Trie(tuple(texts), tuple(paths), tuple(children), ends)


def answer_ids(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of an answer and of its end of turn. They never depend on the prompt: an answer is
    cut from it before either is encoded."""
    asked = Chat((Message("user", "a"),))
    whole = Chat((*asked.messages, Message("assistant", text)))
    try:
        (sequence,) = encode(whole, tokenizer).sequences
    except DataError as error:
        raise DataError(f"the answer {quoted(text)} cannot be a choice: {error}") from None
    trained = [at for at, target in enumerate(sequence.targets, 1) if target != IGNORE]
    return sequence.ids[len(encode_prompt(asked, tokenizer)) : trained[-1] + 1]
