"""Cards and the report page: only what was measured, every text kept as text, nothing fetched."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.cards import figures, model_card, page
from tunesmith.cards.card import Card
from tunesmith.cards.evidence import Evidence
from tunesmith.cards.markdown import escaped, front_matter, table
from tunesmith.cards.verdict import scores
from tunesmith.core.folders import RunFolder
from tunesmith.core.rows import Chat, Message, Origin

HOSTILE = "<img src=x onerror=alert(1)> & </td><script>alert(2)</script> {{ 7 * 7 }} javascript:0"


def chat(question: str, answer: str, line: int) -> Chat:
    turns = (Message("user", question), Message("assistant", answer))
    return Chat(turns, origin=Origin("tickets.jsonl", line), source="tickets.jsonl")


ARMS = ("base", "tuned")


def value(middle: float, spread: float, *, percent: bool = True) -> dict[str, Any]:
    ends = {"value": middle, "low": middle - spread, "high": middle + spread}
    return ends | {"higher_is_better": percent, "percent": percent, "better": "tuned"}


def arm(accuracy: float, perplexity: float) -> dict[str, Any]:
    return {
        "bleu": value(accuracy / 2, 2.4),
        "field_accuracy": value(accuracy, 2.3),
        "perplexity": value(perplexity, 0.4, percent=False),
    }


def report() -> dict[str, Any]:
    return {
        "arms": {"base": arm(11.4, 9.31), "tuned": arm(91.2, 1.62)},
        "difference": {
            "bleu": value(39.9, 3.0),
            "field_accuracy": value(79.8, 3.2),
            "perplexity": value(-7.69, 0.9, percent=False),
        },
        "rows": 70,
        "main": "field_accuracy",
        "verdict": {
            "headline": "Tuning improved field accuracy from 11.4 % to 91.2 %",
            "detail": "Difference +79.8, 95 % interval +76.6 to +83.0, on 70 held-out rows.",
        },
        "answering": {arm: {"seconds": 30.5, "tokens": 2000, "stopped": 0.97} for arm in ARMS},
        "findings": [
            {"severity": "warning", "what": "few rows", "where": "", "evidence": "", "advice": ""}
        ],
        "notes": {"field_accuracy": "five closed fields, exact match"},
        "samples": [
            {
                "prompt": "My kettle leaks. Order 48213, I need it by Friday!",
                "base": "I am sorry to hear that. Kettles can be tricky.",
                "tuned": '{"intent": "replace", "product": "kettle"}',
                "wanted": HOSTILE,
            }
        ],
    }


def train_facts() -> dict[str, Any]:
    return {
        "method": {"kind": "lora", "rank": 16, "alpha": None, "dora": False},
        "objective": {"kind": "sft"},
        "base": {"source": "smollm2-135m-instruct", "digest": "ab" * 32, "note": "from Q4_1"},
        "tokenizer": {"digest": "cd" * 32, "template": "ef" * 32},
        "rows": {"train": 560, "valid": 70},
        "steps": 210,
        "best_step": 168,
        "best_value": 0.2213,
        "measure": "loss",
        "first_loss": 2.91,
        "last_loss": 0.18,
        "rate": 2e-4,
        "seconds": 251.3,
        "tokens": 74_211,
        "supervised": 31_002,
        "trainable_parameters": 4_884_480,
        "parameters": 139_399_680,
        "threads": 2,
    }


def manifest() -> dict[str, Any]:
    torch = {"threads": 2, "cpu_capability": "AVX512", "build": "a long text"}
    versions = {"torch": "2.13.0+cpu", "peft": "0.21.2"}
    place = {"python": "3.11.7", "system": "Linux x86_64", "cores": 2}
    return {
        "schema": 1,
        "seed": 0,
        "code": "12" * 32,
        "data": {"source": "34" * 32, "prepared": "56" * 32},
        "environment": place | {"versions": versions, "torch": torch},
    }


def account() -> dict[str, Any]:
    dropped = {"a repeated prompt": 4}
    return {
        "files": [{"file": "tickets.jsonl", "as": "source", "format": "chat", "rows": 704}],
        "steps": [{"kind": "deduplicate", "taken": 704, "kept": 700, "dropped": dropped}],
        "parts": {"train": 560, "valid": 70, "test": 70},
    }


def lines(values: list[Any]) -> str:
    return "".join(json.dumps(v) + "\n" for v in values)


def curve() -> list[dict[str, Any]]:
    steps = [
        {"step": n, "loss": 2.9 * 0.97**n + 0.2, "norm": 1.0, "rate": 2e-4 * (1 - n / 210)}
        for n in range(210)
    ]
    looks = [
        {"step": n, "held_out": {"loss": 2.9 * 0.975**n + 0.22, "token_accuracy": 1 - 0.98**n}}
        for n in (0, 42, 84, 126, 168, 210)
    ]
    return steps + looks


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    """A run as its stages leave it, with a hostile text in every place a person may fill."""
    run = RunFolder(tmp_path / "support-bot")
    row = chat(f"Where is my parcel? {HOSTILE}", "{}", 3)
    finding = {"severity": "warning", "what": f"2 rows say {HOSTILE}", "where": "tickets.jsonl:3"}
    numbers = {"max_difference": 2.1e-6, "mean_difference": 1e-7, "relative": 1.1e-7}
    numbers |= {"bound": 1e-6, "texts": 3, "texts_equal": 3, "answers_equal": 3}
    content = {
        "run.yaml": f"name: support-bot\nmodel: smollm2-135m-instruct # {HOSTILE}\n",
        "manifest.json": json.dumps(manifest()),
        "data/account.json": json.dumps(account()),
        "data/valid.jsonl": lines([row.record()]),
        "data/findings.json": json.dumps([finding | {"evidence": HOSTILE, "advice": "Look."}]),
        "train/train.json": json.dumps(train_facts()),
        "train/curves.jsonl": lines(curve()),
        "train/probes.jsonl": lines(
            [
                {"step": 0, "row": row.digest, "answer": HOSTILE, "stopped": False},
                {
                    "step": 210,
                    "row": row.digest,
                    "answer": '{"intent": "delivery"}',
                    "stopped": True,
                },
            ]
        ),
        "evaluate/report.json": json.dumps(report()),
        "deploy/verified.json": json.dumps(
            {"adapter": {"numbers": numbers, "findings": [], "bytes": 19_600_000}}
        ),
    }
    for name, text in content.items():
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text(text, "utf-8")
    return run


class Reader(HTMLParser):
    """What a browser would see: tags with their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_runs_no_script_and_loads_nothing(finished: RunFolder) -> None:
    text = page.write(finished).read_text("utf-8")
    seen = Reader(text)
    names = {tag for tag, _ in seen.tags}
    assert not names & {"script", "img", "iframe", "link", "object", "embed", "base", "form"}
    for _, attributes in seen.tags:
        for name, given_value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "data", "action", "style"):
                assert "url(" not in (given_value or "").replace("url(#", "")
                assert name == "style" or (given_value or "").startswith("#")
    assert not re.search(r"https?://|@import", text)


