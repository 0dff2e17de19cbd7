"""What is measured against rivals: rows as token ids and labels, and how both sides train on them.

Synthetic rows of common words, seed 0, the same for every rival: what is measured is time, and
nobody's licence stands in the way. `bench/speed.py` runs them.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

COMMON = (
    "the of and to in is it you that he was for on are with as his they be at one have this "
    "from or had by not but some what there we can out other were all your when up use word "
    "how said an each she which do their time if will way about many then them would write "
    "like so these her long make thing see him two has look more day could go come did my "
    "sound no most number who over know water than call first people may down side been now "
    "find any new work part take get place made live where after back little only round man "
    "year came show every good me give our under "
)
WORDS = COMMON.split()
SHORTEST, LONGEST = 3, 300
IGNORED = -100
LABELS = ("billing", "delivery", "returns", "account", "other")

Encoded = tuple[list[int], list[int]]
"""Ids of a row, and as many labels: the id where it carries loss, else IGNORED."""


@dataclass(frozen=True)
class Workload:
    """A kind of training. `arms` are our ways to run it by name; each is set against the rival."""

    title: str
    make: Callable[[Any, int], list[Encoded]]
    rows: int
    batch: int = 8
    """Rows an optimiser step."""
    method: str = "lora"
    arms: dict[str, dict[str, Any]] = field(default_factory=lambda: {"ours": {}})
    rival: str = "trl"
    micro_batch: int = 2
    """The rival's, where none was found to be its fastest on this processor."""
    rounded: dict[str, Any] | None = None
    """How the rival is run once more, in bfloat16: its model, or its products where a model in
    bfloat16 would be another training."""
    bits: int | None = None
    """What both sides' bases are held in."""
    epochs: int = 1
    target: str = ""
    """What was aimed at, good and better, as a ratio to the rival."""


def words(draw: random.Random, median: float, sigma: float = 0.7) -> str:
    """A text of a lognormal count of words."""
    count = int(draw.lognormvariate(math.log(median), sigma))
    return " ".join(draw.choice(WORDS) for _ in range(min(LONGEST, max(SHORTEST, count))))


def turns_of(*texts: str) -> list[dict[str, str]]:
    """User and assistant by turns."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def encoded(tokenizer: Any, turns: list[dict[str, str]]) -> Encoded:
    """A conversation by the tokenizer's own template; every answer carries loss."""
    ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    labels = [IGNORED] * len(ids)
    for place, turn in enumerate(turns):
        if turn["role"] == "assistant":
            start = len(
                tokenizer.apply_chat_template(
                    turns[:place], tokenize=True, add_generation_prompt=True, return_dict=False
                )
            )
            end = tokenizer.apply_chat_template(
                turns[: place + 1], tokenize=True, return_dict=False
            )
            labels[start : len(end)] = ids[start : len(end)]
    return ids, labels


def short(tokenizer: Any, count: int) -> list[Encoded]:
    """Prompts and answers of about fifty words."""
    draw = random.Random(0)
    return [encoded(tokenizer, turns_of(words(draw, 50), words(draw, 50))) for _ in range(count)]


def long_prompts(tokenizer: Any, count: int) -> list[Encoded]:
    """Prompts of about 220 words, each answered by one of five labels."""
    draw = random.Random(0)
    asked = [(words(draw, 220, 0.4), draw.choice(LABELS)) for _ in range(count)]
    return [encoded(tokenizer, turns_of(*each)) for each in asked]


def conversations(tokenizer: Any, count: int) -> list[Encoded]:
    """Two to four short questions and answers behind 200 words that all have in common."""
    draw = random.Random(0)
    common = {"role": "system", "content": " ".join(draw.choice(WORDS) for _ in range(200))}
    rows = []
    for _ in range(count):
        texts = [words(draw, 20) for _ in range(2 * draw.randint(2, 4))]
        rows.append(encoded(tokenizer, [common, *turns_of(*texts)]))
    return rows


def documents(tokenizer: Any, count: int) -> list[Encoded]:
    """Windows of 1,024 tokens of running text, all of which carry loss."""
    draw, ids = random.Random(0), []
    while len(ids) < 1024 * count:
        ids += tokenizer(words(draw, 200) + ". ")["input_ids"]
    windows = [ids[1024 * i : 1024 * (i + 1)] for i in range(count)]
    return [(window, list(window)) for window in windows]


def texts(tokenizer: Any, count: int) -> list[Encoded]:
    """Texts of about fifty words to be put under ten labels; no token carries loss."""
    draw = random.Random(0)
    ids = [tokenizer(words(draw, 50))["input_ids"] for _ in range(count)]
    return [(each, [IGNORED] * len(each)) for each in ids]


HALVES: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours in bfloat16": {"arithmetic": "bfloat16"},
}
WORKLOADS = {
    "w1": Workload(
        "LoRA on short instructions",
        short,
        rows=64,
        arms={**HALVES, "ours in bytes": {"bits": 8, "arithmetic": "bytes"}},
        rounded={"dtype": "bfloat16"},
        target="1.7x; 2x (bytes 2.3x; 3x)",
    ),
    "w2": Workload(
        "LoRA, long prompt, one label",
        long_prompts,
        rows=24,
        arms=HALVES,
        rounded={"dtype": "bfloat16"},
        target="1.7x; 2.2x",
    ),
    "w3": Workload(
        "LoRA, conversations with a common start",
        conversations,
        rows=24,
        arms=HALVES,
        rounded={"dtype": "bfloat16"},
        target="2x; 3x",
    ),
    "w4": Workload(
        "LoRA on documents, packed 1,024",
        documents,
        rows=12,
        batch=4,
        arms=HALVES,
        rounded={"dtype": "bfloat16"},
        target="1.2x; 1.5x",
    ),
    "w5": Workload(
        "w1, every weight trained",
        short,
        rows=32,
        method="full",
        arms=HALVES,
        rounded={"bf16": True},
        target="1.3x; 1.6x",
    ),
    "w8": Workload(
        "a head on a frozen trunk",
        texts,
        rows=64,
        batch=16,
        method="head",
        arms=HALVES,
        rival="trainer",
        micro_batch=4,
        rounded={"bf16": True},
        epochs=10,
        target="8x; 10x",
    ),
    "w9": Workload(
        "w1 on a base in 4 bits (NF4)",
        short,
        rows=32,
        arms=HALVES,
        rounded={"dtype": "bfloat16"},
        bits=4,
        target="1.3x; 1.8x",
    ),
}
