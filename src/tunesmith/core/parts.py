"""Settings and behaviour in one class, found by its folder: `Spec` and `Part`."""

import importlib
import pkgutil
import sys
from importlib.metadata import entry_points
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Spec(BaseModel):
    """Frozen settings. The string under a field is its documentation."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True
    )


class Part(Spec):
    """One member of a family: settings are its fields, behaviour its methods.

    A family is a folder; its `base.py` holds the promise, each other file one part whose `kind`
    is the file's name. A field annotated with the promise accepts any member, in full
    (`{kind: lora, rank: 4}`) or by bare name (`lora`). Installed packages join through the
    entry-point group named like the folder (`tunesmith.train.methods`).
    """

    kind: str

    @classmethod
    def members(cls) -> dict[str, type["Part"]]:
        """The family's parts by kind: its folder, then installed packages that name it."""
        family = cls.__module__.rpartition(".")[0]
        folder = sys.modules[family].__path__
        names = [f"{family}.{file.name}" for file in pkgutil.iter_modules(folder)]
        names += [entry.value for entry in entry_points(group=family)]
        values = [v for name in names for v in vars(importlib.import_module(name)).values()]
        parts = [v for v in values if isinstance(v, type) and issubclass(v, cls) and v is not cls]
        return {part.model_fields["kind"].default: part for part in parts}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The promise validates as the union of its members; a concrete part as itself."""
        if not (cls.__module__.endswith(".base") and cls.__pydantic_complete__):
            return handler(source)
        choices = {kind: handler.generate_schema(part) for kind, part in cls.members().items()}
        union = core_schema.tagged_union_schema(choices, discriminator="kind")
        return core_schema.no_info_before_validator_function(expand, union)


def expand(value: Any) -> Any:
    """`"lora"` -> `{"kind": "lora"}`; anything else as it is."""
    return {"kind": value} if isinstance(value, str) else value
