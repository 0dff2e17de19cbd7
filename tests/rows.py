"""Example records of every kind; examples and batches of random ids behind the tokenizer."""

import random
from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import Any

from tunesmith.core.records import IGNORE, Batch, Example, Sequence, collate
from tunesmith.core.rows import Origin


def example(
    length: int, size: int, seed: int, *, share: float = 0.5, weight: float = 1.0
) -> Example:
    """A row of `length` ids below `size`, whose last `share` is supervised."""
    draw = random.Random(seed)
    ids = tuple(draw.randrange(size) for _ in range(length))
    first = int(length * (1 - share))
    targets = tuple(ids[t + 1] if t + 1 < length and t >= first else IGNORE for t in range(length))
    return Example(
        (Sequence(ids, targets),), f"row{seed}", Origin("rows.jsonl", seed + 1), weight=weight
    )


def examples(lengths: Many[int], size: int, *, share: float = 0.5) -> list[Example]:
    """One row for each length."""
    return [example(n, size, seed, share=share) for seed, n in enumerate(lengths)]


def batch(lengths: Many[int], size: int, *, share: float = 0.5) -> Batch:
    """The rows as one padded batch on the CPU."""
    return collate(examples(lengths, size, share=share), "cpu")


def records(text: Callable[[], str]) -> dict[str, dict[str, Any]]:
    """A record in each format that is found out from the keys, by kind; `text` makes its texts."""

    def ask() -> dict[str, Any]:
        return {"role": "user", "content": text()}

    def say() -> dict[str, Any]:
        return {"role": "assistant", "content": text()}

    chosen = text()  # equal answers are refused
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return {
        "alpaca": {"instruction": text(), "input": text(), "output": text(), "system": text()},
        "chat": {
            "messages": [
                {"role": "system", "content": text()},
                ask(),
                {**say(), "weight": 0},
                ask(),
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": text(), "tool_call_id": "1"},
                {**say(), "train": True},
            ],
            "weight": 0.1,
            "metadata": {"case": 2**63 - 1, "kept": [True, None], "none": None, "x": 1e-300},
        },
        "completion": {"prompt": text(), "completion": text()},
        "judged": {"prompt": text(), "completion": text(), "label": True},
        "labelled": {"text": text(), "label": text()},
        "preference": {"prompt": text(), "chosen": chosen, "rejected": f"{text()}|{chosen}"},
        "sharegpt": {
            "conversations": [
                {"from": "human", "value": text()},
                {"from": "gpt", "value": text()},
            ]
        },
        "text": {"text": text()},
    }
