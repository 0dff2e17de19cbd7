"""What a model folder may hold, checked in pure Python before any library opens it (S3, S8)."""

import json
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import IntegrityError
from tunesmith.core.quote import printable
from tunesmith.core.strictjson import Malformed, parse

HEADER = 16 * 2**20
"""Bytes of a safetensors header."""
TENSORS = 100_000
"""Tensors in one file."""
SETTINGS = 64 * 2**20
"""Bytes of a JSON settings file; `tokenizer.json` may be larger and is data only."""

WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""Bytes of one number of each type that is read."""

REFUSED = frozenset({
    ".py", ".pyc", ".pyd", ".so", ".dll", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt",
    ".joblib", ".npy", ".npz", ".h5", ".msgpack", ".zip", ".tar", ".gz", ".tgz", ".7z", ".whl",
    ".nemo", ".sh", ".exe", ".ot", ".mlmodel", ".keras", ".dill", ".cloudpickle",
})  # fmt: skip
"""Endings of files that hold code, or that only a reader which runs code can open."""

SIGNS = {
    b"PK\x03\x04": "a zip archive (torch's pickle format is one)",
    b"\x1f\x8b": "a gzip archive",
    b"\x7fELF": "a program",
    b"\x93NUMPY": "a numpy file, which may hold a pickle",
    b"\x89HDF": "an HDF5 file",
}
PICKLE = re.compile(
    rb"\x80[\x01-\x05]|\([dl]p\d+\n"
    rb"|\(?c(os|posix|nt|sys|builtins|__builtin__|subprocess|copy_?reg|torch|numpy|collections)"
    rb"[\w.]*\n\w+\n"
)
"""How pickles begin, the old text form included."""

RISKY = ("auto_map", "custom_pipelines", "trust_remote_code", "custom_generate")
"""Settings by which a folder asks a library to run its code."""


@dataclass(frozen=True)
class Entry:
    """One tensor in a safetensors file: where its bytes stand, counted from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def check_safetensors(path: Path, expected: Collection[str] | None = None) -> dict[str, Entry]:
    """The tensors of a file whose header is sound; nothing is allocated on the header's word."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or HEADER >= length > size - 8:
            needed = "8" if size < 8 else f"{8 + length}"
            raise broken(path, f"the file is cut short: {size} bytes, its header alone is {needed}")
        if length > HEADER:
            raise broken(path, f"its header claims {length} bytes (limit {HEADER})")
        raw = file.read(length)
    header = header_of(path, raw)
    if len(header) > TENSORS:
        raise broken(path, f"{len(header)} tensors (limit {TENSORS})")
    entries = {name: entry(path, name, value, 8 + length) for name, value in header.items()}
    contiguous(path, entries, 8 + length, size)
    if expected is not None and set(entries) != set(expected):
        named = sorted(set(entries) ^ set(expected))[0]
        state = "is missing" if named in expected else "is not expected"
        raise broken(path, f"tensor {named!r} {state}")
    return entries


def header_of(path: Path, raw: bytes) -> dict[str, Any]:
    """The header as JSON without duplicate keys, metadata checked and left out."""
    try:
        header = parse(raw.decode("utf-8"))
    except (UnicodeDecodeError, Malformed) as error:
        raise broken(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise broken(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    plain = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
    if not plain:
        raise broken(path, "its metadata is not text by name")
    return header


def entry(path: Path, name: str, value: Any, base: int) -> Entry:
    """One tensor's entry, with a shape that fits its bytes."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise broken(path, f"tensor {name!r} is not described by dtype, shape and offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise broken(path, f"tensor {name!r} has type {str(dtype)[:20]!r}, which is not read")
    if not naturals(shape) or not naturals(offsets) or len(offsets) != 2 or len(shape) > 16:
        raise broken(path, f"tensor {name!r} has a shape or offsets that are not whole numbers")
    begin, end = offsets
    if end - begin != math.prod(shape) * WIDTHS[dtype]:
        raise broken(path, f"tensor {name!r}: its shape does not fill its bytes")
    return Entry(dtype, tuple(shape), base + begin, base + end)


def naturals(value: Any) -> bool:
    """Whether a value is a list of whole numbers from 0 on."""
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)


