"""Packages whose names are looked up on first use, so that importing one costs next to nothing.

A table says which module each public name comes from; the imports under ``TYPE_CHECKING`` beside it say the same to
type checkers and editors (tests/test_lazy.py holds the two together). Some names are those of a function and of the
module that it comes from. Python binds a submodule in its package when it is first imported, whoever asks for it, so
that the package has to insist on the function.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

__all__ = ["attach"]


class _LazyPackage(ModuleType):
    """A package that imports what it is asked for (Python's data model: customizing module attribute access)."""

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
    """Let a package find its public names: ``names`` maps modules to what comes from them.

    Submodules are found without an entry.

    Parameters
    ----------
    package : its ``__name__``, from within its ``__init__``
    names : dotted module -> names
    """
    module: Any = sys.modules[package]
    module.__dict__["_homes"] = {name: home for home, found in names.items() for name in found}
    module.__class__ = _LazyPackage
