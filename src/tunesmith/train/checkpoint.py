"""Checkpoints that survive any crash: written beside, verified, renamed into place, resumed to
the bit.

One is a folder `step-00000123` of safetensors and JSON under a sealed manifest. The rename is the
commit point; before it only a temporary folder exists, after it the checkpoint is whole. There is
no pointer to the latest one: the newest folder that verifies wins. Untested on NFS.
"""

import errno
import json
import os
import re
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import disk, manifests
from tunesmith.core.disk import disk_errors, make_folders
from tunesmith.core.errors import IntegrityError, ResourceError, TrainError, TunesmithError
from tunesmith.core.late import late
from tunesmith.core.lock import process_runs
from tunesmith.core.log import Log
from tunesmith.core.manifests import check_file, refuse_link
from tunesmith.core.signals import deferred
from tunesmith.train.state import join, split

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

VERIFY_LIMIT = 2 << 30
"""Bytes up to which a checkpoint is read back and hashed after it was written."""

ROOM = 1.2
"""Free space a save asks for, in its own size."""

TENSORS = ("model", "optimizer", "stream")
"""The parts of a snapshot with a safetensors file each."""

STATE = "state.json"
MANIFEST = "MANIFEST.json"

STEP_NAME = re.compile(r"step-(\d{8,})")
DAMAGED_NAME = re.compile(r"\.damaged-(\d+)-[0-9a-f]+")
TEMPORARY_NAME = re.compile(r"\.tmp-\d+-(\d+)-[0-9a-f]+")


@dataclass
class Snapshot:
    """All that training needs to go on as if it had never stopped, after `step` steps."""

    step: int
    cursor: int
    """How many groups were drawn: the order of the data is a function of the seed and this."""
    model: dict[str, "torch.Tensor"]
    optimizer: dict[str, "torch.Tensor"] = field(default_factory=dict)
    optimizer_state: Any = None
    """With `optimizer`, what `state.flatten_optimizer` gave."""
    random: Any = None
    """What `randomness.capture` gave."""
    stream: dict[str, Any] = field(default_factory=dict)
    """The stream's named state: JSON values and tensors, nested as it likes."""
    best: Any = None
    progress: Any = None
    digests: dict[str, str] = field(default_factory=dict)


def save(
    folder: Path,
    snapshot: Snapshot,
    *,
    keep: int = 2,
    pinned: Collection[int] = (),
    log: Log | None = None,
) -> Path:
    """Write `snapshot` durably as `folder/step-...`, verify it, then delete what is too old.

    The newest `keep` verified ones and the steps in `pinned` (the best one) stay. Signals wait
    until it is done. Raises ResourceError when the disk refuses and TrainError for a number that
    is not finite; in both cases the checkpoints that were there are untouched.
    """
    with deferred():
        started = time.monotonic()
        state, tensors = parts(snapshot)
        needed = size(state, tensors)
        make_room(folder, needed, log or Log())
        target = folder / f"step-{snapshot.step:08d}"
        write(target, snapshot.step, state, tensors, needed)
        written = time.monotonic()
        if needed <= VERIFY_LIMIT:
            read_back(target)
        if log is not None:
            spent = {"seconds": written - started, "verify_seconds": time.monotonic() - written}
            log.event("checkpoint", step=snapshot.step, bytes=needed, **spent)
        rotate(folder, target, keep=keep, pinned=pinned, log=log or Log())
        return target


def newest(folder: Path, log: Log | None = None) -> Snapshot | None:
    """The newest checkpoint that verifies; each rejected one is told in one line and stays."""
    for path in steps(folder):
        try:
            return load(path)
        except (IntegrityError, ResourceError) as error:
            if not is_damage(error):
                raise
            (log or Log()).say(f"checkpoint left out, an older one is used: {error}")
            if log is not None:
                log.event("checkpoint rejected", path=path.name, reason=str(error))
    return None


