"""What was read the last time: the words for a source whose content is another one now."""

import time
from collections.abc import Mapping
from typing import Any

from tunesmith.core.disk import read_json
from tunesmith.core.errors import IntegrityError
from tunesmith.core.folders import Stage
from tunesmith.core.inputs import DIGEST
from tunesmith.core.quote import visible
from tunesmith.data.located import Located


def sources_before(stage: Stage, found: Mapping[str, Located]) -> dict[str, str]:
    """By the name of its digest, each source as its place, with the rows it had and when."""
    then = when(stage)
    files = {each.get("as"): each for each in files_before(stage)}
    return {
        f"{DIGEST}data.{name}": put(each.place, files.get(name, {}), then)
        for name, each in found.items()
    }


def put(place: str, before: Mapping[str, Any], then: str) -> str:
    """A source as it is called now, and what was read under its name then."""
    if "rows" not in before:
        return visible(place)
    if before.get("file") != place:
        return f"{visible(place)}, in place of {visible(str(before.get('file')))},"
    return f"{visible(place)} ({before['rows']} rows when it was read{then})"


def files_before(stage: Stage) -> list[dict[str, Any]]:
    """What the account of the finished stage says of its files; nothing where it cannot be read:
    whether it is damaged is not asked here."""
    path = stage.path / "account.json"
    if not (stage.finished and path.is_file()):
        return []
    try:
        account = read_json(path)
    except IntegrityError:
        return []
    files = account.get("files") if isinstance(account, dict) else None
    return [each for each in files or () if isinstance(each, dict)]


def when(stage: Stage) -> str:
    """When the stage was finished, in the reader's own time."""
    if not stage.finished:
        return ""
    finished = (stage.path / "MANIFEST.json").stat().st_mtime
    return time.strftime(" on %Y-%m-%d at %H:%M", time.localtime(finished))
