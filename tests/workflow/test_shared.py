"""One base for several runs: each answers as it does alone, in words and from Python."""

from pathlib import Path

import pytest

import tunesmith
from tests.tiny import tiny_model
from tests.workflow.test_transfer import made
from tunesmith.core.errors import SettingsError, TunesmithError
from tunesmith.core.folders import RunFolder

ASKED = "say 3 twice"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a base and two runs of different ranks on it, the first one deployed."""
    place = tmp_path_factory.mktemp("shared")
    tiny_model("llama", place / "base")
    made(place, "one", place / "base", until="deploy", deploy={"exports": ["adapter"]})
    train = {"lr": 1e-2, "method": {"kind": "lora", "rank": 2, "targets": "attention"}}
    made(place, "two", place / "base", train=train)
    return place


def test_runs_on_one_base_answer_as_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    alone = {name: tunesmith.load(name).answer(ASKED) for name in ("one", "two")}
    base = tunesmith.base("base")
    before = base.answer(ASKED)
    for name in alone:
        base.add(name, name)
    (exported,) = RunFolder(home / "runs" / "one").stage("deploy").path.glob("*/tunesmith.json")
    base.add("exported", exported.parent)
    base.combine("half", {"one": 0.5, "two": 0.5})
    assert base.names == ("one", "two", "exported", "half") and base.used is None
    for name in ("one", "two", "one"):
        base.use(name)
        assert base.answer(ASKED) == alone[name]
    base.use("exported")
    assert base.answer([{"role": "user", "content": ASKED}]).startswith(alone["one"])
    base.use("half")
    assert base.answer(ASKED) not in (alone["one"], alone["two"]), "between the two"
    base.use(None)
    assert base.answer(ASKED) == before
    base.remove("exported")
    with pytest.raises(TunesmithError, match="no adapter of this name"):
        base.use("exported")


def test_a_base_that_chooses_labels_writes_nothing(home: Path, tmp_path: Path) -> None:
    from tests.tiny import tiny_encoder

    with pytest.raises(SettingsError, match="chooses labels and writes nothing"):
        tunesmith.base(str(tiny_encoder("bert", tmp_path / "bert"))).answer("red")
