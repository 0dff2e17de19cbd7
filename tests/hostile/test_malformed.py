"""Files that are not what they seem: one line with file and line, exit 3, nothing written (F3)."""

import gzip
import json
import os
import socket
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tunesmith.core import textfile
from tunesmith.core.errors import DataError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.tables import read, read_part
from tunesmith.data.stage import Data, prepare


@dataclass(frozen=True)
class Broken:
    """A file, the line its fault is on (None: it is no file at all), and a word of the sentence."""

    name: str
    content: bytes
    line: int | None
    says: str


def row(**changes: Any) -> bytes:
    """A good row in JSON, some of its values changed; None as a value is null."""
    return json.dumps({"prompt": "a", "completion": "b", **changes}).encode()


def chat(*turns: Any, **more: Any) -> bytes:
    """A good line, then a line of chat."""
    good = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    return (json.dumps(good) + "\n" + json.dumps({"messages": list(turns), **more})).encode()


def zipped() -> bytes:
    """A zip archive."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("rows.jsonl", row())
    return buffer.getvalue()


GOOD = row() + b"\n"
USER = {"role": "user", "content": "q"}
SAYS = {"role": "assistant", "content": "a"}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
CSV = b"prompt,completion\n1,2\n"

MALFORMED = [
    # encodings and disguises
    Broken("empty.jsonl", b"", 1, "empty"),
    Broken("empty.json", b"", 1, "empty"),
    Broken("empty.csv", b"", 1, "empty"),
    Broken("mark-only.jsonl", b"\xef\xbb\xbf", 1, "no row"),
    Broken("blank.jsonl", b"\n  \n\r\n", 1, "no row"),
    Broken("blank.json", b"  \n", 1, "no row"),
    Broken("header-only.csv", b"prompt,completion\n", 1, "no row"),
    Broken("latin1.jsonl", GOOD + '{"prompt": "caf\xe9"}'.encode("latin-1"), 2, "not UTF-8"),
    Broken("latin1.csv", CSV + b"caf\xe9,x\n", 3, "not UTF-8"),
    Broken("latin1.json", b"[" + row() + b',\n{"prompt": "caf\xe9"}]', 2, "not UTF-8"),
    Broken("overlong.jsonl", GOOD + b'{"prompt": "\xc0\xaf"}', 2, "not UTF-8"),
    Broken("surrogate-bytes.csv", CSV + b"\xed\xa0\x80,x\n", 3, "not UTF-8"),
    Broken("cut-character.jsonl", GOOD + b'{"prompt": "\xe2\x82', 2, "not UTF-8"),
    Broken("cut-character.json", b"[" + row() + b',\n{"prompt": "\xe2\x82', 2, "not UTF-8"),
    Broken("utf16.jsonl", row().decode().encode("utf-16"), 1, "UTF-16"),
    Broken("utf16-unmarked.csv", CSV.decode().encode("utf-16-le"), 1, "NUL"),
    Broken("utf32.json", row().decode().encode("utf-32"), 1, "UTF-16"),
    Broken("nul.jsonl", GOOD + GOOD + b'{"prompt": "a\0b"}\n', 3, "NUL"),
    Broken("nul.csv", CSV + b"a\0,b\n", 3, "NUL"),
    Broken("nul.json", b"[" + row() + b",\n\n" + row() + b"\0]", 3, "NUL"),
    Broken("gzip.jsonl", gzip.compress(GOOD), 1, "gunzip"),
    Broken("gzip.csv", gzip.compress(CSV), 1, "gunzip"),
    Broken("workbook.csv", zipped(), 1, "Excel"),
    Broken("parquet.jsonl", b"PAR1" + bytes(40) + b"PAR1", 1, "end its name in .parquet"),
    Broken("pointer.jsonl", b"version https://git-lfs.github.com/spec/v1\n", 1, "git lfs pull"),
    Broken("page.csv", b"<!DOCTYPE html><html></html>", 1, "web page"),
    Broken("rows.arrow", b"ARROW1", None, "'.arrow'"),
    Broken("rows.xlsx", zipped(), None, "'.xlsx'"),
    Broken("rows", GOOD, None, "''"),
    # lines of JSON
    Broken("list.jsonl", b"[" + row() + b"]", 1, "rename the file to .json"),
    Broken("pretty-list.jsonl", b"[\n" + row() + b"\n]", 1, "rename it to .json"),
    Broken("text.jsonl", GOOD + b'"text"', 2, "a text, not an object"),
    Broken("number.jsonl", GOOD + b"42", 2, "a number, not an object"),
    Broken("null.jsonl", GOOD + b"null", 2, "null, not an object"),
    Broken("single-quotes.jsonl", GOOD + b"{'prompt': 'a'}", 2, "single quotes"),
    Broken("python.jsonl", GOOD + b'{"prompt": None}', 2, "write null"),
    Broken("comment.jsonl", GOOD + b"// more\n" + GOOD, 2, "no comments"),
    Broken("last-comma.jsonl", GOOD + b'{"prompt": "a",}', 2, "a comma too many"),
    Broken("two-values.jsonl", GOOD + row() + row(), 2, "one value a line"),
    Broken("cut.jsonl", GOOD + b'{"prompt": "a", "comp', 2, "not closed"),
    Broken("cut-bracket.jsonl", GOOD + b'{"prompt": "a"', 2, "not finished"),
    Broken("raw-tab.jsonl", GOOD + b'{"prompt": "a\tb"}', 2, "raw"),
    Broken("escape.jsonl", GOOD + b'{"prompt": "C:\\data"}', 2, "backslash"),
    Broken("mark-inside.jsonl", GOOD + b"\xef\xbb\xbf" + GOOD, 2, "byte order mark"),
    Broken("old-mac.jsonl", GOOD.replace(b"\n", b"\r") * 2, 1, "carriage return"),
    Broken("twice.jsonl", GOOD + b'{"prompt":"a","prompt":"c","completion":"b"}', 2, "twice"),
    Broken("twice-deep.jsonl", GOOD + row(x=0)[:-2] + b'{"k":1,"k":2}}', 2, "'k' occurs twice"),
    Broken("nan.jsonl", GOOD + row(score=float("nan")), 2, "NaN"),
    Broken("infinity.jsonl", GOOD + row(score=float("-inf")), 2, "-Infinity"),
    Broken("too-large.jsonl", GOOD + row(x=0)[:-2] + b"1e999}", 2, "too large"),
    Broken("digits.jsonl", GOOD + row(x=0)[:-2] + b"9" * 5000 + b"}", 2, "5000 digits"),
    Broken("half-pair.jsonl", GOOD + b'{"prompt":"\\ud83d","completion":"b"}', 2, "half"),
    Broken("half-pair-key.jsonl", GOOD + b'{"\\uDC00":1,"prompt":"a","completion":"b"}', 2, "half"),
    Broken("deep.jsonl", GOOD + row(x=0)[:-2] + b"[" * 33 + b"]" * 33 + b"}", 2, "inside each"),
    Broken("abyss.jsonl", GOOD + b'{"x":' * 100_000, 2, "inside each"),
    Broken("abyss.json", b"[\n" + b"[" * 100_000, 2, "not an object"),
    # one list of JSON
    Broken("object.json", row(), 1, "rename the file to .jsonl"),
    Broken("lines.json", GOOD * 2, 1, "rename the file to .jsonl"),
    Broken("word.json", b"\nrows", 2, "one list"),
    Broken("unclosed.json", b"[" + row() + b",\n" + row() + b"\n", 3, "cut short"),
    Broken("cut-row.json", b"[" + row() + b',\n{"prompt": "a', 2, "not closed"),
    Broken("no-comma.json", b"[" + row() + b"\n" + row() + b"]", 2, "comma"),
    Broken("last-comma.json", b"[" + row() + b",\n]", 2, "not an object"),
    Broken("numbers.json", b"[\n1, 2]", 2, "not an object"),
    Broken("more.json", b"[" + row() + b"]\n[]", 2, "delete it"),
    Broken("empty-list.json", b"[]", 1, "no row"),
    Broken("twice.json", b"[" + row() + b',\n{"a":1,\n"a":2}]', 2, "twice"),
    Broken("nan.json", b"[" + row() + b",\n\n" + row(x=float("nan")) + b"]", 3, "NaN"),
    Broken("colon.json", b"[" + row() + b',\n{"prompt":\n"a" "b"}]', 3, "not JSON"),
    # tables
    Broken("semicolon.csv", b"prompt;completion\n1;2\n", 1, "looks divided by ';'"),
    Broken("tabs.csv", b"prompt\tcompletion\n1\t2\n", 1, "looks divided by"),
    Broken("commas.tsv", b"prompt,completion\n1,2\n", 1, "looks divided by ','"),
    Broken("short.csv", CSV + b"3\n", 3, "1 cells under 2 columns"),
    Broken("long.csv", CSV + b"3,4,5\n", 3, "3 cells under 2 columns"),
    Broken("last-comma.csv", CSV + b"3,4,\n", 3, "3 cells under 2 columns"),
    Broken("long.tsv", b"prompt\tcompletion\n1\t2\t3\n", 2, "3 cells"),
    Broken("ragged-after-lines.csv", b'prompt,completion\n"a\nb\nc",2\n3\n', 5, "1 cells"),
    Broken("open-quote.csv", CSV + b'"3,4\n5,6\n7,8\n', 3, "never closed"),
    Broken("stray-quote.csv", CSV + b'5" disk,4\n5,6\n', 3, "never closed"),
    Broken("two-stray-quotes.csv", CSV + b'5" and 6" disk,4\n', 3, "around the whole cell"),
    Broken("text-after-quote.csv", CSV + b'"3"x,4\n', 3, "around the whole cell"),
    Broken("space-before-quote.csv", CSV + b'3, "4"\n', 3, "around the whole cell"),
    Broken("same-columns.csv", b"prompt,completion,prompt\n1,2,3\n", 1, "two columns"),
    Broken("unnamed-column.csv", b"prompt,completion,\n1,2,3\n", 1, "empty or has spaces"),
    Broken("spaced-column.csv", b"prompt, completion\n1,2\n", 1, "empty or has spaces"),
    Broken("old-mac.csv", CSV.replace(b"\n", b"\r"), 1, "carriage return"),
    Broken("weight.csv", b"prompt,completion,weight\n1,2,heavy\n", 2, "weight is 'heavy'"),
    Broken("references.csv", b"prompt,completion,references\n1,2,x\n", 2, "references is text"),
    Broken("messages.csv", b"messages\nhello\n", 2, "messages is text"),
    # rows
    Broken("no-format.jsonl", b'{"question": "a", "answer": "b"}', 1, "known: alpaca"),
    Broken("no-keys.jsonl", b"{}", 1, "no format"),
    Broken("two-formats.jsonl", row(instruction="a", output="b"), 1, "alpaca and completion"),
    Broken("half-preference.jsonl", b'{"prompt":"a","chosen":"b"}', 1, "'rejected' is missing"),
    Broken("unread.jsonl", row(kto_tag=True), 1, "no format"),
    Broken("judged.jsonl", row(label="good"), 1, "not true or false"),
    Broken("judged-late.jsonl", GOOD + row(label=True), 2, "do not fit the format completion"),
    Broken("unlabelled.jsonl", b'{"text":"a","label":1}\n{"text":"a"}', 2, "'label' is missing"),
    Broken("no-label.jsonl", b'{"text":"a","label":-1}', 1, "without a label"),
    Broken("label.csv", b"text,label\na,\n", 2, "label is empty"),
    Broken("labels.csv", b"text,labels\na,b\n", 2, "labels is text"),
    Broken("document.jsonl", b'{"text":"a"}\n{"text":""}', 2, "text is empty"),
    Broken("speaker.jsonl", b'{"conversations":[{"from":"bot","value":"a"}]}', 1, "write 'gpt'"),
    Broken("silent.jsonl", b'{"conversations":[{"from":"gpt","value":""}]}', 1, "[0].value is em"),
    Broken("speech.jsonl", b'{"conversations":[{"from":"gpt","value":1}]}', 1, "[0].value is a n"),
    Broken("misspelt.jsonl", GOOD + b'{"prompt":"a","complection":"b"}', 2, "'complection'"),
    Broken("mixed.jsonl", GOOD + chat(USER, SAYS), 2, "'prompt' is missing"),
    Broken("worse-answer.jsonl", GOOD + row(rejected="c"), 2, "do not fit the format completion"),
    Broken("null-text.jsonl", GOOD + row(completion=None), 2, "completion is null"),
    Broken("number-text.jsonl", GOOD + row(prompt=7), 2, "prompt is a number"),
    Broken("object-text.jsonl", GOOD + row(prompt={"a": 1}), 2, "prompt is an object"),
    Broken("weight-nothing.jsonl", GOOD + row(weight=0), 2, "weight is '0'"),
    Broken("weight-switch.jsonl", GOOD + row(weight=True), 2, "weight is 'True'"),
    Broken("reference.jsonl", GOOD + row(references=["a", 1]), 2, "references[1]"),
    Broken("history.jsonl", b'{"instruction":"a","output":"b","history":[["q"]]}', 1, "history[0]"),
    Broken("empty-text.jsonl", GOOD + row(completion=""), 2, "completion is empty"),
    Broken("empty-cell.csv", CSV + b"3,\n", 3, "completion is empty"),
    Broken("empty-output.jsonl", b'{"instruction":"a","output":""}', 1, "output is empty"),
    Broken(
        "empty-history.jsonl",
        b'{"instruction":"a","output":"b","history":[["q",""]]}',
        1,
        "empty answer",
    ),
    # chat
    Broken("role.jsonl", chat({"role": "bot", "content": "x"}), 2, "system, user, assistant, tool"),
    Broken("developer.jsonl", chat({"role": "developer", "content": "x"}), 2, "write 'system'"),
    Broken("no-role.jsonl", chat({"content": "x"}), 2, "messages[0].role is missing"),
    Broken("role-number.jsonl", chat({"role": 1, "content": "x"}), 2, "messages[0].role is '1'"),
    Broken("null.chat.jsonl", chat(USER, {**SAYS, "content": None}), 2, "messages[1].content is"),
    Broken("empty.chat.jsonl", chat(USER, {**SAYS, "content": ""}), 2, "messages[1].content is e"),
    Broken("no-content.jsonl", chat({"role": "user"}, SAYS), 2, "messages[0].content is missing"),
    Broken("number.chat.jsonl", chat({**USER, "content": 7}, SAYS), 2, "a number, not text"),
    Broken("misspelt.chat.jsonl", chat(USER, {**SAYS, "wieght": 0}), 2, "did you mean 'weight'"),
    Broken("question-last.jsonl", chat(USER, SAYS, USER), 2, "end it with an assistant turn"),
    Broken("no-turns.jsonl", chat(), 2, "empty list"),
    Broken("turn-text.jsonl", chat("hello"), 2, "messages[0] is text"),
    Broken("turns-object.jsonl", b'{"messages": {"role": "user"}}', 1, "messages is an object"),
    Broken("all-off.jsonl", chat(USER, {**SAYS, "weight": 0}), 2, "nothing would be learnt"),
    Broken("half-weight.jsonl", chat(USER, {**SAYS, "weight": 0.5}), 2, "0 or 1"),
    Broken("clash.jsonl", chat(USER, {**SAYS, "weight": 1, "train": False}), 2, "contradict"),
    Broken("train-word.jsonl", chat(USER, {**SAYS, "train": "yes"}), 2, "true or false"),
    Broken("user-trained.jsonl", chat({**USER, "train": True}, SAYS), 2, "only assistant turns"),
    Broken(
        "image.jsonl",
        chat({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, SAYS),
        2,
        "only text",
    ),
    Broken("part-text.jsonl", chat({**USER, "content": [{"type": "text"}]}, SAYS), 2, "text is"),
    Broken(
        "part-key.jsonl",
        chat({**USER, "content": [{"type": "text", "text": "q", "weight": 0}]}, SAYS),
        2,
        "would be lost",
    ),
    Broken("no-parts.jsonl", chat({**USER, "content": []}, SAYS), 2, "an empty list"),
    Broken("call-user.jsonl", chat({**USER, "tool_calls": [{}]}, SAYS), 2, "only assistants"),
    Broken("call-unnamed.jsonl", chat(USER, {**SAYS, "tool_calls": [{}]}), 2, "names no function"),
    Broken(
        "call-arguments.jsonl",
        chat(USER, {**SAYS, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
        2,
        "not a JSON object",
    ),
    Broken("tools-text.jsonl", chat(USER, SAYS, tools="[]"), 2, "tools is text"),
    Broken("functions.jsonl", chat(USER, SAYS, functions=[{}]), 2, "old form"),
    Broken("empty-calls.jsonl", chat(USER, {"role": "assistant", "tool_calls": []}), 2, "null"),
    Broken("tool-last.jsonl", chat(USER, CALL, {"role": "tool", "content": "r"}), 2, "end it with"),
]


def packed(content: bytes, name: str = "") -> bytes:
    """A gzip file with a name in it."""
    buffer = BytesIO()
    with gzip.GzipFile(name, "wb", fileobj=buffer) as file:
        file.write(content)
    return buffer.getvalue()


def archived() -> bytes:
    """A .tar.gz."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        facts = tarfile.TarInfo("rows.jsonl")
        facts.size = len(GOOD)
        archive.addfile(facts, BytesIO(GOOD))
    return buffer.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    """The content with one byte changed."""
    changed = bytearray(content)
    changed[at] ^= 0x55
    return bytes(changed)


