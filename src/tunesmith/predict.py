"""Answers to the rows of a file, as JSON lines; a second call goes on where the first broke off."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tunesmith.answers import Arm, Tuned, load
from tunesmith.core.errors import DataError
from tunesmith.core.folders import disk_errors
from tunesmith.core.log import Log, append_line
from tunesmith.core.records import Chat
from tunesmith.core.tables import Record, read
from tunesmith.data.source import detected

Question = tuple[int, Chat]
"""The line of a row, and what it asks."""


def unanswered(rows: Path, out: Path | None) -> list[Question]:
    """What the rows ask, without those that `out` already answers."""
    done = answered(out) if out is not None else set()
    asked = [(record.origin.line, question(record)) for record in read(rows)]
    return [(line, chat) for line, chat in asked if (line, chat.digest) not in done]


def question(record: Record) -> Chat:
    """What a row asks, made by the format that training used; its answer may be missing."""
    fields = dict(record.fields)
    turns = fields.get("messages")
    if isinstance(turns, list) and turns:
        last = turns[-1]
        if not (isinstance(last, dict) and last.get("role") == "assistant"):
            fields["messages"] = [*turns, {"role": "assistant", "content": "-"}]
    elif "instruction" in fields:
        fields.setdefault("output", "-")
    elif "prompt" in fields:
        fields.setdefault("completion", "-")
    try:
        return detected(fields).row(fields).prompt()
    except DataError as error:
        raise DataError(f"{record.origin}: {error}") from None


def write(
    run: str, asked: Sequence[Question], out: Path | None, overrides: Iterable[str], arm: Arm
) -> int:
    """Answer to stdout, or append to `out`; how many."""
    if not asked:
        return 0
    log = Log()
    model = load(run, overrides, arm)
    with log.progress("answering", len(asked)) as advance:
        for answer in predicted(model, asked):
            line = json.dumps(answer, ensure_ascii=True)
            if out is None:
                print(line, flush=True)
            else:
                with disk_errors(out, "write"):
                    append_line(out, line.encode("ascii") + b"\n")
            advance(1)
    return len(asked)


def predicted(model: Tuned, asked: Sequence[Question]) -> Iterator[dict[str, Any]]:
    """One record for each row, as it is ready."""
    for answer in model.answers(chat for _, chat in asked):
        line, chat = asked[int(answer.key)]
        yield {
            "line": line,
            "row": chat.digest,
            "answer": answer.text,
            "stopped": answer.stopped,
            "tokens": answer.tokens,
        }


def answered(out: Path) -> set[tuple[int, str]]:
    """What an earlier call wrote; the torn line of one that was killed is cut off."""
    if not out.exists():
        return set()
    with disk_errors(out, "read"):
        content = out.read_bytes()
    whole, _, torn = content.rpartition(b"\n")
    try:
        records = [json.loads(line) for line in whole.splitlines()]
        found = {(record["line"], record["row"]) for record in records}
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{out}: holds lines that are no answers; name another --out") from None
    if torn:
        with disk_errors(out, "mend"), out.open("r+b") as file:
            file.truncate(len(content) - len(torn))
    return found
