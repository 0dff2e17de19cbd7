"""Kill a piece of work at random, let it go on, and compare: no difference may remain.

The work runs in a forked child, so heavy imports are paid once. It gets a folder, resumes by
itself from what it finds there, and `result` reads what it left.
"""

import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

COUNTED = ("during a save", "between saves")
"""The classes of a kill that say something about resuming."""

PATIENCE = 300.0
"""Seconds after which a child that should have ended is taken for hanging."""


@dataclass
class Kills:
    """What happened: kills by class, and every resume that went wrong."""

    seed: int
    classes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def counted(self) -> int:
        """Kills that a resume had to mend."""
        return sum(self.classes[name] for name in COUNTED)


def kill_loop(
    work: Callable[[Path], None],
    result: Callable[[Path], str],
    folder: Path,
    *,
    checkpoints: str,
    kills: int,
    seed: int,
    aimed: float = 0.5,
) -> Kills:
    """Kill `work` until `kills` counted ones were resumed; each in a fresh folder below `folder`.

    `checkpoints` is where, below the work's folder, its checkpoints lie. A share `aimed` of the
    kills waits for a save to begin, since saves are a small part of the time.
    """
    chance, found = random.Random(seed), Kills(seed)
    duration, wanted = untouched(work, result, folder / "untouched")
    for trial in range(20 * kills):
        if found.counted >= kills:
            break
        place = folder / f"trial-{trial}"
        place.mkdir()
        child = start(work, place)
        if chance.random() < aimed:
            await_save(place / checkpoints, child, after=chance.uniform(0, duration))
            time.sleep(chance.uniform(0, 0.01))
        else:
            time.sleep(chance.uniform(0, duration))
        ended = stop(child)
        found.classes["after the end" if ended else classify(place / checkpoints)] += 1
        failure = resume(work, result, place, wanted)
        if failure:
            found.failures.append(f"seed {seed}, trial {trial}: {failure}")
    return found


def untouched(
    work: Callable[[Path], None], result: Callable[[Path], str], place: Path
) -> tuple[float, str]:
    """How long the work takes, and what it gives, when nobody disturbs it."""
    place.mkdir(parents=True)
    began = time.monotonic()
    assert wait(start(work, place)) == 0, (place / "error.txt").read_text()
    return time.monotonic() - began, result(place)


def resume(
    work: Callable[[Path], None], result: Callable[[Path], str], place: Path, wanted: str
) -> str:
    """Let the work finish; an empty text, or what is wrong."""
    if wait(start(work, place)) != 0:
        return (place / "error.txt").read_text()
    return "" if (got := result(place)) == wanted else f"{got} instead of {wanted}"


def start(work: Callable[[Path], None], place: Path) -> int:
    """The work in a child of its own; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        work(place)
        code = 0
    except BaseException:
        (place / "error.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """The exit status of a child that ends by itself."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    stop(child)
    return -signal.SIGKILL


def stop(child: int) -> bool:
    """SIGKILL; whether the child had ended before."""
    ended, _ = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return bool(ended)


def await_save(checkpoints: Path, child: int, *, after: float) -> None:
    """Return when a save is seen that began later than `after` seconds, or the child ended."""
    began = time.monotonic()
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() - began > after and is_saving(checkpoints):
            return
        time.sleep(0.0002)


def is_saving(checkpoints: Path) -> bool:
    """Whether a save has begun and has not cleaned up yet."""
    try:
        names = os.listdir(checkpoints)
    except FileNotFoundError:
        return False
    return any(name.startswith((".tmp-", ".trash-")) for name in names)


def classify(checkpoints: Path) -> str:
    """Where a kill hit, from what it left."""
    if is_saving(checkpoints):
        return "during a save"
    whole = checkpoints.is_dir() and any(p.name.startswith("step-") for p in checkpoints.iterdir())
    return "between saves" if whole else "before first checkpoint"
