"""Problems for claims that take one, drawn by `attnembed.testing`, reproducibly by seed."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from attnembed.errors import InputError, InputTypeError

__all__ = ["check_problem_parameter", "draw_problem", "problem_parameter"]

# Hypothesis begins with the simplest problem for every seed, and draws small ones for a tenth of its examples.
_DRAWS = 10
# A strategy that rejects this many examples counts as drawing nothing.
_TRIES = 300


class _Drawn(KeyboardInterrupt):
    """Ends the drawing from within Hypothesis, which treats any other exception as a failing example."""


def problem_parameter(function: Callable[..., Any]) -> tuple[bool, Any]:
    """Whether the first parameter is a `Problem`, by annotation or name, and the strategy in its annotation.

    ``problem: t.Problem`` stands for any problem of the attention model, ``problem: Annotated[t.Problem, t.chains()]``
    for one that the strategy draws.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # built-in functions without one
        return False, None
    if not parameters:
        return False, None
    try:
        hint = get_type_hints(function, include_extras=True).get(parameters[0].name)
    except Exception as error:  # an annotation that only a type checker can read
        hint = parameters[0].annotation
        if "Annotated" in str(hint):  # but not one that names a strategy, which would be ignored
            raise InputError(
                parameters[0].name,
                "must have an annotation that can be read",
                got=f"{type(error).__name__}: {error}",
                hint="define the strategy at the top level of its module",
            ) from None
    strategy = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        strategy = next((extra for extra in reversed(extras) if hasattr(extra, "example")), None)
    named = isinstance(hint, str) and hint.rpartition(".")[2] == "Problem"
    ours = getattr(hint, "__module__", "") == "attnembed.testing.problem"
    return named or ours or strategy is not None or parameters[0].name == "problem", strategy


def check_problem_parameter(function: Callable[..., Any]) -> None:
    """Raise unless the function can be called with just a problem."""
    name = getattr(function, "__name__", "it")
    try:
        signature = inspect.signature(function)
        signature.bind(None)
    except ValueError:  # built-in functions without one
        return
    except TypeError:
        hint = "give it one parameter, problem"
        raise InputTypeError("NAME", "must take a problem", got=f"{name}{signature}", hint=hint) from None
    if not problem_parameter(function)[0] and next(iter(signature.parameters)) == "rng":
        hint = "a search needs a function of `problem`, which is drawn for it"
        raise InputTypeError("NAME", "must take a problem", got=f"{name}{signature}", hint=hint)


def draw_problem(strategy: Any, seed: int) -> Any:
    """Draw a problem from the strategy (by default `problems()`); None if it finds none inside its hypotheses."""
    try:
        from attnembed import testing
    except ImportError:
        raise InputError(
            "problem",
            "is drawn by attnembed.testing, which needs the package hypothesis",
            hint="install it with: python -m pip install 'attnembed[test]'",
        ) from None
    from hypothesis import HealthCheck, Phase, find, settings
    from hypothesis import strategies as st
    from hypothesis.errors import NoSuchExample, Unsatisfiable

    drawn: list[Any] = []
    source = testing.problems() if strategy is None else strategy
    tries = 0

    @st.composite
    def counted(draw: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries > _TRIES:
            raise _Drawn
        return draw(source)

    def drawing(problem: Any) -> bool:
        drawn.append(problem)
        if len(drawn) == _DRAWS:
            raise _Drawn
        return False

    options = settings(
        max_examples=_DRAWS,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    with suppress(_Drawn, NoSuchExample, Unsatisfiable):  # the last two: there are fewer
        find(counted(), drawing, settings=options, random=random.Random(seed))
    return drawn[-1] if drawn else None
