"""The deploy stage: what it leaves, what it refuses, what it tells a person to do next."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.saved import saved
from tests.trained import base_of
from tunesmith.core.errors import IntegrityError, SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.deploy.exports.adapter import Adapter, largest_rank
from tunesmith.deploy.exports.base import name_of
from tunesmith.deploy.exports.merged import BOUNDS, Merged
from tunesmith.deploy.stage import Deploy, deploy
from tunesmith.deploy.verify import judge
from tunesmith.model.bases import Base
from tunesmith.model.binding import check_binding
from tunesmith.model.trained import load_trained
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.lora import Lora


@pytest.fixture(scope="module")
def base(tiny: Callable[[str], Path]) -> Base:
    return base_of(tiny("llama"))


class Said(Log):
    """A log that remembers."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def done(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, list[str]]:
    """A run with both exports made, and what was said."""
    run, log = saved(tmp_path_factory.mktemp("runs") / "bot", base, Lora(rank=4)), Said()
    deploy(run, Deploy(exports=[Adapter(), Merged()]), base, seed=0, log=log)
    return run, log.lines


def test_what_is_left_is_whole_and_what_was_measured_is_written(
    done: tuple[RunFolder, list[str]],
) -> None:
    run, _ = done
    facts = run.stage("deploy").manifest()["facts"]["exports"]
    assert json.loads((run.path / "deploy/verified.json").read_text()) == facts
    assert facts["adapter"]["numbers"]["relative"] <= 1e-6
    assert facts["merged"]["numbers"]["relative"] <= 1e-5
    assert facts["merged"]["numbers"]["answers_equal"] == 3
    names = {path.name for path in (run.path / "deploy").iterdir()}
    assert names == {"adapter", "merged", "verified.json", "inputs.json", "MANIFEST.json"}


def test_an_adapter_folder_holds_all_that_others_look_for(
    done: tuple[RunFolder, list[str]], base: Base
) -> None:
    folder = done[0].path / "deploy/adapter"
    template = (folder / "chat_template.jinja").read_text()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == template != ""
    binding = json.loads((folder / "tunesmith.json").read_text())
    assert binding["base"]["digest"] == base.digest and len(binding["tensors"]) > 10
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nbase_model: ") and base.digest in card
    assert not list(folder.glob("*.bin"))


def test_a_merged_folder_names_every_stop_id(done: tuple[RunFolder, list[str]]) -> None:
    run, _ = done
    generation = json.loads((run.path / "deploy/merged/generation_config.json").read_text())
    policy = load_trained(run.path / "train", base_of_run(run))
    assert generation["eos_token_id"] == list(policy.tokenizer.stop_ids)
    assert len(generation["eos_token_id"]) == 2
    config = json.loads((run.path / "deploy/merged/config.json").read_text())
    assert config["dtype"] == "float32"


def base_of_run(run: RunFolder) -> Base:
    source = json.loads((run.path / "train/train.json").read_text())["base"]["source"]
    return base_of(Path(source))


def test_the_next_step_is_said_and_not_claimed_to_have_run(
    done: tuple[RunFolder, list[str]], base: Base
) -> None:
    run, said = done
    lines = [line for line in said if "vllm serve" in line]
    adapter, merged = run.path / "deploy/adapter", run.path / "deploy/merged"
    assert lines[0].strip() == (
        f"next: vllm serve {base.folder} --enable-lora --max-lora-rank 8 "
        f"--lora-modules bot={adapter}   (not run here)"
    )
    assert f"vllm serve {merged} " in lines[1] and "not run here" in lines[1]


def test_a_second_call_does_nothing_and_says_so(
    done: tuple[RunFolder, list[str]], base: Base
) -> None:
    run, log = done[0], Said()
    before = run.stage("deploy").digest
    deploy(run, Deploy(exports=[Adapter(), Merged()]), base, seed=0, log=log)
    assert "nothing to do" in log.lines[0] and run.stage("deploy").digest == before


def test_a_full_run_has_no_adapter_and_is_refused_before_any_work(
    base: Base, tmp_path: Path
) -> None:
    run = saved(tmp_path / "bot", base, Full())
    with pytest.raises(SettingsError, match=r"no adapter to export. Use: exports: \[merged\]"):
        deploy(run, Deploy(), base, seed=0, log=Said())
    assert not (run.path / "deploy").exists()


def test_a_full_run_is_exported_whole(base: Base, tmp_path: Path) -> None:
    run = saved(tmp_path / "bot", base, Full())
    deploy(run, Deploy(exports=[Merged()]), base, seed=0, log=Said())
    numbers = json.loads((run.path / "deploy/verified.json").read_text())["merged"]["numbers"]
    assert numbers["max_difference"] == 0.0


def test_an_export_kind_may_be_named_once() -> None:
    with pytest.raises(ValidationError, match="may be named once"):
        Deploy.model_validate({"exports": ["merged", {"kind": "merged", "dtype": "bfloat16"}]})


