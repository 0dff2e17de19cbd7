"""What a stage was begun with, and in what that differs from what is asked of it now."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from tunesmith.core.disk import json_bytes
from tunesmith.core.log import redacted


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


def told(changes: Collection[Mapping[str, Any]]) -> str:
    """What changed, in words."""
    return ", ".join(f"{c['field']} {shown(c['was'])} -> {shown(c['now'])}" for c in changes)


def shown(value: Any) -> str:
    """A value in a sentence: JSON, shortened in the middle."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}"
