"""The law of the doors: something of another kind for any one argument is refused by name, or is documented.

A test module lists good calls; the parameters come from the signatures, so that a new one is tried as well.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Collection, Mapping
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


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of the parameters that a call can give."""
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [name for name, one in inspect.signature(function).parameters.items() if one.kind not in several]


def check_doors(
    calls: Calls,
    name: str,
    *,
    fine: Collection[tuple[str, str]] = (),
    also: Collection[str] = (),
) -> None:
    """Give each wrong value for each parameter; the error must name it, or what it is compared with.

    ``fine`` holds the pairs (parameter, wrong value) that are documented, ``also`` further names an error may have.
    None is fine where it is the default.
    """
    function, good = calls[name]
    signature = inspect.signature(function).parameters
    problems = []
    with TemporaryDirectory() as folder, chdir(folder):  # "text" is a good name for a file to write
        for parameter, (wrong, make) in itertools.product(parameters(function), WRONG.items()):
            if wrong == "None" and signature[parameter].default is None:
                continue
            problem = ""
            try:
                function(**{**good, parameter: make()})
            except InputError as error:
                message, named = str(error), error.name.split(".")[0].split("[")[0]
                if "\n" in message or len(message) >= 400 or named not in {parameter, *good, *also}:
                    problem = message
            except DataFileError as error:
                if wrong != "text" or parameter not in ("path", "vocab"):
                    problem = str(error)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if wrong not in NUMBERS and (parameter, wrong) not in fine:
                    problem = "was taken"
            if problem:
                problems.append(f"{name}({parameter}={wrong}): {problem}")
    assert not problems, "\n".join(problems)
