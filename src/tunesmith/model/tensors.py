"""Tensors in files: which files, whether they are whole and finite, and what identifies them."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import IntegrityError
from tunesmith.core.late import late
from tunesmith.model import cache
from tunesmith.model.safe import check_safetensors

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

CODES = {
    "torch.bool": "BOOL", "torch.uint8": "U8", "torch.int8": "I8",
    "torch.float8_e5m2": "F8_E5M2", "torch.float8_e4m3fn": "F8_E4M3",
    "torch.uint16": "U16", "torch.int16": "I16", "torch.float16": "F16", "torch.bfloat16": "BF16",
    "torch.uint32": "U32", "torch.int32": "I32", "torch.float32": "F32",
    "torch.uint64": "U64", "torch.int64": "I64", "torch.float64": "F64",
}  # fmt: skip
"""What safetensors calls torch's types."""


def shards(folder: Path) -> list[str]:
    """The files the weights are in, as transformers chooses them: one, or those of the index.

    Raises IntegrityError unless the index names every tensor of its files, in this folder.
    """
    path = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not path.is_file():
        return ["model.safetensors"] if (folder / "model.safetensors").is_file() else []
    mapped: dict[str, list[str]] = {}
    for tensor, name in json.loads(path.read_text("utf-8")).get("weight_map", {}).items():
        mapped.setdefault(str(name), []).append(tensor)
    for name, tensors in mapped.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise IntegrityError(
                f"{path}: names {name!r}, which is not a file of this folder. Get both again."
            )
        check_safetensors(folder / name, tensors)
    return sorted(mapped)


def check_finite(place: Path, tensors: Any) -> None:
    """Refuse NaN and infinity, by the tensor's name (S5)."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        values = tensor if tensor.element_size() > 1 else tensor.float()
        # NaN passes through both ends, so two numbers tell of all, without a copy in memory.
        low, high = values.aminmax()
        if not (low.isfinite() and high.isfinite()):
            raise IntegrityError(
                f"{holder(place, name)}: tensor {name} holds NaN or infinity. The file is "
                "damaged: get it again, or use an earlier checkpoint."
            )


def holder(place: Path, name: str) -> Path:
    """The file of a folder that holds a tensor, or the folder where that is not certain."""
    if place.is_file():
        return place
    paths = [place / shard for shard in shards(place)]
    with_it = [path for path in paths if name in check_safetensors(path)]
    return with_it[0] if with_it else paths[0] if len(paths) == 1 else place


def read_tensors(path: Path, expected: Collection[str] | None = None) -> dict[str, "torch.Tensor"]:
    """The tensors of one file, its header checked (S3), its numbers finite (S5)."""
    from safetensors.torch import load_file

    if path.is_symlink() or not path.is_file():
        raise IntegrityError(f"{path}: is missing, or is not a plain file. Get it again.")
    check_safetensors(path, expected)
    tensors: dict[str, torch.Tensor] = load_file(path)
    check_finite(path, tensors)
    return tensors


def tensor_digest(tensor: "torch.Tensor") -> str:
    """sha256 of a tensor: type, shape and bytes; the same for a file's tensor and a live one."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    content: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return cache.bytes_digest(CODES[str(tensor.dtype)], tuple(tensor.shape), content)