def columns(**given: Any) -> bytes:
    """A Parquet file of these columns; a good prompt and completion unless they say otherwise."""
    given = {"prompt": ["a", "c"], "completion": ["b", "d"], **given}
    return table(pyarrow.table(given))


def table(rows: pyarrow.Table) -> bytes:
    """A Parquet file of a table."""
    buffer = BytesIO()
    parquet.write_table(rows, buffer, write_page_checksum=True, compression="none")
    return buffer.getvalue()


def nested(value: Any, levels: int) -> Any:
    """A value inside so many lists."""
    return value if levels == 0 else [nested(value, levels - 1)]


TEN = b"".join(row(prompt=f"question {n}") + b"\n" for n in range(10))
GZIP = packed(TEN)
PARQUET = columns(prompt=["a" * 99, "c" * 99])
FOOTER = -8 - int.from_bytes(PARQUET[-8:-4], "little")
TWO_PROMPTS = pyarrow.table([["a"], ["b"]], names=["prompt", "prompt"])
ONE_NAME_TWICE = pyarrow.StructArray.from_arrays([pyarrow.array(["a", "b"])] * 2, ["k", "k"])
NO_TEXT = pyarrow.array([b"fine", b"caf\xe9"]).view(pyarrow.string())
UTC_NOW = [datetime(2026, 1, 1, tzinfo=UTC)] * 2

