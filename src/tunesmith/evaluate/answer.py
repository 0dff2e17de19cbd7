"""A model's answers to rows, kept line by line so that a second call never asks twice."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.disk import disk_errors
from tunesmith.core.errors import DataError
from tunesmith.core.jsonlines import append_line, whole_lines
from tunesmith.core.rows import Chat, digest
from tunesmith.model.generate import Answer, Decoder, Request, Sampling, answers
from tunesmith.model.render import encode_prompt

if TYPE_CHECKING:
    from tunesmith.model.policy import Policy


@dataclass(frozen=True)
class Answered:
    """One line of `answers-<arm>.jsonl`; `seconds` since the line before it."""

    row: str
    answer: str
    stopped: bool
    tokens: int
    seconds: float


def answer_rows(
    policy: "Policy",
    rows: Iterable[Chat],
    sampling: Sampling,
    *,
    batch: int = 16,
    seed: int = 0,
) -> Iterator[Answer]:
    """The model's own last turn for each row, keyed by the row's digest, as they finish.

    The prompt is what a server would send. A row's random stream follows from `seed` and its
    digest, so the rows beside it and their order change nothing.
    """
    decoder = Decoder(policy.model, policy.tokenizer, rows=batch, sampling=sampling)
    requests = [request(row, decoder, seed) for row in rows]
    yield from answers(decoder, sorted(requests, key=lambda r: len(r.ids), reverse=True))


def request(row: Chat, decoder: Decoder, seed: int) -> Request:
    """The row's prompt; refused, with its place, where the model cannot read it."""
    return asking(row.prompt(), row.digest, decoder, seed)


def asking(prompt: Chat, key: str, decoder: Decoder, seed: int) -> Request:
    """A prompt whose random stream follows from `seed` and `key`; refused as in `request`."""
    ids = encode_prompt(prompt, decoder.tokenizer)
    reason = decoder.refusal(ids)
    if reason is not None:
        raise DataError(f"{prompt.origin}: {reason}" if prompt.origin.file else reason)
    own = int(digest([seed, key])[:16], 16)
    return Request(key, ids, decoder.sampling.max_tokens, own)


def keep_answers(
    path: Path,
    policy: Callable[[], "Policy"],
    rows: Sequence[Chat],
    sampling: Sampling,
    *,
    batch: int,
    seed: int,
    advance: Callable[..., None],
) -> dict[str, Answered]:
    """Answers to all rows, by row digest; those in `path` are taken as they are, new ones added.
    Lines of other rows stay in the file, of an earlier call with other settings, and do not count.

    The model is loaded (`policy()`) only when an answer is missing.
    """
    wanted = {row.digest: row for row in rows}
    lines = (line for line in whole_lines(path) if line["row"] in wanted)
    found = {line["row"]: Answered(**line) for line in lines}
    missing = [row for row in wanted.values() if row.digest not in found]
    advance(len(found))
    if not missing:
        return found
    model, before = policy(), time.monotonic()
    for answer in answer_rows(model, missing, sampling, batch=batch, seed=seed):
        now = time.monotonic()
        line = Answered(answer.key, answer.text, answer.stopped, answer.tokens, now - before)
        append(path, asdict(line))
        found[answer.key], before = line, now
        advance(1)
    return found


def append(path: Path, line: dict[str, Any]) -> None:
    """One more line, on the disk's side before the next is computed."""
    with disk_errors(path, "write"):
        append_line(path, json.dumps(line, allow_nan=False).encode("ascii") + b"\n")
