"""What preparing many rows costs: seconds and memory, from ten thousand rows to a million.

    python bench/data.py 10000 100000 1000000 [--audits pii secrets]

Seeded conversations of about 500 bytes, a tenth of them nearly one of the last thousand, some with
an address or a token, are mended, deduplicated by likeness, freed of personal data and secrets,
split and audited. Each size runs in a process of its own; bench/results/data.json keeps the
numbers. The peak is the sum of the peaks of all processes, which they need not reach at once.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "data.json"
STEPS = ["normalise", {"kind": "deduplicate", "match": "near"}, "redact"]
SIZES = (10_000, 100_000, 1_000_000)
AUDITS = ("pii", "secrets")
MAIL, TOKEN = 50, 100
"""One of so many rows holds one."""


def planted(rows: int) -> Iterator[dict[str, Any]]:
    """The conversations."""
    from tests.planted import stream

    for number, record in enumerate(stream(rows)):
        if number % MAIL == 0:
            record["prompt"] += f" Write to person{number}@example.org."
        if number % TOKEN == 1:
            record["prompt"] += f" The token is ghp_{number:036}."
        yield record


def one(rows: int, audits: Sequence[str]) -> dict[str, Any]:
    """Prepare so many rows, here."""
    sys.path.insert(0, str(ROOT))
    from tunesmith.core.folders import RunFolder
    from tunesmith.core.log import Log
    from tunesmith.data import intake, stage
    from tunesmith.data.crew import cores

    class Watch(Log):
        """A log that takes the time of whatever shows progress."""

        seconds: dict[str, float] = {}

        @contextmanager
        def progress(
            self, what: str, total: int, *, done: int = 0
        ) -> Iterator[Callable[..., None]]:
            began = time.perf_counter()
            with super().progress(what, total, done=done) as advance:
                yield advance
            self.seconds[what] = round(time.perf_counter() - began, 2)

    intake.LARGE = 0
    path = Path("rows.jsonl")
    with path.open("w") as out:
        out.writelines(json.dumps(record) + "\n" for record in planted(rows))
    spec = stage.Data(source=str(path), transforms=STEPS, audits=audits)
    folder, log = RunFolder(Path("runs/bench")), Watch(quiet=True)
    folder.create()
    before, began = time.process_time(), time.perf_counter()
    stage.prepare(folder, spec, seed=0, log=log)
    seconds = time.perf_counter() - began
    account = json.loads((folder.path / "data" / "account.json").read_text())
    found = json.loads((folder.path / "data" / "findings.json").read_text())
    mine = resource.getrusage(resource.RUSAGE_SELF)
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = sum(each.ru_utime + each.ru_stime for each in (mine, workers)) - before
    return {
        "rows": rows,
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "cores": cores(),
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds),
        "steps": {name.partition(",")[0]: each for name, each in log.seconds.items()},
        "cpu_seconds": round(used, 2),
        "peak_megabytes": round((mine.ru_maxrss + cores() * workers.ru_maxrss) / 1024),
        "peak_of_first_megabytes": round(mine.ru_maxrss / 1024),
        "findings": [f"{each['audit']}: {each['what']}" for each in found],
        "parts": account["parts"],
        "dropped": {step["kind"]: step["dropped"] for step in account["steps"]},
        "changed": {step["kind"]: step["changed"] for step in account["steps"]},
    }


def measured(rows: int, audits: Sequence[str] = AUDITS) -> dict[str, Any]:
    """The same in a process of its own, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--one", str(rows)]
        command += ["--audits", *audits]
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    """The results as lines of Markdown: all of it, then rows a second of each step and audit."""
    yield "| rows | MB | seconds | of CPU | rows/s | peak MB |"
    yield "|---|---|---|---|---|---|"
    for each in found:
        names = ("megabytes", "seconds", "cpu_seconds", "rows_per_second", "peak_megabytes")
        cells = [f"{each['rows']:,}", *(f"{each[name]:,}" for name in names)]
        yield f"| {' | '.join(cells)} |"
    steps = list(dict.fromkeys(name for each in found for name in each["steps"]))
    sizes = [f"{each['rows']:,}" for each in found]
    yield f"\n| rows/s of | {' | '.join(sizes)} |"
    yield f"|---|{'---|' * len(found)}"
    for step in steps:
        speeds = [each["rows"] / each["steps"].get(step, float("inf")) for each in found]
        yield f"| {step} | {' | '.join(f'{speed:,.0f}' for speed in speeds)} |"
    rest = [each["rows"] / (each["seconds"] - sum(each["steps"].values())) for each in found]
    yield f"| split, writing, the rest | {' | '.join(f'{speed:,.0f}' for speed in rest)} |"


def main() -> None:
    """Measure every size, and keep what was measured before of others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--audits", nargs="*", default=AUDITS)
    parser.add_argument("--one", action="store_true")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.sizes[0], given.audits)))
        return
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    found = [each for each in kept if each["rows"] not in given.sizes]
    for rows in given.sizes:
        found.append(measured(rows, given.audits))
        found.sort(key=lambda each: each["rows"])
        RESULTS.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    print("\n".join(table(found)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
