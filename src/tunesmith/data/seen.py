"""What an audit sees in rows one at a time, counted; where rows lie on disk, file by file and side
by side, and what is done stays."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.rows import Row, canonical, digest
from tunesmith.data.audits.base import Audit
from tunesmith.data.found import Seen
from tunesmith.data.shelf import Shelf, beside, rows_in
from tunesmith.data.whole import whole

What = tuple[str, ...]


def seen(rows: Sequence[Row], audit: Audit) -> dict[What, Seen]:
    """All that the audit sees in these rows."""
    if not isinstance(rows, Shelf):
        return noted(rows, audit)
    settings = audit.model_dump(mode="json")
    name = f"{audit.kind}-{digest(settings)[:12]}"
    outs = [beside(file, name) for file in rows.files]
    left = [n for n, out in enumerate(outs) if kept(out) is None]
    rows.advance(len(rows) - sum(rows.counts[n] for n in left))
    jobs = [{"file": str(rows.files[n]), "out": str(outs[n]), "settings": settings} for n in left]
    for number, _ in zip(left, rows.crew.each(keep_noted, jobs), strict=True):
        rows.advance(rows.counts[number])
    found: dict[What, Seen] = {}
    for out in outs:
        for what, each in kept(out) or ():
            found.setdefault(tuple(what), Seen()).join(Seen(*each))
    return found


def noted(rows: Iterable[Row], audit: Audit) -> dict[What, Seen]:
    """The same, one row after the other."""
    found: dict[What, Seen] = {}
    look = audit.eye()
    for row in rows:
        for sight in look(row):
            found.setdefault(sight.what, Seen()).add(row, sight.times, sight.masks)
    return found


def keep_noted(file: str, out: str, settings: dict[str, Any]) -> None:
    """Keep what an audit, by its settings, sees in a file's rows."""
    audit: Any = Audit.members()[settings["kind"]].model_validate(settings)
    found = noted(rows_in(Path(file)), audit)
    with whole(Path(out)) as made:
        made.write(canonical([[what, each.record()] for what, each in found.items()]).encode())


def kept(out: Path) -> list[Any] | None:
    """What was kept; nothing where it is not whole, as after a power loss."""
    try:
        found: list[Any] = json.loads(out.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found