CONTAINERS = [
    # gzip
    Broken("cut.jsonl.gz", GZIP[:-20], None, "cut short"),
    Broken("cut-checksum.jsonl.gz", GZIP[:-3], None, "cut short"),
    Broken("head.jsonl.gz", GZIP[:2], None, "cut short"),
    Broken("half-head.jsonl.gz", GZIP[:1], 1, "not what its ending says"),
    Broken("damaged.jsonl.gz", flipped(GZIP, len(GZIP) // 2), None, "damaged"),
    Broken("checksum.csv.gz", flipped(packed(CSV), -8), None, "damaged"),
    Broken("length.json.gz", flipped(packed(b"[" + row() + b"]"), -1), None, "damaged"),
    Broken("method.jsonl.gz", flipped(GZIP, 2), None, "damaged"),
    Broken("trailing.jsonl.gz", GZIP + b"more", None, "goes on after its end"),
    Broken("padded.jsonl.gz", GZIP + bytes(512), None, "goes on after its end"),
    Broken("trailing-byte.jsonl.gz", GZIP + b"\x1f", None, "goes on after its end"),
    Broken("second-cut.jsonl.gz", GZIP + GZIP[:-9], None, "cut short"),
    Broken("second-damaged.jsonl.gz", GZIP + flipped(GZIP, -5), None, "damaged"),
    Broken("zlib.jsonl.gz", zlib.compress(TEN), 1, "not what its ending says"),
    Broken("plain.jsonl.gz", GOOD, 1, "not what its ending says"),
    Broken("zip.jsonl.gz", zipped(), 1, "zip archive"),
    Broken("empty.jsonl.gz", b"", 1, "empty"),
    Broken("of-nothing.csv.gz", packed(b""), 1, "empty"),
    Broken("no-row.csv.gz", packed(b"prompt,completion\n"), 1, "no row"),
    Broken("twice.jsonl.gz", packed(GZIP), 1, "compressed with gzip"),
    Broken("archive.jsonl.gz", archived(), 1, "NUL"),
    Broken("workbook.csv.gz", packed(zipped()), 1, "Excel"),
    Broken("table-inside.jsonl.gz", packed(CSV, "rows.csv"), 1, "not JSON"),
    Broken("list-inside.jsonl.gz", packed(b"[" + row() + b"]", "x.json"), 1, "to .json"),
    Broken("latin1.csv.gz", packed(CSV + b"caf\xe9,x\n"), 3, "not UTF-8"),
    Broken("fault.jsonl.gz", packed(TEN + b"{'prompt'"), 11, "single quotes"),
    Broken("fault.json.gz", packed(b"[" + row() + b",\n1]"), 2, "not an object"),
    Broken("ragged.tsv.gz", packed(b"prompt\tcompletion\n1\t2\t3\n"), 2, "3 cells"),
    Broken("second-fault.csv.gz", packed(CSV) + packed(b"3\n"), 3, "1 cells"),
    Broken("bomb.jsonl.gz", packed(b"x" * (17 * 2**20)), 1, "longer than 16 MiB"),
    Broken("row.jsonl.gz", packed(TEN + row(completion=None)), 11, "completion is null"),
    Broken("rows.gz", GZIP, None, "''"),
    Broken("rows.zip.gz", packed(zipped()), None, "'.zip' inside .gz"),
    Broken("rows.tar.gz", archived(), None, "'.tar' inside .gz"),
    Broken("rows.parquet.gz", packed(PARQUET), None, "compressed by itself"),
    # documents
    Broken("empty.txt", b"", 1, "empty"),
    Broken("blank.md", b" \n\r\n\t", 1, "no row"),
    Broken("mark-only.txt", b"\xef\xbb\xbf", 1, "no row"),
    Broken("latin1.txt", b"one\ncaf\xe9\n", 2, "not UTF-8"),
    Broken("cut-character.md", b"# one\n\n\xe2\x82", 3, "not UTF-8"),
    Broken("nul.txt", b"one\ntwo\n\0", 3, "NUL"),
    Broken("utf16.txt", "one".encode("utf-16"), 1, "UTF-16"),
    Broken("long.txt", (b"word " * 1023 + b"\n") * 4096, 3280, "divide it into several files"),
    Broken("gzip.txt", packed(b"one"), 1, "gunzip"),
    Broken("parquet.txt", PARQUET, 1, ".parquet"),
    Broken("page.md", b"<!DOCTYPE html><html></html>", 1, "web page"),
    Broken("word.md", zipped(), 1, "zip"),
    Broken("nul.md.gz", packed(b"one\n\0"), 2, "NUL"),
    Broken("cut.txt.gz", packed(b"one two three " * 99)[:-9], None, "cut short"),
    # Parquet
    Broken("empty.parquet", b"", 1, "empty"),
    Broken("head.parquet", b"PAR1", None, "is cut short: its 4 bytes"),
    Broken("cut.parquet", PARQUET[:-10], None, "is cut short: its"),
    Broken("cut-start.parquet", PARQUET[200:], 1, "not what its ending says"),
    Broken("text.parquet", GOOD, 1, "not what its ending says"),
    Broken("gzip.parquet", packed(PARQUET), 1, "gunzip"),
    Broken("arrow.parquet", b"ARROW1" + bytes(9), 1, "Arrow"),
    Broken("footer.parquet", flipped(PARQUET, FOOTER), None, "file is damaged: its end is there"),
    Broken("length.parquet", PARQUET[:-8] + b"\0\0\0\x80PAR1", None, "damaged"),
    Broken("page.parquet", flipped(PARQUET, 60), None, "file is damaged: its end is there"),
    Broken("no-rows.parquet", columns(prompt=[], completion=[]), 1, "no row"),
    Broken("same-columns.parquet", table(TWO_PROMPTS), None, "two columns"),
    Broken("same-fields.parquet", columns(more=ONE_NAME_TWICE), None, "two fields"),
    Broken("time.parquet", columns(at=UTC_NOW), None, "'at': holds values of the type 'timestamp"),
    Broken("date.parquet", columns(at=[date(2026, 1, 1)] * 2), None, "'date32[day]'"),
    Broken("span.parquet", columns(at=[timedelta(1)] * 2), None, "'duration"),
    Broken("decimal.parquet", columns(price=[Decimal("1.10")] * 2), None, "'decimal128"),
    Broken("bytes.parquet", columns(image=[b"\x89PNG"] * 2), None, "'binary'"),
    Broken("bytes-inside.parquet", columns(x=[{"bytes": b"a"}] * 2), None, "'x': holds"),
    Broken(
        "map.parquet",
        columns(x=pyarrow.array([[("k", 1)]] * 2, pyarrow.map_("string", "int64"))),
        None,
        "'map<",
    ),
    Broken(
        "extension.parquet",
        columns(x=pyarrow.array([bytes(16)] * 2, pyarrow.uuid())),
        None,
        "write it as text",
    ),
    Broken("deep.parquet", columns(x=[nested(1, 32)] * 2), None, "inside each other"),
    Broken("nan.parquet", columns(score=[0.5, float("nan")]), 2, "'score' holds NaN"),
    Broken("infinity.parquet", columns(x=[[{"y": 1.0}], [{"y": float("-inf")}]]), 2, "infinity"),
    Broken("not-utf8.parquet", columns(completion=NO_TEXT), 2, "not UTF-8"),
    Broken("long.parquet", columns(completion=["b", "x" * (17 * 2**20)]), 2, "longer than"),
    Broken("number.parquet", columns(prompt=["a", None]), 2, "prompt is null"),
    Broken("weight.parquet", columns(weight=[1, 0]), 2, "weight is '0'"),
    Broken("no-format.parquet", table(pyarrow.table({"question": ["a"]})), 1, "no format"),
]


ASKED: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "a", "output": "b"},
    "completion": {"prompt": "a", "completion": "b"},
    "preference": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "judged": {"prompt": "a", "completion": "b", "label": True},
    "chat": {"messages": [USER, SAYS]},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    "labelled": {"text": "a", "label": "b"},
    "text": {"text": "a"},
}
"""A good row of each format."""
WRONG = {"object": {"a": 1}, "list": [[1]], "null": None, "blank": "", "number": 7.5}


