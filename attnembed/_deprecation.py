"""Deprecated names, which keep working for one release with a warning that gives the new ones."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from attnembed.errors import InputError

__all__ = ["accepts", "moved", "renamed", "warn_deprecated"]

P = ParamSpec("P")
R = TypeVar("R")


def warn_deprecated(old: str, new: str, *, level: int = 3) -> None:
    """Warn that ``new`` replaces ``old``, ``level`` frames up, by default at the caller's caller."""
    warnings.warn(f"{old} is deprecated and will be removed; use {new}", DeprecationWarning, stacklevel=level)


def renamed(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function accept its keyword arguments under their old names: ``renamed(old="new")``."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def accepting(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in [name for name in kwargs if name in names]:
                new = names[old]
                if new in kwargs:
                    raise InputError(new, f"is given twice: `{old}` is its old name")
                warn_deprecated(f"`{old}` of {function.__name__}", f"`{new}`")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return accepting

    return decorate


def accepts(function: object, count: int) -> bool:
    """Whether something can be called with ``count`` positional arguments, judging by its signature."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):  # the second for a builtin without a signature
        return False
    return True


def moved(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` for names that have moved.

    Each value is the new module of the name, or ``module:name`` if the name has changed as well.

    >>> moved("attnembed.old", {"Adam": "attnembed.optim"})("SGD")
    Traceback (most recent call last):
    AttributeError: module 'attnembed.old' has no attribute 'SGD'
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, renamed = names[name].partition(":")
        found = getattr(importlib.import_module(home), renamed or name)  # here, because it may be above the old one
        warn_deprecated(f"{module}.{name}", f"{home}.{renamed or name}")
        return found

    return find