def contiguous(path: Path, entries: Mapping[str, Entry], start: int, size: int) -> None:
    """The tensors' bytes fill the file from the header to the end: no gap, overlap or rest."""
    at = start
    for name, each in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if each.start == at and each.end > size:
            raise broken(
                path,
                f"the file is cut short: tensor {name!r} ends at byte {each.end}, "
                f"and the file has {size}",
            )
        if each.start != at:
            raise broken(path, f"tensor {name!r} overlaps another or leaves a gap")
        at = each.end
    if at != size:
        raise broken(path, f"{size - at} bytes follow the last tensor")


def broken(path: Path, what: str) -> IntegrityError:
    """The error for a tensor file that must not be read."""
    return IntegrityError(f"{path}: {what}. The file is damaged or hostile: get it again.")


ADAPTER = "adapter_config.json"
"""By this name transformers finds an adapter in a model's folder, and puts it on unasked."""


def check_folder(folder: Path, beside: Collection[str] = ()) -> None:
    """Refuse a base model's folder that holds code, pickles, links, unsound tensor files or an
    adapter. What is named in `beside` is no part of the model and not looked into.

    Raises IntegrityError with the file named. The architecture is checked apart, where
    transformers is loaded anyway (`load.check_architecture`).
    """
    if folder.is_symlink() or not folder.is_dir():
        raise IntegrityError(f"{folder}: is not a folder. Name the folder itself.")
    for path in files(folder, (".git", ".cache", *beside)):
        if path.suffix == ".safetensors":
            check_safetensors(path)
            continue
        check_ending(path)
        check_beginning(path)
        if path.suffix == ".json" and path.name != "tokenizer.json":
            check_settings(path)
    check_alone(folder)


def check_alone(folder: Path) -> None:
    """Refuse an adapter in a base's folder: the weights used would not be those of its digest."""
    path = folder / ADAPTER
    if not os.path.lexists(path):
        return
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        value = None
    named = value.get("base_model_name_or_path") if isinstance(value, dict) else None
    other = " ".join(printable(str(named or "another model")).split())[:200]
    raise IntegrityError(
        f"{path}: this is an adapter for {other}, not "
        "part of a base model. Name that base and use this as an adapter, or move the file away."
    )


def files(folder: Path, beside: Collection[str]) -> Iterator[Path]:
    """Every file below, links refused, but for what is named in `beside`."""
    for path in sorted(folder.iterdir()):
        if path.name in beside and not path.is_symlink():
            continue
        if path.is_symlink():
            raise IntegrityError(
                f"{path}: is a symbolic link. Put the file itself there "
                "(cp -L copies what links point to)."
            )
        if path.is_dir():
            yield from files(path, beside)
        elif path.is_file():
            yield path
        else:
            raise IntegrityError(f"{path}: is neither a file nor a folder. Remove it.")


def check_ending(path: Path) -> None:
    """Refuse by name what holds code or pickles."""
    endings = {suffix.lower() for suffix in path.suffixes}
    if endings & REFUSED:
        raise IntegrityError(
            f"{path}: code, archives and pickles are never opened. Remove the file, or name a "
            "folder with *.safetensors, *.json and tokenizer files only."
        )


def check_beginning(path: Path) -> None:
    """Refuse by content what an innocent name may hide."""
    with path.open("rb") as file:
        head = file.read(256)
    sign = next((what for mark, what in SIGNS.items() if head.startswith(mark)), None)
    if sign is None and PICKLE.match(head):
        sign = "a pickle"
    if sign is not None:
        raise IntegrityError(f"{path}: is {sign} under another name. Remove the file.")


def check_settings(path: Path) -> None:
    """Refuse settings by which a library would import or download code."""
    if path.stat().st_size > SETTINGS:
        if path.name in ("vocab.json", "added_tokens.json"):
            return
        raise IntegrityError(f"{path}: larger than {SETTINGS} bytes. Remove the file.")
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path}: is not JSON ({error}). Get the file again.") from error
    for key, found in settings(value):
        code = key in RISKY and found not in (None, False, {}, [])
        kernel = key.endswith("attn_implementation") and "/" in str(found)
        library = key == "parent_library" and not str(found).startswith(("transformers.", "None"))
        if code or kernel or library:
            raise IntegrityError(
                f"{path}: {key} asks for code from elsewhere, and none is ever run. Remove the "
                "key if the model works without it, or use another model."
            )


def settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value at any depth."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield from each.items()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
