"""The reference: pages and JSON Schema made from the settings themselves, so never out of step."""

import difflib
import inspect
import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from tunesmith.core.errors import SettingsError
from tunesmith.core.parts import Part, Spec
from tunesmith.fields import members, specs
from tunesmith.run import Run
from tunesmith.sentences import path_of

MADE = "<!-- Made by `make docs` from the settings in the source; edit those. -->"


def pages() -> dict[str, str]:
    """Every page of docs/reference/ by file name: one for the run, each section and family."""
    found = {"run.md": page("", Run)}
    for path, spec in chapters(Run):
        found[f"{path}.md"] = page(path, spec)
    found["README.md"] = contents(found)
    return found


def chapters(root: type[Spec], path: str = "") -> Iterator[tuple[str, type[Spec]]]:
    """Sections and families below `root`, with the dotted path at which they stand."""
    for name, field in root.model_fields.items():
        here = f"{path}{name}"
        for spec in specs(field.annotation):
            yield here, spec
            for kind, part in members(spec).items():
                yield from chapters(part, f"{here}.{kind}.")
            if not members(spec):
                yield from chapters(spec, f"{here}.")


def page(path: str, spec: type[Spec]) -> str:
    """A section's settings, or a family's parts with theirs."""
    lines = [MADE, "", f"# {path or 'A run file'}", "", text_of(spec), ""]
    parts = members(spec)
    if parts:
        lines += [
            f"Say one by name (`{min(parts)}`), or in full (`{{kind: {min(parts)}, ...}}`).",
            "",
        ]
    for kind, part in sorted(parts.items()):
        lines += [f"## {kind}", "", text_of(part), ""]
        lines += entries(f"{path}.", part, "###", kind=f"{kind}.")
    if not parts:
        lines += entries(f"{path}." if path else "", spec, "##")
    return "\n".join(lines).rstrip() + "\n"


def entries(path: str, spec: type[Spec], heading: str, kind: str = "") -> list[str]:
    """One entry a setting: what it means, its default, what may stand there. The pages of what a
    part holds are named by its `kind` too."""
    lines = []
    for name, field in spec.model_fields.items():
        if name == "kind" and issubclass(spec, Part):
            continue
        lines += [f"{heading} `{path}{name}`", "", field.description or "", ""]
        lines += [
            f"- default: {default(field)}",
            f"- takes: {takes(field, path + kind + name)}",
            "",
        ]
    return lines


def text_of(spec: type[Spec]) -> str:
    """A spec's own words."""
    return inspect.cleandoc(spec.__doc__ or "")


def default(field: FieldInfo) -> str:
    """A default as it would be written in a run file."""
    if field.is_required():
        return "none, it must be said"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Spec) and not isinstance(value, Part):
        return "what its settings say"
    plain = json.dumps(short(value), ensure_ascii=False)
    return f"`{plain}`".replace('"', "")


def short(value: Any) -> Any:
    """A part by its name, and its settings where they differ from its own defaults."""
    if isinstance(value, Part):
        said = value.model_dump(mode="json", exclude_unset=True, exclude={"kind"})
        return {"kind": value.kind, **said} if said else value.kind
    return [short(item) for item in value] if isinstance(value, list | tuple) else value


def takes(field: FieldInfo, path: str) -> str:
    """What may stand at a setting, in words, with its bounds."""
    bounds = [bound for rule in field.metadata if (bound := bounded(rule))]
    return ", ".join([words(field.annotation, path), *bounds])


def bounded(rule: Any) -> str:
    """One rule of a field: `more than 0`, or nothing."""
    names = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
    found = [f"{name} {getattr(rule, key)}" for key, name in names.items() if hasattr(rule, key)]
    if getattr(rule, "pattern", None):
        found.append(f"matching `{rule.pattern}`")
    return " and ".join(found)


NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "`true` or `false`",
    types.NoneType: "`null`",
    Path: "a path",
}


