"""The law of the doors: something of another kind for any one argument is refused by name, or is documented.

A test module lists good calls; the parameters come from the signatures, so that a new one is tried as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import chdir
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from attnembed.errors import DataFileError, InputError

Calls = Mapping[str, tuple[Callable[..., Any], dict[str, Any]]]

WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "object": object,
    "text": lambda: "text",
    "masked": lambda: np.ma.array([1.0, 2.0], mask=[False, True]),
    "masked scalar": lambda: np.ma.masked,
    "NaN": lambda: float("nan"),
    "NaN in an array": lambda: np.array([np.nan, 1.0]),
    "a list of objects": lambda: [object(), object()],
    "an empty list": list,
    "too many axes": lambda: np.zeros((1, 1, 1, 1, 1)),
    "7": lambda: 7,
    "-1": lambda: -1,
    "True": lambda: True,
}
NUMBERS = frozenset({"7", "-1", "True"})  # fit some parameters; elsewhere they must be refused like the rest


def parameters(calls: Calls) -> Iterator[tuple[str, str]]:
    """Every parameter of every call, as (name of the call, name of the parameter)."""
    for name, (function, _) in calls.items():
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                yield name, parameter.name


def check_door(
    calls: Calls,
    name: str,
    parameter: str,
    *,
    fine: Collection[tuple[str, str]] = (),
    also: Collection[str] = (),
) -> None:
    """Give each wrong value for one parameter; the error must name it, or what it is compared with.

    ``fine`` holds the pairs (parameter, wrong value) that are documented, ``also`` further names an error may have.
    None is fine where it is the default.
    """
    function, good = calls[name]
    default = inspect.signature(function).parameters[parameter].default
    problems = []
    with TemporaryDirectory() as folder, chdir(folder):  # "text" is a good name for a file to write
        for wrong, make in WRONG.items():
            if wrong == "None" and default is None:
                continue
            try:
                function(**{**good, parameter: make()})
            except InputError as error:
                message, named = str(error), error.name.split(".")[0].split("[")[0]
                if "\n" in message or len(message) >= 400 or named not in {parameter, *good, *also}:
                    problems.append(f"{wrong}: {message}")
            except DataFileError as error:
                if wrong != "text" or parameter not in ("path", "vocab"):
                    problems.append(f"{wrong}: {error}")
            except Exception as error:
                problems.append(f"{wrong}: {type(error).__name__}: {error}")
            else:
                if wrong not in NUMBERS and (parameter, wrong) not in fine:
                    problems.append(f"{wrong} was taken")
    assert not problems, "\n".join(problems)
