"""What every sink promises: the numbers arrive, nothing leaves the machine, no run stops."""

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from tests.trained import base_of, prepared, settings
from tunesmith import environment
from tunesmith.core.errors import ResourceError
from tunesmith.core.log import Log
from tunesmith.train.sinks.base import Sink, Writer
from tunesmith.train.stage import train

Tiny = Callable[[str], Path]
SINKS: dict[str, Any] = dict(Sink.members())


@pytest.fixture(autouse=True)
def _as_the_door_leaves_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No telemetry, as in every command; the environment is put back."""
    before = dict(os.environ)
    environment.enter()
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module", autouse=True)
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where Trackio keeps its data base: it looks once, when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        yield Path(os.environ["TRACKIO_DIR"])


def there(kind: str) -> Sink:
    """The sink with its own settings; skipped where its library is not installed."""
    sink: Sink = SINKS[kind]()
    if importlib.util.find_spec(sink.library) is None:
        pytest.skip(f"{sink.library} is not installed (pip install 'tunesmith[{kind}]')")
    return sink


@pytest.mark.parametrize("kind", SINKS)
def test_the_numbers_of_a_run_stay_on_the_machine_and_out_of_its_result(
    kind: str, tiny: Tiny, tmp_path: Path, stores: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = settings(sinks=[there(kind).model_dump()])
    folder = prepared(tmp_path / "run")
    train(folder, spec, base_of(tiny("llama")), seed=0, log=Log(folder))
    said = capfd.readouterr()
    senders = [thread.name for thread in threading.enumerate() if "Exporting" in thread.name]
    assert senders == [], "something would be sent from time to time"
    assert "warning: a sink" not in said.err and "warning: the sink" not in said.err
    assert said.out == "", "stdout belongs to the command's result"
    stage = folder.stage("train")
    place = stores if kind == "trackio" else stage.path / "sinks" / kind
    written = [path for path in place.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in written) > 0, "nothing was written"
    for path in written:
        path.write_bytes(b"looked at, and changed by that")
    stage.manifest()
    (stage.path / "MANIFEST.json").unlink()
    train(folder, spec, base_of(tiny("llama")), seed=0, log=Log(folder))
    assert stage.finished, "what a sink left stops no run that goes on"


def test_what_mlflow_is_given_can_be_read_back(tmp_path: Path) -> None:
    sink = there("mlflow")
    fill(sink.open(tmp_path, "bot"))
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    home = client.get_experiment_by_name("tunesmith").experiment_id
    (run,) = client.search_runs([home])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 2.5), (2, 2.0)]
    assert run.info.run_name == "bot" and run.info.status == "FINISHED"


def fill(writer: Writer) -> None:
    """Two steps."""
    writer.write(1, {"loss": 2.5})
    writer.write(2, {"loss": 2.0})
    writer.close()


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.train.sinks import base

    monkeypatch.setattr(base, "find_spec", lambda name: None)
    for kind, member in SINKS.items():
        with pytest.raises(ResourceError, match=rf"tunesmith\[{kind}\]"):
            member().accept()


class Broken(Sink, Writer):
    """A sink that fails where it is told to."""

    kind: Literal["broken"] = "broken"
    library: ClassVar[str] = "json"
    at: str
    """`open`, `write` or `close`."""

    def fail(self, here: str) -> None:
        if here == self.at:
            raise ConnectionError(f"it broke in {here}")

    def open(self, folder: Path, name: str) -> Writer:
        self.fail("open")
        return self

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.fail("write")

    def close(self) -> None:
        self.fail("close")


class Kept(Sink, Writer):
    """A sink that remembers in memory what it was given."""

    kind: Literal["kept"] = "kept"
    library: ClassVar[str] = "json"
    given: ClassVar[list[tuple[int, set[str]]]] = []

    def open(self, folder: Path, name: str) -> Writer:
        return self

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.given.append((step, {*values}))

    def close(self) -> None:
        pass


def test_a_sink_gets_the_look_before_training_too(tiny: Tiny, tmp_path: Path) -> None:
    folder, spec = prepared(tmp_path / "run"), settings()
    spec = spec.model_copy(update={"sinks": [Kept()]})
    train(folder, spec, base_of(tiny("llama")), seed=0, log=Log(folder))
    looks = [step for step, names in Kept.given if "held_out/loss" in names]
    assert looks == [0, 3, 6, 9]


@pytest.mark.parametrize("at", ["open", "write", "close"])
def test_a_sink_that_fails_stops_nothing(
    at: str, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, spec = prepared(tmp_path / "run"), settings()
    spec = spec.model_copy(update={"sinks": [Broken(at=at), *settings().sinks]})
    train(folder, spec, base_of(tiny("llama")), seed=0, log=Log(folder))
    assert folder.stage("train").finished
    assert capsys.readouterr().err.count(f"it broke in {at}") == 1


def test_trackio_says_nothing_on_stdout_when_the_process_ends(tmp_path: Path) -> None:
    there("trackio")
    code = (
        "from pathlib import Path\n"
        "from tunesmith.train.sinks.trackio import Trackio\n"
        "writer = Trackio().open(Path('.'), 'bot')\n"
        "writer.write(1, {'loss': 2.0})\n"
        "writer.close()\n"
    )
    words, home = [sys.executable, "-c", code], {"TRACKIO_DIR": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | home)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
