"""W1: short synthetic instructions, the same for every rival, as token ids and labels."""

import math
import random
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
ROWS, MEDIAN, SIGMA, SHORTEST, LONGEST = 256, 50, 0.7, 3, 300


def texts(count: int = ROWS) -> list[tuple[str, str]]:
    """Prompt and answer of each row: lognormal word counts, seed 0."""
    draw = random.Random(0)

    def text() -> str:
        words = int(draw.lognormvariate(math.log(MEDIAN), SIGMA))
        return " ".join(draw.choice(WORDS) for _ in range(min(LONGEST, max(SHORTEST, words))))

    return [(text(), text()) for _ in range(count)]


def encoded(tokenizer: Any, count: int) -> list[tuple[list[int], int]]:
    """Ids of each whole row by the tokenizer's own template, and how many belong to the prompt."""
    rows = []
    for prompt, answer in texts(count):
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        start = tokenizer.apply_chat_template(
            turns[:1], tokenize=True, add_generation_prompt=True, return_dict=False
        )
        whole = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        rows.append((whole, len(start)))
    return rows