def test_hostile_text_stays_text_wherever_it_comes_from(finished: RunFolder) -> None:
    text = page.write(finished).read_text("utf-8")
    assert "<img" not in text and "<script" not in text and "{{" in text
    # A sample, the probe's prompt and answer, a finding and its evidence, the settings.
    assert Reader(text).text.count(HOSTILE) >= 6


def test_the_page_says_what_was_measured(finished: RunFolder) -> None:
    seen = Reader(page.write(finished).read_text("utf-8")).text
    assert "Tuning improved field accuracy from 11.4 % to 91.2 %" in seen
    assert "95 % interval +76.6 to +83.0, on 70 held-out rows" in seen
    assert "deduplicate" in seen and "4 a repeated prompt" in seen and "AVX512" in seen
    assert "4,884,480" in seen and "2 rows say" in seen and "stopped" in seen and "cut" in seen


def test_the_same_run_gives_the_same_page(finished: RunFolder) -> None:
    assert page.page(finished.path) == page.page(finished.path)


def test_an_empty_run_has_a_page_and_a_card_that_say_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "empty")
    run.path.mkdir()
    assert "Nothing was measured" in page.write(run).read_text("utf-8")
    card = model_card.write(run).read_text("utf-8")
    assert card.count("not measured") >= 6
    assert not re.search(r"\d+\.\d", card.partition("## Base model")[2])


def test_a_secret_in_a_row_does_not_reach_page_or_card(finished: RunFolder) -> None:
    key = "hf_" + "A1b2C3d4" * 4
    changed = report()
    changed["samples"][0]["tuned"] = f"use {key}</b>"
    (finished.path / "evaluate/report.json").write_text(json.dumps(changed))
    (finished.path / "data/findings.json").write_text(
        json.dumps([{"severity": "error", "what": key, "where": "", "evidence": "", "advice": ""}])
    )
    page.write(finished), model_card.write(finished)
    written = [path.read_text("utf-8") for path in finished.path.glob("cards/*")]
    written.append((finished.path / "evaluate/report.html").read_text("utf-8"))
    assert not any(key in text for text in written)


def test_every_number_of_the_card_is_in_the_file_it_names(finished: RunFolder) -> None:
    model_card.write(finished)
    made = json.loads((finished.path / "cards/model_card.json").read_text("utf-8"))
    card = Card.model_validate(made)
    run, measured = Evidence(finished.path), 0
    for section in card.sections:
        for fact in [*section.facts, *section.behind]:
            assert run.at(fact.source) == fact.value, fact
            measured += fact.value is not None
    assert measured > 70


