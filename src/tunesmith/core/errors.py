"""Every way a run can stop: a sentence for the person who must act, and an exit code."""

import errno
from typing import ClassVar


class TunesmithError(Exception):
    """Something a person can mend. The text says where, what, and what to do next."""

    code: ClassVar[int] = 2


class SettingsError(TunesmithError):
    """A run file, an override or a command that cannot be meant. Carries every problem found."""

    code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DataError(TunesmithError):
    """Rows that cannot be read, or may not be trained on."""

    code = 3


class IntegrityError(TunesmithError):
    """A file that is damaged, does not belong here, or could run code."""

    code = 4


class ResourceError(TunesmithError):
    """Not enough disk, memory, rights, or a library that is not installed."""

    code = 5


class TrainError(TunesmithError):
    """Training diverged: a number is not finite."""

    code = 6


class Preempted(TunesmithError):
    """SIGTERM was obeyed: the state is saved and the same command goes on from it."""

    code = 75


class Interrupted(TunesmithError):
    """Ctrl-C was obeyed; what was saved stays and the same command goes on from it."""

    code = 130


def missing(library: str, extra: str) -> ResourceError:
    """The error for an optional library that is not installed, with the command that mends it."""
    return ResourceError(
        f"{library} is not installed, and this step needs it. Run: pip install 'tunesmith[{extra}]'"
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch or the system had no memory left. torch says it of a GPU in a type of
    its own, told by its name (to import torch takes seconds), of a CPU in a plain RuntimeError."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    said = ("not enough memory", "can't allocate memory", "cuda out of memory")
    return named or any(text in str(error).lower() for text in said)
