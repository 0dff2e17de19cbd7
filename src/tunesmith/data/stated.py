"""The forms of records that runs state, read back from what their data stages were begun with."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tunesmith.data.formats.base import Format

SETTING = re.compile(r"(?P<whose>data\..*?)\bformat\.(?P<key>[^.]+)")
"""A setting of a form of records: `data.format.kind`, `data.source.mail.format.user`."""


def forms_of(runs: Iterable[Mapping[str, Any]]) -> list[Format]:
    """Each form that the inputs of data stages state, once."""
    known: dict[str, Format] = {}
    for inputs in runs:
        forms: dict[str, dict[str, Any]] = {}
        for name, value in inputs.items():
            if said := SETTING.fullmatch(name):
                forms.setdefault(said["whose"], {})[said["key"]] = value
        for settings in forms.values():
            part = Format.members().get(settings["kind"])  # None: its package is gone.
            form = None if part is None else part.model_validate(settings)
            if isinstance(form, Format):
                known.setdefault(form.model_dump_json(), form)
    return list(known.values())