def generated() -> Iterator[Broken]:
    """Good rows with one fault each, its place known: cut at every byte, spoilt by every control
    character and every byte that is not UTF-8, and each field of each format of the wrong type."""
    good = {name: json.dumps(record).encode() for name, record in ASKED.items()}
    line = good["preference"]
    for size in range(1, len(line)):
        yield Broken(f"cut-{size}.jsonl", line + b"\n" + line[:size] + b"\n" + line, 2, "")
    for code in (*range(1, 9), *range(11, 13), *range(14, 32)):
        spoilt = line.replace(b'"b"', b'"b' + bytes([code]) + b'"')
        yield Broken(f"control-{code}.jsonl", line + b"\n" + spoilt, 2, "")
    for code in (*range(0x80, 0xC2, 3), *range(0xF5, 0x100)):
        spoilt = line.replace(b'"b"', b'"b' + bytes([code]) + b'"')
        yield Broken(f"byte-{code}.jsonl", line + b"\n" + spoilt, 2, "not UTF-8")
        yield Broken(f"byte-{code}.csv", CSV + b"a," + bytes([code]) + b"\n", 3, "not UTF-8")
    for name, record in ASKED.items():
        for key in record:
            for kind, value in WRONG.items():
                if (name, key, kind) in ALLOWED:
                    continue
                spoilt = json.dumps({**record, key: value}).encode()
                yield Broken(f"{name}-{key}-{kind}.jsonl", good[name] + b"\n" + spoilt, 2, "")
        for number, weight in enumerate((0, -1, "x", [1], True)):
            spoilt = json.dumps({**record, "weight": weight}).encode()
            yield Broken(f"{name}-weight-{number}.jsonl", good[name] + b"\n" + spoilt, 2, "weight")
        for key in record:
            less = json.dumps({k: v for k, v in record.items() if k != key}).encode()
            yield Broken(f"{name}-without-{key}.jsonl", good[name] + b"\n" + less, 2, "")

    for cells in (1, *range(3, 16)):
        ragged = CSV + b",".join([b"a"] * cells) + b"\n"
        yield Broken(f"cells-{cells}.csv", ragged, 3, f"{cells} cells")


