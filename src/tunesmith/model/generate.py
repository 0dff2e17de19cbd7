"""`Decoder`: answers to prompts, many rows at a time, each on its own clock.

A row is admitted when there is room, gets one token a step and leaves the moment it is done, so
evaluation, probes, `predict`, `chat` and a server are all loops over one thing. A row's answer does
not depend on the rows beside it: greedy by arithmetic, sampled by a random stream of its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from tunesmith.core.errors import DataError
from tunesmith.core.late import late
from tunesmith.core.parts import Spec
from tunesmith.model import layout, repeats
from tunesmith.model.modes import evaluating

if TYPE_CHECKING:
    import torch

    from tunesmith.model.tokenizer import Tokenizer
    from tunesmith.model.trie import Trie
else:
    torch = late("torch")


class Sampling(Spec):
    """How the next token is chosen, and when an answer ends."""

    max_tokens: int = Field(256, ge=1)
    """Tokens an answer may have, the stop token counted."""
    temperature: float = Field(0.0, ge=0.0)
    """0 takes the likeliest token every time; 1 samples what the model says."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Sample among the likeliest tokens that together have this probability."""
    repetition_penalty: float = Field(1.0, ge=1.0)
    """Above 1, what the prompt or the answer has already said is less likely, its marks among
    it."""
    no_repeat_ngram_size: int | None = Field(None, ge=1)
    """No so many tokens in a row are said twice, those of the prompt and of its marks among them:
    ten or more end a small model's loops, a few forbid honest answers."""
    stop: list[str] = []
    """Texts that end an answer beside the model's own stop tokens; they are cut off."""
    choices: Literal["free", "labels"] | list[str] = "free"
    """What an answer may be: anything, one of the answers that training rows end in, or of a list.
    One that is chosen so always ends by itself, whatever `max_tokens` and `stop` say."""

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, stop: list[str]) -> list[str]:
        if "" in stop:
            raise ValueError("an empty text would end every answer at once; leave it out")
        return stop

    @field_validator("choices")
    @classmethod
    def _two_choices(cls, choices: str | list[str]) -> str | list[str]:
        if isinstance(choices, list) and (len(set(choices)) < max(2, len(choices))):
            raise ValueError("name at least two answers, each once")
        return choices

    @model_validator(mode="after")
    def _choices_are_free_of_penalties(self) -> "Sampling":
        if self.choices != "free" and self.discourages:
            raise ValueError(
                "choices say what an answer may be, so repetition_penalty and "
                "no_repeat_ngram_size have no part in it; leave them out"
            )
        return self

    @property
    def discourages(self) -> bool:
        """Whether an answer hangs on what was said before beyond what the model makes of it."""
        return self.repetition_penalty > 1 or self.no_repeat_ngram_size is not None


