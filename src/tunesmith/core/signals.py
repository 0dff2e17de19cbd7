"""SIGTERM and Ctrl-C as errors a run can obey: at once, or after the work in hand is saved."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType

from tunesmith.core.errors import Interrupted, Preempted, TunesmithError

KINDS: dict[int, type[TunesmithError]] = {
    signal.SIGTERM: Preempted,
    signal.SIGINT: Interrupted,
}

SENTENCES: dict[type[TunesmithError], str] = {
    Preempted: "stopped by SIGTERM; give the same command again to go on",
    Interrupted: "stopped by Ctrl-C; give the same command again to go on",
}

FINISHING = b"stopping: the step in hand is finished and saved first"
SAID: dict[type[TunesmithError], bytes] = {
    Preempted: FINISHING + b"\n",
    Interrupted: FINISHING + b" (Ctrl-C again: at once, back to the last save)\n",
}

ONE_PRESS = 0.5
"""Seconds within which several Ctrl-C are one: a launcher may hand on what the terminal has sent to
all of its group."""


class _Asked:
    """What the process was asked to do. One per process, as signals are."""

    kind: type[TunesmithError] | None = None
    again: bool = False
    since: float = 0.0
    deferrals: int = 0
    installed: bool = False


@contextmanager
def handlers() -> Iterator[None]:
    """For the door: inside, SIGTERM raises `Preempted` and SIGINT `Interrupted`."""
    if _Asked.installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _receive) for number in KINDS}
    _Asked.installed, _Asked.kind, _Asked.again = True, None, False
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _Asked.installed, _Asked.kind, _Asked.again = False, None, False


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, a signal only sets a flag that `requested()` reads. Contexts may be nested: a second
    Ctrl-C raises in the outermost one, and waits for the end of one inside it, which is a save.

    Leaving the outermost one normally raises what was asked for meanwhile; leaving it by an
    exception keeps that exception. Without `handlers()` around it installs them for its time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with nullcontext() if _Asked.installed else handlers():
        _Asked.deferrals += 1
        try:
            yield
        finally:
            _Asked.deferrals -= 1
        if _Asked.kind is not None and (_Asked.deferrals == 0 or _urgent()):
            raise error(_Asked.kind)


def requested() -> type[TunesmithError] | None:
    """What the process was asked to do, `Preempted` or `Interrupted`, and has not done yet."""
    return _Asked.kind


def error(kind: type[TunesmithError]) -> TunesmithError:
    """The sentence for a stop that was asked for."""
    return kind(SENTENCES[kind])


def _urgent() -> bool:
    """Whether somebody asked twice, and nothing is being saved."""
    return _Asked.again and _Asked.deferrals <= 1


def _receive(number: int, frame: FrameType | None) -> None:
    """Raise, or remember. The flag is set in both cases: a library may swallow the exception."""
    first, now = _Asked.kind is None, time.monotonic()
    if _Asked.kind is Interrupted and number == signal.SIGINT:
        _Asked.again = _Asked.again or now - _Asked.since > ONE_PRESS
    _Asked.since = now
    # SIGTERM wins over an earlier Ctrl-C: whoever sends it counts the seconds.
    _Asked.kind = Preempted if _Asked.kind is Preempted else KINDS[number]
    if _urgent() or not _Asked.deferrals:
        raise error(_Asked.kind)
    if first:
        # A write to the descriptor is the one way of printing that is safe in a handler.
        with suppress(OSError):
            os.write(2, SAID[KINDS[number]])
