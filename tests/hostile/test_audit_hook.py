"""What Python's own audit events say while a run goes from a folder to an export (S2)."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesmith.deploy import verify

ROOT = Path(__file__).parents[2]

SCRIPT = """
import json, sys

seen = []
FORBIDDEN = {
    "os.system", "os.exec", "os.posix_spawn", "os.startfile", "pty.spawn",
    "os.fork", "os.forkpty", "pickle.find_class", "subprocess.Popen",
    "socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request",
}

def hook(event, arguments):
    if event in FORBIDDEN:
        seen.append([event, repr(arguments)[:2000], where()])

def where():
    frame, names = sys._getframe(2), []
    while frame is not None and len(names) < 12:
        names.append(frame.f_code.co_filename + ":" + frame.f_code.co_name)
        frame = frame.f_back
    return names

from tests.trained import base_of, prepared, settings, trained
from tunesmith.core.log import Log
from tunesmith.deploy.exports.merged import Merged
from tunesmith.deploy.stage import Deploy, deploy
from tunesmith.model.load import load_model

source, place = __import__("pathlib").Path(sys.argv[1]), __import__("pathlib").Path(sys.argv[2])
sys.addaudithook(hook)
if "canary" in sys.argv:
    import os, pickle, socket
    pickle.loads(pickle.dumps(os.getcwd))
    socket.getaddrinfo("127.0.0.1", 80)
    print(json.dumps({"seen": seen}))
    sys.exit()
base = base_of(source)
load_model(base)
run = trained(prepared(place), base, settings(epochs=1, batch=8))
steps = json.loads((run.path / "train/train.json").read_text())["steps"]
deploy(run, Deploy(exports=[Merged()]), base, seed=0, log=Log(run, quiet=True))
print(json.dumps({"steps": steps, "seen": seen}))
"""


def watched(tiny: Callable[[str], Path], tmp_path: Path, *more: str) -> dict[str, Any]:
    """A whole small run in a process of its own that writes down what it must not do."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny("llama")), str(tmp_path / "run"), *more],
        env=os.environ | {"TUNESMITH_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_hook_sees(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """Otherwise the test below could not fail."""
    seen = [each[0] for each in watched(tiny, tmp_path, "canary")["seen"]]
    assert "pickle.find_class" in seen and "socket.getaddrinfo" in seen


def test_a_run_does_nothing_that_is_forbidden(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    found = watched(tiny, tmp_path)
    assert found["steps"] == 2 and (tmp_path / "run/deploy/merged/model.safetensors").is_file()
    ours = [each for each in found["seen"] if verify.__name__ in each[1]]
    assert [each[0] for each in ours] == ["subprocess.Popen"], "the export's own reload"
    others = [each for each in found["seen"] if each not in ours]
    assert not others, json.dumps(others, indent=1)
