"""A million damaged files: each is read as it stands or refused in one sentence, at once."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.core.errors import TunesmithError
from tunesmith.data.source import Reading, rows

pytestmark = pytest.mark.evidence

CASES = 1_000_000
SLOW = 1.0
"""Seconds after which a case counts as hanging."""
TALK = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
SEEDS: dict[str, bytes] = {
    "a.jsonl": b"".join(json.dumps(TALK).encode() + b"\n" for _ in range(3)),
    "b.jsonl": b'{"text": "caf\xc3\xa9", "label": 1}\n{"text": "b", "label": "x", "weight": 2}\n',
    "c.json": b'[{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]',
    "d.csv": b'prompt,completion\n"a ""b""",c\n"d\ne",f\n',
    "e.tsv": b"text\tlabel\na\tb\nc\td\n",
    "f.jsonl": b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n',
    "g.txt": b"A document.\n",
    "h.jsonl": b'{"instruction": "a", "input": "", "output": "b"}\n',
    "i.jsonl": b'{"conversations": [{"from": "human", "value": "a"}, '
    b'{"from": "gpt", "value": "b"}]}\n',
}
PARTS = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
]
PARTS += [b"null", b"NaN", b"1e999", b"\\ud800", b"\xef\xbb\xbf", b"[" * 40, b'"role"', b'"weight"']


def cut(text: bytes, draw: random.Random) -> bytes:
    """Without a stretch."""
    start = draw.randrange(len(text) + 1)
    return text[:start] + text[start + draw.randrange(1, 9) :]


def put(text: bytes, draw: random.Random) -> bytes:
    """With something that has a meaning somewhere."""
    start = draw.randrange(len(text) + 1)
    return text[:start] + draw.choice(PARTS) + text[start:]


def flip(text: bytes, draw: random.Random) -> bytes:
    """With another byte."""
    start = draw.randrange(len(text)) if text else 0
    return text[:start] + bytes([draw.randrange(256)]) + text[start + 1 :]


def twice(text: bytes, draw: random.Random) -> bytes:
    """With a stretch said again."""
    start = draw.randrange(len(text) + 1)
    return text[:start] + text[start : start + 20] + text[start:]


DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [cut, put, flip, twice]


def test_a_million_damaged_files(tmp_path: Path) -> None:
    draw, refused = random.Random(0), 0
    names = sorted(SEEDS)
    for number in range(CASES):
        name = names[number % len(names)]
        text = SEEDS[name]
        for _ in range(draw.randint(1, 4)):
            text = draw.choice(DAMAGES)(text, draw)
        path = tmp_path / name
        path.write_bytes(text)
        began = time.perf_counter()
        try:
            for _, row in rows(Reading(path)):
                assert row.digest
        except TunesmithError as error:
            refused += 1
            assert "\n" not in str(error) and name in str(error), (text, str(error))
        assert time.perf_counter() - began < SLOW, text
    assert CASES // 4 < refused < CASES
