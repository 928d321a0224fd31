"""Exceptions that name the argument, the expectation, the value received and the remedy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AttnembedError",
    "DataFileError",
    "DataNotGivenError",
    "InputError",
    "InputTypeError",
    "NotSeparableError",
    "RunFailedError",
]


class AttnembedError(Exception):
    """Base of every error that attnembed raises on purpose; the command line prints it as one line.

    Copies, and errors from another process, keep the class, the message and the fields of the original.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception calls its class with the message alone, which the classes below do not accept.
        fields = {name: _portable(value) for name, value in vars(self).items()}
        return _revive, (type(self), self.args), fields


class InputError(AttnembedError, ValueError):
    """An argument has a value that cannot be used.

    >>> str(InputError("step_size", "must be positive", got=-1.0, hint="use step_size > 0"))
    '`step_size` must be positive; got -1.0; use step_size > 0'
    """

    def __init__(self, name: str, expected: str, *, got: Any = None, hint: str = "") -> None:
        self.name, self.expected, self.got, self.hint = name, expected, got, hint
        parts = [f"`{name}` {expected}"]
        if got is not None:
            parts.append("got " + (" ".join(str(got).split()) or repr(got)))  # on one line
        if hint:
            parts.append(hint)
        super().__init__("; ".join(parts))


class InputTypeError(InputError, TypeError):
    """An argument has a type that cannot be used."""


class DataNotGivenError(InputError):
    """Data are needed and none were named. Data that were named but cannot be read raise `DataFileError`.

    >>> str(DataNotGivenError("data", "must name a folder of reviews", hint="pass --data PATH"))
    '`data` must name a folder of reviews; pass --data PATH'
    """


class DataFileError(AttnembedError, ValueError):
    """A data file is missing or malformed; the message names the file and, where known, the line.

    >>> str(DataFileError("reviews.tsv", "label must be 0 or 1; got 7", line=3))
    'reviews.tsv, line 3: label must be 0 or 1; got 7'
    """

    def __init__(self, path: str | os.PathLike[str], problem: str, *, line: int | None = None) -> None:
        self.path, self.problem, self.line = Path(path), problem, line
        place = (os.fspath(path) or "''") + ("" if line is None else f", line {line}")
        super().__init__(f"{place}: {problem}")


class RunFailedError(AttnembedError, RuntimeError):
    """A run that an experiment needs has failed; ``run`` names it, ``reason`` is its error in one line.

    >>> str(RunFailedError("letters, fold 3", "ValueError: bad fold", hint="see letters-runs.jsonl"))
    'letters, fold 3 failed: ValueError: bad fold; see letters-runs.jsonl'
    """

    def __init__(self, run: str, reason: str, *, hint: str = "") -> None:
        self.run, self.reason, self.hint = run, reason, hint
        super().__init__(f"{run} failed: {reason}" + (f"; {hint}" if hint else ""))


class NotSeparableError(AttnembedError, ValueError):
    """The margin program has no feasible point.

    ``certificate`` holds convex weights w >= 0, sum w = 1, with ||D^T w|| ~ 0: the origin lies in the
    convex hull of the rows of D, so no p has D p >= 1 (Gordan's alternative).
    """

    def __init__(self, message: str, certificate: NDArray[np.float64]) -> None:
        self.certificate = certificate
        super().__init__(message)

    def __setstate__(self, state: Mapping[str, Any] | None) -> None:
        super().__setstate__(dict(state or {}))
        import numpy as np  # here, as below, because the command line reads its arguments before it needs arrays

        if isinstance(self.certificate, np.ndarray):  # copies of arrays are writable even if the original was not
            self.certificate.flags.writeable = False


def _revive(cls: type[AttnembedError], args: tuple[Any, ...]) -> AttnembedError:
    """An error without its fields, which are set afterwards."""
    return cls.__new__(cls, *args)


def _portable(value: Any) -> Any:
    """The value, or its text if it cannot be sent: one odd field must not lose the error that holds it."""
    import numpy as np

    if value is None or isinstance(value, (bool, int, float, str, bytes, np.ndarray, Path)):
        return value
    from multiprocessing.reduction import ForkingPickler  # here, because few errors need it, and it is slow

    try:
        ForkingPickler.dumps(value)
    except Exception:  # pickling runs the code of others
        return str(value)
    return value