ALLOWED = {
    (name, key, "blank")
    for name, key in (
        ("alpaca", "instruction"),
        ("completion", "prompt"),
        ("preference", "prompt"),
        ("judged", "prompt"),
        ("labelled", "text"),
    )
}
"""Questions that say nothing are rows; the quality audit tells of them."""
GENERATED = list(generated())


def refused(tmp_path: Path, source: Path) -> str:
    """The one sentence that refuses a source; nothing is written."""
    run = RunFolder(tmp_path / "run")
    run.create()
    with pytest.raises(DataError) as caught:
        prepare(run, Data(source=str(source)), seed=0, log=Log(quiet=True))
    assert caught.value.code == 3
    assert list(run.path.rglob("*")) == []
    message = str(caught.value)
    assert "\n" not in message and message.isprintable()
    assert "; " in message, "it says what is wrong and does not say what to do"
    return message


def test_there_are_enough_of_them() -> None:
    names = [broken.name for broken in (*MALFORMED, *CONTAINERS, *GENERATED)]
    assert len(names) == len(set(names)) >= 500


@pytest.mark.parametrize(
    "broken", [*MALFORMED, *CONTAINERS, *GENERATED], ids=lambda broken: broken.name
)
def test_a_malformed_file_is_refused_in_one_line(tmp_path: Path, broken: Broken) -> None:
    source = tmp_path / broken.name
    source.write_bytes(broken.content)
    message = refused(tmp_path, source)
    place = f"{source}: " if broken.line is None else f"{source}:{broken.line}: "
    assert message.startswith(place)
    assert broken.says in message
    assert source.read_bytes() == broken.content


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_a_record_is_refused_above_the_limit_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, ending: str
) -> None:
    monkeypatch.setattr(textfile, "LIMIT", 4096)
    monkeypatch.setattr(textfile, "PIECE", 256)
    source = tmp_path / f"long.{ending}"
    frame = {"jsonl": b'{"a":"%s"}\n', "json": b'[{"a":"%s"}]', "csv": b"a\n%s\n"}[ending]
    room = 4096 if ending == "json" else 4096 - len(frame.rpartition(b"\n")[0]) + 2
    room -= 2 if ending == "csv" else 0
    body = b"x" * (20_000 * size or room - 10)
    source.write_bytes(frame % body)
    if size:
        with pytest.raises(DataError, match=r"longer than .* MiB"):
            list(read(source))
    else:
        assert list(read(source))[0].fields == {"a": body.decode()}


