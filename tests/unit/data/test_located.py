"""Rows from a folder and from a data set of the hub: what vouches for them, what rows remember."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import DataError, ResourceError, SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.tables import read_part
from tunesmith.data import stage as stage_module
from tunesmith.data.hub import DataSet, data_set
from tunesmith.data.stage import Data, prepare


def lines(*numbers: int) -> bytes:
    """Rows that all ask something else."""
    rows = [{"prompt": f"q {n}", "completion": f"a {n}"} for n in numbers]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


# --- folders ---------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """An empty run folder."""
    folder = RunFolder(tmp_path / "runs" / "x")
    folder.create()
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A folder of rows in two containers."""
    folder = tmp_path / "rows"
    (folder / "below").mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(lines(*range(20)))
    (folder / "below" / "b.csv.gz").write_bytes(gzip.compress(b"prompt,completion\nq,b\n"))
    return folder


def done(run: RunFolder, source: Path, **settings: Any) -> list[str]:
    """Prepare everything as training rows; where each was read."""
    data = Data(source=str(source), **{"split": "none", **settings})
    prepare(run, data, seed=0, log=Log(quiet=True))
    return [str(row.origin) for row in read_part(run.path / "data", "train")]


def test_rows_of_a_folder_keep_their_own_file_and_line(rows: Path, run: RunFolder) -> None:
    found = done(run, rows)
    assert found[:2] == ["rows/a.jsonl:1", "rows/a.jsonl:2"]
    assert found[20:] == ["rows/below/b.csv.gz:2"]
    account = json.loads((run.path / "data" / "account.json").read_text())
    assert account["files"][0]["file"] == "rows" and account["files"][0]["rows"] == 21


@pytest.mark.parametrize("change", ["content", "name", "more", "less"])
def test_a_changed_folder_is_prepared_again(rows: Path, run: RunFolder, change: str) -> None:
    done(run, rows)
    if change == "content":
        (rows / "a.jsonl").write_bytes(lines(*range(5)))
    if change == "name":
        (rows / "a.jsonl").rename(rows / "z.jsonl")
    if change == "more":
        (rows / "c.jsonl").write_bytes(lines(30))
    if change == "less":
        (rows / "a.jsonl").unlink()
    found = done(run, rows)
    assert len(found) == {"content": 6, "name": 21, "more": 22, "less": 1}[change]
    assert len(list((run.path / "earlier").glob("*/data/MANIFEST.json"))) == 1


