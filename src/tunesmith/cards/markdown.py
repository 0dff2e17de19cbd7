"""Sections and tables in Markdown, with whatever a row, a name or a model says kept as text."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!&$])")


def escaped(text: str) -> str:
    """Text that Markdown and the HTML in it show as it is, on one line."""
    one_line = SPECIAL.sub(r"\\\1", " ".join(text.split()))
    return one_line.replace(r"\<", "&lt;").replace(r"\&", "&amp;")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are escaped."""
    lines = [header, ["---"] * len(header), *([escaped(cell) for cell in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def front_matter(values: Mapping[str, Any]) -> str:
    """The YAML block at the top of a card. Every value is written as JSON, which is YAML too."""
    lines = (f"{name}: {json.dumps(value, ensure_ascii=True)}\n" for name, value in values.items())
    return f"---\n{''.join(lines)}---\n"
