"""What a setting that names rows means: a file, a folder of files, or a data set of the hub."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from tunesmith.core.errors import DataError
from tunesmith.core.quote import visible
from tunesmith.core.rows import digest
from tunesmith.core.tables import files_of
from tunesmith.core.textfile import opened, unreadable
from tunesmith.data.hub import DataSet, data_set


@dataclass(frozen=True)
class Located:
    """Rows on this disk, what rows remember of the place, and what vouches for the content.

    For a data set of the hub that is its commit: neither network nor files are needed to know
    that nothing changed.
    """

    path: Path
    place: str
    digest: str
    fetched: DataSet | None = None
    commits: Mapping[str, str] = field(default_factory=dict)
    """The commit that a data set's branch or tag meant, for those who must mean the same."""

    def ready(self) -> None:
        """Make sure that the files are there."""
        if self.fetched is not None:
            self.fetched.keep()

    def check(self) -> None:
        """Refuse files that are not what they were."""
        if self.fetched is None and content_digest(self.path) != self.digest:
            raise DataError(f"{visible(self.path)}: changed while it was read; start again")

    def origin(self, file: str) -> str:
        """A file of these as its rows remember it."""
        inside = os.path.relpath(file, self.path)
        if inside == ".":
            return self.place
        return f"{self.place}/{inside if self.fetched is None else unquote(inside)}"


def located(source: str, home: Path, known: Mapping[str, str]) -> Located:
    """What `source` names. A data set is at the commit that is `known`, or asked for now.

    What is neither file nor folder is refused before it is opened.
    """
    wanted = data_set(source)
    if wanted is None:
        path = Path(source)
        return Located(path, place_of(path, home), content_digest(path))
    pin = f"commit of {wanted.where}"
    found = wanted.at_commit(known.get(pin))
    commits = {} if wanted.fixed else {pin: found.revision}
    files = f"/{found.files}" if found.files else ""
    return Located(found.folder, found.where, f"{found.where}{files}", found, commits)


def place_of(path: Path, home: Path) -> str:
    """A path as rows remember it: from the project's folder on, or by its name outside of it."""
    whole = path.absolute()
    return whole.relative_to(home).as_posix() if whole.is_relative_to(home) else whole.name


def content_digest(path: Path) -> str:
    """sha256 of a file of rows, or of the names and contents of a folder's."""
    if not os.path.isdir(path):
        return file_digest(path)
    return digest({f.relative_to(path).as_posix(): file_digest(f) for f in files_of(path)})


def file_digest(path: Path) -> str:
    """sha256 of one file of rows."""
    with opened(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise unreadable(path, error) from None
