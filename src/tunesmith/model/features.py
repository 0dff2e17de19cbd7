"""Feature cache: the pooled state of a row under a model that stays as it is, computed once.

A state is known by what the model reads of a row (its token ids), under a folder named by all else
that it depends on. Files are named by the sha256 of their content and never change: a damaged one
is noticed, two processes can only add to each other, and removing any of them costs time alone.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.core import disk
from tunesmith.core.errors import ResourceError, TunesmithError
from tunesmith.core.late import late
from tunesmith.core.records import Batch, Example
from tunesmith.core.rows import digest
from tunesmith.environment import code_digest, versions
from tunesmith.model import layout
from tunesmith.model.cache import cache_folder
from tunesmith.model.safe import check_safetensors

if TYPE_CHECKING:
    import torch

    from tunesmith.model.arithmetic import Arithmetic
    from tunesmith.model.bases import Base
    from tunesmith.model.policy import Policy
else:
    torch = late("torch")

FILE = 8 << 20
"""Bytes of states that are held in memory before a file is made of them."""
LIMIT = 4 << 30
"""Bytes that all files may take; those that were not used for longest go first."""
KEYS, STATES = "keys", "states"
ELSEWHERE = ("_name_or_path", "transformers_version")
"""Entries of a model's settings that say where it came from, not what it computes."""


@dataclass(eq=False)
class Kept:
    """A file of states, mapped into memory and not read before a row is asked for."""

    path: Path
    keys: list[bytes]
    states: "np.ndarray[Any, Any]"  # [row, width] float32
    sound: bool = False
    """Whether its content was seen to be what its name says."""


