"""Answers to the rows of a file, as JSON lines; a second call goes on where the first broke off."""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.answers import Arm, Tuned, load, run_folder
from tunesmith.core.disk import disk_errors
from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.jsonlines import append_line
from tunesmith.core.log import Log
from tunesmith.core.rows import Chat, digest
from tunesmith.core.tables import Record, read
from tunesmith.data.source import check, detected
from tunesmith.data.stage import Data
from tunesmith.run import load as load_run

ANSWERS = {"instruction": "output", "prompt": "completion"}
"""The key of a row's answer beside the key of what it asks."""
START = b'{"line": '
"""How every line of ours begins."""
NAMED = 10
"""Unreadable rows named one by one; the rest are counted."""


def unanswered(rows: Path, out: Path | None) -> list[Record]:
    """The rows, without those that `out` already answers. Nothing is written."""
    lines, _ = earlier(out) if out is not None else ([], 0)
    done = {(line["line"], line["row"]) for line in lines}
    return [r for r in read(rows) if (r.origin.line, digest(r.fields)) not in done]


def question(record: Record, data: Data | None = None) -> Chat:
    """What a row asks, made by the format that training used; its answer may be missing or empty.

    `data` may state the format; without it, the row's keys tell.
    """
    form = data.format if data is not None else None
    fields = with_answer(record.fields, record.fields if form is None else form.required)
    try:
        if form is not None:
            check(form, fields, stated=True)
        prompt = (form or detected(fields)).row(fields).prompt()
    except DataError as error:
        raise DataError(f"{record.origin}: {error}") from None
    return replace(prompt, origin=record.origin)


def with_answer(fields: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The fields, with something where the answer is missing: formats know whole rows only."""
    turns = fields.get("messages") if "messages" in known else None
    if isinstance(turns, list) and turns:
        last = turns[-1]
        said = isinstance(last, dict) and last.get("role") == "assistant"
        if said and (last.get("content") or last.get("tool_calls")):
            return dict(fields)
        asked = turns[:-1] if said else turns
        return {**fields, "messages": [*asked, {"role": "assistant", "content": "-"}]}
    for asked_by, answered_by in ANSWERS.items():
        if asked_by in fields and asked_by in known:
            return {**fields, answered_by: fields.get(answered_by) or "-"}
    return dict(fields)


def write(
    run: str, asked: Sequence[Record], out: Path | None, overrides: Iterable[str], arm: Arm
) -> int:
    """Answer to stdout, or append to `out`; how many.

    Rows that the model cannot read are passed over, and named in a DataError at the end.
    """
    overrides = list(overrides)
    by = answerer(run, overrides, arm)
    if out is not None:
        refuse_others(out, by)
    if not asked:
        return 0
    data = load_run(run_folder(run).path, overrides).data
    chats = [question(record, data) for record in asked]
    if out is not None:
        mend(out)
    log, refused = Log(), list[str]()
    with log.progress("answering", len(asked)) as advance:
        for answer in predicted(load(run, overrides, arm), asked, chats, refused):
            line = json.dumps(answer | {"by": by}, ensure_ascii=True)
            if out is None:
                print(line, flush=True)
            else:
                with disk_errors(out, "write"):
                    append_line(out, line.encode("ascii") + b"\n")
            advance(1)
    if refused:
        more = [f"and {len(refused) - NAMED} rows more"] if len(refused) > NAMED else []
        raise DataError("\n".join([*refused[:NAMED], *more]))
    return len(asked)


def predicted(
    model: Tuned, asked: Sequence[Record], chats: Sequence[Chat], refused: list[str]
) -> Iterator[dict[str, Any]]:
    """One record for each row, as it is ready. Adds to `refused` why a row has none."""
    from tunesmith.evaluate.answer import asking
    from tunesmith.model.generate import answers

    decoder, requests = model.decoder(), []
    for number, chat in enumerate(chats):
        try:
            request = asking(chat, chat.digest, decoder, model.seed)
        except DataError as error:
            refused.append(str(error))
        else:
            requests.append(replace(request, key=str(number)))
    for answer in answers(decoder, sorted(requests, key=lambda r: len(r.ids), reverse=True)):
        record = asked[int(answer.key)]
        yield {
            "line": record.origin.line,
            "row": digest(record.fields),
            "answer": answer.text,
            "stopped": answer.stopped,
            "tokens": answer.tokens,
        }


def answerer(run: str, overrides: Iterable[str], arm: Arm) -> dict[str, Any]:
    """All that an answer depends on beside its row; it stands in every line."""
    folder = run_folder(run)
    settings, train = load_run(folder.path, overrides), folder.stage("train")
    if not train.finished:
        train.manifest()  # Raises, with what to do.
    return {
        "train": train.digest,
        "arm": arm,
        "sampling": settings.evaluate.sampling.model_dump(mode="json"),
        "seed": settings.seed,
    }


def refuse_others(out: Path, by: Mapping[str, Any]) -> None:
    """Refuse to mix the answers of two models, or of two ways to ask one, in a file."""
    for line in earlier(out)[0]:
        other = [name for name, value in by.items() if line["by"].get(name) != value]
        if other:
            raise SettingsError(
                f"{out}: holds answers with another {' and '.join(other)}; name another --out, "
                "or ask as before"
            )


def earlier(out: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines an earlier call wrote, and the bytes they take; a torn one at the end is none."""
    if not out.exists():
        return [], 0
    with disk_errors(out, "read"):
        content = out.read_bytes()
    whole, end, torn = content.rpartition(b"\n")
    try:
        lines = [json.loads(line) for line in whole.split(b"\n")] if end else []
        if not all({"line", "row"} <= line.keys() and line["by"].keys() for line in lines):
            raise ValueError
        if torn[: len(START)] != START[: len(torn)]:
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DataError(f"{out}: holds lines that are no answers; name another --out") from None
    return lines, len(whole) + len(end)


def mend(out: Path) -> None:
    """Cut off the torn line of a call that was killed. No link is followed."""
    if not out.exists():
        return
    _, size = earlier(out)
    with disk_errors(out, "mend"):
        file = os.open(out, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(file).st_size > size:
                os.ftruncate(file, size)
        finally:
            os.close(file)
