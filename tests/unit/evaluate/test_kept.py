"""Lines kept by an earlier call: what they still say, and what must be asked again."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.trained import chat
from tunesmith.core.folders import RunFolder, Stage
from tunesmith.core.log import Log
from tunesmith.core.rows import Chat, Text
from tunesmith.evaluate import answer, arms, scores
from tunesmith.evaluate.labels import LabelRow
from tunesmith.evaluate.questions import Questions
from tunesmith.model.generate import Sampling

ROWS = [chat(n) for n in range(3)]


def never() -> Any:
    raise AssertionError("all lines were there")


def silent(*_: object, **__: object) -> None:
    pass


def stage(home: Path) -> Stage:
    found = RunFolder(home).stage("evaluate")
    found.path.mkdir(parents=True)
    return found


def keep(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def asking(stage: Stage, rows: Sequence[Text]) -> arms.Asking:
    """An arm whose model would have to be loaded, which is none."""
    base: Any = None
    questions = Questions(
        rows=rows, metrics=(), sampling=Sampling(), by="generation", labels=None, valid=(),
        batch=1, seed=0, device="cpu", general="none",
    )  # fmt: skip
    log = Log(None, quiet=True)
    return arms.Asking(arms.Loaded(stage, base, "tuned", "cpu", log), questions, log)


def test_likelihoods_of_texts_that_are_no_longer_read_do_not_count(tmp_path: Path) -> None:
    """A general file that was edited between two calls, with --accept-change."""
    home, texts = stage(tmp_path), [Text(text=word) for word in ("old", "new", "last")]
    lines = [{"row": text.digest, "nll": 1.0, "tokens": 2} for text in texts]
    keep(home.path / "general-text-tuned.jsonl", lines)
    found = arms.likely(asking(home, texts), "general-text", texts[1:])
    assert {*found} == {text.digest for text in texts[1:]}


def test_answers_to_rows_that_are_no_longer_asked_do_not_count(tmp_path: Path) -> None:
    lines = [
        {"row": row.digest, "answer": "a", "stopped": True, "tokens": 1, "seconds": 1.0}
        for row in ROWS
    ]
    path = keep(tmp_path / "answers.jsonl", lines)
    found = answer.keep_answers(path, never, ROWS[1:], Sampling(), batch=1, seed=0, advance=silent)
    assert {*found} == {row.digest for row in ROWS[1:]}


def test_probabilities_of_other_labels_are_asked_again(tmp_path: Path) -> None:
    chances = ([0.5, 0.5], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0])
    lines = [
        {"row": row.digest, "chances": each, "seconds": 1.0}
        for row, each in zip(ROWS, chances, strict=True)
    ]
    path, seen = keep(tmp_path / "scores.jsonl", lines), list[str]()

    def score(rows: Sequence[LabelRow]) -> Iterator[tuple[str, Sequence[float]]]:
        for row in rows:
            seen.append(row.digest)
            yield row.digest, (0.0, 1.0, 0.0)

    asked: list[Chat] = ROWS[:2]
    found = scores.keep_scores(path, asked, score, size=3, advance=silent)
    assert seen == [ROWS[0].digest] and {*found} == {row.digest for row in asked}
    again = scores.keep_scores(path, asked, lambda rows: never(), size=3, advance=silent)
    assert again[ROWS[0].digest].chances == (0.0, 1.0, 0.0)