class Features:
    """Pooled states of rows, from the files in `folder` or computed now and kept there.

    Where the disk refuses, states stay in memory, and `say` tells it once.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], *, limit: int = LIMIT) -> None:
        self.folder, self.say, self.limit = folder, say, limit
        self.writes = True
        self._places: dict[bytes, tuple[Kept, int]] = {}
        self._fresh: dict[bytes, np.ndarray[Any, Any]] = {}
        self._damaged: set[Path] = set()
        self._map_all()

    def knows(self, example: Example) -> bool:
        """Whether the states of all sequences of a row are there."""
        return all(self._has(key(s.ids, s.segments)) for s in example.sequences)

    def of(self, batch: Batch, compute: Callable[[Batch], "torch.Tensor"]) -> "torch.Tensor":
        """The states of a batch, [sequence, width] float32 on the CPU; of a batch that is not known
        whole, by `compute`."""
        keys = keys_of(batch)
        if not all(map(self._has, keys)):
            with torch.no_grad():
                self._add(keys, compute(batch).float().cpu().numpy())
        return torch.from_numpy(np.stack([self._state(each) for each in keys]))

    def settle(self) -> None:
        """Put on the disk what was computed, and let go of it in memory."""
        if not (self._fresh and self.writes):
            return
        try:
            path = written(self.folder, self._fresh)
            tighten(self.folder.parent, self.limit)
        except (OSError, ResourceError) as error:
            self.writes = False
            self.say(f"the states of rows stay in memory, for this process alone: {error}")
            return
        self._damaged.discard(path)
        self._map(path)
        for each in [found for found in self._fresh if found in self._places]:
            del self._fresh[each]

    def _has(self, wanted: bytes) -> bool:
        """Whether a state is there; a file is verified when the first of its rows is asked for."""
        if wanted in self._fresh:
            return True
        kept, _ = self._places.get(wanted, (None, 0))
        if kept is None:
            return False
        if not kept.sound and not verified(kept.path):
            self._forget(kept)
            return self._has(wanted)
        kept.sound = True
        return True

    def _state(self, wanted: bytes) -> "np.ndarray[Any, Any]":
        if wanted in self._fresh:
            return self._fresh[wanted]
        kept, row = self._places[wanted]
        state: np.ndarray[Any, Any] = kept.states[row]
        return state

    def _add(self, keys: Sequence[bytes], states: "np.ndarray[Any, Any]") -> None:
        """Take in what is new. A state that is there stays: it never changes under a run."""
        for each, state in zip(keys, states, strict=True):
            if not self._has(each):
                self._fresh[each] = state
        if len(self._fresh) * states.shape[1] * states.itemsize >= FILE:
            self.settle()

    def _map_all(self) -> None:
        for path in sorted({*self.folder.glob("*.safetensors")} - self._damaged):
            self._map(path)

    def _map(self, path: Path) -> None:
        """Take a file in. One that is no file of states is as good as none."""
        with suppress(OSError, TunesmithError):
            kept = mapped(path)
            for row, each in enumerate(kept.keys):
                self._places.setdefault(each, (kept, row))

    def _forget(self, damaged: Kept) -> None:
        """Leave out a file that is not what was written; its rows are computed again."""
        if damaged.path.exists():  # Another process may have made room meanwhile.
            self.say(f"{damaged.path}: was damaged; the states in it are computed again")
        self._damaged.add(damaged.path)
        with suppress(OSError):
            disk.DISK.unlink(damaged.path)
        self._places = {k: place for k, place in self._places.items() if place[0] is not damaged}
        self._map_all()  # Another file may hold some of its rows.


def opened(
    policy: "Policy", base: "Base", say: Callable[[str], None], arithmetic: "Arithmetic" = "floats"
) -> Features:
    """The cache for a policy whose model is `base` and stays so, read in these numbers."""
    return Features(home() / depends(policy, base, arithmetic)[:32], say)


def home() -> Path:
    """Where all states are: a folder that anyone may remove at any time."""
    return cache_folder() / "features"


def depends(policy: "Policy", base: "Base", arithmetic: "Arithmetic") -> str:
    """sha256 over all that a state depends on beside the row: weights, their types, the settings
    of the model, how text is read, in what numbers, the pooling, our code and the libraries."""
    model = layout.causal(policy.model)
    settings = json.loads(model.config.to_json_string(use_diff=False))
    return digest(
        {
            "base": base.digest,
            "words": list(base.tokens),
            "types": [[n, str(p.dtype), list(p.shape)] for n, p in model.named_parameters()],
            "settings": {k: v for k, v in settings.items() if k not in ELSEWHERE},
            "tokenizer": policy.tokenizer.digest,
            "template": policy.tokenizer.template_digest,
            "pooling": None if policy.head is None else policy.head.pooling,
            "device": policy.device.type,
            "packed": policy.packs,
            "arithmetic": arithmetic,
            "code": code_digest("model/*.py"),
            "versions": versions(),
        }
    )


def key(ids: Sequence[int], segments: Sequence[int] = ()) -> bytes:
    """sha256 of what a model reads of one sequence."""
    read = [np.asarray(ids, np.int32).tobytes()]
    if any(segments):
        read.append(np.asarray(segments, np.int32).tobytes())
    return hashlib.sha256(b"/".join(read)).digest()


def keys_of(batch: Batch) -> list[bytes]:
    """The key of each sequence of a batch, padding left out."""
    ids, lengths = batch.ids.cpu().numpy(), batch.mask.sum(dim=1).tolist()
    if batch.segments is None:
        return [key(row[:length]) for row, length in zip(ids, lengths, strict=True)]
    parts = zip(ids, batch.segments.cpu().numpy(), lengths, strict=True)
    return [key(row[:length], told[:length]) for row, told, length in parts]


def written(folder: Path, states: "dict[bytes, np.ndarray[Any, Any]]") -> Path:
    """A file of these states, durable and whole under the name of its content."""
    from safetensors.numpy import save

    keys = np.frombuffer(b"".join(states), np.uint8).reshape(len(states), -1)
    content = save({KEYS: keys, STATES: np.stack(list(states.values()))})
    path = folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
    with disk.disk_errors(folder, "keep the states of rows", len(content)):
        disk.make_folders(folder)
    disk.write_bytes(path, content)
    return path


def mapped(path: Path) -> Kept:
    """A file's rows by key, its states where they lie. Its header is checked, its content not yet.

    Raises IntegrityError or OSError for what is no such file.
    """
    entries = check_safetensors(path, (KEYS, STATES))
    keys, states = entries[KEYS], entries[STATES]
    if (keys.dtype, states.dtype) != ("U8", "F32") or len(keys.shape) + len(states.shape) != 4:
        raise OSError(f"{path} holds something else")
    if keys.shape != (states.shape[0], 32) or path.is_symlink():
        raise OSError(f"{path} holds something else")
    names = np.memmap(path, np.uint8, "r", keys.start, keys.shape)
    return Kept(
        path,
        [row.tobytes() for row in names],
        np.memmap(path, np.float32, "r", states.start, states.shape),
    )


def verified(path: Path) -> bool:
    """Whether a file's content is what its name says. It counts as used from now."""
    try:
        with suppress(OSError):
            os.utime(path)
        return disk.file_digest(path) == path.stem
    except (OSError, ResourceError):
        return False


def tighten(place: Path, limit: int) -> None:
    """Remove the files used longest ago until all take `limit` bytes at most. What a process has
    mapped stays readable to it."""
    found = []
    for path in place.glob("*/*.safetensors"):
        with suppress(OSError):
            state = path.stat()
            found.append((state.st_mtime_ns, path, state.st_size))
    total = sum(size for *_, size in found)
    for _, path, size in sorted(found):
        if total <= limit:
            return
        with suppress(OSError):
            disk.DISK.unlink(path)
        total -= size