def test_the_settings_read_back_equal() -> None:
    spec = Deploy.model_validate({"exports": ["adapter", {"kind": "merged", "dtype": "float16"}]})
    assert Deploy.model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "LORA", "r": 16}, ["--max-lora-rank 16"]),
        ({"peft_type": "LORA", "r": 24}, ["--max-lora-rank 32"]),
        ({"peft_type": "LORA", "r": 8, "rank_pattern": {"q_proj": 65}}, ["--max-lora-rank 128"]),
        ({"peft_type": "LORA", "r": 8, "use_dora": True}, ["must merge", "DoRA"]),
        ({"peft_type": "LORA", "r": 8, "modules_to_save": ["lm_head"]}, ["must merge"]),
        ({"peft_type": "LORA", "r": 600}, ["must merge", "512"]),
        ({"peft_type": "IA3"}, ["must merge", "IA3"]),
    ],
)
def test_vllm_is_told_what_it_can_serve(
    settings: dict[str, Any], words: list[str], base: Base, tmp_path: Path
) -> None:
    folder = tmp_path / "runs name" / "deploy" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    line = " ".join(Adapter().usage(folder, base))
    assert all(word in line for word in words)
    if "must" not in words[0]:
        assert f"'runs name={folder}'" in line and largest_rank(settings) <= 128


@pytest.mark.parametrize(
    ("change", "exact", "severities"),
    [
        ({}, True, []),
        ({"relative": 1e-5}, True, []),
        ({"relative": 1.1e-5}, True, ["error"]),
        ({"relative": float("nan")}, True, ["error"]),
        ({"texts_equal": 2}, True, ["error"]),
        ({"answers_equal": 2}, True, ["error"]),
        ({"answers_equal": 2}, False, ["warning"]),
    ],
)
def test_what_a_reload_must_reach(
    change: dict[str, float], exact: bool, severities: list[str]
) -> None:
    numbers = {"relative": 0.0, "bound": 1e-5, "texts": 3, "texts_equal": 3, "answers_equal": 3}
    numbers["compared"] = "logit"
    found = judge(numbers | change, Path("x"), exact=exact)
    assert [finding.severity for finding in found] == severities


def test_a_rounded_export_is_measured_against_its_own_bound(base: Base, tmp_path: Path) -> None:
    run = saved(tmp_path / "bot", base, Lora(rank=4))
    deploy(run, Deploy(exports=[Merged(dtype="bfloat16")]), base, seed=0, log=Said())
    numbers = json.loads((run.path / "deploy/verified.json").read_text())["merged"]["numbers"]
    assert 1e-5 < numbers["relative"] <= numbers["bound"] == BOUNDS["bfloat16"]
    config = json.loads((run.path / "deploy/merged/config.json").read_text())
    assert config["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("source", "revision", "named"),
    [
        ("owner/model", "0" * 40, "owner/model"),
        ("owner/model", "", "/cache/x"),
        ("smollm2-135m-instruct", "ab" * 32, "/cache/x"),
        ("models/tiny.gguf", "ab" * 32, "/cache/x"),
    ],
)
def test_a_base_is_named_so_that_others_can_load_it(source: str, revision: str, named: str) -> None:
    assert name_of(Base(Path("/cache/x"), "d", source, revision)) == named


def test_an_adapter_runs_on_its_own_base_only(
    done: tuple[RunFolder, list[str]], base: Base
) -> None:
    other = replace(base, digest="0" * 64, source="another")
    for name in ("deploy/adapter", "train"):
        folder = done[0].path / name
        check_binding(folder, base)
        with pytest.raises(IntegrityError, match="Name the base it was trained on"):
            check_binding(folder, other)
        with pytest.raises(IntegrityError, match="Name the base it was trained on"):
            load_trained(folder, other)


@pytest.fixture
def adapter(done: tuple[RunFolder, list[str]], tmp_path: Path) -> Path:
    """A copy of the exported adapter, to spoil."""
    import shutil

    return Path(shutil.copytree(done[0].path / "deploy/adapter", tmp_path / "adapter"))


def test_a_changed_template_is_refused(adapter: Path, base: Base) -> None:
    path = adapter / "chat_template.jinja"
    path.write_text(path.read_text() + "{# other #}")
    with pytest.raises(IntegrityError, match="the template changed since the export"):
        load_trained(adapter, base)


def test_a_changed_tokenizer_is_refused(adapter: Path, base: Base) -> None:
    path = adapter / "tokenizer.json"
    record = json.loads(path.read_text())
    record["model"]["merges"] = record["model"]["merges"][:-1]
    path.write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match="the tokenizer changed since the export"):
        load_trained(adapter, base)


@pytest.mark.parametrize("change", ["missing", "unexpected", "other", "nan"])
def test_tensors_that_are_not_the_exported_ones_are_refused(
    change: str, adapter: Path, base: Base
) -> None:
    from safetensors.torch import load_file, save_file

    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    if change == "missing":
        del tensors[name]
    elif change == "unexpected":
        tensors["another"] = tensors[name].clone()
    else:
        tensors[name][0, 0] += float("nan") if change == "nan" else 1e-7
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match="tensor"):
        check_binding(adapter, base)


def test_a_folder_that_names_no_base_is_refused(adapter: Path, base: Base) -> None:
    (adapter / "tunesmith.json").unlink()
    with pytest.raises(IntegrityError, match="nothing says which base"):
        load_trained(adapter, base)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 99}'])
def test_a_spoiled_binding_is_refused(text: str, adapter: Path, base: Base) -> None:
    (adapter / "tunesmith.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"tunesmith\.json"):
        load_trained(adapter, base)
