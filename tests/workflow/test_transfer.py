"""A run that starts from an earlier one: on its merged model, or going on with its weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_model
from tunesmith import answers, shelf
from tunesmith.cards import model_card
from tunesmith.core.errors import IntegrityError, SettingsError, TunesmithError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.job import Job
from tunesmith.model import bases
from tunesmith.model.bases import ModelSpec, resolve
from tunesmith.model.load import load_model
from tunesmith.pipeline import carry_out
from tunesmith.run import from_mapping

IDS = torch.arange(3, 40)[None]


class Heard(Log):
    """A log that remembers what it was told to say."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def made(
    home: Path, name: str, source: str | Path, until: str = "train", **changes: Any
) -> RunFolder:
    """The run `name` of a project, done as far as `until`."""
    folder = RunFolder(home / "runs" / name)
    carry_out(Job(loaded(home, name, source, **changes), folder, Log(quiet=True)), until)
    return folder


def loaded(home: Path, name: str, source: str | Path, **changes: Any) -> Any:
    """Its settings: three quick steps that move the weights."""
    rows = home / "rows.jsonl"
    if not rows.exists():
        lines = [{"prompt": f"say {i} twice", "completion": f"{i} {i}"} for i in range(24)]
        rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    train = {"steps": 3, "batch": 4, "probes": 0, "lr": 3e-3, "method": {"kind": "lora", "rank": 4}}
    settings = {
        "name": name,
        "model": {"source": str(source), **changes.pop("model", {})},
        "data": {"source": str(rows), "split": {"valid": 4, "test": 4}},
        "train": train | changes.pop("train", {}),
        "evaluate": {"metrics": ["perplexity"]},
    }
    return from_mapping(settings, changes)


