"""Packages whose names are looked up on first use, so that importing one costs next to nothing.

A table maps each public name to its module; the imports under ``TYPE_CHECKING`` beside it tell the same to type
checkers and editors (tests/test_lazy.py checks that they agree). Some names belong both to a function and to its
module. Python binds a submodule in its package on first import, whoever imports it, so the package has to insist on
the function.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

__all__ = ["attach"]


class _LazyPackage(ModuleType):
    """A package that imports names on demand (Python's data model: customizing module attribute access)."""

    _homes: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        home = self._homes.get(name) if name[:1] != "_" else None
        if home is not None and home != self.__name__:  # a submodule is found below
            value = getattr(importlib.import_module(home), name)
            setattr(self, name, value)
            return value
        if name[:1] != "_":
            # A submodule, as if it had been imported.
            submodule = f"{self.__name__}.{name}"
            try:
                return importlib.import_module(submodule)
            except ModuleNotFoundError as error:
                if error.name != submodule:
                    raise
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        home = self._homes.get(name)
        if isinstance(value, ModuleType) and home is not None and home != self.__name__:
            value = getattr(importlib.import_module(home), name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._homes})


def attach(package: str, names: Mapping[str, Iterable[str]]) -> None:
    """Let a package resolve its public names: ``names`` maps modules to the names they define.

    Submodules need no entry.

    Parameters
    ----------
    package : its ``__name__``, from within its ``__init__``
    names : dotted module -> names
    """
    module: Any = sys.modules[package]
    module.__dict__["_homes"] = {name: home for home, found in names.items() for name in found}
    module.__class__ = _LazyPackage