@dataclass(frozen=True)
class Request:
    """A prompt to answer. `seed` starts the row's own random stream."""

    key: str
    ids: tuple[int, ...]
    max_tokens: int
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What became of a request. `ids` leaves a stop token out; `tokens` counts it.

    `stopped` says that the model (or a stop text) ended it, not the limit.
    """

    key: str
    ids: tuple[int, ...]
    text: str
    stopped: bool
    tokens: int


@dataclass
class _Row:
    request: Request
    random: Random
    ids: list[int] = field(default_factory=list)
    stopped: bool = False
    text: str | None = None
    read: int = 0  # ids of its own that the model has read
    node: int = 0  # where it is in the trie of choices


class Decoder:
    """Rows in generation: `admit`, then `step` until they are answered.

    With `sampling.choices` each step takes one of the tokens that can follow. A token that is the
    only one is no step: it is taken at once, so an answer is done as soon as one choice is left.
    From a few rows on the weights are copied, laid out for that (`decode`); a model that changes
    is noticed when the next prompt enters, so change none while rows are in generation.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: "Tokenizer",
        *,
        rows: int = 16,
        sampling: Sampling | None = None,
        fast: bool = True,
    ) -> None:
        from tunesmith.model import slots

        self.model, self.tokenizer = model, tokenizer
        self.capacity, self.sampling = rows, sampling or Sampling()
        self.context = layout.context(model)
        self.stops = frozenset(tokenizer.stop_ids)
        self.trie = trie_of(self.sampling, tokenizer)
        self._waiting: list[_Row] = []
        self._live: list[_Row] = []
        with torch.no_grad(), evaluating(model):
            self._rows = slots.chosen(model, rows) if fast else slots.Alone(model)

    @property
    def free(self) -> int:
        """How many more requests may be admitted now."""
        return self.capacity - len(self._waiting) - len(self._live)

    def admit(self, request: Request) -> None:
        """Take a request in; its prompt is read at the next step. Raises DataError if it cannot."""
        if not self.free:
            raise ValueError("no row is free; step until one is")
        reason = self.refusal(request.ids)
        if reason is not None:
            raise DataError(f"{request.key}: {reason}")
        self._waiting.append(_Row(request, Random(request.seed)))

    def refusal(self, ids: Sequence[int]) -> str | None:
        """Why a prompt cannot be answered; None when it can."""
        if not ids:
            return "the prompt is empty; there is nothing to answer"
        room = 1 if self.trie is None else self.trie.depth
        if self.context is not None and len(ids) + room > self.context:
            return (
                f"the prompt has {len(ids)} tokens and this model reads at most {self.context} "
                "with the answer. Shorten it, or use a model with more context"
            )
        return None

    def step(self) -> list[Answer]:
        """One more token for every row; the answers that are finished by it."""
        done: list[Answer] = []
        with torch.no_grad(), evaluating(self.model):
            if self._waiting:
                new, self._waiting = self._waiting, []
                logits = self._rows.enter([row.request.ids for row in new])
                self._live += new
                done += self._advance(new, logits)
            if self._live:
                logits = self._rows.extend([row.ids[row.read] for row in self._live])
                for row in self._live:
                    row.read += 1
                done += self._advance(list(self._live), logits)
        return done

    def retire(self, key: str) -> Answer | None:
        """Give a row up; what it had said so far, or None when no such row is here."""
        for row in self._waiting:
            if row.request.key == key:
                self._waiting.remove(row)
                return self._answer(row)
        for row in self._live:
            if row.request.key == key:
                return self._leave(row)
        return None

    def _advance(self, rows: list[_Row], logits: "torch.Tensor") -> list[Answer]:
        """Append each row's next token; the rows that are done leave."""
        if self.trie is None:
            logits = discouraged(logits, rows, self.sampling)
            for row, token in zip(rows, choose(logits, rows, self.sampling), strict=True):
                row.ids.append(token)
            return [self._leave(row) for row in rows if self._done(row)]
        # The others have yet to read what they were made to say.
        ready = [number for number, row in enumerate(rows) if row.read == len(row.ids)]
        if ready:
            self._restrict([rows[number] for number in ready], logits[ready], self.trie)
        return [self._leave(row) for row in rows if row.stopped]

    def _restrict(self, rows: list[_Row], logits: "torch.Tensor", trie: "Trie") -> None:
        """Take each row one choice further in the trie, and over all that follows without one."""
        allowed = torch.full_like(logits, -torch.inf)
        for number, row in enumerate(rows):
            followers = list(trie.children[row.node])
            allowed[number, followers] = logits[number, followers]
        for row, token in zip(rows, choose(allowed, rows, self.sampling), strict=True):
            first = trie.children[row.node][token]
            for said, node in ((token, first), *trie.forced(first)):
                row.ids.append(said)
                row.node = node
            if row.node in trie.ends:
                row.stopped, row.text = True, trie.texts[trie.ends[row.node]]

    def _done(self, row: _Row) -> bool:
        if row.ids[-1] in self.stops:
            row.stopped = True
        elif self.sampling.stop:
            text = self.tokenizer.decode(row.ids)
            cuts = [text.find(stop) for stop in self.sampling.stop if stop in text]
            if cuts:
                row.stopped, row.text = True, text[: min(cuts)]
        full = self.context is not None and len(row.request.ids) + len(row.ids) >= self.context
        return row.stopped or full or len(row.ids) >= row.request.max_tokens

    def _leave(self, row: _Row) -> Answer:
        index = next(i for i, live in enumerate(self._live) if live is row)
        self._rows.drop(index)
        self._live[index] = self._live[-1]
        self._live.pop()
        return self._answer(row)

    def _answer(self, row: _Row) -> Answer:
        said = row.ids[:-1] if row.ids and row.ids[-1] in self.stops else row.ids
        text = self.tokenizer.decode(said) if row.text is None else row.text
        return Answer(row.request.key, tuple(said), text, row.stopped, len(row.ids))


def trie_of(sampling: Sampling, tokenizer: "Tokenizer") -> "Trie | None":
    """The trie of the answers that may be given; None where anything may."""
    from tunesmith.model.trie import closed

    if isinstance(sampling.choices, list):
        return closed(sampling.choices, tokenizer)
    if sampling.choices == "labels":
        raise ValueError("choices: labels must be made a list of the training rows' answers first")
    return None


def discouraged(logits: "torch.Tensor", rows: list[_Row], sampling: Sampling) -> "torch.Tensor":
    """Logits, [row, size], with less for what a row would only say again."""
    if not sampling.discourages:
        return logits
    logits = logits.clone()
    for own, row in zip(logits, rows, strict=True):
        said = [*row.request.ids, *row.ids]
        if sampling.repetition_penalty > 1:
            repeats.penalise(own, said, sampling.repetition_penalty)
        if sampling.no_repeat_ngram_size is not None:
            repeats.forbid(own, said, sampling.no_repeat_ngram_size)
    return logits


def choose(logits: "torch.Tensor", rows: list[_Row], sampling: Sampling) -> list[int]:
    """The next token of each row from its logits, [row, size]."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1).tolist()
    chances = (logits.double() / sampling.temperature).softmax(dim=-1)
    chances, order = chances.sort(dim=-1, descending=True, stable=True)
    total = chances.cumsum(dim=-1)
    # The token that crosses top_p stays in: at least one always does.
    kept = total.masked_fill(total - chances >= sampling.top_p, 0.0).amax(dim=-1, keepdim=True)
    # In single precision a draw could round up to 1, past every token that has a chance.
    values = [[row.random.random()] for row in rows]
    drawn = torch.tensor(values, dtype=torch.float64, device=logits.device)
    place = torch.searchsorted(total, drawn * kept, right=True)
    return order.gather(1, place.clamp(max=order.shape[1] - 1)).squeeze(1).tolist()


def answers(decoder: Decoder, requests: Iterable[Request]) -> Iterator[Answer]:
    """Every request's answer, in the order they finish; a new row enters as one leaves.

    Requests sorted by length waste the least; nothing else depends on their order.
    """
    waiting = iter(requests)
    running = 0
    while True:
        while decoder.free and (request := next(waiting, None)) is not None:
            decoder.admit(request)
            running += 1
        if not running:
            return
        for answer in decoder.step():
            running -= 1
            yield answer
