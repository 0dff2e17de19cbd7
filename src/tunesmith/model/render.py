"""Conversations to tokens and loss targets: the one rule, for training, evaluation and serving.

A conversation is rendered once. It is cut only at the control tokens that the template itself
wrote and at both ends of every answer, and each stretch is encoded whole, as text. Where the
template wrote and where the row speaks is found by rendering again with marks around every text
of the row, and proven: without the marks the two renderings are equal. So an answer never merges
with its prompt, content never becomes a control token, and the prompt that a server sends is to
the id the beginning of what was trained on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

from tunesmith.core.errors import DataError, IntegrityError
from tunesmith.core.quote import quoted
from tunesmith.core.records import IGNORE, Example
from tunesmith.core.records import Sequence as Ids
from tunesmith.core.rows import Chat, Message, Origin
from tunesmith.model.content import Place
from tunesmith.model.controls import Control
from tunesmith.model.marks import Region, rendered
from tunesmith.model.template import visible
from tunesmith.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Span:
    """An answer inside a rendering: from the end of its prompt to behind its stop token."""

    start: int
    end: int
    turn: int
    trained: bool


@dataclass(frozen=True)
class Stretch:
    """A piece that is encoded whole, or one control token."""

    start: int
    end: int
    control: int | None
    place: Place
    trained: bool


@dataclass(frozen=True)
class Piece:
    """One token for display: its text, its id, whether it carries loss."""

    text: str
    id: int
    trained: bool


def encode(chat: Chat, tokenizer: Tokenizer) -> Example:
    """The row as ids and targets. Raises DataError, with the row's place, when it teaches nothing
    or its answers cannot be told apart in what the template renders."""
    with placed(chat.origin):
        ids, trained = tokens(chat, tokenizer)
        if not any(trained):
            raise DataError("no token would be trained: no assistant turn carries loss")
    targets = [i if on else IGNORE for i, on in zip(ids[1:], trained[1:], strict=True)]
    sequence = Ids(tuple(ids), (*targets, IGNORE))
    return Example((sequence,), chat.digest, chat.origin, weight=chat.weight)


def encode_prompt(chat: Chat, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids a server sends: the conversation and the invitation to answer. The beginning, to
    the id, of `encode` of the same conversation with its answer."""
    with placed(chat.origin):
        if not chat.messages or chat.messages[-1].role == "assistant":
            raise DataError("a prompt ends with a user or tool turn, and this one does not")
        text, regions = rendered(chat, tokenizer, prompting=True)
        # Nothing is trained here, so an earlier turn without a provable end is no reason to stop.
        said = replace(chat, messages=tuple(replace(m, train=False) for m in chat.messages))
        spans = answers(said, tokenizer, text, regions)
        stretches = cut(text, regions, spans, tokenizer)
        return tuple(chain.from_iterable(ids_of(text, s, tokenizer) for s in stretches))


