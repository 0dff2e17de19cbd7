"""One process at a time in a run folder."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunesmith.core.errors import ResourceError
from tunesmith.core.folders import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from tunesmith.core.folders import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def holder(run: RunFolder) -> "subprocess.Popen[str]":
    """A real second process that holds the run."""
    command = [sys.executable, "-c", HOLD, str(run.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]", number: int) -> None:
    process.send_signal(number)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_second_process_is_refused_in_one_line_with_the_pid(run: RunFolder) -> None:
    process = holder(run)
    with pytest.raises(ResourceError) as refused, run.lock():
        pass
    assert f"in use by process {process.pid};" in str(refused.value)
    assert "\n" not in str(refused.value)
    end(process, signal.SIGKILL)
    with run.lock():  # what a dead process left is no obstacle
        assert json.loads((run.path / "lock").read_text())["pid"] == os.getpid()


def test_the_same_process_is_refused_too(run: RunFolder) -> None:
    with run.lock():
        with pytest.raises(ResourceError, match=f"process {os.getpid()};"), run.lock():
            pass
        with pytest.raises(ResourceError), run.lock():  # the refusal did not let go
            pass
    with run.lock():
        pass


def test_a_forked_child_does_not_keep_the_lock(run: RunFolder) -> None:
    """A loader's worker may outlive a killed parent."""
    read, write = os.pipe()
    parent = os.fork()
    if not parent:
        with run.lock():
            child = os.fork()
            if not child:
                time.sleep(60)
                os._exit(0)
            os.write(write, str(child).encode())
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    worker = int(os.read(read, 20))
    for file in (read, write):
        os.close(file)
    try:
        with run.lock():
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_without_locks_on_the_disk_the_process_id_decides(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    process = holder(run)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ResourceError, match=f"process {process.pid};"), run.lock():
        pass
    end(process, signal.SIGKILL)
    with run.lock():
        pass
    stale = {"pid": os.getppid(), "boot": "an earlier boot"}
    (run.path / "lock").write_text(json.dumps(stale))
    with run.lock():
        pass


def test_a_link_in_the_place_of_the_lock_is_not_followed(run: RunFolder, tmp_path: Path) -> None:
    (run.path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResourceError, match="cannot lock the run"), run.lock():
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_an_error_inside_is_not_taken_for_one_of_the_lock(run: RunFolder) -> None:
    with pytest.raises(OSError, match="mine"), run.lock():
        raise OSError("mine")
    with run.lock():
        pass
