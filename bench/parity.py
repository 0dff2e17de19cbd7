"""SmolLM2 with the fast seams against TRL: the first loss, and the curve after it.

    python bench/parity.py [STEPS]

The same rows in the same order, two a step, from the same numbers; bench/results/parity.json.
"""

import json
import os
import sys
from pathlib import Path

from machine import machine
from w1 import once

ROWS_A_STEP = 2


def main() -> None:
    """Train both, compare step by step."""
    os.environ["IN_ORDER"] = "1"
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    count = steps * ROWS_A_STEP
    ours = once("ours", {}, count=count, batch=ROWS_A_STEP)
    theirs = once("trl", {"micro_batch": 2}, count=count, batch=ROWS_A_STEP)
    differences = [abs(a - b) for a, b in zip(ours["losses"], theirs["losses"], strict=True)]
    result = {
        "machine": machine(),
        "first_difference": differences[0],
        "largest_difference": max(differences),
        "differences": differences,
        "ours": ours["losses"],
        "trl": theirs["losses"],
    }
    path = Path(__file__).parent / "results" / "parity.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"first step {differences[0]:.1e}, largest of {steps} {max(differences):.1e}")


if __name__ == "__main__":
    main()