def facts(folder: RunFolder) -> dict[str, Any]:
    """What a finished training says of itself."""
    found: dict[str, Any] = json.loads((folder.path / "train" / "train.json").read_text())
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the trained run `first`. Read only; `copied` gives one to change."""
    home = tmp_path_factory.mktemp("project")
    tiny_model("llama", home / "tiny")
    made(home, "first", home / "tiny")
    return home


@pytest.fixture
def copied(project: Path, tmp_path: Path) -> Path:
    """The project at another place, as it is when its folder was moved."""
    shutil.copytree(project, tmp_path / "copied")
    return tmp_path / "copied"


def test_a_new_adapter_stands_on_the_merged_model(copied: Path) -> None:
    first = copied / "runs" / "first"
    second = made(copied, "second", first, until="deploy")
    before = answers.load(first).policy.model(IDS).logits
    base = answers.load(second.path, arm="base").policy.model(IDS).logits
    torch.testing.assert_close(base, before, rtol=1e-4, atol=1e-4)
    tuned = answers.load(second.path).policy.model(IDS).logits
    assert not torch.allclose(tuned, before, atol=1e-3)
    assert facts(second)["held_out_before"] == pytest.approx(facts(RunFolder(first))["best_value"])


def test_the_merged_model_is_made_once(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.model import earlier

    spec = ModelSpec(source=str(copied / "runs" / "first"))
    first = resolve(spec)

    def never(*_: Any) -> None:
        raise AssertionError("merged again")

    monkeypatch.setattr(earlier, "fill", never)
    assert resolve(spec) == first


def test_continuing_starts_from_the_weights_of_the_earlier_run(copied: Path) -> None:
    first = RunFolder(copied / "runs" / "first")
    second = made(copied, "second", first.path, model={"start": "continue"})
    assert facts(second)["held_out_before"] == pytest.approx(facts(first)["best_value"], rel=1e-6)
    assert facts(second)["base"]["digest"] == facts(first)["base"]["digest"]
    assert facts(second)["base"]["source"] == str(copied / "tiny")


def test_full_training_goes_on_from_the_model_that_was_left(copied: Path) -> None:
    full = {"method": {"kind": "full"}, "lr": 1e-3}
    whole = made(copied, "whole", copied / "tiny", train=full)
    after = made(copied, "after", whole.path)
    assert resolve(ModelSpec(source=str(whole.path))).folder == whole.path / "train"
    onward = made(copied, "onward", whole.path, model={"start": "continue"}, train=full)
    best = pytest.approx(facts(whole)["best_value"], rel=1e-5)
    assert facts(after)["held_out_before"] == best
    assert facts(onward)["held_out_before"] == best


def test_a_whole_model_is_checked_like_any_folder(copied: Path) -> None:
    whole = made(copied, "whole", copied / "tiny", train={"method": {"kind": "full"}})
    (whole.path / "train" / "sinks").mkdir()
    (whole.path / "train" / "sinks" / "latest").symlink_to(copied)
    spec = ModelSpec(source=str(whole.path))
    assert resolve(spec).folder == whole.path / "train", "a sink's files are no part of the model"
    config = whole.path / "train" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"A": "evil.A"}}))
    whole.stage("train").finish()
    with pytest.raises(IntegrityError, match=r"config\.json: auto_map asks for code"):
        resolve(spec)


def test_where_a_run_came_from_is_told(copied: Path) -> None:
    made(copied, "second", copied / "runs" / "first", model={"start": "continue"})
    third = made(copied, "third", copied / "runs" / "second", until="deploy")
    told = third.manifest()["from"]
    assert (told["run"], told["start"]) == ("second", "merged")
    assert told["training"] == RunFolder(copied / "runs" / "second").stage("train").digest
    assert (told["from"]["run"], told["from"]["start"]) == ("first", "continue")
    assert told["from"]["base"]["digest"] == resolve(ModelSpec(source=str(copied / "tiny"))).digest
    card = model_card.write(third).read_text()
    assert "| earlier run: run | second |" in card
    assert "| before that, earlier run: run | first |" in card
    listed = {run["name"]: run for run in shelf.runs(copied / "runs")}
    assert listed["third"]["from"]["run"] == "second" and listed["first"]["from"] == {}
    drawn = shelf.table(list(listed.values())).splitlines()
    assert drawn[-2:] == ["from second", "(merged)"], drawn


def unfinished(home: Path) -> None:
    (home / "runs" / "first" / "train" / "MANIFEST.json").unlink()


def damaged(home: Path) -> None:
    path = home / "runs" / "first" / "train" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_base(home: Path) -> None:
    shutil.rmtree(home / "tiny")
    tiny_model("llama", home / "tiny", seed=5)


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (unfinished, SettingsError, "nothing finished here"),
        (damaged, IntegrityError, "adapter_model.safetensors"),
        (other_base, IntegrityError, "was trained on .* Put that base back"),
    ],
)
@pytest.mark.parametrize("start", ["merged", "continue"])
def test_a_run_that_cannot_be_taken_up_is_refused(
    copied: Path,
    spoil: Callable[[Path], None],
    kind: type[TunesmithError],
    said: str,
    start: Any,
) -> None:
    spoil(copied)
    with pytest.raises(kind, match=said):
        resolve(ModelSpec(source=str(copied / "runs" / "first"), start=start))


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"kind": "full"}, "train.method: first was trained by lora and this run says full"),
        ({"kind": "lora", "rank": 8}, "train.method.rank: first was trained with 4"),
        ({"kind": "lora", "rank": 4, "alpha": 4.0}, "train.method.alpha: .* null"),
    ],
)
def test_continuing_another_way_is_refused_by_the_field(
    copied: Path, method: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        made(
            copied,
            "second",
            copied / "runs" / "first",
            model={"start": "continue"},
            train={"method": method},
        )


def test_what_matters_in_training_only_may_change(copied: Path) -> None:
    method = {"kind": "lora", "rank": 4, "dropout": 0.1}
    source = copied / "runs" / "first"
    made(copied, "second", source, model={"start": "continue"}, train={"method": method})


def test_a_continued_run_is_done_again_when_the_earlier_one_was(copied: Path) -> None:
    source, onward = copied / "runs" / "first", {"start": "continue"}
    second = made(copied, "second", source, model=onward)
    digest = second.stage("train").digest
    made(copied, "second", source, model=onward)
    assert second.stage("train").digest == digest
    made(copied, "first", copied / "tiny", train={"lr": 1e-3})
    made(copied, "second", source, model=onward)
    assert second.stage("train").digest != digest and (second.path / "earlier").exists()


def test_words_that_do_not_fit_together_are_refused(copied: Path) -> None:
    with pytest.raises(SettingsError, match="model.start: continue goes on with an earlier run"):
        resolve(ModelSpec(source=str(copied / "tiny"), start="continue"))
    with pytest.raises(SettingsError, match="model.revision"):
        resolve(ModelSpec(source=str(copied / "runs" / "first"), revision="main"))
    with pytest.raises(SettingsError, match="is this very run"):
        made(copied, "first", copied / "runs" / "first")
    assert (copied / "runs" / "first" / "train" / "MANIFEST.json").exists()


def test_what_an_earlier_run_names_is_not_fetched_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, asked = "a" * 40, list[str]()
    tiny_model("llama", tmp_path / "hub" / commit)

    def download(name: str, revision: str | None, patterns: object = ()) -> Path:
        """The hub, as far as the network goes."""
        asked.append(name)
        return tmp_path / "hub" / commit

    monkeypatch.setattr(bases, "download", download)
    far = ModelSpec(source=str(made(tmp_path, "far", "own/er").path))
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "another machine"))
    asked.clear()
    named = f"model.source=own/er model.revision={commit}"
    with pytest.raises(SettingsError, match=f"not fetched unasked.*{named}"):
        resolve(far)
    assert asked == []
    resolve(ModelSpec(source="own/er", revision=commit))
    assert resolve(far).digest and asked == ["own/er"]


def test_a_branch_that_moves_changes_nothing_until_training_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = "a" * 40, "b" * 40
    for seed, commit in enumerate((old, new)):
        tiny_model("llama", tmp_path / "hub" / commit, seed=seed)
    branch, asked = [old], list[str | None]()

    def download(name: str, revision: str | None, patterns: object = ()) -> Path:
        """The hub, as far as the network goes."""
        asked.append(revision)
        return tmp_path / "hub" / (revision or branch[0])

    monkeypatch.setattr(bases, "download", download)
    run = made(tmp_path, "far", "own/er", until="evaluate")
    digest = run.stage("train").digest
    assert run.manifest()["base"]["revision"] == old
    branch[0], count = new, len(asked)
    tuned = answers.load(run.path)
    made(tmp_path, "far", "own/er", until="evaluate")
    assert run.stage("train").digest == digest and len(asked) == count
    assert load_model(resolve(ModelSpec(source="own/er", revision=old))) is not None
    assert tuned.policy is not None

    log = Heard()
    carry_out(Job(loaded(tmp_path, "far", "own/er"), run, log), "train")
    (told,) = [line for line in log.said if "has moved" in line]
    assert old in told and new in told and f"model.revision={old}" in told
    assert run.manifest()["base"]["revision"] == new
    assert run.stage("train").digest != digest
