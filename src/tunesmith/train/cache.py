"""Rows are turned into tokens once: kept by a digest of everything that the tokens depend on."""

from collections.abc import Sequence as Many
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.core.disk import file_digest, read_json, write_bytes, write_json
from tunesmith.core.errors import ResourceError, TunesmithError
from tunesmith.core.records import Example, Sequence
from tunesmith.core.rows import Row, digest
from tunesmith.environment import code_digest
from tunesmith.model.cache import cache_folder
from tunesmith.model.tensors import read_tensors
from tunesmith.train.objectives.base import Objective

if TYPE_CHECKING:
    from tunesmith.model.tokenizer import Tokenizer

NUMBERS = {
    "ids": np.int32,
    "targets": np.int32,
    "segments": np.int32,
    "lengths": np.int64,
    "counts": np.int64,
}
"""What a kept file holds, and the type of each."""

CODE = ("model/*.py", "train/objectives/*.py", "core/records.py", "core/rows.py")
"""The sources that decide what a row's tokens are."""

SMALLEST = 2000
"""Rows from which a cache pays; fewer are encoded in a second or two."""


def encoded(
    rows: Many[Row], objective: Objective, tokenizer: "Tokenizer", *, smallest: int = SMALLEST
) -> list[Example]:
    """The objective's examples of `rows`, from the cache when all they depend on is unchanged."""
    if len(rows) < smallest:
        return [objective.encode(row, tokenizer) for row in rows]
    path = cache_folder() / "tokens" / f"{key(rows, objective, tokenizer)}.safetensors"
    found = _read(path, rows, objective)
    if found is None:
        found = [objective.encode(row, tokenizer) for row in rows]
        _write(path, found)
    return found


def key(rows: Many[Row], objective: Objective, tokenizer: "Tokenizer") -> str:
    """sha256 over the rows, the objective's settings, the tokenizer, its template, the ends that
    the model's settings name, and our code."""
    return digest(
        {
            "rows": [row.digest for row in rows],
            "objective": objective.model_dump(mode="json"),
            "tokenizer": tokenizer.digest,
            "template": tokenizer.template_digest,
            "stops": tokenizer.declared_stops,
            "code": code_digest(*CODE),
        }
    )


def _write(path: Path, examples: Many[Example]) -> None:
    """Keep the examples, where that is possible: a cache that cannot be written costs time only."""
    from safetensors.numpy import save

    sequences = [s for e in examples for s in e.sequences]
    if not sequences:
        return
    flat = {
        "ids": np.concatenate([np.array(s.ids, np.int32) for s in sequences]),
        "targets": np.concatenate([np.array(s.targets, np.int32) for s in sequences]),
        "segments": np.concatenate([_segments(s) for s in sequences]),
        "lengths": np.array([len(s.ids) for s in sequences], np.int64),
        "counts": np.array([len(e.sequences) for e in examples], np.int64),
    }
    with suppress(OSError, ResourceError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_bytes(path, save(flat))
        write_json(path.with_suffix(".json"), {"sha256": file_digest(path)})


def _segments(sequence: Sequence) -> "np.ndarray[Any, Any]":
    """A sequence's segments, zeros where it is one text."""
    return np.array(sequence.segments or [0] * len(sequence.ids), np.int32)


def _read(path: Path, rows: Many[Row], objective: Objective) -> list[Example] | None:
    """The kept examples, or None where there are none or the files are not what was written."""
    with suppress(OSError, TunesmithError):
        manifest = read_json(path.with_suffix(".json"))
        if isinstance(manifest, dict) and manifest.get("sha256") == file_digest(path):
            tensors = read_tensors(path, NUMBERS)
            flat = {name: tensors[name].numpy() for name in NUMBERS}
            return _examples(flat, rows, objective)
    return None


def _examples(
    flat: dict[str, "np.ndarray[Any, Any]"], rows: Many[Row], objective: Objective
) -> list[Example] | None:
    """The examples that the numbers mean, or None where the numbers do not fit together."""
    ids, targets, segments, lengths, counts = (flat[name] for name in NUMBERS)
    plain = all(each.ndim == 1 and each.dtype == NUMBERS[name] for name, each in flat.items())
    if not plain or len(counts) != len(rows) or (lengths < 0).any() or (counts < 0).any():
        return None
    if counts.sum() != len(lengths) or {len(ids), len(targets), len(segments)} != {lengths.sum()}:
        return None
    borders = np.cumsum(lengths)[:-1]
    parts = zip(*(np.split(each, borders) for each in (ids, targets, segments)), strict=True)
    sequences = iter([_sequence(*part) for part in parts])
    return [
        Example(
            sequences=tuple(next(sequences) for _ in range(count)),
            row=row.digest,
            origin=row.origin,
            label=objective.label(row),
            weight=row.weight,
        )
        for row, count in zip(rows, counts.tolist(), strict=True)
    ]


def _sequence(
    ids: "np.ndarray[Any, Any]",
    targets: "np.ndarray[Any, Any]",
    segments: "np.ndarray[Any, Any]",
) -> Sequence:
    told = tuple(segments.tolist()) if segments.any() else ()
    return Sequence(tuple(ids.tolist()), tuple(targets.tolist()), told)
