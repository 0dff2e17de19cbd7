"""A model's probability of every label for each row, kept line by line like answers."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.errors import DataError, TrainError
from tunesmith.core.jsonlines import whole_lines
from tunesmith.core.rows import Chat, Labelled
from tunesmith.evaluate.answer import append
from tunesmith.evaluate.labels import LabelRow, Labels
from tunesmith.model import layout
from tunesmith.model.render import encode_prompt

if TYPE_CHECKING:
    from tunesmith.model.policy import Policy

Found = Iterator[tuple[str, Sequence[float]]]
"""The digest of a row, and the probability of each label in the order of their names."""


@dataclass(frozen=True)
class Scored:
    """One line of `scores-<arm>.jsonl`; `seconds` since the line before it."""

    row: str
    chances: tuple[float, ...]
    seconds: float


def keep_scores(
    path: Path,
    rows: Sequence[LabelRow],
    score: Callable[[Sequence[LabelRow]], Found],
    *,
    size: int,
    advance: Callable[..., None],
) -> dict[str, Scored]:
    """Probabilities of `size` labels for all rows, by row digest; those in `path` stay, `score`
    gives the rest. Lines of other rows do not count, nor those of another number of labels."""
    wanted = {row.digest: row for row in rows}
    found = {
        line["row"]: Scored(line["row"], tuple(line["chances"]), line["seconds"])
        for line in whole_lines(path)
        if line["row"] in wanted and len(line["chances"]) == size
    }
    missing = {key: row for key, row in wanted.items() if key not in found}
    advance(len(found))
    before = time.monotonic()
    for row, chances in score(list(missing.values())) if missing else ():
        if not all(map(math.isfinite, chances)):
            raise TrainError(
                f"{missing[row].origin}: the probabilities of its labels are not numbers: the "
                "model's numbers overflow. Train with a lower train.lr, or in float32"
            )
        now = time.monotonic()
        found[row] = Scored(row, tuple(chances), now - before)
        append(path, asdict(found[row]))
        before = now
        advance(1)
    return found


def by_head(policy: "Policy", rows: Sequence[LabelRow], batch: int) -> Found:
    """What the model's own head says of each of its labels."""
    from tunesmith.model.classify import probabilities

    yield from probabilities(policy, [row for row in rows if isinstance(row, Labelled)], batch)


def by_likelihood(policy: "Policy", rows: Sequence[LabelRow], labels: Labels) -> Found:
    """What likelihoods of the labels say."""
    likely = likelihood_of(policy, labels)
    for row in rows:
        if not isinstance(row, Chat):
            raise TypeError("labels with a head are not read as answers")
        yield row.digest, likely(row.prompt())


def likelihood_of(policy: "Policy", labels: Labels) -> Callable[[Chat], list[float]]:
    """What reads a prompt: the likelihood of each label as the whole answer to it, made to sum to 1
    over the labels."""
    from tunesmith.model import tree
    from tunesmith.model.trie import closed

    trie = closed(labels.texts, policy.tokenizer)
    context = layout.context(policy.model)

    def likely(prompt: Chat) -> list[float]:
        ids = encode_prompt(prompt, policy.tokenizer)
        if context is not None and len(ids) + trie.depth > context:
            raise DataError(
                f"{prompt.origin}: the prompt has {len(ids)} tokens and this model reads at most "
                f"{context} with the answer. Shorten it, or use a model with more context"
            )
        found: list[float] = tree.logps(policy.model, ids, trie).softmax(dim=0).tolist()
        return found

    return likely


def by_shares(rows: Sequence[LabelRow], labels: Labels) -> Found:
    """The same for every row of a task, whatever it says: how often training rows have each
    label."""
    for row in rows:
        yield row.digest, labels.among(row)