def tokens(chat: Chat, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Ids, and for each whether it is part of a trained answer."""
    text, regions = rendered(chat, tokenizer)
    spans = answers(chat, tokenizer, text, regions)
    ids: list[int] = []
    trained: list[bool] = []
    for stretch in cut(text, regions, spans, tokenizer):
        new = ids_of(text, stretch, tokenizer)
        ids += new
        trained += [stretch.trained] * len(new)
    return ids, trained


def ids_of(text: str, stretch: Stretch, tokenizer: Tokenizer) -> list[int]:
    """The ids of one stretch; a lossless tokenizer must give its text back."""
    if stretch.control is not None:
        return [stretch.control]
    words = text[stretch.start : stretch.end]
    ids = tokenizer.encode(words, stretch.place)
    if stretch.trained and tokenizer.lossless and not gives_back(ids, words, tokenizer):
        raise DataError(
            f"the tokenizer turns {quoted(words)} into {quoted(tokenizer.decode(ids))}; "
            "remove the characters it does not know"
        )
    return ids


def gives_back(ids: Sequence[int], text: str, tokenizer: Tokenizer) -> bool:
    """Whether `ids` decode to `text`, also where the decoder drops a leading space."""
    if tokenizer.decode(ids, special=True) == text:
        return True
    before = tokenizer.encode("a", "inside")
    return tokenizer.decode([*before, *ids], special=True) in ("a" + text, "a " + text)


# --- answers ---------------------------------------------------------------------------------


def answers(chat: Chat, tokenizer: Tokenizer, text: str, regions: Sequence[Region]) -> list[Span]:
    """Where each assistant turn begins and ends in `text`."""
    spans: list[Span] = []
    for turn, message in enumerate(chat.messages):
        if message.role == "assistant":
            span = answer(chat, turn, tokenizer, text, regions)
            if span is not None and (not spans or spans[-1].end <= span.start):
                spans.append(span)
            elif message.train is not False:
                raise DataError(
                    f"messages[{turn}]: the template renders this assistant turn in a way that "
                    "hides where it begins or ends; set train: false on it, or use another template"
                )
    return spans


def answer(
    chat: Chat, turn: int, tokenizer: Tokenizer, text: str, regions: Sequence[Region]
) -> Span | None:
    """The span of one assistant turn; None where it cannot be proven."""
    message = chat.messages[turn]
    own = [r for r in regions if r.turn == turn]
    says = bool(message.content or message.extra)
    trained = message.train is not False
    if trained and not says:
        raise DataError(f"messages[{turn}]: the assistant says nothing; remove the turn")
    if says and not own:
        return None
    start = beginning(chat, turn, tokenizer, text, own)
    if start is None:
        return None
    last = max([start, *(r.end for r in own)])
    later = [r.start for r in regions if r.start >= last and r.turn != turn]
    end = ending(tokenizer, text, regions, last, min(later, default=len(text)))
    if isinstance(end, int):
        return Span(start, end, turn, trained)
    if trained:
        raise DataError(unstopped(turn, end))
    return None


def unstopped(turn: int, found: str | None) -> str:
    """Why an answer would never stop."""
    after = (
        f"with {quoted(found)}, which is not a stop token of this model"
        if found
        else ("without a stop token")
    )
    return (
        f"messages[{turn}]: the template ends this assistant turn {after}, so the model would "
        "not learn to stop; set train: false on the turn, or use another template"
    )


def beginning(
    chat: Chat, turn: int, tokenizer: Tokenizer, text: str, own: Sequence[Region]
) -> int | None:
    """Where the prompt of an assistant turn ends: what a server sends, cut off `text`.

    An earlier turn whose prompt the template renders differently later begins at its own text;
    for the last turn that would train what serving never shows, so it is refused.
    """
    first = min((r.start for r in own), default=None)
    messages = [visible(m.rendered()) for m in chat.messages[:turn]]
    try:
        prompt = tokenizer.chat.render(messages, list(chat.tools), prompting=True)
    except DataError:
        prompt = None
    if prompt is not None and text.startswith(prompt) and (first is None or len(prompt) <= first):
        return len(prompt)
    trained = chat.messages[turn].train is not False
    if prompt is not None and trained and turn == len(chat.messages) - 1:
        raise DataError(
            f"messages[{turn}]: the template renders this conversation so that its beginning is "
            "not the prompt a server would send; use a template made for training"
        )
    return first


def ending(
    tokenizer: Tokenizer, text: str, regions: Sequence[Region], last: int, limit: int
) -> int | str | None:
    """Behind the first stop token after `last`; else the first special one's text, if any."""
    stops = tokenizer.stop_ids
    other: str | None = None
    for start, end, control in found_controls(text, regions, tokenizer, last, limit):
        if control.id in stops:
            return end
        if control.special and other is None:
            other = text[start:end]
    return other


def end_of_turn(tokenizer: Tokenizer) -> int:
    """The id that the template writes after the last answer, found by rendering a short talk."""
    chat = Chat((Message("user", "a"), Message("assistant", "b")))
    try:
        text, regions = rendered(chat, tokenizer)
    except DataError as error:
        raise IntegrityError(f"{tokenizer.chat.name}: cannot be tried out: {error}") from error
    last = max((r.end for r in regions if r.turn == 1), default=len(text))
    following: list[Control] = []
    for start, end, control in found_controls(text, regions, tokenizer, last, len(text)):
        if following and start > last:
            break  # text in between: that token no longer belongs to the end of this turn
        following, last = [*following, control], end
    declared = [c for c in following if c.id in tokenizer.declared_stops]
    chosen = declared or [c for c in following if c.special] or following
    if not chosen:
        raise IntegrityError(
            f"{tokenizer.chat.name}: writes no control token after an answer, so the model would "
            "never learn to stop. Use a template that ends answers with one."
        )
    return chosen[0].id


# --- cutting ---------------------------------------------------------------------------------


def found_controls(
    text: str, regions: Sequence[Region], tokenizer: Tokenizer, start: int, end: int
) -> Iterator[tuple[int, int, Control]]:
    """The control tokens that the template itself wrote between `start` and `end`."""
    for low, high in template_parts(regions, start, end):
        for match in tokenizer.pattern.finditer(text, low, high):
            control = tokenizer.controls[match.group()]
            if not control.word or alone(text, match.start(), match.end()):
                yield match.start(), match.end(), control


def template_parts(regions: Sequence[Region], start: int, end: int) -> Iterator[tuple[int, int]]:
    """The gaps between regions: what the template wrote. A region, even an empty one, parts."""
    for region in regions:
        if start < region.start:
            yield start, min(region.start, end)
        start = max(start, region.end)
        if start >= end:
            return
    yield start, end


def alone(text: str, start: int, end: int) -> bool:
    """Whether no letter or digit touches the match."""
    before, after = text[start - 1 : start], text[end : end + 1]
    return not any(c.isalnum() or c == "_" for c in before + after)


def cut(
    text: str, regions: Sequence[Region], spans: Sequence[Span], tokenizer: Tokenizer
) -> Iterator[Stretch]:
    """The whole text in stretches: control tokens, and what stands between them and span ends."""
    walls = sorted({0, len(text), *(p for s in spans for p in (s.start, s.end))})
    answered = {r.end for r in regions for s in spans if s.turn == r.turn}
    at, place = 0, "first"
    for start, end, control in found_controls(text, regions, tokenizer, 0, len(text)):
        lowest = max([at, *(p for p in (*walls, *answered) if p <= start)])
        highest = min(p for p in walls if p >= end)
        start, end = taken(text, control, start, end, lowest, highest)
        yield from running(at, start, walls, spans, place)
        yield Stretch(start, end, control.id, "after", inside(start, end, spans))
        at, place = end, "after"
    yield from running(at, len(text), walls, spans, place)


def taken(
    text: str, control: Control, start: int, end: int, lowest: int, highest: int
) -> tuple[int, int]:
    """A control token with the space around it that belongs to it, never across an answer's end."""
    while control.left and start > lowest and text[start - 1].isspace():
        start -= 1
    while control.right and end < highest and text[end].isspace():
        end += 1
    return start, end


def running(
    start: int, end: int, walls: Sequence[int], spans: Sequence[Span], place: Any
) -> Iterator[Stretch]:
    """Text between two control tokens, cut where an answer begins or ends."""
    borders = [start, *(p for p in walls if start < p < end), end]
    for low, high in zip(borders, borders[1:], strict=False):
        if low < high:
            yield Stretch(low, high, None, place, inside(low, high, spans))
            place = "inside"


def inside(start: int, end: int, spans: Sequence[Span]) -> bool:
    """Whether a stretch belongs to a trained answer."""
    return any(s.trained and s.start <= start and end <= s.end for s in spans)


# --- display and length ----------------------------------------------------------------------


def pieces(example: Example, tokenizer: Tokenizer) -> list[Piece]:
    """Every token of a row with its text and whether it is trained, for people to look at."""
    return [piece for each in example.sequences for piece in laid_out(each, tokenizer)]


def laid_out(sequence: Ids, tokenizer: Tokenizer) -> Iterator[Piece]:
    """The tokens of one sequence; their texts together are what the sequence decodes to."""
    # targets[t] belongs to the token after t.
    trained = (False, *(target != IGNORE for target in sequence.targets[:-1]))
    before: list[int] = []
    waiting: list[int] = []
    for number, on in zip(sequence.ids, trained, strict=True):
        waiting.append(number)
        text = added(before, waiting, tokenizer)
        # A character may need several tokens: until it is whole, its text is put off.
        whole = not text.endswith("\ufffd") or len(waiting) > 4
        yield Piece(text if whole else "", number, on)
        before, waiting = (waiting, []) if whole else (before, waiting)


def added(before: Sequence[int], ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """What `ids` add to the text of the tokens `before` them: decoded alone, a word loses the space
    in front of it, and a part of one shows the mark of its kind (`##ing`)."""
    known = tokenizer.decode(before, special=True)
    text = tokenizer.decode([*before, *ids], special=True)
    return text[len(known) :] if text.startswith(known) else tokenizer.decode(ids, special=True)


@dataclass(frozen=True)
class Fit:
    """What became of rows that are longer than the model may see."""

    kept: int
    dropped: tuple[tuple[str, Origin, int], ...] = ()  # row, where it was read, its tokens

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        rows = [{"row": r, "origin": str(o), "tokens": n} for r, o, n in self.dropped]
        return {"kept": self.kept, "dropped": len(rows), "rows": rows}


def fit(
    examples: Iterable[Example],
    length: int,
    policy: Literal["refuse", "drop"] = "refuse",
    context: Callable[[], int | None] = lambda: None,
) -> tuple[list[Example], Fit]:
    """The examples whose sequences hold at most `length` tokens. Nothing is ever cut (T-TRUNC):
    longer ones are refused by name, or dropped by name. `context`, the most that the model can
    read, is asked only to say what to do."""
    examples = list(examples)
    kept = [e for e in examples if longest(e) <= length]
    long = tuple((e.row, e.origin, longest(e)) for e in examples if longest(e) > length)
    if long and policy == "refuse":
        row, origin, size = long[0]
        raise DataError(
            f"{origin}: {size} tokens, and length is {length} ({len(long)} of {len(examples)} "
            f"rows are too long; no answer is cut). {advice(max(n for *_, n in long), context())}"
        )
    if long and not kept:
        raise DataError(f"{long[0][1]}: all {len(long)} rows are longer than length={length}")
    return kept, Fit(len(kept), long)


def advice(size: int, context: int | None) -> str:
    """What to do about rows of up to `size` tokens, where the model reads at most `context`."""
    if context is None or size <= context:
        return "Raise train.length, shorten the rows, or drop them with train.too_long=drop"
    return (
        f"The model's context is {context}: set train.length={context} at most, and shorten the "
        "rows that are longer, or drop them with train.too_long=drop"
    )


def longest(example: Example) -> int:
    """Tokens of the example's longest sequence."""
    return max(len(sequence.ids) for sequence in example.sequences)


@contextmanager
def placed(origin: Origin) -> Iterator[None]:
    """Puts a row's place in front of what is wrong with it."""
    try:
        yield
    except DataError as error:
        if not origin.file or str(error).startswith(f"{origin}:"):
            raise
        raise DataError(f"{origin}: {error}") from error
