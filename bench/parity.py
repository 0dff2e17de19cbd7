"""SmolLM2 with the fast seams against TRL: the first loss, and the curve after it.

    python bench/parity.py [STEPS]

The same rows of `w1` in the same order, two a step, from the same numbers; writes
bench/results/parity.json.
"""

import json
import sys
from pathlib import Path

from machine import machine
from speed import once, sides_of
from workloads import WORKLOADS

ROWS_A_STEP = 2


def main() -> None:
    """Train both, compare step by step."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    count = steps * ROWS_A_STEP
    order = {"in_order": True, "batch": ROWS_A_STEP}
    ours = once("w1", "ours", order, count)
    _, best = sides_of(WORKLOADS["w1"], "trl")["trl"]
    theirs = once("w1", "trl", best | order | {"micro_batch": ROWS_A_STEP}, count)
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
