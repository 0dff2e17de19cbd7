"""What ties a saved model to its base, tokenizer and template: `tunesmith.json`, and its check."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.disk import write_json
from tunesmith.core.errors import IntegrityError

if TYPE_CHECKING:
    from tunesmith.model.bases import Base
    from tunesmith.model.tokenizer import Tokenizer

NAME = "tunesmith.json"
SCHEMA = 1


def bind(
    folder: Path,
    base: "Base",
    tokenizer: "Tokenizer",
    *,
    kind: str,
    method: Mapping[str, Any],
    tensors: Mapping[str, str],
) -> None:
    """Write `folder`'s binding. `tensors` are sha256 by name, taken from memory before saving."""
    record = {
        "schema": SCHEMA,
        "kind": kind,
        "method": dict(method),
        "base": {
            "source": base.source,
            "revision": base.revision,
            "digest": base.digest,
            "bits": base.bits,
        },
        "tokenizer": tokenizer.digest,
        "template": tokenizer.template_digest,
        "tensors": dict(tensors),
    }
    write_json(folder / NAME, record)


def read_binding(folder: Path) -> dict[str, Any]:
    """The binding of `folder`; empty where there is none."""
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise IntegrityError(
            f"{path}: is not JSON ({error}); export the run again: tunesmith deploy RUN.yaml"
        ) from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise IntegrityError(
            f"{path}: schema {SCHEMA} is wanted; this folder was written by another version, "
            "or changed. Export the run again: tunesmith deploy RUN.yaml"
        )
    return record


def check_binding(folder: Path, base: "Base") -> None:
    """Refuse to put what `folder` holds on any base but its own (T-BIND).

    Reads `tunesmith.json` (an export: base, tokenizer, template and every tensor are checked) or
    `train.json` (a train stage, whose files its manifest vouches for: the base is checked).
    """
    record = read_binding(folder)
    trained = folder / "train.json"
    if record:
        check_base(folder, record["base"], base)
        check_tokenizer(folder, record)
        check_tensors(folder, record)
    elif trained.is_file():
        check_base(folder, json.loads(trained.read_text("utf-8"))["base"], base)
    else:
        raise IntegrityError(
            f"{folder}: neither {NAME} nor train.json is here, so nothing says which base it "
            "belongs to. Export the run again: tunesmith deploy RUN.yaml"
        )


def check_base(folder: Path, wanted: Mapping[str, Any], base: "Base") -> None:
    """Refuse a base with other weights than those trained on, or the same ones held otherwise."""
    if wanted["digest"] != base.digest:
        raise IntegrityError(
            f"{folder}: was trained on {wanted.get('source', 'another base')} with digest "
            f"{wanted['digest'][:12]}, but the base here is {base.source} with digest "
            f"{base.digest[:12]}. Name the base it was trained on, or train again on this one."
        )
    if wanted.get("bits") != base.bits:
        then = wanted.get("bits")
        raise IntegrityError(
            f"{folder}: was trained on a base {held(then)}, and model.bits asks for one "
            f"{held(base.bits)}. Say model.bits={json.dumps(then)} (in Python: bits={then}), or "
            "train the run again."
        )


def held(bits: int | None) -> str:
    """How a base is held, in words."""
    return "in floats" if bits is None else f"in {bits} bits"


def check_tokenizer(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuse a tokenizer or a chat template that changed since the export."""
    from tunesmith.model.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    for what, found in (
        ("tokenizer", tokenizer.digest),
        ("template", tokenizer.template_digest),
    ):
        if record[what] != found:
            raise IntegrityError(
                f"{folder}: the {what} changed since the export (digest {record[what][:12]} then, "
                f"{found[:12]} now). Export the run again: tunesmith deploy RUN.yaml"
            )


def check_tensors(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuse a missing, unexpected, non-finite or changed tensor, by name."""
    from tunesmith.model.tensors import read_tensors, tensor_digest

    left = dict(record["tensors"])
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in read_tensors(path).items():
            if left.pop(name, None) != tensor_digest(tensor):
                raise IntegrityError(
                    f"{path}: tensor {name} is not the one that was exported. "
                    "Export the run again: tunesmith deploy RUN.yaml"
                )
    if left:
        raise IntegrityError(
            f"{folder}: tensor {min(left)} is missing ({len(left)} in all). "
            "Export the run again: tunesmith deploy RUN.yaml"
        )
