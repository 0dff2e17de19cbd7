"""A module that is imported on first use, so that reading settings needs no torch."""

import importlib
from types import ModuleType
from typing import Any


class _Late(ModuleType):
    """Stands in for a module until one of its attributes is asked for."""

    def __getattr__(self, name: str) -> Any:
        module = importlib.import_module(self.__name__)
        self.__dict__.update(module.__dict__)
        return getattr(module, name)


def late(name: str) -> Any:
    """The module `name`, imported when it is first used. Pair it with a `TYPE_CHECKING` import."""
    return _Late(name)
