"""A card: facts in sections, each with its source, as Markdown for people and JSON for programs."""

from pathlib import Path
from typing import Any

from tunesmith.cards.evidence import NOT_MEASURED, Fact
from tunesmith.cards.markdown import escaped, front_matter, table
from tunesmith.core.disk import make_folders, write_json, write_text
from tunesmith.core.log import redacted
from tunesmith.core.parts import Spec


class Section(Spec):
    """A part of the card."""

    title: str
    """Its heading."""
    text: str = ""
    """What to know before the numbers."""
    facts: list[Fact] = []
    """The numbers, each with its source."""
    table: list[list[str]] = []
    """Numbers that read better side by side; the first row is the header."""
    behind: list[Fact] = []
    """The numbers in the table, each with its source."""


class Card(Spec):
    """A card as data: what the JSON beside the page holds."""

    version: int = 1
    """Of this shape."""
    name: str
    """The run."""
    summary: str
    """Whether tuning helped, in a sentence."""
    front: dict[str, Any]
    """What the Hugging Face hub reads at the top of a card."""
    sections: list[Section]
    """In the order they are read."""


def keep(made: Card, folder: Path, name: str) -> Path:
    """Write `name`.md and `name`.json into `folder`, without what looks like a secret."""
    made = Card.model_validate(redacted(made.model_dump(mode="json")))
    make_folders(folder)
    write_json(folder / f"{name}.json", made.model_dump(mode="json"))
    path = folder / f"{name}.md"
    write_text(path, markdown(made))
    return path


def markdown(made: Card) -> str:
    """The card as Markdown with YAML front matter: one fact a line, so that two cards diff well."""
    parts = [front_matter(made.front), f"\n# {escaped(made.name)}\n\n{escaped(made.summary)}\n"]
    for section in made.sections:
        parts.append(f"\n## {section.title}\n\n")
        if section.text and (section.facts or section.table):
            parts.append(f"{section.text}\n\n")
        if section.table:
            parts.append(table(section.table[0], section.table[1:]) + "\n")
        rows = [(f.label, f.text(), f.source) for f in section.facts]
        if rows:
            parts.append(table(("what", "value", "read from"), rows))
        elif not section.table:
            parts.append(f"{NOT_MEASURED}\n")
    return "".join(parts)
