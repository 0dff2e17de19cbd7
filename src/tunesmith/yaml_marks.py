"""Restricted YAML (no tags, anchors, aliases or duplicate keys) and where each value stands."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tunesmith.core.errors import SettingsError
from tunesmith.core.textfile import unreadable

LARGEST = 1024 * 1024  # bytes
DEEPEST = 32
MOST = 20_000  # YAML events, about two a setting: a bomb ends here

Place = tuple[str | int, ...]
"""Keys and list positions from the top to a value."""


@dataclass
class Marked:
    """A value, where each part (`marks`) and its key (`keys`) was written, and what is wrong."""

    value: Any
    marks: dict[Place, str] = field(default_factory=dict)
    keys: dict[Place, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read(path: Path) -> Marked:
    """The settings in a file. Raises SettingsError where it cannot be read as a mapping."""
    marked = parse(text_of(path), str(path))
    if marked.value is None:
        marked.value, marked.marks[()] = {}, f"{path}:1:1"
    if not isinstance(marked.value, dict):
        raise SettingsError(f"{path}:1:1: a run file is a list of `key: value` lines")
    return marked


def text_of(path: Path) -> str:
    """The file's text, refused where it is no regular UTF-8 file of at most 1 MiB."""
    if not path.is_file():
        raise SettingsError(f"{path}: this is not a file; give the path of a run file")
    try:
        with path.open("rb") as handle:
            content = handle.read(LARGEST + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(f"{path}: this is not a file; give the path of a run file") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None
    if len(content) > LARGEST:
        raise SettingsError(f"{path}: larger than 1 MiB; a run file holds settings, not rows")
    return text


def parse(text: str, source: str) -> Marked:
    """The value that `text` says; `source` goes in front of line and column."""
    try:
        refuse_machinery(text, source)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = at(source, mark) if mark else source
        raise SettingsError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"{source}: not valid YAML: {reason}") from None
    marked = Marked(None)
    if node is not None:
        marked.value = build(node, (), source, marked)
    return marked


def refuse_machinery(text: str, source: str) -> None:
    """Anchors, aliases, tags and directives could build more, or other, than what is written."""
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        where = at(source, event.start_mark)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise SettingsError(f"{where}: anchors and aliases (& and *) are not read; repeat it")
        if getattr(event, "tag", None) or getattr(event, "tags", None):
            raise SettingsError(f"{where}: tags (!) are not read; write the plain value")
        if depth > DEEPEST or count > MOST:
            raise SettingsError(f"{where}: nested too deeply, or too long, for a run file")
        if documents > 1:
            raise SettingsError(f"{where}: a second document starts here; keep one in a file")


def build(node: Any, place: Place, source: str, marked: Marked) -> Any:
    """The plain value of a node; marks and problems are noted on the way."""
    marked.marks[place] = at(source, node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        return [build(item, (*place, i), source, marked) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return dict(pairs(node, place, source, marked))
    if node.style is not None:  # quoted, or a block of text
        return node.value
    return scalar(node.value, marked.marks[place], marked)


def pairs(node: Any, place: Place, source: str, marked: Marked) -> Iterator[tuple[str, Any]]:
    """The entries of a mapping; a key is text and stands once."""
    lines: dict[str, int] = {}
    for key, value in node.value:
        where = at(source, key.start_mark)
        if not isinstance(key, yaml.ScalarNode):
            marked.problems.append(f"{where}: a key must be a plain word")
            continue
        if key.value in lines:
            marked.problems.append(
                f"{where}: '{key.value}' stands twice, first in line {lines[key.value]}; keep one"
            )
        lines[key.value] = key.start_mark.line + 1
        marked.keys[(*place, key.value)] = where
        yield key.value, build(value, (*place, key.value), source, marked)


WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
DECIMAL = re.compile(r"[-+]?[0-9]+\.[0-9]*([eE][-+]?[0-9]+)?")
NOTHING = re.compile(r"|~|null|Null|NULL")
TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# YAML 1.1 reads these as true and false; people mean a country, a switch or a word.
DOUBTFUL = re.compile(r"yes|no|on|off", re.IGNORECASE)
ENDLESS = re.compile(r"[-+]?\.?(inf|nan)", re.IGNORECASE)


def scalar(text: str, where: str, marked: Marked) -> Any:
    """What an unquoted word means: null, true, false or a number, else text (dates stay text)."""
    if DOUBTFUL.fullmatch(text):
        advice = "write true or false, or quote it to mean the word"
        marked.problems.append(f"{where}: '{text}' can be read in two ways; {advice}")
        return text
    if ENDLESS.fullmatch(text):
        marked.problems.append(f"{where}: '{text}' is not a finite number; quote it if it is text")
        return text
    if NOTHING.fullmatch(text):
        return None
    if text in TRUTH:
        return TRUTH[text]
    if WHOLE.fullmatch(text):
        return int(text)
    return float(text) if DECIMAL.fullmatch(text) else text


def at(source: str, mark: Any) -> str:
    """`file:line:column`, counted from one."""
    return f"{source}:{mark.line + 1}:{mark.column + 1}"


# Settings that were not written in YAML


def marked_mapping(value: Mapping[str, Any], source: str) -> Marked:
    """Settings that were not written in YAML: all of them stand at `source`."""
    marked = Marked(deep(value))
    mark_below(marked, (), source)
    return marked


def deep(value: Any) -> Any:
    """A copy whose mappings and lists may be changed."""
    if isinstance(value, Mapping):
        return {key: deep(inner) for key, inner in value.items()}
    return [deep(inner) for inner in value] if isinstance(value, list | tuple) else value


def mark_below(marked: Marked, place: Place, source: str) -> None:
    """Everything at and below `place` was said at `source`."""
    value = marked.value
    for step in place:
        value = value[step]
    marked.marks[place] = marked.keys[place] = source
    if isinstance(value, dict):
        for key in value:
            mark_below(marked, (*place, key), source)
    if isinstance(value, list):
        for index in range(len(value)):
            mark_below(marked, (*place, index), source)
