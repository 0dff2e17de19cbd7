"""How long Python's search for garbage takes of a short command, as it comes and as ours sets it.

    python bench/garbage.py [--rounds 3]

`evaluate` on 24 labelled rows with a head on the frozen bundled model, from rows to report, and
`predict` of one row with the result, each in a fresh process. Writes bench/results/garbage.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from whole import keep

WAYS = ("as it comes", "ours")
SETTINGS = "data: {source: rows.jsonl}\ntrain: {method: frozen, objective: classify}\n"
CODE = """
import gc, json, sys, time
began, spent, walks, start = time.perf_counter(), 0.0, 0, 0.0
def note(phase, facts):
    global spent, walks, start
    if phase == "start":
        start = time.perf_counter()
        return
    spent += time.perf_counter() - start
    walks += facts["generation"] == 2
gc.callbacks.append(note)
from tunesmith import cli, door, environment
if sys.argv[1] == "as it comes":
    environment.collect_rarely = lambda: None
code = door.enter(cli.app, sys.argv[2:])
found = {"code": code, "seconds": time.perf_counter() - began, "garbage": spent, "whole": walks}
print(json.dumps(found), file=sys.stderr)
"""


def took(place: str, way: str, *words: str) -> dict[str, Any]:
    """Seconds of a command in a fresh process, those of its searches, and how many went over all
    that lives."""
    command = [sys.executable, "-W", "ignore", "-c", CODE, way, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=os.environ)
    found: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    if found.pop("code"):
        raise SystemExit(done.stderr)
    return found


def main() -> None:
    """Both ways by turns, round by round."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        rows = [{"text": f"row {i} of some", "label": ("odd", "even")[i % 2]} for i in range(24)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        Path(place, "rows.jsonl").write_text(text)
        Path(place, "ask.jsonl").write_text(json.dumps({"text": "row 3"}) + "\n")
        Path(place, "bot.yaml").write_text(SETTINGS)
        for number in range(parser.parse_args().rounds):
            rounds.append({})
            for way in WAYS if number % 2 else WAYS[::-1]:
                name = f"name={way[0]}{number}"
                run = took(place, way, "evaluate", "bot.yaml", name)
                asked = took(place, way, "predict", name.partition("=")[2], "ask.jsonl")
                rounds[-1][way] = {"evaluate": run, "predict": asked}
                print(way, rounds[-1][way], flush=True)
    middle = {
        way: {
            command: {
                name: statistics.median(each[way][command][name] for each in rounds)
                for name in ("seconds", "garbage", "whole")
            }
            for command in ("evaluate", "predict")
        }
        for way in WAYS
    }
    keep("garbage", {"middle": middle, "rounds": rounds})


if __name__ == "__main__":
    main()
