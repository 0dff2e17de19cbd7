"""Processes that work side by side: jobs go to them as lines of JSON, and results come back so.

Each is `python -m tunesmith.data.crew`, a fresh interpreter: nothing is pickled or forked, so a
program of the user's is neither run again nor copied. One that loses its parent ends with it.
"""

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tunesmith.core import errors
from tunesmith.core.errors import ResourceError, TunesmithError

MOST = 16
"""More processes than this wait for the disk."""
GLANCE = 0.05
"""Seconds between looks at whether the parent is there; it takes longer to start another one."""
HOME = "tunesmith."
"""Jobs are functions of this package."""

Job = Callable[..., Any]


def cores() -> int:
    """The cores that this process may use."""
    return min(len(os.sched_getaffinity(0)), MOST)


class Crew:
    """`with Crew(2) as crew: for result in crew.each(function, settings): ...`"""

    def __init__(self, size: int | None = None) -> None:
        self.size = cores() if size is None else size
        self.idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        self.hired: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.hired:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def each(self, job: Job, settings: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
        """What the job returns for each of the settings, in their order; its first error too."""
        if self.size < 2 or len(settings) < 2:
            yield from (job(**each) for each in settings)
            return
        while len(self.hired) < self.size:
            self.hired.append(hired())
            self.idle.put(self.hired[-1])
        name = f"{job.__module__}:{job.__qualname__}"
        lines = [json.dumps({"job": name, "settings": dict(each)}) for each in settings]
        with ThreadPoolExecutor(self.size) as pool:
            waiting = [pool.submit(self.ask, line) for line in lines]
            try:
                for each in waiting:
                    yield each.result()
            finally:
                for each in waiting:
                    each.cancel()

    def ask(self, line: str) -> Any:
        """One job's result, from the next process that is free."""
        process = self.idle.get()
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):
            answer = ""
        finally:
            self.idle.put(process)
        return settled(answer)


def hired() -> subprocess.Popen[str]:
    """A process that waits for jobs. Its threads would only fight those of its neighbours."""
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    places = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],  # Nothing of the working directory is run.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, **alone, "PYTHONPATH": places},
    )


def settled(answer: str) -> Any:
    """The result in an answer; an error as it was raised."""
    if not answer:
        raise ResourceError(
            "a process that worked on the rows was killed, most often for want of memory; give "
            "the same command again: what is done is kept"
        )
    found = json.loads(answer)
    if "result" in found:
        return found["result"]
    kind = getattr(errors, found["error"], None)
    if isinstance(kind, type) and issubclass(kind, TunesmithError):
        raise kind(found["says"])
    raise RuntimeError(found["trace"])


def answered(line: str) -> dict[str, Any]:
    """Do the job of one line."""
    try:
        asked = json.loads(line)
        module, _, name = asked["job"].partition(":")
        if not module.startswith(HOME):
            raise ValueError(f"{module} is none of ours")
        return {"result": getattr(importlib.import_module(module), name)(**asked["settings"])}
    except Exception as error:
        told = {"error": type(error).__name__, "says": str(error)}
        return {**told, "trace": traceback.format_exc()}


def end_with_parent(parent: int) -> None:
    """End once the parent is gone: else the next one would do the same work beside us."""
    while os.getppid() == parent:
        time.sleep(GLANCE)
    os._exit(1)


def work() -> None:
    """Answer jobs until there are no more. An interrupt is for the parent to obey."""
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # What a library prints must not get between the answers.
    for line in sys.stdin:
        with suppress(BrokenPipeError):
            out.write(json.dumps(answered(line)) + "\n")
            out.flush()


if __name__ == "__main__":
    work()
