"""Rows are turned into tokens once: kept by a digest of everything that the tokens depend on."""

import hashlib
from collections.abc import Sequence as Many
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunesmith.core import records
from tunesmith.core.folders import file_digest, write_bytes, write_json
from tunesmith.core.records import Example, Row, Sequence
from tunesmith.model import load
from tunesmith.train.objectives.base import Objective

if TYPE_CHECKING:
    from tunesmith.model.render import Tokenizer

SMALLEST = 2000
"""Rows from which a cache pays; fewer are encoded in a second or two."""


def encoded(
    rows: Many[Row], objective: Objective, tokenizer: "Tokenizer", *, smallest: int = SMALLEST
) -> list[Example]:
    """The objective's examples of `rows`, from the cache when all they depend on is unchanged."""
    if len(rows) < smallest:
        return [objective.encode(row, tokenizer) for row in rows]
    path = load.cache_folder() / "tokens" / f"{key(rows, objective, tokenizer)}.safetensors"
    found = _read(path, rows)
    if found is None:
        found = [objective.encode(row, tokenizer) for row in rows]
        _write(path, found)
    return found


def key(rows: Many[Row], objective: Objective, tokenizer: "Tokenizer") -> str:
    """sha256 over the rows, the objective's settings, the tokenizer, its template and our code."""
    return records.digest(
        {
            "rows": [row.digest for row in rows],
            "objective": objective.model_dump(mode="json"),
            "tokenizer": tokenizer.digest,
            "template": tokenizer.template_digest,
            "code": code_digest(),
        }
    )


def code_digest() -> str:
    """sha256 over the sources that decide what a row's tokens are."""
    package = Path(__file__).parents[1]
    files = [*(package / "model").glob("*.py"), *(package / "train/objectives").glob("*.py")]
    total = hashlib.sha256()
    for file in sorted([*files, package / "core/records.py"]):
        total.update(file.read_bytes())
    return total.hexdigest()


def _write(path: Path, examples: Many[Example]) -> None:
    from safetensors.numpy import save

    sequences = [s for e in examples for s in e.sequences]
    flat = {
        "ids": np.concatenate([np.array(s.ids, np.int32) for s in sequences]),
        "targets": np.concatenate([np.array(s.targets, np.int32) for s in sequences]),
        "lengths": np.array([len(s.ids) for s in sequences], np.int64),
        "counts": np.array([len(e.sequences) for e in examples], np.int64),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(flat))
    write_json(path.with_suffix(".json"), {"sha256": file_digest(path)})


def _read(path: Path, rows: Many[Row]) -> list[Example] | None:
    """The kept examples, or None where there are none or the file is not what was written."""
    import json

    from safetensors.numpy import load_file

    manifest = path.with_suffix(".json")
    if not (path.exists() and manifest.exists()):
        return None
    if json.loads(manifest.read_text())["sha256"] != file_digest(path):
        return None
    flat = load_file(path)
    borders = np.cumsum(flat["lengths"])[:-1]
    ids = [tuple(part.tolist()) for part in np.split(flat["ids"], borders)]
    targets = [tuple(part.tolist()) for part in np.split(flat["targets"], borders)]
    sequences = iter([Sequence(i, t) for i, t in zip(ids, targets, strict=True)])
    return [
        Example(
            sequences=tuple(next(sequences) for _ in range(count)),
            row=row.digest,
            origin=row.origin,
            weight=row.weight,
        )
        for row, count in zip(rows, flat["counts"].tolist(), strict=True)
    ]
