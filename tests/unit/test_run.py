"""A run file: every problem at once, a sentence each, and the resolved run loads to itself."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import SettingsError
from tunesmith.resolved import flow, text
from tunesmith.run import Run, from_file, from_mapping, load, load_with_origins
from tunesmith.yaml_marks import parse


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(content: str, *overrides: str) -> list[str]:
    """What is wrong with a run file of this content, in the current folder."""
    Path("run.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load("run.yaml", overrides)
    return list(caught.value.problems)


def loaded(content: str, *overrides: str) -> Run:
    """The run that a file of this content says."""
    Path("run.yaml").write_text(content, encoding="utf-8")
    return load("run.yaml", overrides)


ROWS = "data: {source: rows.jsonl}\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("trian: {lr: 1}", "run.yaml:2:1: trian: no such setting; did you mean 'train'?"),
        ("learning_rate: 3", "run.yaml:2:1: learning_rate: no such setting; it is called train.lr"),
        ("train: {lora_r: 8}", "run.yaml:2:9: train.lora_r: no such setting; it is called train."),
        ("lr: 1e-4", "run.yaml:2:1: lr: no such setting; did you mean train.lr?"),
        (
            "train: {leraning_rate: 3}",
            "leraning_rate: no such setting; did you mean train.lr?",
        ),
        ("train: {method: lra}", "run.yaml:2:17: train.method: there is no 'lra'; did you mean"),
        ("train: {method: {kind: lra}}", "run.yaml:2:24: train.method: there is no 'lra'; did"),
        (
            "train: {method: {kind: full, rank: 8}}",
            "run.yaml:2:30: train.method.full.rank: no such setting; full has: blocks",
        ),
        (
            "train: {method: prefix}\ndeploy: {exports: [adapter, merged]}",
            "run.yaml:3:19: deploy.exports: merged: what train.method: prefix trains cannot be",
        ),
        (
            "deploy: {exports: [{kind: merged, onto: original}]}",
            "run.yaml:2:19: deploy.exports: merged: onto: original is for a base that model.bits",
        ),
        ("model: {dtype: bfloat16}\ntrain: {method: full}", "in 16 bits small updates would be"),
        ("train: {method: {rank: 8}}", "run.yaml:2:17: train.method: say which one with `kind`"),
        ("train: {lr: fast}", "run.yaml:2:13: train.lr: expected a number; this is 'fast'"),
        (
            "train: {epochs: 0}",
            "run.yaml:2:17: train.epochs: expected a number more than 0; this is 0",
        ),
        ("train: {epochs: 1.5}", "run.yaml:2:17: train.epochs: expected a whole number"),
        ("train: {epochs: true}", "run.yaml:2:17: train.epochs: expected a number; this is true"),
        (
            "train: {gradient_checkpointing: true}",
            "train.gradient_checkpointing: for what others call true say 1, every block",
        ),
        ("train: {schedule: off}", "'off' can be read in two ways"),
        ("train: {lr: .inf}", "run.yaml:2:13: '.inf' is not a finite number"),
        ("train: {lr: 'nan'}", "run.yaml:2:13: train.lr: expected "),
        ("train: {schedule: cosin}", "(did you mean cosine?)"),
        ("name: no", "run.yaml:2:7: 'no' can be read in two ways; write true or false, or quote"),
        ("name: 3", "run.yaml:2:7: name: expected text (quote it); this is 3"),
        ("name: ../up", "run.yaml:2:7: name: expected text that matches"),
        ("seed: -1", "run.yaml:2:7: seed: expected a number at least 0; this is -1"),
        ("seed: 1\nseed: 2", "run.yaml:3:1: 'seed' stands twice, first in line 2"),
        ("hub_token: hf_aaaaaaaaaaaa", "hub_token: this looks like a secret; put it in an"),
        ("apiKey: s3cr3t", "apiKey: this looks like a secret"),
        ("train: [1]", "run.yaml:2:8: train: expected settings: {name: value}; this is [1]"),
        ("seed: *x", "anchors and aliases"),
        ("seed: &x 1", "run.yaml:2:7: anchors and aliases"),
        ("seed: !!int 1", "run.yaml:2:7: tags (!) are not read"),
        ("name: !!python/object/apply:os.system [ls]", "tags (!) are not read"),
        ("seed: [1\nx: 2", "run.yaml:3:2: not valid YAML"),
        ("seed: 1\n...\n---\nseed: 2", "a second document starts here"),
        ("\tseed: 1", "not valid YAML"),
    ],
)
def test_a_problem_is_a_sentence_with_its_place(home: Path, content: str, said: str) -> None:
    found = problems(ROWS + content)
    assert any(said in problem for problem in found), found
    assert all("\n" not in problem for problem in found)


def test_all_problems_come_at_once_in_the_order_of_the_file(home: Path) -> None:
    content = "seed: x\ntrain:\n  lr: fast\n  epoch: 3\nname: a\nname: b\n"
    found = problems(content, "evaluate.part=tset", "oops")
    lines = [re.search(r":(\d+):\d+: ", problem) for problem in found]
    assert [int(m[1]) for m in lines if m] == [1, 1, 3, 4, 6]  # the first for data.source
    assert [p for p in found if p.startswith("command line 'evaluate.part=tset'")]
    assert [p for p in found if p.startswith("command line 'oops'")]


def test_a_secret_is_never_repeated(home: Path) -> None:
    found = problems(ROWS + "wandb_api_key: abcdef123456\n", "hf_token=zyxwvu987654")
    assert not [p for p in found if "abcdef123456" in p or "zyxwvu987654" in p]
    assert len([p for p in found if "looks like a secret" in p]) == 2


@pytest.mark.parametrize("name", ["pad_token", "max_tokens", "stop_tokens", "tokenizer", "author"])
def test_words_about_text_are_no_secrets(home: Path, name: str) -> None:
    assert "secret" not in problems(ROWS + f"{name}: x\n")[0]


def test_numbers_that_yaml_reads_as_text_are_numbers(home: Path) -> None:
    assert loaded(ROWS + "train: {lr: 2e-4}").train.lr == 2e-4
    assert loaded(ROWS, "train.lr=1e-5").train.lr == 1e-5


def test_a_word_among_the_choices_of_a_setting_is_no_riddle(home: Path) -> None:
    assert (
        loaded(ROWS + "train: {gradient_checkpointing: off}").train.gradient_checkpointing == "off"
    )
    assert loaded(ROWS, "train.gradient_checkpointing=off").train.gradient_checkpointing == "off"


def test_what_yaml_would_turn_into_something_else_stays_text() -> None:
    content = "a: 2026-01-01\nb: 1:30\nc: 007\nd: 0x10\ne: y\nf: 1_000\ng: '12'\nh: <<\n"
    value = parse(content, "run.yaml").value
    assert list(value.values()) == ["2026-01-01", "1:30", "007", "0x10", "y", "1_000", "12", "<<"]


def test_depth_and_size_are_bounded(home: Path) -> None:
    assert "nested too deeply" in problems("a: " + "[" * 40 + "]" * 40)[0]
    assert "too long" in problems("a: [" + "1, " * 30_000 + "1]")[0]
    assert "larger than 1 MiB" in problems("# " + "x" * 2**20)[0]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: \x00", b"- 1\n- 2\n", b"just words"])
def test_a_file_that_is_no_run_file(home: Path, content: bytes) -> None:
    (home / "run.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"^run\.yaml"):
        load("run.yaml")


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_settings_or_one_error(content: str) -> None:
    try:
        parse(content, "run.yaml")
    except SettingsError as error:
        assert error.problems


def test_a_missing_file_names_its_neighbour(home: Path) -> None:
    (home / "support.yaml").write_text(ROWS)
    with pytest.raises(SettingsError, match=r"did you mean support\.yaml"):
        load("suport.yaml")


@pytest.mark.parametrize("content", ["", "\n", "# nothing yet\n", "---\n"])
def test_an_empty_run_file_is_one_sentence(home: Path, content: str) -> None:
    (only,) = problems(content)
    assert only.startswith("run.yaml:1:") and "data is missing" in only
    assert loaded(content, "data.source=rows.jsonl").data.source == str(home / "rows.jsonl")


# Files


def test_files_are_relative_to_the_run_file_and_overrides_to_the_current_folder(home: Path) -> None:
    (home / "runs-of-mine").mkdir()
    file = home / "runs-of-mine" / "a.yaml"
    file.write_text("data: {source: rows.jsonl, valid: ../v.jsonl}\n")
    run = load(file)
    assert run.data.source == str(home / "runs-of-mine" / "rows.jsonl")
    assert run.data.valid == str(home / "v.jsonl")
    assert load(file, ["data.source=rows.jsonl"]).data.source == str(home / "rows.jsonl")
    assert load(file, ["data={source: x.jsonl}"]).data.source == str(home / "x.jsonl")


def test_a_data_set_of_the_hub_is_no_path(home: Path) -> None:
    (home / "a.yaml").write_text("data: {source: hub:own/er, test: hub:own/er/test.csv}\n")
    run = load(home / "a.yaml")
    assert (run.data.source, run.data.test) == ("hub:own/er", "hub:own/er/test.csv")
    run = load("hub:own/er@v1/data/train-*.parquet")
    assert (run.name, run.data.source) == ("train", "hub:own/er@v1/data/train-*.parquet")


def test_a_model_is_a_folder_where_one_is_there_and_else_a_name(home: Path) -> None:
    (home / "mine").mkdir()
    assert loaded(ROWS + "model: mine").model.source == str(home / "mine")
    assert loaded(ROWS + "model: someone/else").model.source == "someone/else"
    assert loaded(ROWS, "model.source=./mine").model.source == str(home / "mine")


def test_a_data_file_stands_for_a_run(home: Path) -> None:
    (home / "my rows.jsonl").write_text("{}\n")
    run = load("my rows.jsonl", ["train.epochs=1"])
    assert (run.name, run.data.source) == ("my-rows", str(home / "my rows.jsonl"))
    assert run.train.epochs == 1


def test_the_name_is_the_files_own(home: Path) -> None:
    (home / "bot.yaml").write_text(ROWS)
    assert load("bot.yaml").name == "bot"
    (home / "bot.yaml").write_text(ROWS + "name: else\n")
    assert load("bot.yaml").name == "else"


# Overrides


def test_a_path_into_a_part_keeps_the_part(home: Path) -> None:
    full = ROWS + "train: {method: {kind: lora, alpha: 7, rank: 2}}"
    method = loaded(full, "train.method.rank=32").train.method
    assert (method.kind, method.alpha, method.rank) == ("lora", 7, 32)
    assert loaded(ROWS, "train.method.rank=32").train.method.rank == 32
    assert loaded(ROWS + "train: {method: lora}", "train.method.rank=5").train.method.rank == 5
    assert loaded(full, "train.method=full").train.method.kind == "full"


def test_the_last_override_wins(home: Path) -> None:
    assert loaded(ROWS + "seed: 1", "seed=2", "seed=3").seed == 3


def test_an_override_reaches_into_a_list(home: Path) -> None:
    metrics = "evaluate: {metrics: [exact, rouge]}"
    assert [m.kind for m in loaded(ROWS + metrics, "evaluate.metrics.1=chrf").evaluate.metrics] == [
        "exact",
        "chrf",
    ]
    assert "9 is not in that list" in problems(ROWS + metrics, "evaluate.metrics.9=chrf")[0]


@pytest.mark.parametrize(
    "override", ["train", "=3", "a..b=1", "train.lr=[", "seed.x=1", "0=1", "train.0=1", "data=3"]
)
def test_an_override_that_cannot_be_meant_is_a_sentence(home: Path, override: str) -> None:
    (found, *_) = problems(ROWS, override)
    assert found


def test_the_same_in_python(home: Path) -> None:
    run = from_mapping(
        {"data": {"source": "rows.jsonl"}, "train": {"epochs": 7}},
        {"train": {"lr": 1e-4}, "train.method.rank": 4, "seed": 5},
    ).run
    assert (run.train.epochs, run.train.lr, run.train.method.rank, run.seed) == (7, 1e-4, 4, 5)
    (home / "run.yaml").write_text(ROWS)
    assert from_file("run.yaml", {"train": {"method": "full"}}).run.train.method.kind == "full"
    with pytest.raises(SettingsError, match="did you mean 'train'"):
        from_file("run.yaml", {"trian": {"lr": 1}})


# The resolved run


def test_the_resolved_run_loads_to_itself(home: Path) -> None:
    content = (
        "data: {source: 'rows: odd # name.jsonl', split: none}\n"
        "train: {lr: 2e-4, method: {kind: lora, targets: [q_proj]}}\n"
        "evaluate: {sampling: {stop: ['\\n\\n', 'no', '{x: 1}', \"it's\", '\\x85']}}\n"
    )
    Path("run.yaml").write_text(content)
    found = load_with_origins("run.yaml", ["train.epochs=2"])
    folder = home / "runs" / "run"
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(text(found, folder, home), encoding="utf-8")
    assert load(folder) == found.run
    assert str(home) not in (folder / "run.yaml").read_text()


def test_the_resolved_run_says_where_each_value_was_said(home: Path) -> None:
    Path("run.yaml").write_text(ROWS + "train:\n  method: full\n  lr: 2e-4\n")
    found = load_with_origins("run.yaml", ["train.epochs=2"])
    assert found.origins["train.lr"] == "run.yaml:4:7"
    assert found.origins["train.method.kind"] == "run.yaml:3:11"
    assert found.origins["train.epochs"] == "command line 'train.epochs=2'"
    assert found.origins["train.batch"] == "default"
    lines = text(found, home / "runs" / "run", home).splitlines()
    assert "  epochs: 2  # command line 'train.epochs=2'" in lines


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=6,
    )
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_value_survives_being_written(value: object) -> None:
    line = flow(value)
    assert "\n" not in line
    read = parse(f"a: {line}  # said\n", "x")
    assert not read.problems
    assert read.value["a"] == value
