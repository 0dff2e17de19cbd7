"""The way in and out of a command: its surroundings set, every end an exit code and a sentence."""

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import typer
import typer.exceptions

from tunesmith import environment
from tunesmith.core import rights
from tunesmith.core.errors import ResourceError, SettingsError, TunesmithError, out_of_memory
from tunesmith.core.log import redact
from tunesmith.core.quote import printable
from tunesmith.core.signals import handlers

INTERNAL = 7
"""The exit code of a fault of ours."""

NO_MEMORY = "out of memory; close other programs, or lower train.micro_batch"

OF_THE_MACHINE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE),
    *rights.DENIED,
)


class Visit:
    """What the command in this process works on; one per process, as exit codes are."""

    folder: ClassVar[Path | None] = None
    given: ClassVar[str] = ""
    """The run file and overrides as given: what a piece of advice calls RUN.yaml."""


def enter(command: Callable[..., Any], words: Sequence[str]) -> int:
    """Run a command; its exit code. Nothing but a sentence reaches the screen."""
    environment.enter()
    Visit.given = ""
    as_json = "--json" in words
    try:
        with handlers():
            return int(command(list(words), prog_name="tunesmith", standalone_mode=False) or 0)
    except BrokenPipeError:
        return reader_left()
    except SystemExit as left:
        # The command library answers a closed pipe with exit 1 before we see it.
        if isinstance(left.__context__, BrokenPipeError):
            return reader_left()
        raise
    except KeyboardInterrupt:
        return tell(SettingsError("stopped by Ctrl-C before any work"), 130, as_json)
    except typer.Exit as done:
        return done.exit_code
    except typer.Abort:
        return tell(SettingsError("stopped before any work"), 130, as_json)
    except typer.exceptions.TyperException as error:
        return tell(SettingsError(usage(error)), 2, as_json)
    except TunesmithError as error:
        return tell(error, error.code, as_json)
    except MemoryError:
        return tell(ResourceError(NO_MEMORY), ResourceError.code, as_json)
    except Exception as error:
        return surprise(error, as_json)


def usage(error: Any) -> str:
    """A wrong call, with the command that explains the right one."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "tunesmith"
    return f"{error.format_message().rstrip('.')}; see: {command} --help"


def tell(error: TunesmithError, code: int, as_json: bool) -> int:
    """Say what stopped the command, as lines on stderr or as JSON on stdout."""
    problems = [redact(advised(p)) for p in getattr(error, "problems", (str(error),))]
    if as_json:
        kind = type(error).__name__
        say(sys.stdout, json.dumps({"error": {"kind": kind, "code": code, "problems": problems}}))
    else:
        for problem in problems:
            say(sys.stderr, printable(problem))
    return code


def advised(problem: str) -> str:
    """A problem with the command that was given in its advice, ready to be pasted."""
    return problem.replace("RUN.yaml", Visit.given) if Visit.given else problem


def say(stream: Any, line: str) -> None:
    """One line, even where nobody listens or the terminal knows ASCII only."""
    try:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except (OSError, ValueError):
        pass


def surprise(error: Exception, as_json: bool) -> int:
    """A fault of the machine that no stage put into words, or a fault of ours."""
    if out_of_memory(error):
        return tell(ResourceError(NO_MEMORY), ResourceError.code, as_json)
    if isinstance(error, OSError) and of_the_machine(error):
        return tell(ResourceError(failed(error)), ResourceError.code, as_json)
    import traceback

    path = keep(traceback.format_exc())
    first = next(iter(str(error).splitlines()), "")
    told = TunesmithError(
        f"internal error: {type(error).__name__}: {first}; "
        f"this is a fault of tunesmith, and what a report needs is in {path}"
    )
    return tell(told, INTERNAL, as_json)


def of_the_machine(error: OSError) -> bool:
    """Whether the machine refused something, and not we asked for what cannot be."""
    denied = error.errno in rights.DENIED
    return error.errno in OF_THE_MACHINE and (not denied or error.filename is not None)


def failed(error: OSError) -> str:
    """What the machine refused, and what to do."""
    from tunesmith.core.disk import ADVICE

    where = f"{error.filename}: " if error.filename else ""
    advice = ADVICE.get(error.errno or 0, "free or repair the disk, then run it again")
    if error.errno in rights.DENIED and error.filename:
        path = Path(os.fsdecode(error.filename))
        unwritable = os.access(path, os.R_OK) and not os.access(path, os.W_OK)
        missing = unwritable or not os.path.lexists(path)
        advice = rights.missing(path, "w" if missing else "r", error.errno)
    return f"{where}{error.strerror}; {advice}"


def keep(trace: str) -> str:
    """Write a traceback, secrets left out, into the run's folder or a temporary one."""
    import tempfile

    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    temporary = Path(tempfile.gettempdir())
    homes = [h for h in (Visit.folder, temporary) if h is not None and h.is_dir()]
    for home in homes:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            file = os.open(home / name, flags, 0o600)
            with os.fdopen(file, "w", encoding="utf-8", errors="backslashreplace") as opened:
                opened.write(redact(trace))
            return str(home / name)
        except OSError:
            continue
    return "no file, as none could be written"


def reader_left() -> int:
    """Whoever read our output has enough (`| head`): that is no error."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 0
