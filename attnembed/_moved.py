"""Modules under their old names, which keep working for one release.

An old name is imported as an alias of its replacement, so that objects reached either way are identical.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from attnembed._deprecation import warn_deprecated

__all__ = ["install"]


class _Alias(Loader):
    def __init__(self, new: str) -> None:
        self.new = new

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(self.new)


class _MovedModules(MetaPathFinder):
    def __init__(self, moved: Mapping[str, str]) -> None:
        self.moved = moved

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for old, new in self.moved.items():
            if fullname == old or fullname.startswith(f"{old}."):
                found = new + fullname.removeprefix(old)
                warn_deprecated(fullname, found, level=3)
                return ModuleSpec(fullname, _Alias(found), is_package=True)
        return None


def install(moved: Mapping[str, str]) -> None:
    """Import each old dotted name, and its submodules, as the new one, with a DeprecationWarning.

    Parameters
    ----------
    moved : old dotted module -> new dotted module
    """
    sys.meta_path.insert(0, _MovedModules(moved))  # before the folder of the new package is searched