def words(annotation: Any, path: str) -> str:
    """An annotation in words."""
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        inner, *rules = get_args(annotation)
        bounds = [b for r in rules for b in [*map(bounded, getattr(r, "metadata", [r]))] if b]
        return " ".join([words(inner, path), *bounds])
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(words(inner, path) for inner in get_args(annotation))
    if origin in (list, tuple):
        inner = [a for a in get_args(annotation) if a is not Ellipsis]
        return f"a list of: {', '.join(dict.fromkeys(words(a, path) for a in inner))}"
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        kinds = sorted(members(annotation))
        named = ", ".join(f"`{kind}`" for kind in kinds) if kinds else "settings"
        return f"{named} ([{path}]({path}.md))"
    return NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def contents(found: dict[str, str]) -> str:
    """The first page: a line for each other one."""
    lines = [MADE, "", "# Reference", "", "The settings of a run file, by section and family.", ""]
    for name, content in found.items():
        title, first = content.splitlines()[2][2:], content.splitlines()[4]
        lines.append(f"- [{title}]({name}): {first}")
    return "\n".join(lines) + "\n"


# explain


def explain(path: str) -> str:
    """The page of a section, family, part or single setting, by its dotted path. All but a setting
    also by the last word of it, where only one has that."""
    if not path:
        return body(page("", Run))
    for here, spec in chapters(Run):
        parts = members(spec)
        if path == here:
            return body(page(here, spec))
        if path.startswith(f"{here}.") and path.removeprefix(f"{here}.") in parts:
            part = parts[path.removeprefix(f"{here}.")]
            return "\n".join([f"# {path}", "", text_of(part), "", *entries(f"{here}.", part, "##")])
    entry = {name: lines for name, lines in single_settings()}
    if path in entry:
        return entry[path]
    pages_by_path = [*(here for here, _ in chapters(Run)), *part_names()]
    named = {here for here in pages_by_path if here.rpartition(".")[2] == path}
    if len(named) == 1:
        return explain(named.pop())
    if named:
        raise SettingsError(f"{path}: say which one: {', '.join(sorted(named))}")
    known = [*entry, *pages_by_path]
    last = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = difflib.get_close_matches(path, last, 1) if "." not in path else []
    near = [last[word] for word in near] or difflib.get_close_matches(path, known, 1)
    hint = f"did you mean {near[0]}?" if near else "`tunesmith explain` lists the sections"
    raise SettingsError(f"{path}: there is no such setting; {hint}")


def single_settings() -> Iterator[tuple[str, str]]:
    """The entry of each setting, reached with and without the kinds of the parts it belongs to."""
    whole: list[tuple[str, type[Spec]]] = [("", Run), *chapters(Run)]
    for here, spec in whole:
        for kind, owner in owners(spec).items():
            base = f"{here}." if here else ""
            for name, field in owner.model_fields.items():
                lines = [f"# {base}{name}", "", field.description or "", ""]
                lines += [f"- default: {default(field)}", f"- takes: {takes(field, base + name)}"]
                full = f"{base}{kind}.{name}" if kind else f"{base}{name}"
                for said in {f"{base}{name}", full, path_of(full, Run)}:
                    yield said, "\n".join(lines)


def owners(spec: type[Spec]) -> Mapping[str, type[Spec]]:
    """Who declares the settings at a place: a family's parts by kind, or the spec itself."""
    return members(spec) or {"": spec}


def part_names() -> Iterator[str]:
    """Every part as a path: `train.method.lora`."""
    for here, spec in chapters(Run):
        yield from (f"{here}.{kind}" for kind in members(spec))


def body(content: str) -> str:
    """A page without the line for editors."""
    return content.removeprefix(f"{MADE}\n\n")


# JSON Schema


def json_schema() -> dict[str, Any]:
    """The run file for editors: bare names stand for parts, and a name may be left out."""
    schema = Run.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    with_names(schema)
    model = schema["properties"]["model"]
    schema["properties"]["model"] = {
        "description": model.pop("description", ""),
        "anyOf": [{"type": "string"}, model],
    }
    return schema


def with_names(schema: Any) -> None:
    """Wherever one of a family's parts may stand, its bare name may too; in place."""
    for inner in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(inner, dict | list):
            with_names(inner)
    if isinstance(schema, dict) and "discriminator" in schema:
        kinds = sorted(schema.pop("discriminator")["mapping"])
        schema["anyOf"] = [{"enum": kinds}, *schema.pop("oneOf")]


def write(folder: Path) -> None:
    """Write every page, and remove those of settings that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    made = pages()
    for stale in set(folder.glob("*.md")) - {folder / name for name in made}:
        stale.unlink()
    for name, content in made.items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