def test_what_is_no_row_in_a_folder_changes_nothing(
    rows: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = done(run, rows)
    (rows / "README.md").write_text("About these rows.")
    (rows / ".DS_Store").write_bytes(b"\0")
    shutil.move(rows, moved := rows.parent / "elsewhere")
    monkeypatch.setattr(stage_module, "divided", lambda *_: pytest.fail("done again"))
    assert done(run, moved) == before


def test_a_folder_that_changes_while_it_is_read_is_refused(
    rows: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage_module.divided

    def meanwhile(*arguments: Any) -> Any:
        result = real(*arguments)
        (rows / "c.jsonl").write_bytes(lines(30))
        return result

    monkeypatch.setattr(stage_module, "divided", meanwhile)
    with pytest.raises(DataError, match="changed while it was read"):
        done(run, rows)


def test_held_out_rows_may_be_folders_too(rows: Path, run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(rows, tmp_path / "held")
    with pytest.raises(DataError, match=r"answers the prompt of held/a\.jsonl:1, "):
        done(run, rows, test=str(tmp_path / "held"))


# --- the hub ---------------------------------------------------------------------------------

FIRST, SECOND = "1" * 40, "2" * 40


@dataclass
class Served:
    """What a hub of one data set has: the files of each commit, and which one `main` is."""

    commits: dict[str, dict[str, bytes]]
    main: str = FIRST
    address: str = ""
    asked: list[str] = field(default_factory=list)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as the official client asks for one data set."""

    def __init__(self, served: Served, *rest: Any) -> None:
        self.served = served
        super().__init__(*rest)

    def do_GET(self) -> None:
        self.reply(body=True)

    def do_HEAD(self) -> None:
        self.reply(body=False)

    def reply(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        self.served.asked.append(path)
        commit, content = self.found(path)
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def found(self, path: str) -> tuple[str, bytes]:
        """The commit that is meant, and what is asked of it."""
        for start in ("/api/datasets/own/er/tree/", "/api/datasets/own/er/revision/"):
            if path.startswith(start):
                commit, files = self.of(path.removeprefix(start))
                if not files:
                    break
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                    for name, content in files.items()
                ]
                names = [{"rfilename": name} for name in files]
                facts = {"id": "own/er", "sha": commit, "siblings": names}
                return commit, json.dumps(tree if "/tree/" in start else facts).encode()
        if path.startswith("/datasets/own/er/resolve/"):
            revision, _, name = path.removeprefix("/datasets/own/er/resolve/").partition("/")
            commit, files = self.of(revision)
            return commit, files.get(name, b"")
        return self.served.main, b""

    def of(self, revision: str) -> tuple[str, dict[str, bytes]]:
        """The commit that a revision means, and its files."""
        commit = self.served.main if revision == "main" else revision
        return commit, self.served.commits.get(commit, {})

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[Served]:
    """A hub with one data set, which also holds files that are not to be fetched."""
    about = {"README.md": b"# about\n", "er.py": b"never", "data.pkl": b"never"}
    served = Served(
        {
            FIRST: {"data/train-0.jsonl": lines(1, 2), "data/train-1.jsonl": lines(3)} | about,
            SECOND: {"data/train-0.jsonl": lines(*range(4, 9)), "test.jsonl": lines(9)} | about,
        }
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, served))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield served
    server.shutdown()
    server.server_close()


def told(home: Path, served: Served, *words: str) -> subprocess.CompletedProcess[str]:
    """`tunesmith data ...` in a fresh process, where the client reads these settings."""
    settings = {
        "HF_ENDPOINT": served.address,
        "HF_HOME": str(home / "hf"),
        "TUNESMITH_CACHE": str(home / "cache"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, "-m", "tunesmith", "data", *words, "data.split=none"]
    environment = os.environ | settings
    return subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, timeout=120
    )


def origins(home: Path) -> list[str]:
    """Where the prepared rows were read."""
    return [str(row.origin) for row in read_part(home / "runs" / "er" / "data", "train")]


def test_a_data_set_is_fetched_once_at_one_commit(hub: Served, tmp_path: Path) -> None:
    """By allow-list, named by its commit, which every later command of the run stays at."""
    first = told(tmp_path, hub, "hub:own/er")
    assert first.returncode == 0, first.stderr
    place = f"hub:own/er@{FIRST}"
    train = ["data/train-0.jsonl:1", "data/train-0.jsonl:2", "data/train-1.jsonl:1"]
    assert origins(tmp_path) == [f"{place}/{inside}" for inside in train]
    assert not any(name.endswith((".py", ".pkl")) for name in hub.asked)
    stage = RunFolder(tmp_path / "runs" / "er").stage("data")
    assert stage.inputs["commit of hub:own/er"] == FIRST
    assert stage.manifest()["facts"]["commits"] == {"commit of hub:own/er": FIRST}
    assert json.loads((stage.path / "account.json").read_text())["files"][0]["file"] == place

    hub.main, count = SECOND, len(hub.asked)
    again = told(tmp_path, hub, "hub:own/er")
    assert again.returncode == 0 and "prepared before" in again.stderr
    other = told(tmp_path, hub, "hub:own/er", "data.transforms=[]")
    assert other.returncode == 0 and "prepared before" not in other.stderr
    assert len(origins(tmp_path)) == 3 and len(hub.asked) == count, "neither needs the hub"

    anew = told(tmp_path, hub, "hub:own/er", "--restart")
    assert anew.returncode == 0, anew.stderr
    assert len(origins(tmp_path)) == 6 and SECOND in origins(tmp_path)[0]


def test_files_and_a_commit_of_a_data_set_are_named_behind_it(hub: Served, tmp_path: Path) -> None:
    words = (f"hub:own/er@{SECOND}/data/train*", f"data.test=hub:own/er@{SECOND}/test.jsonl")
    done = told(tmp_path, hub, *words, "name=er")
    assert done.returncode == 0, done.stderr
    assert len(origins(tmp_path)) == 5
    (row,) = read_part(tmp_path / "runs" / "er" / "data", "test")
    assert str(row.origin) == f"hub:own/er@{SECOND}/test.jsonl:1"
    shutil.rmtree(tmp_path / "hf")
    shutil.rmtree(tmp_path / "runs")
    count = len(hub.asked)
    assert told(tmp_path, hub, *words, "name=er").returncode == 0
    assert len(hub.asked) == count, "a kept commit needs no hub"


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("hub:own/er/valid*", 3, "holds no file valid* that ends in one of"),
        ("hub:own/other", 5, "cannot be fetched from the hub"),
        ("hub:own/er@nowhere", 5, "cannot be fetched from the hub"),
        ("hub:er", 2, "write hub:owner/name"),
    ],
)
def test_a_data_set_that_is_not_there_is_one_line(
    hub: Served, tmp_path: Path, name: str, code: int, says: str
) -> None:
    done = told(tmp_path, hub, name, "name=er")
    assert done.returncode == code and says in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "runs" / "er" / "data").exists()


def test_a_damaged_cache_is_refused(hub: Served, tmp_path: Path) -> None:
    assert told(tmp_path, hub, "hub:own/er").returncode == 0
    kept = next((tmp_path / "cache" / "data").glob("hub-*/*train-1*"))
    kept.unlink()
    kept.write_bytes(lines(7))
    done = told(tmp_path, hub, "hub:own/er", "data.transforms=[]")
    assert done.returncode == 4 and "changed" in done.stderr


def test_without_a_network_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def none(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", none)
    with pytest.raises(ResourceError, match="copy its files here and name their folder") as caught:
        DataSet("own/er").at_commit(None)
    assert "\n" not in str(caught.value) and caught.value.code == 5


def test_what_names_a_data_set() -> None:
    assert data_set("rows.jsonl") is None
    assert data_set("hub:own/er") == DataSet("own/er")
    assert data_set("hub:own/er@v1.0/a/b*.csv") == DataSet("own/er", "v1.0", "a/b*.csv")
    for name in ("hub:", "hub:er", "hub:own/er@", "hub:own/er/", "hub:../er"):
        with pytest.raises(SettingsError, match="hub:owner/name"):
            data_set(name)
