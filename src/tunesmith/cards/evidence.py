"""A run's numbers, each with the file and key it was read from. What is missing stays missing."""

import json
from pathlib import Path
from typing import Any

from tunesmith.core.jsonlines import whole_lines
from tunesmith.core.parts import Spec

NOT_MEASURED = "not measured"


class Fact(Spec):
    """One thing known about a run, or known to be missing."""

    label: str
    """What it is, for a person."""
    value: Any = None
    """As read from the run's file; null where it was not measured."""
    source: str
    """Where it was read: `file#/key/key`, the file relative to the run, the keys a JSON pointer."""

    def text(self) -> str:
        """As shown in a card."""
        return shown(self.value)


class Evidence:
    """The files of one run folder. Each is read once; a missing one holds nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}

    def read(self, file: str) -> Any:
        """A JSON file's value; an empty mapping where there is none."""
        if file not in self._files:
            path = self.folder / file
            self._files[file] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        return self._files[file]

    def lines(self, file: str) -> list[dict[str, Any]]:
        """The values of a JSONL file's whole lines; none where there is no file."""
        return list(whole_lines(self.folder / file))

    def at(self, source: str) -> Any:
        """The value a source names; None where it is missing."""
        file, _, keys = source.partition("#")
        value = self.read(file)
        for key in keys.split("/")[1:]:
            key = key.replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                return None
        return value

    def fact(self, label: str, file: str, *keys: str) -> Fact:
        """The value at `keys` of `file`, labelled."""
        source = point(file, *keys)
        return Fact(label=label, value=self.at(source), source=source)

    def facts(self, file: str, *keys: str) -> list[Fact]:
        """Every plain value of the mapping at `keys`, labelled by its name."""
        found = self.at(point(file, *keys))
        plain = found if isinstance(found, dict) else {}
        names = [n for n, v in plain.items() if not isinstance(v, dict | list)]
        return [self.fact(name.replace("_", " "), file, *keys, name) for name in names]


def point(file: str, *keys: str) -> str:
    """The source `file#/key/key` (RFC 6901 after the sign)."""
    escaped = (str(key).replace("~", "~0").replace("/", "~1") for key in keys)
    return file + "#" + "".join(f"/{key}" for key in escaped)


def shown(value: Any) -> str:
    """A value as a person reads it: thousands apart, four digits of a fraction."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(v)}" for name, v in value.items())
    if isinstance(value, list):
        return ", ".join(shown(v) for v in value)
    return str(value)
