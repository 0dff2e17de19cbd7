"""Where converted and downloaded models are kept, and proof that they are still what was kept."""

import hashlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tunesmith.core.disk import disk_errors, file_digest, read_json, write_json
from tunesmith.core.errors import IntegrityError, TunesmithError
from tunesmith.core.rows import digest
from tunesmith.model.safe import check_safetensors

MANIFEST = "MANIFEST.json"
SCHEMA = 1


def cache_folder() -> Path:
    """`$TUNESMITH_CACHE`, or `~/.cache/tunesmith`."""
    named = os.environ.get("TUNESMITH_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "tunesmith"


@contextmanager
def filling(target: Path) -> Iterator[Path]:
    """A folder to fill; on leaving it is sealed and becomes `target` in one step.

    Two processes may fill the same target: the first wins, and both results are the same.
    """
    with disk_errors(target, "keep a model"):
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(prefix=".filling-", dir=target.parent))
    try:
        yield folder
        with disk_errors(target, "keep a model"):
            sync(folder)
            if target.exists() and not (target / MANIFEST).is_file():
                shutil.rmtree(target)
            if not target.exists():
                os.rename(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync(folder: Path) -> None:
    """Make every file durable before the name is."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest: sizes and hashes of every file, and what is known of the model."""
    kept = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    write_json(folder / MANIFEST, {"schema": SCHEMA, "files": kept, "facts": facts})


def sealed(folder: Path) -> dict[str, Any] | None:
    """The facts of a kept model whose files are still the ones it was sealed with; None if there
    is none. Hashes are computed again only when a size or a time of change differs."""
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_json(folder / MANIFEST)
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    if manifest.get("schema") != SCHEMA or names != sorted(manifest["files"]):
        raise stale(folder, "its files are not those of its manifest")
    for name, wanted in manifest["files"].items():
        if (folder / name).is_symlink() or (folder / name).stat().st_size != wanted["bytes"]:
            raise stale(folder, f"{name} changed")

    def hashes() -> dict[str, str]:
        return {name: file_digest(folder / name) for name in names}

    found = remembered("files", folder, names, hashes)
    for name, wanted in manifest["files"].items():
        if found[name] != wanted["sha256"]:
            raise stale(folder, f"{name} changed")
    facts: dict[str, Any] = manifest["facts"]
    return facts


def stale(folder: Path, what: str) -> IntegrityError:
    """The error for a cache entry that was tampered with or damaged."""
    return IntegrityError(f"{folder}: {what}. Delete this folder; it is made again when needed.")


def remembered(what: str, folder: Path, names: list[str], compute: Any) -> Any:
    """`compute()` for these files, or what it gave while size, inode and times were the same."""
    stamps = {}
    for name in names:
        state = (folder / name).stat()
        stamps[name] = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
    place = cache_folder() / "stamps" / f"{digest([what, str(folder.resolve())])[:32]}.json"
    with suppress(TunesmithError, KeyError):
        before = read_json(place)
        if before["stamps"] == stamps:
            return before["value"]
    value = compute()
    with suppress(TunesmithError, OSError):  # a read-only home costs time, nothing else
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(place, {"stamps": stamps, "value": value})
    return value


def folder_digest(folder: Path, names: list[str]) -> str:
    """sha256 over the sorted digests of every tensor in these files: the model's identity."""
    value: str = remembered("tensors", folder, names, lambda: tensors_digest(folder, names))
    return value


def tensors_digest(folder: Path, names: list[str]) -> str:
    """The digest over all tensors of these files, whatever file each is in."""
    lines = []
    for name in names:
        lines += [f"{tensor} {value}" for tensor, value in file_tensors(folder / name)]
    return combined(lines)


def combined(lines: list[str]) -> str:
    """sha256 of sorted `name digest` lines."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def file_tensors(path: Path) -> Iterator[tuple[str, str]]:
    """Each tensor's name and digest, read through the page cache without a copy."""
    entries = check_safetensors(path)
    if not entries:
        return
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content,
        memoryview(content) as view,
    ):
        for name, each in entries.items():
            with view[each.start : each.end] as part:
                yield name, bytes_digest(each.dtype, each.shape, part)


def bytes_digest(dtype: str, shape: tuple[int, ...], content: Any) -> str:
    """sha256 of a tensor: type, shape and bytes."""
    state = hashlib.sha256(f"{dtype} {list(shape)}\n".encode())
    state.update(content)
    return state.hexdigest()