def test_a_quote_never_closed_is_found_before_the_whole_file_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textfile, "LIMIT", 4096)
    source = tmp_path / "open.csv"
    source.write_bytes(b'a,b\n1,2\n"x,y\n' + b"1,2\n" * 100_000)
    pieces: list[int] = []
    with pytest.raises(DataError, match=r"open\.csv:3: .*never closed"):
        list(read(source, advance=pieces.append))
    assert sum(pieces) < 10_000


def make_folder(path: Path) -> None:
    path.mkdir()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere.jsonl"))


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_nothing(path: Path) -> None:
    path.with_name("row.jsonl").write_bytes(GOOD)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (make_folder, "no file in this folder"),
        (make_pipe, "a pipe"),
        (make_loop, "leads back to itself"),
        (make_dangling, "not there"),
        (make_device, "a device"),
        (make_socket, "cannot be opened"),
        (make_nothing, "did you mean 'row.jsonl'"),
    ],
)
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, says: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    source = Path("rows.jsonl")
    make(source)
    message = refused(tmp_path, source)
    assert message.startswith("rows.jsonl: ") and says in message


PAIR = b'{"prompt": "c", "completion": "d"}\n'


@pytest.mark.parametrize(
    ("files", "place", "says"),
    [
        ({"notes.doc": b"x", ".hidden.jsonl": GOOD}, "", "no file in this folder"),
        ({"README.md": b"x", ".git/rows.jsonl": GOOD}, "", "no file in this folder"),
        ({"a.jsonl": GOOD, "b/c.csv": CSV + b"3\n"}, "/b/c.csv:3", "1 cells"),
        ({"a.jsonl": GOOD, "b.jsonl.gz": GZIP[:-9]}, "/b.jsonl.gz", "cut short"),
        ({"a.jsonl": GOOD, "b.parquet": PARQUET[:-9]}, "/b.parquet", "cut short"),
        ({"a.jsonl": GOOD, "b.jsonl": b""}, "/b.jsonl:1", "empty"),
        ({"a.jsonl": GOOD, "b.json": b"[]"}, "/b.json:1", "no row"),
        ({"a.jsonl": GOOD, "b.jsonl": b"\n" + chat(USER, SAYS)}, "/b.jsonl:2", "'prompt' is miss"),
        ({"a.jsonl": GOOD, "b.txt": b"caf\xe9"}, "/b.txt:1", "not UTF-8"),
        ({"a.jsonl": GOOD, "b.tsv": CSV}, "/b.tsv:1", "looks divided by"),
        ({"a.jsonl": GOOD, "b.jsonl": "../outside.jsonl"}, "/b.jsonl", "is a link"),
        ({"a.jsonl": GOOD, "b.jsonl": "a.jsonl"}, "/b.jsonl", "is a link"),
        ({"a.jsonl": GOOD, "b.jsonl": "b.jsonl"}, "/b.jsonl", "is a link"),
        ({"a.jsonl": GOOD, "b": ".."}, "/b", "is a link"),
        ({"a.jsonl": GOOD, "b.jsonl": None}, "/b.jsonl", "a pipe"),
    ],
    ids=lambda value: value.strip("/") if isinstance(value, str) else None,
)
def test_a_malformed_folder_is_refused_in_one_line(
    tmp_path: Path, files: dict[str, Any], place: str, says: str
) -> None:
    """Bytes are a file, text is where a link leads, None is a pipe."""
    (tmp_path / "outside.jsonl").write_bytes(PAIR)
    for name, content in files.items():
        path = tmp_path / "rows" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            os.mkfifo(path)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    message = refused(tmp_path, tmp_path / "rows")
    assert message.startswith(f"{tmp_path}/rows{place}: ") and says in message
    kept = {name: content for name, content in files.items() if isinstance(content, bytes)}
    assert all((tmp_path / "rows" / name).read_bytes() == content for name, content in kept.items())


