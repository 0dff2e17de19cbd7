"""Folders of a run that make way for new ones: to `earlier/` and, where that was in vain, back."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tunesmith.core import disk
from tunesmith.core.disk import disk_errors, make_folders


class Aside:
    """What was moved out of the way in the folder of a run, in order."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.moved: list[tuple[Path, Path]] = []
        """From where, and to where."""

    def move(self, places: Iterable[Path], name: str) -> list[Path]:
        """Move folders to `earlier/<name>/`; where they are now."""
        parent, count = self.run / "earlier" / name, len(self.moved)
        for place in places:
            with disk_errors(place, f"move this to {parent}"):
                make_folders(parent)
                target = unused(parent / place.name)
                disk.DISK.rename(place, target)
                self.moved.append((place, target))
                disk.DISK.sync_folder(parent)
                disk.DISK.sync_folder(self.run)
        return [target for _, target in self.moved[count:]]

    def back(self, but: Path | None = None) -> list[Path]:
        """Move what made way to where it was, the last first; `but` stays where it is now."""
        again = [each for each in reversed(self.moved) if each[0] != but]
        for place, target in again:
            with disk_errors(place, f"move this back from {target}"):
                disk.DISK.rename(target, place)
                disk.DISK.sync_folder(self.run)
                disk.DISK.sync_folder(target.parent)
            with suppress(OSError):  # Not empty: of other results.
                disk.DISK.rmdir(target.parent)
                disk.DISK.rmdir(target.parent.parent)
        self.moved = [each for each in self.moved if each[0] == but]
        return [place for place, _ in again]


def unused(path: Path) -> Path:
    """`path`, or the first of `path-2`, `path-3` ... that is free."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
