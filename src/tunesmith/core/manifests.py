"""Manifests that notice their own damage, and the files that they vouch for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.core.disk import disk_errors, file_digest, read_json
from tunesmith.core.errors import IntegrityError, SettingsError
from tunesmith.core.rows import digest

SCHEMA = 1
"""The version written into every manifest."""


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` with the digest of itself: a manifest that notices its own damage."""
    return {**value, "seal": digest(value)}


def read_sealed(path: Path) -> dict[str, Any]:
    """A manifest written with its seal; one changed bit is an IntegrityError."""
    value = read_json(path)
    content = {k: v for k, v in value.items() if k != "seal"} if isinstance(value, dict) else {}
    if not content or value.get("seal") != digest(content):
        raise IntegrityError(f"{path}: its content does not match its seal; it was damaged")
    if content.get("schema") != SCHEMA:
        raise SettingsError(
            f"{path}: written with schema {content.get('schema')}, and this version reads "
            f"{SCHEMA}; use the version that wrote it, or give the command again with --restart"
        )
    return content


def check_file(path: Path, facts: Mapping[str, Any], *, hashes: bool = True) -> None:
    """Refuse a file whose size, or hash, differs from its manifest's `facts`."""
    if path.is_symlink() or not path.is_file():
        raise IntegrityError(f"{path}: the manifest lists this file and it is not there")
    with disk_errors(path, "read"):
        same_size = path.stat().st_size == facts["bytes"]
    if not same_size or (hashes and file_digest(path) != facts["sha256"]):
        raise IntegrityError(f"{path}: differs from what was written; it was damaged or changed")


def refuse_link(path: Path) -> None:
    """No symbolic link is followed inside a run."""
    if path.is_symlink():
        raise IntegrityError(f"{path}: is a symbolic link; put a real file or folder there")
