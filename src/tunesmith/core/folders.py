"""The folders of a run and of its stages: begun, finished by a manifest, or making way."""

import errno
import os
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tunesmith.core import disk, lock, rights
from tunesmith.core.aside import Aside
from tunesmith.core.disk import (
    disk_errors,
    file_digest,
    make_folders,
    read_json,
    sync_file,
    write_json,
)
from tunesmith.core.errors import (
    DataError,
    IntegrityError,
    ResourceError,
    SettingsError,
    TunesmithError,
)
from tunesmith.core.inputs import DIGEST, changed, happened, normalised, plainly, shown, told
from tunesmith.core.log import redacted
from tunesmith.core.manifests import SCHEMA, check_file, read_sealed, refuse_link, sealed
from tunesmith.core.rows import digest

SINKS = "sinks"
"""Where other tools keep their copies of a stage's numbers, as they like: links, locks and all."""

UNLISTED = ("checkpoints", SINKS, "MANIFEST.json")
"""What a finished stage's manifest leaves out: it may change, or go, and the result is the same."""

PAGES = ("evaluate", "cards")
"""Folders that may hold pages alone, written of the stages as they were and of no one digest."""


class RunFolder:
    """`runs/<name>/`: everything one run leaves behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.made: list[Path] = []
        """The folders that `create` made, the run's own first."""

    def create(self) -> None:
        """Make the folder; refuses a file, a link, or a place that cannot be written."""
        refuse_link(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise ResourceError(f"{self.path}: is a file; name another run, or move it away")
        self.made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        with disk_errors(self.path, "make the run folder"):
            make_folders(self.path)
            if not os.access(self.path, os.W_OK | os.X_OK):
                code = errno.EROFS if rights.read_only(self.path) else errno.EACCES
                raise OSError(code, os.strerror(code))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run; a second process is refused in one line. A dead process holds nothing."""
        path = self.path / "lock"
        with disk_errors(path, "lock the run"):
            file = lock.take(path)
        try:
            yield
        finally:
            lock.release(file)

    @contextmanager
    def tidied(self) -> Iterator[None]:
        """Inside, a refusal before anything was made leaves nothing behind that `create` made."""
        try:
            yield
        except (TunesmithError, KeyboardInterrupt):
            self._leave_nothing()
            raise

    def _leave_nothing(self) -> None:
        """Remove what `create` made, where nothing but the settings and the lock is in it."""
        beside = {"lock", "run.yaml"}
        if self.path not in self.made or {path.name for path in self.path.iterdir()} - beside:
            return
        with suppress(OSError):  # Another process is faster, and begins here.
            for path in self.path.iterdir():
                disk.DISK.unlink(path)
            for folder in self.made:
                disk.DISK.rmdir(folder)

    def stage(self, name: str) -> "Stage":
        """The folder of one stage."""
        return Stage(self, name)

    def record(self, **facts: Any) -> None:
        """Add `facts` to the run's manifest.json."""
        write_json(self.path / "manifest.json", self.manifest() | redacted(facts))

    def manifest(self) -> dict[str, Any]:
        """What is recorded about the run; before the first record only the schema version."""
        path = self.path / "manifest.json"
        found: dict[str, Any] = read_json(path) if path.exists() else {}
        return found | {"schema": SCHEMA}


class Stage:
    """`runs/<name>/<stage>/`: begun with inputs, finished by a manifest, never half of either."""

    def __init__(self, run: RunFolder, name: str) -> None:
        self.run = run
        self.name = name
        self.path = run.path / name
        self._aside = Aside(run.path)
        self._say: Callable[[str], object] = lambda line: None
        self._replaced = ""
        """The digest of the finished result that made way for this one."""

    def begin(
        self,
        inputs: Mapping[str, Any],
        *,
        accept: Collection[str] = (),
        restart: bool = False,
        saved: bool = True,
        say: Callable[[str], object] = lambda line: None,
        called: Mapping[str, str] | None = None,
    ) -> bool:
        """True when there is work and the folder is ready, False when it was done already.

        A finished stage with other inputs, or any stage with `restart`, moves to `earlier/`, and
        with it what was made from it; `say` hears why and where. An unfinished one with the same
        inputs goes on; with other inputs it is refused, every changed field named, unless the
        field is in `accept`, or nothing is `saved` that could be gone on with. `called` says what
        a person calls the content behind a digest.
        """
        refuse_link(self.path)
        wanted, self._say = normalised(inputs), say
        if restart:
            self._make_way("as --restart says")
        elif self.finished:
            why = self.outdated(wanted, called)
            if not why:
                self.manifest()
                return False
            self._make_way(why)
        elif not saved and self.begun and changed(self.inputs, wanted):
            self.set_aside()
        started = self._started()
        if started is None:
            self.set_aside()
            return self._start(wanted, [])
        changes = self.refuse_changed(wanted, accept)
        self._sweep()
        return self._start(wanted, started["accepted"] + changes) if changes else True

    def refuse_changed(
        self, inputs: Mapping[str, Any], accept: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        """The accepted changes to what an unfinished stage was begun with; others are refused.
        Nothing is written."""
        started = None if self.finished else self._started()
        changes = changed(started["inputs"], normalised(inputs)) if started else []
        refused = [change for change in changes if change["field"] not in accept]
        if refused:
            raise SettingsError(*(self._refusal(change) for change in refused))
        return changes

    def outdated(self, inputs: Mapping[str, Any], called: Mapping[str, str] | None = None) -> str:
        """In what a finished result differs from one of these inputs, in words; nothing where it
        would be kept, or none is finished. `called` is as for `begin`. Nothing is written."""
        wanted = normalised(inputs)
        if not self.finished or self._sealed("MANIFEST.json")["inputs_digest"] == digest(wanted):
            return ""
        return told(changed(self.inputs, wanted), called or {})

    def making_way(self, why: str) -> str:
        """A sentence on what would make way if this finished result were done again, and why;
        nothing where there is no reason, or none is finished."""
        if not why or not self.finished:
            return ""
        others = ", ".join(path.name for path in reversed(self._made_from_this()))
        with_it = f", with {others} made from it," if others else ""
        return (
            f"{self.name}: finished in {self.run.path}, and would be done again, {why}; the old "
            f"one{with_it} would move to {self.run.path / 'earlier'}"
        )

    @property
    def begun(self) -> bool:
        """Whether the stage was begun, finished or not."""
        return (self.path / "inputs.json").exists()

    @property
    def inputs(self) -> dict[str, Any]:
        """What the stage was begun with; empty when it never was."""
        found: dict[str, Any] = (self._started() or {"inputs": {}})["inputs"]
        return found

    @property
    def finished(self) -> bool:
        """Whether the stage was finished, damaged since or not."""
        return (self.path / "MANIFEST.json").exists()

    @property
    def resumed(self) -> bool:
        """Whether the unfinished folder holds work of an earlier process."""
        return any(p.name != "inputs.json" for p in self.path.iterdir())

    def finish(self, **facts: Any) -> None:
        """Make every file durable, hash it and write MANIFEST.json: the commit point."""
        files, folders = self._files()
        entries = {}
        for path in files:
            with disk_errors(path, "save"):
                sync_file(path)
                size = path.stat().st_size
            name = path.relative_to(self.path).as_posix()
            entries[name] = {"bytes": size, "sha256": file_digest(path)}
        for folder in folders:
            with disk_errors(folder, "save"):
                disk.DISK.sync_folder(folder)
        begun = self._started() or {"inputs": {}, "accepted": []}
        manifest = {
            "schema": SCHEMA,
            "stage": self.name,
            "inputs_digest": digest(begun["inputs"]),
            "accepted": begun["accepted"],
            "files": entries,
            "facts": redacted(facts),
        }
        write_json(self.path / "MANIFEST.json", sealed(manifest))
        if self._replaced == self.digest:
            # The very same once more: what was made from it still holds.
            back = ", ".join(place.name for place in reversed(self._aside.back(but=self.path)))
            if back:
                self._say(f"{self.name}: the same as before, so {back} came back")

    def manifest(self) -> dict[str, Any]:
        """The manifest of the finished stage, after every file it lists was verified."""
        if not self.finished:
            raise SettingsError(
                f"{self.path}: nothing finished here{self._before()}; "
                f"run `tunesmith {self.name} ...` first"
            )
        manifest = self._sealed("MANIFEST.json")
        with self._advice():
            for name, facts in manifest["files"].items():
                check_file(self.path / name, facts)
        return manifest

    @property
    def digest(self) -> str:
        """sha256 of MANIFEST.json: what later stages put into their inputs."""
        return file_digest(self.path / "MANIFEST.json")

    def _start(self, inputs: dict[str, Any], accepted: list[dict[str, Any]]) -> bool:
        with disk_errors(self.path, "make the folder"):
            make_folders(self.path)
        content = {"schema": SCHEMA, "inputs": inputs, "accepted": accepted}
        write_json(self.path / "inputs.json", sealed(content))
        return True

    def _started(self) -> dict[str, Any] | None:
        """What inputs.json says; None when the stage was never begun."""
        return self._sealed("inputs.json") if self.begun else None

    def _sealed(self, name: str) -> dict[str, Any]:
        with self._advice():
            return read_sealed(self.path / name)

    @contextmanager
    def _advice(self) -> Iterator[None]:
        """Inside, damage is told with what to do about it."""
        try:
            yield
        except IntegrityError as error:
            raise IntegrityError(
                f"{error}. Put the right file back, or do this stage again: "
                f"`tunesmith {self.name} RUN.yaml --restart`"
            ) from error

    def _before(self) -> str:
        """Where the newest finished result lies that made way for another, in words."""
        found = [*(self.run.path / "earlier").glob(f"*/{self.name}/MANIFEST.json")]
        if not found:
            return ""
        place = max(found, key=lambda path: path.stat().st_mtime).parent.parent
        return f" now (what was, of other rows or settings, is kept in {place})"

    def set_aside(self) -> list[Path]:
        """Move what is in the folder, and before it what was made from it, to
        `earlier/<digest of its inputs>/`; where it is now, this stage first."""
        if not self.path.exists() or not any(self.path.iterdir()):
            return []
        try:
            name = digest((self._started() or {"inputs": "unknown"})["inputs"])[:12]
        except (IntegrityError, SettingsError):
            name = "unreadable"
        self._replaced = self.digest if self.finished else ""
        return self._aside.move([*self._made_from_this(), self.path], name)[::-1]

    @contextmanager
    def unbegun_if_refused(self, kept: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Inside, a refusal that leaves nothing `kept` leaves the stage as it was before: who
        follows its advice changes a setting, and that is not to be refused."""
        try:
            yield
        except (DataError, SettingsError, IntegrityError, ResourceError):
            if not kept():
                self.give_up()
            raise

    def give_up(self) -> None:
        """Undo `begin` where it came to nothing: what it made goes, what it moved comes back."""
        with suppress(OSError, ResourceError):
            if self.path.exists():
                disk.discard(self.path)
            self._aside.back()

    def _made_from_this(self) -> list[Path]:
        """The other folders of the run that rest on this finished result, last made first."""
        found: list[Stage] = []
        digests = {self.digest} if self.finished else set()
        names = [p.name for p in self.run.path.iterdir() if p.is_dir() and not p.is_symlink()]
        others = [Stage(self.run, name) for name in sorted(names) if name != self.name]
        while digests:
            fresh = [each for each in others if each not in found and each._rests_on(digests)]
            digests = {each.digest for each in fresh if each.finished}
            found += fresh
        return [each.path for each in reversed(found)]

    def _rests_on(self, digests: Collection[str]) -> bool:
        """Whether this was made from a result with one of these digests. What can be gone on with
        is not: whether it may be with another is asked."""
        if not self.begun:
            return self.name in PAGES and any(self.path.iterdir())
        if not self.finished and any((self.path / "checkpoints").glob("step-*")):
            return False
        try:
            return any(value in digests for value in self.inputs.values() if isinstance(value, str))
        except (IntegrityError, SettingsError):
            return False

    def _make_way(self, why: str) -> None:
        """Put away what is here, and what was made from it, and say so."""
        gone = self.set_aside()
        if gone:
            others = ", ".join(path.name for path in gone[1:])
            with_it = f", with {others} made from it," if others else ""
            where = gone[0].parent
            self._say(f"{self.name}: done again, {why}; the old one{with_it} is now in {where}")

    def _refusal(self, change: Mapping[str, Any]) -> str:
        name, was, now = change["field"], shown(change["was"]), shown(change["now"])
        what = f"{name} was {was} when this was begun and is now {now}"
        if name.startswith(DIGEST):
            what = f"{plainly(name)} {happened(change)} since this was begun"
        return (
            f"{self.path}: {what}; go on with it as it is now by --accept-change "
            f"{shlex.quote(name)}, or start over: `tunesmith {self.name} RUN.yaml --restart`"
        )

    def _sweep(self) -> None:
        """Remove temporary files of a process that was killed, and refuse links put in between."""
        for path in self.path.rglob("*"):
            if path.relative_to(self.path).parts[0] == SINKS:
                continue
            refuse_link(path)
            if path.suffix == ".tmp" and path.is_file():
                with disk_errors(path, "remove"):
                    disk.DISK.unlink(path)

    def _files(self) -> tuple[list[Path], list[Path]]:
        """The files the manifest lists and the folders they are in, both sorted."""
        files: list[Path] = []
        folders = [self.path]
        for path in sorted(self.path.rglob("*")):
            top = path.relative_to(self.path).parts[0]
            if top in UNLISTED or path.suffix == ".tmp":
                continue
            refuse_link(path)
            (folders if path.is_dir() else files).append(path)
        return files, folders