def load(path: Path) -> Snapshot:
    """The checkpoint at `path`, every byte verified; IntegrityError where one differs."""
    from tunesmith.model.tensors import read_tensors

    manifest = verify(path, hashes=True)
    tensors = {
        part: read_tensors(path / f"{part}.safetensors")
        for part in TENSORS
        if f"{part}.safetensors" in manifest["files"]
    }
    state = disk.read_json(path / STATE)
    stream = join(state.pop("stream"), tensors.pop("stream", {}))
    return Snapshot(**{"model": {}, "optimizer": {}, **tensors, **state, "stream": stream})


def parts(snapshot: Snapshot) -> tuple[bytes, dict[str, dict[str, "torch.Tensor"]]]:
    """A snapshot as the bytes of its state.json and the tensors of its other files."""
    stream: dict[str, torch.Tensor] = {}
    state = {name: value for name, value in vars(snapshot).items() if name not in TENSORS}
    state["stream"] = split(snapshot.stream, "stream", stream)
    tensors = {"model": snapshot.model, "optimizer": snapshot.optimizer, "stream": stream}
    tensors = {part: found for part, found in tensors.items() if found}
    refuse_nonfinite(snapshot.step, tensors)
    return disk.json_bytes(state), tensors


def refuse_nonfinite(step: int, tensors: Mapping[str, Mapping[str, "torch.Tensor"]]) -> None:
    """A state that diverged is never saved as a good one."""
    for part, found in tensors.items():
        for name, tensor in found.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise TrainError(
                    f"step {step}: {part} tensor {name} holds a number that is not finite; it "
                    "was not saved, and the last checkpoint is as it was. Lower train.lr"
                )


def size(state: bytes, tensors: Mapping[str, Mapping[str, "torch.Tensor"]]) -> int:
    """Bytes of the whole checkpoint; headers and manifest rounded up."""
    found = [tensor for part in tensors.values() for tensor in part.values()]
    return len(state) + sum(t.nbytes for t in found) + 256 * len(found) + 4096


def make_room(folder: Path, needed: int, log: Log) -> None:
    """Remove what dead saves left, and refuse before any work when the disk is too full."""
    refuse_link(folder)
    wanted = int(ROOM * needed)
    with disk_errors(folder, "save a checkpoint", wanted):
        make_folders(folder)
        sweep(folder, log)
        if disk.DISK.free(folder) < wanted:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write(
    target: Path,
    step: int,
    state: bytes,
    tensors: Mapping[str, Mapping[str, "torch.Tensor"]],
    needed: int,
) -> None:
    """Write everything into a folder beside `target`, durably, then rename it: the commit."""
    temporary = target.parent / f".tmp-{step}-{os.getpid()}-{secrets.token_hex(8)}"
    contents = {f"{part}.safetensors": safetensors(found) for part, found in tensors.items()}
    contents[STATE] = iter([memoryview(state)])
    with disk_errors(target, "save the checkpoint", needed):
        try:
            disk.DISK.mkdir(temporary)
            files = {n: disk.write_new(temporary / n, c) for n, c in contents.items()}
            manifest = manifests.sealed({"schema": manifests.SCHEMA, "step": step, "files": files})
            content = memoryview(disk.json_bytes(manifest))
            disk.write_new(temporary / MANIFEST, [content])
            disk.DISK.sync_folder(temporary)
            commit(temporary, target)
            disk.DISK.sync_folder(target.parent)
        except BaseException:
            with suppress(OSError):
                remove(temporary)
            raise


