"""Choosing labels: what is learned from rows, what is refused, and what a whole run leaves."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.tiny import ENCODERS
from tests.trained import base_of, labelled, prepared, settings, trained
from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.rows import Chat, Labelled, Message, Origin
from tunesmith.core.tables import read_part
from tunesmith.deploy.stage import Deploy, deploy
from tunesmith.model import classify
from tunesmith.model.bases import Base
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.trained import load_trained
from tunesmith.train import cache
from tunesmith.train.loop import Train
from tunesmith.train.methods.base import Method
from tunesmith.train.methods.frozen import Frozen
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.lora import Lora
from tunesmith.train.objectives.classify import Classify

Tiny = Callable[[str], Path]
METHODS: dict[str, Method] = {"lora": Lora(rank=4, dropout=0.1), "full": Full(), "frozen": Frozen()}


def row(text: str, *labels: str, line: int = 1, many: bool = False) -> Labelled:
    return Labelled(given=(text,), labels=labels, many=many, origin=Origin("rows.jsonl", line))


def run_of(path: Path, base: Base, method: Method, **changes: object) -> tuple[RunFolder, Train]:
    """A finished training of labels on a tiny model."""
    given = {"epochs": 4, "save_every": 100, **changes}
    spec = settings(method=method, objective=Classify(), **given)
    return trained(prepared(path, rows=18, held=6, row=labelled), base, spec), spec


def test_labels_are_found_sorted_and_the_settings_stay_what_they_were() -> None:
    objective = Classify()
    fitted = objective.fitted([row("a", "red"), row("b", "blue"), row("c", "red")])
    assert fitted.labels == ["blue", "red"] and objective.labels is None
    assert fitted.label(row("d", "red")) == 1 and not fitted.many
    assert Classify(labels=["red", "blue"]).fitted([row("a", "blue")]).labels == ["red", "blue"]


def test_many_labels_are_a_set_the_empty_one_too() -> None:
    fitted = Classify().fitted([row("a", "red", "blue", many=True), row("b", "green", many=True)])
    assert fitted.many
    assert fitted.label(row("c", "red", "blue", many=True)) == (1, 0, 1)
    assert fitted.label(row("c", many=True)) == (0, 0, 0)


def test_a_label_that_was_never_trained_is_named_with_its_row() -> None:
    fitted = Classify().fitted([row("a", "red"), row("b", "blue")])
    with pytest.raises(DataError, match=r"rows.jsonl:7: the label .*grey.* is on no training row"):
        fitted.accept([row("c", "grey", line=7)])


def test_what_cannot_be_chosen_between_is_refused() -> None:
    with pytest.raises(DataError, match="needs two labels"):
        Classify().fitted([row("a", "red")])
    with pytest.raises(DataError, match="rows.jsonl:2: this row has a set of labels"):
        Classify(labels=["a", "b"], many=False).label(row("x", "a", line=2, many=True))
    chat = Chat((Message("user", "a"), Message("assistant", "b")))
    with pytest.raises(ValueError, match="'b' is named twice; name each label once"):
        Classify(labels=["a", "b", "b"])
    with pytest.raises(DataError, match="kind chat"):
        Classify().accept([chat])


def test_nothing_that_would_learn_nothing_is_begun() -> None:
    with pytest.raises(ValueError, match="moves no weight"):
        Train(method=Frozen())
    with pytest.raises(ValueError, match="best: accuracy is not measured by objective sft"):
        Train(best="accuracy")
    assert Train(method=Frozen(), objective=Classify(), best="accuracy").rate == Frozen().default_lr


def test_an_encoder_writes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="an encoder, which reads only"):
        trained(prepared(tmp_path / "run"), base_of(tiny("bert")))


def test_the_test_rows_are_looked_at_before_the_training(tiny: Tiny, tmp_path: Path) -> None:
    def odd(number: int) -> Labelled:
        return row("x y", "grey", line=99) if number == 29 else labelled(number)

    folder = prepared(tmp_path / "run", rows=18, held=6, row=odd)
    with pytest.raises(DataError, match="rows.jsonl:99: the label"):
        trained(folder, base_of(tiny("bert")), settings(objective=Classify()))


def test_kept_tokens_keep_their_labels(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    pairs = [Labelled(given=("red", f"cat {n}"), labels=("a" if n % 2 else "b",)) for n in range(4)]
    tokenizer, objective = Tokenizer.load(tiny("bert")), Classify().fitted(pairs)
    first = cache.encoded(pairs, objective, tokenizer, smallest=1)
    monkeypatch.setattr(Classify, "encode", None)
    assert cache.encoded(pairs, objective, tokenizer, smallest=1) == first
    assert [example.label for example in first] == [1, 0, 1, 0]
    assert any(first[0].sequences[0].segments)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("lora", "bert"),
        ("lora", "llama"),
        ("full", "distilbert"),
        ("full", "gpt2"),
        ("frozen", "modernbert"),
        ("frozen", "llama"),
    ],
)
def test_a_run_learns_and_comes_back_with_its_head(
    method: str, kind: str, tiny: Tiny, tmp_path: Path
) -> None:
    base = base_of(tiny(kind))
    folder, spec = run_of(tmp_path / "run", base, METHODS[method], best="accuracy", lr=1e-2)
    stage = folder.stage("train").path
    record = json.loads((stage / "train.json").read_text())
    assert record["objective"]["labels"] == ["blue", "green", "red"]
    assert record["pooling"] == ("mean" if kind in ENCODERS else "last")
    assert record["last_loss"] < record["first_loss"]
    policy = load_trained(stage, base)
    assert policy.labels == ("blue", "green", "red")
    assert load_trained(stage, base, tuned=False).head is None
    rows = [each for each in read_part(folder.path / "data", "valid") if isinstance(each, Labelled)]
    said = dict(classify.probabilities(policy, rows, batch=2))
    assert list(said) == [each.digest for each in rows]
    assert all(sum(shares) == pytest.approx(1) for shares in said.values())
    right = [policy.labels[max(range(3), key=said[r.digest].__getitem__)] in r.labels for r in rows]
    assert sum(right) / len(right) == pytest.approx(record["best_value"])
    alone = dict(pair for each in rows for pair in classify.probabilities(policy, [each]))
    for key, shares in said.items():
        assert shares == pytest.approx(alone[key], abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_resumed_it_is_the_run_that_never_stopped(
    method: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.train.progress import Progress

    base = base_of(tiny("bert"))
    whole, spec = run_of(tmp_path / "whole", base, METHODS[method], epochs=2, save_every=3)
    folder = prepared(tmp_path / "cut", rows=18, held=6, row=labelled)
    note = Progress.note

    def dies(self: Progress, step: object) -> None:
        note(self, step)  # type: ignore[arg-type]
        if len(self.losses) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "note", dies)
        with pytest.raises(KeyboardInterrupt):
            trained(folder, base, spec)
    trained(folder, base, spec)
    one, two = whole.stage("train").path, folder.stage("train").path
    for name in sorted(path.name for path in one.glob("*.safetensors")):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert (one / "head.safetensors").is_file()
    assert curves(one) == curves(two)


def curves(folder: Path) -> list[object]:
    return [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]


def test_many_labels_train_and_each_has_its_own_probability(tiny: Tiny, tmp_path: Path) -> None:
    base = base_of(tiny("bert"))
    rows = partial(labelled, many=True)
    folder = prepared(tmp_path / "run", rows=18, held=6, row=rows)
    trained(folder, base, settings(method=Full(), objective=Classify(), epochs=2))
    policy = load_trained(folder.stage("train").path, base)
    assert policy.head is not None and policy.head.many
    said = dict(classify.probabilities(policy, [rows(number) for number in range(4)]))
    assert all(0 <= share <= 1 for shares in said.values() for share in shares)


def test_a_row_longer_than_the_context_is_never_cut(tiny: Tiny, tmp_path: Path) -> None:
    base = base_of(tiny("bert"))
    folder, _ = run_of(tmp_path / "run", base, Frozen())
    policy = load_trained(folder.stage("train").path, base)
    with pytest.raises(DataError, match="rows.jsonl:3: .*the model's context is 128"):
        list(classify.probabilities(policy, [row("cat " * 200, "red", line=3)]))


@pytest.mark.parametrize(
    ("length", "advice"),
    [
        (64, "length is 64 .* The model's context is 128: set train.length=128 at most"),
        (512, "the model's context is 128; nothing is cut. Set train.length=128"),
    ],
)
def test_the_advice_for_a_long_row_can_be_followed(
    tiny: Tiny, tmp_path: Path, length: int, advice: str
) -> None:
    def odd(number: int) -> Labelled:
        return row("cat " * 200, "red", line=99) if number == 3 else labelled(number)

    folder, base = prepared(tmp_path / "run", rows=18, held=6, row=odd), base_of(tiny("bert"))
    with pytest.raises(DataError, match=f"rows.jsonl:99: [0-9]+ tokens, and {advice}") as caught:
        trained(folder, base, settings(objective=Classify(), length=length))
    assert "Raise" not in str(caught.value)


def test_frozen_reads_every_row_once(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.model.policy import Policy

    read: list[str] = []
    pooled = Policy.pooled

    def counted(self: Policy, batch: object) -> torch.Tensor:
        read.extend(batch.rows)  # type: ignore[attr-defined]
        return pooled(self, batch)  # type: ignore[arg-type]

    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Policy, "pooled", counted)
    run_of(tmp_path / "run", base_of(tiny("bert")), Frozen(), seams="reference")
    assert len(read) == len(set(read)) == 18 + 6


@pytest.mark.parametrize(
    ("method", "export", "kind"),
    [
        ("lora", "adapter", "bert"),
        ("lora", "merged", "llama"),
        ("full", "merged", "modernbert"),
        ("frozen", "merged", "distilbert"),
    ],
)
def test_an_export_takes_the_head_along_and_scores_the_same_elsewhere(
    method: str, export: str, kind: str, tiny: Tiny, tmp_path: Path
) -> None:
    base = base_of(tiny(kind))
    folder, _ = run_of(tmp_path / "run", base, METHODS[method])
    spec = Deploy.model_validate({"exports": [export]})
    deploy(folder, spec, base, seed=0, log=Log(folder, quiet=True))
    place = folder.path / "deploy" / export
    done = json.loads((folder.path / "deploy" / "verified.json").read_text())[export]
    assert (place / "head.safetensors").is_file() and not done["findings"]
    assert done["numbers"]["compared"] == "score"
    assert done["numbers"]["answers_equal"] == done["numbers"]["texts_equal"] == 3
    assert "text-classification" in (place / "README.md").read_text()


def test_a_run_with_a_head_alone_has_no_adapter_to_export(tiny: Tiny, tmp_path: Path) -> None:
    base = base_of(tiny("bert"))
    folder, _ = run_of(tmp_path / "run", base, Frozen())
    with pytest.raises(SettingsError, match=r"a head alone.*exports: \[merged\]"):
        deploy(folder, Deploy(), base, seed=0, log=Log(folder, quiet=True))
