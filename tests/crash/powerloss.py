"""What a power loss may leave on a disk, from a log of file operations (the rules of ALICE).

Bytes that were not fsynced are missing, zero-filled or cut; names in a folder that was not fsynced
are there or not, each on its own; renames happen early or late.
"""

from collections.abc import Iterator
from itertools import chain, combinations, count, product
from pathlib import Path
from typing import Any

from tunesmith.core.disk import Disk

Tree = dict[str, bytes | None]
"""A folder's content by relative path: bytes of a file, None for a folder."""

Operation = tuple[str, str, Any]
"""Verb, relative path, and the bytes of a write or the target of a rename."""


class Recorder(Disk):
    """The real disk, with a list of what was done to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.operations: list[Operation] = []
        self.open_files: dict[int, str] = {}

    def note(self, verb: str, path: Path | str, value: Any = None) -> None:
        """Add one operation; a path becomes relative to the root."""
        name = path if isinstance(path, str) else path.relative_to(self.root).as_posix()
        self.operations.append((verb, name, value))

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self.note("mkdir", path)

    def create(self, path: Path) -> int:
        file = super().create(path)
        self.open_files[file] = path.relative_to(self.root).as_posix()
        self.note("create", path)
        return file

    def append(self, path: Path) -> int:
        known = path.exists()
        file = super().append(path)
        self.open_files[file] = path.relative_to(self.root).as_posix()
        if not known:
            self.note("create", path)
        return file

    def open(self, path: Path) -> int:
        file = super().open(path)
        self.open_files[file] = path.relative_to(self.root).as_posix()
        return file

    def write(self, file: int, content: memoryview) -> int:
        written = super().write(file, content)
        self.note("write", self.open_files[file], bytes(content[:written]))
        return written

    def sync(self, file: int) -> None:
        super().sync(file)
        self.note("sync", self.open_files[file])

    def close(self, file: int) -> None:
        super().close(file)
        self.note("close", self.open_files[file])

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.note("sync_folder", path)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.note("rename", source, target.relative_to(self.root).as_posix())

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.note("unlink", path)

    def rmdir(self, path: Path) -> None:
        super().rmdir(path)
        self.note("rmdir", path)


Change = dict[str, int | None]
"""What one operation does to one folder: names and their new inode, None for gone."""


class Machine:
    """Inodes with what a program sees and what the disk surely holds."""

    def __init__(self, tree: Tree) -> None:
        self.numbers = count(1)
        self.seen: dict[int, bytes] = {}
        self.sure: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {0: {}}
        self.sure_names: dict[int, dict[str, int]] = {0: {}}
        self.pending: dict[int, list[Change]] = {0: []}
        for path in sorted(tree):
            self.apply(("mkdir" if tree[path] is None else "create", path, None))
            if (content := tree[path]) is not None:
                self.apply(("write", path, content))
                self.apply(("sync", path, None))
            self.apply(("sync_folder", path.rpartition("/")[0] or ".", None))

    def apply(self, operation: Operation) -> None:
        """Do one operation, as far as a program can see."""
        verb, path, value = operation
        if verb in ("mkdir", "create"):
            number = next(self.numbers)
            if verb == "mkdir":
                self.names[number], self.sure_names[number], self.pending[number] = {}, {}, []
            else:
                self.seen[number] = self.sure[number] = b""
            self.change(path, number)
        elif verb == "write":
            self.seen[self.find(path)] += value
        elif verb == "sync":
            self.sure[self.find(path)] = self.seen[self.find(path)]
        elif verb == "sync_folder":
            folder = self.find(path)
            self.sure_names[folder], self.pending[folder] = dict(self.names[folder]), []
        elif verb == "rename":
            parent, _, old = path.rpartition("/")
            assert value.rpartition("/")[0] == parent, "a rename across folders is not modelled"
            number = self.find(path)
            self.alter(self.find(parent or "."), {old: None, value.rpartition("/")[2]: number})
        elif verb in ("unlink", "rmdir"):
            self.change(path, None)

    def change(self, path: str, number: int | None) -> None:
        parent, _, name = path.rpartition("/")
        self.alter(self.find(parent or "."), {name: number})

    def alter(self, folder: int, change: Change) -> None:
        self.names[folder] = changed(self.names[folder], [change])
        self.pending[folder].append(change)

    def find(self, path: str) -> int:
        number = 0
        for part in () if path == "." else path.split("/"):
            number = self.names[number][part]
        return number

    def trees(self, number: int = 0) -> list[Tree]:
        """Every content a power loss now may leave under a folder."""
        found: dict[int, Tree] = {}
        for change in subsets(self.pending[number]):
            names = changed(self.sure_names[number], change)
            choices = [self.below(name, child) for name, child in sorted(names.items())]
            for picked in product(*choices):
                tree = dict(chain.from_iterable(part.items() for part in picked))
                found.setdefault(identity(tree), tree)
        return list(found.values())

    def below(self, name: str, number: int) -> list[Tree]:
        """The same for one name in a folder."""
        if number in self.names:
            inside = self.trees(number)
            return [{name: None, **{f"{name}/{k}": v for k, v in t.items()}} for t in inside]
        return [{name: content} for content in self.contents(number)]

    def contents(self, number: int) -> list[bytes]:
        """What a file may hold: all, what was fsynced, zeros in place of the rest, half of it."""
        seen, sure = self.seen[number], self.sure[number]
        rest = len(seen) - len(sure)
        return list(dict.fromkeys((seen, sure, sure + bytes(rest), seen[: len(sure) + rest // 2])))


def changed(names: dict[str, int], changes: "list[Change] | tuple[Change, ...]") -> dict[str, int]:
    """A folder's names after some changes."""
    result: dict[str, int | None] = {**names}
    for change in changes:
        result.update(change)
    return {name: number for name, number in result.items() if number is not None}


