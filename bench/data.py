"""What preparing many rows costs: seconds and memory, from ten thousand rows to a million.

    python bench/data.py 10000 100000 1000000

Seeded conversations of about 500 bytes, a tenth of them nearly one of the last thousand, are
mended, deduplicated by likeness, searched for personal data and secrets, and split. Each size runs
in a process of its own; bench/results/data.json keeps the numbers.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "data.json"
STEPS = ["normalise", {"kind": "deduplicate", "match": "near"}, "redact"]
SIZES = (10_000, 100_000, 1_000_000)


def one(rows: int) -> dict[str, Any]:
    """Prepare so many rows, here."""
    sys.path.insert(0, str(ROOT))
    from tests.planted import stream
    from tunesmith.core.folders import RunFolder
    from tunesmith.core.log import Log
    from tunesmith.data import stage
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

    stage.LARGE = 0
    path = Path("rows.jsonl")
    with path.open("w") as out:
        out.writelines(json.dumps(record) + "\n" for record in stream(rows))
    spec = stage.Data(source=str(path), transforms=STEPS, audits=())
    folder, log = RunFolder(Path("runs/bench")), Watch(quiet=True)
    folder.create()
    before, began = time.process_time(), time.perf_counter()
    stage.prepare(folder, spec, seed=0, log=log)
    seconds = time.perf_counter() - began
    account = json.loads((folder.path / "data" / "account.json").read_text())
    mine = resource.getrusage(resource.RUSAGE_SELF)
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = sum(each.ru_utime + each.ru_stime for each in (mine, workers)) - before
    return {
        "rows": rows,
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "cores": cores(),
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds),
        "steps": log.seconds,
        "cpu_seconds": round(used, 2),
        "peak_megabytes": round((mine.ru_maxrss + cores() * workers.ru_maxrss) / 1024),
        "parts": account["parts"],
        "dropped": {step["kind"]: step["dropped"] for step in account["steps"]},
        "changed": {step["kind"]: step["changed"] for step in account["steps"]},
    }


def measured(rows: int) -> dict[str, Any]:
    """The same in a process of its own, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--one", str(rows)]
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    """The results as lines of Markdown."""
    yield "| rows | MB | seconds | of CPU | rows/s | peak MB | seconds of each step |"
    yield "|---|---|---|---|---|---|---|"
    for each in found:
        steps = "; ".join(f"{name.partition(',')[0]} {s}" for name, s in each["steps"].items())
        names = ("megabytes", "seconds", "cpu_seconds", "rows_per_second", "peak_megabytes")
        cells = [f"{each['rows']:,}", *(f"{each[name]:,}" for name in names), steps]
        yield f"| {' | '.join(cells)} |"


def main(words: list[str]) -> None:
    """Measure every size, and keep what was measured before of others."""
    if words[:1] == ["--one"]:
        print(json.dumps(one(int(words[1]))))
        return
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    sizes = [int(word) for word in words] or [*SIZES]
    found = [each for each in kept if each["rows"] not in sizes]
    for rows in sizes:
        found.append(measured(rows))
        found.sort(key=lambda each: each["rows"])
        RESULTS.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    print("\n".join(table(found)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1:])
