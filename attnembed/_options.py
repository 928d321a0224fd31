"""Functions with many options, with the signature in two parts: the function's own, and a table of the rest.

    class Options(TypedDict, total=False):
        n_epochs: int

    @with_options(n_epochs=100)
    def train(model: Model, **options: Unpack[Options]) -> Result: ...

The caller sees one signature, with the defaults, in `help` and `inspect.signature`; inside the function ``options``
holds every option, given or not. Type checkers read the table (PEP 692).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["with_options"]

P = ParamSpec("P")
R = TypeVar("R")


def with_options(table: type, /, **defaults: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a function the options of ``table``, the TypedDict of its ``**options``, with these defaults.

    >>> from typing import TypedDict
    >>> class Options(TypedDict, total=False):
    ...     power: int
    >>> @with_options(Options, power=2)
    ... def raised(x, **options):
    ...     return x ** options["power"]
    >>> raised(3), raised(3, power=3), str(inspect.signature(raised))
    (9, 27, "(x, *, power: 'int' = 2)")
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        whole = _signature(function, table, defaults)
        known = frozenset(whole.parameters)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not kwargs.keys() <= known:
                name = next(name for name in kwargs if name not in known)
                raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}")
            merged: Any = {**defaults, **kwargs}
            return function(*args, **merged)

        call.__signature__ = whole  # type: ignore[attr-defined]
        return call

    return decorate


def _signature(function: Callable[..., Any], table: type, defaults: dict[str, Any]) -> inspect.Signature:
    annotations = {name: getattr(a, "__forward_arg__", a) for name, a in table.__annotations__.items()}
    if annotations.keys() != defaults.keys():
        raise TypeError(f"{function.__name__} must have one default for each of {', '.join(annotations)}")
    own = inspect.signature(function)
    parameters = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotations[name])
        for name, default in defaults.items()
    ]
    return own.replace(parameters=parameters)
