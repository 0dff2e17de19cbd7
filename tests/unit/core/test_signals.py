"""SIGTERM and Ctrl-C: at once at the door, after the work in hand where something is saved."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tunesmith.core import signals
from tunesmith.core.errors import Interrupted, Preempted, TunesmithError
from tunesmith.core.signals import deferred, handlers, requested

KINDS = [(signal.SIGTERM, Preempted), (signal.SIGINT, Interrupted)]


def send(number: int) -> None:
    """A signal to this process; its handler has run when this returns."""
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "kind"), KINDS)
def test_at_the_door_a_signal_raises_at_once(number: int, kind: type[TunesmithError]) -> None:
    before = signal.getsignal(number)
    with pytest.raises(kind, match="same command"), handlers():
        send(number)
        pytest.fail("the signal came too late")
    assert signal.getsignal(number) is before and requested() is None


@pytest.mark.parametrize(("number", "kind"), KINDS)
def test_deferred_work_is_finished_first(number: int, kind: type[TunesmithError]) -> None:
    done = []
    with pytest.raises(kind), handlers(), deferred():
        assert requested() is None
        send(number)
        done.append(requested())
    assert done == [kind]


def test_only_leaving_the_outermost_context_raises() -> None:
    done = []
    with pytest.raises(Preempted), handlers(), deferred():
        with deferred():
            send(signal.SIGTERM)
        done.append("after the inner one")
    assert done


def test_an_error_of_the_work_is_not_hidden() -> None:
    with pytest.raises(KeyError), handlers(), deferred():
        send(signal.SIGTERM)
        raise KeyError


def test_a_sentence_of_the_work_is_kept() -> None:
    with pytest.raises(Preempted, match="saved at step 3"), handlers(), deferred():
        send(signal.SIGTERM)
        if wanted := requested():
            raise wanted("saved at step 3")


def test_sigterm_wins_over_an_earlier_ctrl_c() -> None:
    with pytest.raises(Preempted), handlers(), deferred():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            send(number)


@pytest.fixture
def any_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two Ctrl-C are so close that they count as one."""
    monkeypatch.setattr(signals, "ONE_PRESS", -1.0)


@pytest.mark.usefixtures("any_moment")
def test_a_second_ctrl_c_does_not_wait(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interrupted, match="same command"), handlers(), deferred():
        send(signal.SIGINT)
        assert "Ctrl-C again: at once" in capfd.readouterr().err
        send(signal.SIGINT)
        pytest.fail("the second one came too late")


@pytest.mark.usefixtures("any_moment")
def test_a_second_ctrl_c_waits_for_a_save() -> None:
    done = []
    with pytest.raises(Interrupted), handlers(), deferred():
        with deferred():
            for _ in range(3):
                send(signal.SIGINT)
            done.append("saved")
        pytest.fail("nothing after the save was to be waited for")
    assert done == ["saved"]


def test_one_press_that_comes_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "ONE_PRESS", 60.0)
    done = []
    with pytest.raises(Interrupted), handlers(), deferred():
        for _ in range(2):
            send(signal.SIGINT)
        done.append("the step in hand")
    assert done


def test_a_library_that_swallows_the_exception_delays_it_only() -> None:
    with pytest.raises(Preempted), handlers():
        with suppress(Exception):  # as optional imports do it
            send(signal.SIGTERM)
        with deferred():
            assert requested() is Preempted


def test_without_the_door_a_save_still_finishes() -> None:
    before = signal.getsignal(signal.SIGINT)
    done = []
    with pytest.raises(Interrupted), deferred():
        send(signal.SIGINT)
        done.append(True)
    assert done and signal.getsignal(signal.SIGINT) is before


def test_in_a_thread_nothing_is_installed() -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with handlers(), deferred():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


SAVE = """
import sys, time
from pathlib import Path
import torch
from tunesmith.core.errors import TunesmithError
from tunesmith.core.signals import handlers
from tunesmith.train import checkpoint
import tunesmith.model.load

try:
    with handlers():
        snapshot = checkpoint.Snapshot(step=0, cursor=0, model={"a": torch.zeros(1 << 18)})
        print("ready", flush=True)
        while True:
            snapshot.step += 1
            checkpoint.save(Path(sys.argv[1]), snapshot)
except TunesmithError as error:
    print(error)
    sys.exit(error.code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_real_signal_to_a_process_that_saves(tmp_path: Path, number: int, code: int) -> None:
    from tunesmith.train import checkpoint

    command = [sys.executable, "-c", SAVE, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    while not checkpoint.steps(tmp_path):
        assert process.poll() is None
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == code and "same command" in said
    assert len(said.splitlines()) == 1
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert checkpoint.newest(tmp_path) is not None
