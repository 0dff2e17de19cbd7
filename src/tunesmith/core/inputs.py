"""What a stage was begun with, and in what that differs from what is asked of it now."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from tunesmith.core.disk import json_bytes
from tunesmith.core.log import redacted

DIGEST = "digest of "
"""How an input begins that is the digest of a content: its digits say nothing to a reader."""


def normalised(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as JSON reads them back, without secrets; null is the same as not there."""
    plain: dict[str, Any] = json.loads(json_bytes(redacted(inputs)))
    return {name: value for name, value in plain.items() if value is not None}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fields that differ, sorted; one that is missing counts as null."""
    return [
        {"field": name, "was": before.get(name), "now": after.get(name)}
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def told(changes: Collection[Mapping[str, Any]], called: Mapping[str, str]) -> str:
    """What changed, in words; contents by what they are `called`."""
    return ", ".join(
        f"{called.get(c['field'], plainly(c['field']))} {happened(c)}"
        if c["field"].startswith(DIGEST)
        else f"{c['field']} {shown(c['was'])} -> {shown(c['now'])}"
        for c in changes
    )


def happened(change: Mapping[str, Any]) -> str:
    """What became of a content."""
    if change["was"] is None:
        return "is new"
    return "is gone" if change["now"] is None else "changed"


def plainly(name: str) -> str:
    """What the digest of this name is of."""
    return name.removeprefix(DIGEST)


def shown(value: Any) -> str:
    """A value in a sentence: JSON, shortened in the middle."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}"