def commit(temporary: Path, target: Path) -> None:
    """Give the checkpoint its name. A whole one of that name wins; a damaged one moves aside."""
    while True:
        try:
            disk.DISK.rename(temporary, target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if is_whole(target):
            remove(temporary)
            return
        step = temporary.name.split("-")[1]
        aside = target.parent / f".damaged-{step}-{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):  # a second writer was faster
            disk.DISK.rename(target, aside)


def read_back(target: Path) -> None:
    """Refuse a disk that gives back other bytes than it was given."""
    try:
        verify(target, hashes=True)
    except (IntegrityError, ResourceError) as error:
        # Without the run's lock a second writer that is ahead may have deleted it as too old.
        if target.exists():
            raise IntegrityError(f"{error}. It was written just now: check the disk") from error


def verify(path: Path, *, hashes: bool) -> dict[str, Any]:
    """The manifest of a checkpoint, after its files were compared with it."""
    refuse_link(path)
    if not (path / MANIFEST).exists():
        raise IntegrityError(f"{path}: has no {MANIFEST}, so it was never finished")
    manifest = manifests.read_sealed(path / MANIFEST)
    if f"step-{manifest['step']:08d}" != path.name:
        raise IntegrityError(f"{path}: holds step {manifest['step']}; it was renamed or mixed up")
    known = {STATE, *(f"{part}.safetensors" for part in TENSORS)}
    if strangers := sorted(set(manifest["files"]) - known):
        raise IntegrityError(f"{path}: its manifest lists {strangers[0]}, which is none of ours")
    for name, facts in manifest["files"].items():
        check_file(path / name, facts, hashes=hashes)
    return manifest


def is_whole(path: Path) -> bool:
    """Whether a checkpoint verifies; above VERIFY_LIMIT by the sizes of its files alone."""
    try:
        manifest = verify(path, hashes=False)
        if sum(facts["bytes"] for facts in manifest["files"].values()) <= VERIFY_LIMIT:
            verify(path, hashes=True)
    except TunesmithError:
        return False
    return True


def is_damage(error: Exception) -> bool:
    """Whether a checkpoint cannot be read because it is damaged; other trouble hits all alike."""
    cause = error.__cause__
    lost = (errno.EIO, errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENOTDIR)
    return not isinstance(error, ResourceError) or getattr(cause, "errno", None) in lost


def steps(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first, verified or not."""
    found = [path for path in inside(folder) if STEP_NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def inside(folder: Path) -> list[Path]:
    """What is in a folder; nothing in one that is not there."""
    with disk_errors(folder, "read"):
        return list(folder.iterdir()) if folder.is_dir() else []


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.name.removeprefix("step-"))


def rotate(folder: Path, saved: Path, *, keep: int, pinned: Collection[int], log: Log) -> None:
    """Delete what is older than the newest `keep` verified ones, and damaged ones with it."""
    kept = 0
    for path in steps(folder):
        if kept >= max(keep, 1):
            if path != saved and step_of(path) not in pinned:
                discard(path, log)
        elif path == saved or is_whole(path):
            kept, oldest = kept + 1, step_of(path)
    if kept >= max(keep, 1):
        for path in inside(folder):
            damaged = DAMAGED_NAME.fullmatch(path.name)
            if damaged and int(damaged[1]) < oldest:
                discard(path, log)


def discard(path: Path, log: Log) -> None:
    """Delete a folder: out of sight first, so that no half of it is ever taken for a checkpoint."""
    trash = path.parent / f".trash-{path.name.lstrip('.')}-{secrets.token_hex(8)}"
    try:
        disk.DISK.rename(path, trash)
        remove(trash)
    except FileNotFoundError:
        return
    except OSError as error:
        log.say(f"warning: {path}: could not be deleted ({error.strerror}); delete it by hand")


def sweep(folder: Path, log: Log) -> None:
    """Remove half-deleted folders, and temporary ones of processes that run no more."""
    for path in inside(folder):
        temporary = TEMPORARY_NAME.fullmatch(path.name)
        dead = temporary and not process_runs(int(temporary[1]))
        if dead or path.name.startswith(".trash-"):
            try:
                remove(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.say(f"warning: {path}: could not be deleted ({error.strerror})")


def remove(folder: Path) -> None:
    """Delete a flat folder."""
    for path in sorted(folder.iterdir()):
        disk.DISK.unlink(path)
    disk.DISK.rmdir(folder)


def safetensors(tensors: Mapping[str, "torch.Tensor"]) -> Iterator[memoryview]:
    """A safetensors file piece by piece: the library's own writer needs all of it in memory."""
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, end = {}, 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": dtype_names()[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for name in names:
        flat = tensors[name].detach().to("cpu").contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data


def dtype_names() -> dict["torch.dtype", str]:
    """What safetensors calls the types a checkpoint may hold."""
    return {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
