"""A data set of the hub: its files at one commit, kept in our cache for our own readers."""

import fnmatch
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.rows import digest
from tunesmith.core.tables import PACKED, READERS, is_rows
from tunesmith.model import cache, hub
from tunesmith.model.bases import COMMIT, HUB_NAME

PREFIX = "hub:"
FORM = re.compile(rf"{PREFIX}(?P<name>{HUB_NAME.pattern})(@(?P<revision>[^/@]+))?(/(?P<files>.+))?")


@dataclass(frozen=True)
class DataSet:
    """Files of a data set: `hub:owner/name`, `hub:owner/name@revision/train*.parquet`.

    Without a pattern they are all files with an ending that is read here. Nothing else is
    fetched, and nothing of it is run.
    """

    name: str
    revision: str = ""
    files: str = ""

    @property
    def where(self) -> str:
        """The data set as a run file says it, without the files."""
        return f"{PREFIX}{self.name}" + (f"@{self.revision}" if self.revision else "")

    @property
    def fixed(self) -> bool:
        """Whether the revision is a commit, which nobody can move."""
        return COMMIT.fullmatch(self.revision) is not None

    @property
    def folder(self) -> Path:
        """Where our cache keeps these files of this commit."""
        name = f"{self.name.replace('/', '--')}-{self.revision}-{digest(self.files)[:12]}"
        return cache.cache_folder() / "data" / f"hub-{name}"

    def at_commit(self, known: str | None) -> "DataSet":
        """The data set at the commit that its revision means: the `known` one, or the hub's."""
        if self.fixed:
            return self
        return replace(self, revision=known or download(self).name)

    def keep(self) -> None:
        """Fetch the files into our cache, unless they are there. Only for a fixed revision."""
        if cache.sealed(self.folder) is not None:
            return
        snapshot = download(self)
        found = sorted(path for path in snapshot.rglob("*") if self.wants(path, snapshot))
        if not found:
            raise DataError(
                f"{self.where}: holds no file {self.files or 'of rows'} that ends in one of "
                f"{', '.join(READERS)}; name its files as hub:{self.name}/train*.parquet, or "
                "another data set"
            )
        with cache.filling(self.folder) as folder:
            for path in found:
                # One level of names, so that the cache's proof of a folder holds for them.
                hub.place(path, snapshot, folder / quote(path.relative_to(snapshot).as_posix(), ""))
            cache.seal(folder, {"revision": self.revision})

    def wants(self, path: Path, snapshot: Path) -> bool:
        """Whether a file of the data set is one of those named. The client keeps earlier ones."""
        name = path.relative_to(snapshot).as_posix()
        named = any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns())
        return named and is_rows(path.name) and not path.is_dir()

    def patterns(self) -> list[str]:
        """What the client may fetch; its `*` goes through folders too."""
        if self.files and is_rows(self.files.rpartition("/")[2].lstrip(".")):
            return [self.files]
        return [f"{self.files}*{end}{more}" for end in READERS for more in ("", PACKED)]


def data_set(source: str) -> DataSet | None:
    """The data set that a setting names; None where it names a path. Raises SettingsError."""
    if not source.startswith(PREFIX):
        return None
    form = FORM.fullmatch(source)
    if form is None:
        raise SettingsError(
            f"{source!r} names no data set; write hub:owner/name, hub:owner/name@revision, or "
            "either with files: hub:owner/name/train*.parquet"
        )
    return DataSet(form["name"], form["revision"] or "", form["files"] or "")


def download(wanted: DataSet) -> Path:
    """A snapshot of the files; its folder is named by the commit."""
    return hub.download(
        wanted.name,
        wanted.revision or None,
        kind="dataset",
        patterns=wanted.patterns(),
        where=wanted.where,
    )