def subsets(changes: list[Change]) -> Iterator[tuple[Change, ...]]:
    """Every choice of the changes, in their order."""
    return chain.from_iterable(combinations(changes, n) for n in range(len(changes) + 1))


def crashes(
    before: Tree, operations: list[Operation], *, start: int = 0
) -> Iterator[tuple[int, Tree]]:
    """How many operations were finished, and one state the disk may be in; every state once.

    Stops before each operation from number `start` on, and inside each write.
    """
    machine, known = Machine(before), set()
    for done, operation in enumerate([*operations, ("end", ".", None)]):
        places = torn(machine, operation) if done >= start else iter(())
        for tree in chain.from_iterable(place.trees() for place in places):
            if (key := (done, identity(tree))) not in known:
                known.add(key)
                yield done, tree
        machine.apply(operation)


def torn(machine: Machine, operation: Operation) -> Iterator[Machine]:
    """The machine before an operation, then with parts of its write."""
    yield machine
    verb, path, content = operation
    if verb == "write":
        number = machine.find(path)
        whole = machine.seen[number]
        for size in sorted({0, 1, len(content) // 2, len(content) - 1}):
            machine.seen[number] = whole + content[:size]
            yield machine
        machine.seen[number] = whole


def identity(tree: Tree) -> int:
    """Equal trees, equal number."""
    return hash(tuple(sorted(tree.items())))


def read_tree(root: Path) -> Tree:
    """What is on the real disk now."""
    return {
        path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in root.rglob("*")
    }


class Stage:
    """A real folder that becomes one state after another, touching only what differs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now: Tree = read_tree(root)

    def show(self, tree: Tree) -> Path:
        """Make the folder's content exactly `tree`."""
        for path in sorted(self.now.keys() - tree.keys(), reverse=True):
            there = self.root / path
            there.rmdir() if self.now[path] is None else there.unlink()
        for path in sorted(tree):
            content = tree[path]
            if content is None:
                (self.root / path).mkdir(exist_ok=True)
            elif self.now.get(path) != content:
                (self.root / path).write_bytes(content)
        self.now = tree
        return self.root