def test_a_name_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    source = tmp_path / "a\n\x1b[2Jb.jsonl"
    source.write_bytes(b'{"\x7f\\u001b[31m": 1}')
    assert "\\x1b" in refused(tmp_path, source)


ODD_TABLE = [
    ["007", "NA"],
    ["null", "None"],
    ["2024-01-05", "05/01/24"],
    ["1e5", "TRUE"],
    ["", "  kept  "],
    ["a,b", 'say "hi"'],
    ['"', '""'],
    ["two\nlines", "two\r\nlines"],
    ["old\rmac", "\n"],
    ["\u2028 and \u0085", "\x0b and \x0c and \x1c"],
    ["=1+1", "@sum"],
    ["\U0001f468\u200d\U0001f469\u200d\U0001f467", "e\u0301 and \xe9"],
    ["\u202eright", "tab\tinside"],
    ["\ufeff", "\\n"],
    ["-0.0", "9" * 400],
    ["1,234.50", "0x10"],
]


@pytest.mark.parametrize("mark", [",", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("last", ["", "end", "blank"])
def test_odd_cells_of_a_table_come_out_to_the_byte(
    tmp_path: Path, mark: str, end: str, start: str, last: str
) -> None:
    def written(cell: str) -> str:
        special = any(c in cell for c in f'{mark}"\r\n')
        return '"' + cell.replace('"', '""') + '"' if special else cell

    lines = [mark.join(written(cell) for cell in cells) for cells in [["p", "q"], *ODD_TABLE]]
    text = start + end.join(lines) + {"": "", "end": end, "blank": end * 3}[last]
    source = tmp_path / ("odd.csv" if mark == "," else "odd.tsv")
    source.write_bytes(text.encode())
    found = list(read(source))
    assert [list(record.fields.values()) for record in found] == ODD_TABLE
    first_after_lines = ODD_TABLE.index(["old\rmac", "\n"]) + 2 + 2
    assert found[8].origin.line == first_after_lines


ODD_VALUES = [
    "007",
    "",
    " kept ",
    "\0 and \x1f",
    "\u2028\u2029\x85",
    "\U0001f600",
    "e\u0301",
    "\ufeff",
    'quote " back \\ slash /',
    "[{]}",
    "\r\n",
    "<script>",
]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("ending", ["jsonl", "json"])
@pytest.mark.parametrize("piece", [5, 64, 2**20])
def test_odd_texts_of_json_come_out_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bool, ending: str, piece: int
) -> None:
    monkeypatch.setattr(textfile, "PIECE", piece)
    rows = [{"prompt": text, "completion": [text, 2**63, 0.1, True, None]} for text in ODD_VALUES]
    lines = [json.dumps(value, ensure_ascii=plain) for value in rows]
    source = tmp_path / f"odd.{ending}"
    text = "\r\n\r\n".join(lines) + "\n" if ending == "jsonl" else "[" + ",\n".join(lines) + "]"
    source.write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = list(read(source))
    assert [record.fields for record in found] == rows
    step = 2 if ending == "jsonl" else 1
    assert [record.origin.line for record in found] == [1 + step * i for i in range(len(rows))]


def test_odd_texts_reach_the_prepared_part_to_the_byte(tmp_path: Path) -> None:
    source = tmp_path / "odd.jsonl"
    rows = [{"prompt": f"{i}{text}", "completion": f"{text}."} for i, text in enumerate(ODD_VALUES)]
    source.write_text("".join(json.dumps(value) + "\n" for value in rows), encoding="utf-8")
    run = RunFolder(tmp_path / "run")
    run.create()
    prepare(run, Data(source=str(source), split="none"), seed=0, log=Log(quiet=True))
    found = read_part(run.path / "data", "train")
    assert [[m.content for m in r.messages] for r in found] == [list(r.values()) for r in rows]


def test_thirty_two_levels_are_read(tmp_path: Path) -> None:
    source = tmp_path / "deep.jsonl"
    source.write_bytes(b'{"x":' + b"[" * 31 + b"]" * 31 + b"}")
    assert len(list(read(source))) == 1


def test_a_table_larger_than_memory_allows_is_read(tmp_path: Path) -> None:
    source = tmp_path / "large.json"
    item = json.dumps({"prompt": "x" * 200_000, "completion": "y"})
    with source.open("w") as file:
        file.write("[" + ",".join([item] * 400) + "]")  # 80 MB on one line
    program = (
        "import resource, sys\n"
        "from tunesmith.core.tables import read\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(sum(1 for _ in read(sys.argv[1])))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(source)], capture_output=True, text=True, check=True
    )
    count, mebibytes = map(int, done.stdout.split())
    assert count == 400
    assert mebibytes < 40


BOMBS = {
    "lines.jsonl.gz": lambda: packed((b" " * 2**16 + b"\n") * 2**11 + GOOD),
    "word.jsonl.gz": lambda: packed(b"x" * 2**28),
    "document.txt.gz": lambda: packed((b"word" * 2**14 + b"\n") * 2**12),
    "same.parquet": lambda: table(pyarrow.table({"x": ["x" * 2**20] * 256})),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_cannot_unfold_in_memory(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BOMBS[name]())
    assert (tmp_path / name).stat().st_size < 2 * 2**20
    program = (
        "import resource, sys\n"
        "import pyarrow.parquet\n"
        "from tunesmith.core.errors import DataError\n"
        "from tunesmith.core.tables import read\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: sum(1 for _ in read(sys.argv[1]))\n"
        "except DataError: pass\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200


def test_the_command_says_one_line_and_exits_with_three(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(GOOD + b'{"prompt": "a", "complection": "b"}\n')
    command = [sys.executable, "-m", "tunesmith", "data", "rows.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "rows.jsonl:2: 'completion' is missing" in line and done.stdout == ""
    assert not list(tmp_path.rglob("data"))
