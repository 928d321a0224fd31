"""Exceptions that name the argument, what was expected, what came and what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AttnembedError", "DataFileError", "InputError", "InputTypeError", "NotSeparableError"]


class AttnembedError(Exception):
    """Base of every error that attnembed raises on purpose; the command line prints it as one line."""


class InputError(AttnembedError, ValueError):
    """An argument has a value that cannot be used.

    >>> str(InputError("step_size", "must be positive", got=-1.0, hint="use step_size > 0"))
    '`step_size` must be positive; got -1.0; use step_size > 0'
    """

    def __init__(self, name: str, expected: str, *, got: Any = None, hint: str = "") -> None:
        self.name, self.expected, self.got, self.hint = name, expected, got, hint
        parts = [f"`{name}` {expected}"]
        if got is not None:
            parts.append(f"got {got}")
        if hint:
            parts.append(hint)
        super().__init__("; ".join(parts))


class InputTypeError(InputError, TypeError):
    """An argument has a type that cannot be used."""


class DataFileError(AttnembedError, ValueError):
    """A data file is missing or malformed; the message names the file and, where known, the line.

    >>> str(DataFileError("reviews.tsv", "label must be 0 or 1; got 7", line=3))
    'reviews.tsv, line 3: label must be 0 or 1; got 7'
    """

    def __init__(self, path: str | os.PathLike[str], problem: str, *, line: int | None = None) -> None:
        self.path, self.problem, self.line = Path(path), problem, line
        place = str(path) if line is None else f"{path}, line {line}"
        super().__init__(f"{place}: {problem}")


class NotSeparableError(AttnembedError, ValueError):
    """The margin program has no feasible point.

    ``certificate`` holds convex weights w >= 0, sum w = 1, with ||D^T w|| ~ 0: the origin lies in the
    convex hull of the rows of D, so no p has D p >= 1 (Gordan's alternative).
    """

    def __init__(self, message: str, certificate: NDArray[np.float64]) -> None:
        self.certificate = certificate
        super().__init__(message)