def test_two_cards_differ_in_the_lines_that_changed(finished: RunFolder) -> None:
    before = model_card.write(finished).read_text("utf-8").splitlines()
    facts = train_facts() | {"seconds": 300.0}
    (finished.path / "train/train.json").write_text(json.dumps(facts))
    after = model_card.write(finished).read_text("utf-8").splitlines()
    changed = [line for line in after if line not in before]
    assert len(changed) == 1 and "300" in changed[0]


@pytest.mark.parametrize(("better", "mood"), [("tuned", "good"), ("base", "bad"), (None, "unsure")])
def test_a_measure_is_called_what_the_report_calls_it(better: str | None, mood: str) -> None:
    made = {
        "arms": {"base": {"m": value(1, 1)}, "tuned": {"m": value(2, 1)}},
        "difference": {"m": {"value": 1.0, "low": 0.5, "high": 1.5, "better": better}},
    }
    (score,) = scores(made)
    assert score.mood == mood


def confused(count: int, *, many: bool = False) -> dict[str, Any]:
    """A report of labels: the first is taken for the second, nine times by the tuned model."""
    names = [f"label {i} {HOSTILE if i == 0 else ''}" for i in range(count)]
    each = {
        name: {"rows": 10 + i, "precision": None, "recall": 50.0 + i, "f1": 40.0 + i}
        for i, name in enumerate(names)
    }
    right = [[name, name, 10] for name in names]
    pairs = {"base": right, "tuned": [*right, [names[0], names[1], 9], [names[1], None, 4]]}
    arms = {arm: {"each": each} | ({} if many else {"pairs": pairs[arm]}) for arm in ARMS}
    return report() | {"by": "head", "labels": {"names": names, "arms": arms}}


@pytest.mark.parametrize(("count", "many"), [(2, False), (77, False), (5, True)])
def test_the_confusion_of_labels_reads_well(finished: RunFolder, count: int, many: bool) -> None:
    (finished.path / "evaluate/report.json").write_text(json.dumps(confused(count, many=many)))
    text = page.write(finished).read_text("utf-8")
    card = model_card.write(finished).read_text("utf-8")
    assert "<img" not in text and "Labels" in Reader(text).text
    matrix = "a column for each answer"
    assert (matrix in text) == (matrix in card) == (count == 2 and not many)
    assert ("most frequent mistakes" in text) == ("most frequent mistakes" in card) == (count == 77)
    assert text.count("label 7") <= 40, "of many labels only the worst are shown"
    assert ("(no label)" in text) == (not many)


def test_the_hub_is_told_what_the_model_does_though_nothing_was_measured(
    finished: RunFolder,
) -> None:
    path = finished.path / "train/train.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"objective": {"kind": "classify"}}))
    (finished.path / "evaluate/report.json").unlink()
    assert 'pipeline_tag: "text-classification"' in model_card.write(finished).read_text("utf-8")


def test_what_stands_in_for_the_base_is_said(finished: RunFolder) -> None:
    made = report() | {"notes": {"base": "the largest class stands in"}}
    (finished.path / "evaluate/report.json").write_text(json.dumps(made))
    for text in (page.write(finished).read_text(), model_card.write(finished).read_text()):
        assert "The largest class stands in" in text and "were asked the same rows" not in text


@given(st.text())
def test_a_markdown_cell_stays_one_cell_of_text(text: str) -> None:
    line = table(("a", "b"), [(text, "end")]).splitlines()
    assert len(line) == 3
    assert len(re.split(r"(?<!\\)\|", re.sub(r"\\\\", "", line[2]))) == 4
    assert "<" not in escaped(text)


def test_front_matter_reads_back_as_yaml() -> None:
    import yaml

    values = {"base_model": "a: b # c\n---", "tags": ["x"], "model-index": [{"value": 1.5}]}
    text = front_matter(values)
    assert yaml.safe_load(text.strip().strip("-")) == values


def test_figures_are_the_same_bytes_and_carry_the_pages_colours() -> None:
    series = [figures.Series("a $x_1 & <b>", [0, 1, 2], [3.0, 2.0, 1.0])] * 2
    first = figures.curves("one", series, title='<"t">')
    assert first == figures.curves("one", series, title='<"t">')
    assert "var(--tuned)" in first and "#04" not in first and "<b>" not in first
    assert "$x_1" in first and '<"t">' not in first
    ids = set(re.findall(r' id="([^"]+)"', first))
    other = set(re.findall(r' id="([^"]+)"', figures.curves("two", series, title="t")))
    assert ids and not ids & other
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', first)
    assert used and set(used) <= ids
