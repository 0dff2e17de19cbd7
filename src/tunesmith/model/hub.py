"""The hub's door: files of a model or a data set at one commit, by the official client."""

import os
import shutil
from collections.abc import Sequence
from logging import ERROR
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.errors import IntegrityError, ResourceError


def download(
    name: str,
    revision: str | None,
    *,
    kind: Literal["model", "dataset"],
    patterns: Sequence[str],
    where: str,
) -> Path:
    """The client's snapshot of the files that fit `patterns`; its folder is named by the commit.
    `where` says in an error who named it."""
    from huggingface_hub import logging as theirs
    from huggingface_hub import snapshot_download

    logging: Any = theirs

    loud = logging.get_verbosity()
    logging.set_verbosity(ERROR)  # What matters is raised, by the client or by us.
    try:
        wanted = list(patterns)
        found = snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=wanted)
    except Exception as error:  # the client raises many kinds; each means the same to a user
        reason = str(error).strip().split("\n")[0]
        if unasked(error):
            raise ResourceError(
                f"{where}: is not in the cache, and the hub was not asked: the environment says to "
                "stay offline. Allow it by HF_HUB_OFFLINE=0 before the command, or copy its files "
                "here and name their folder."
            ) from error
        raise ResourceError(
            f"{where}: cannot be fetched from the hub ({type(error).__name__}: {reason}). Check "
            "the name and the network, or copy its files here and name their folder."
        ) from error
    finally:
        logging.set_verbosity(loud)
    return Path(found)


def unasked(error: BaseException | None) -> bool:
    """Whether the client failed since it may ask nobody: the environment told it so."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    while error is not None and not isinstance(error, OfflineModeIsEnabled):
        error = error.__cause__ or error.__context__
    return error is not None


def place(path: Path, snapshot: Path, target: Path) -> None:
    """A file of a snapshot as a plain file. The client links into its own blobs, nowhere else."""
    blobs, real = (snapshot.parent.parent / "blobs").resolve(), path.resolve()
    if path.is_symlink() and real.parent != blobs:
        raise IntegrityError(f"{path}: links to {real}, outside the hub's cache. Remove it.")
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
