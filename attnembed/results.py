"""Frozen results of solvers, with a status and a message that says what happened and what to try."""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from attnembed._frozen import KeepsFrozen
from attnembed._sparse import is_sparse

if TYPE_CHECKING:
    from attnembed._notebook import Curve

__all__ = ["Record", "Result", "Shown", "Status", "brief", "describe", "to_plain", "uninterrupted"]

R = TypeVar("R", bound="Result")


class Status(enum.Enum):
    """The outcome of a computation. Only the first three count as success.

    >>> Status.CONVERGED.ok, Status("interrupted").ok
    (True, False)
    """

    CONVERGED = "converged"
    REACHED_END = "reached_end"
    STOPPED = "stopped"
    MAX_ITERATIONS = "max_iterations"
    NOT_FINITE = "not_finite"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def ok(self) -> bool:
        """Whether the computation succeeded."""
        return self in (Status.CONVERGED, Status.REACHED_END, Status.STOPPED)


class Shown:
    """Mixin for objects shown as a table in notebooks, with the rows of `_shown` and the curves of `_curves`."""

    def _shown(self) -> list[tuple[str, Any]]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # or the class defines its own rows
        return [(field.name, getattr(self, field.name)) for field in fields if not field.name.startswith("_")]

    def _curves(self) -> list[Curve]:
        return []

    def _repr_html_(self) -> str:
        from attnembed._notebook import card  # which imports this module

        return card(self)


class Record(KeepsFrozen, Shown):
    """Base class of frozen objects that hold arrays, with a one-line repr and frozen copies."""

    def __repr__(self) -> str:
        return describe(self)


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Result(Record):
    """Base class of solver results: ``status``, ``message``, ``success``, a short repr and ``to_dict``.

    >>> Result(status=Status.CONVERGED, message="gap 1e-16").success
    True
    """

    status: Status
    message: str

    @property
    def success(self) -> bool:
        """Whether the status is a success."""
        return self.status.ok

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values (lists, floats, text), ready for JSON."""
        out = {field.name: to_plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        out["success"] = self.success
        return out


_WIDTH, _TEXT, _PART = 180, 110, 40  # characters of a repr without the name, of one text in it, and of anything else


def uninterrupted(result: R) -> R:
    """The result; KeyboardInterrupt if Ctrl-C cut it short, for callers that need all of it."""
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    return result


def describe(obj: Any) -> str:
    """A dataclass in one line of at most 180 characters plus its name: arrays by shape, texts by their beginning.

    >>> describe(Result(status=Status.CONVERGED, message="gap 1e-16"))
    "Result(status=converged, message='gap 1e-16')"
    """
    parts: list[str] = []
    for field in dataclasses.fields(obj):
        if field.name.startswith("_"):
            continue
        part = f"{field.name}={brief(getattr(obj, field.name))}"
        if len(", ".join([*parts, part, "..."])) > _WIDTH:
            parts.append("...")
            break
        parts.append(part)
    return f"{type(obj).__name__}({', '.join(parts)})"


def brief(value: Any) -> str:
    """Anything in a few characters: an array by its shape, a collection by its length, text by its beginning."""
    if (isinstance(value, np.ndarray) and value.ndim) or is_sparse(value):
        return f"array{value.shape}" if isinstance(value, np.ndarray) else f"{type(value).__name__}{value.shape}"
    if isinstance(value, Status):
        return value.value
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.6g}"
    if isinstance(value, (list, tuple, dict, set, frozenset)):
        return f"{type(value).__name__} of {len(value)}"
    if dataclasses.is_dataclass(value):
        return type(value).__name__
    if isinstance(value, str):
        return repr(value) if len(repr(value)) <= _TEXT else f"{value[:_TEXT]!r:.{_TEXT - 3}}..."
    text = repr(value)
    return text if len(text) <= _PART and "\n" not in text else type(value).__name__


def to_plain(value: Any) -> Any:
    """Convert arrays, enums and nested dataclasses to JSON values; non-finite floats become text.

    >>> to_plain({"a": np.arange(2), "b": float("inf")})
    {'a': [0, 1], 'b': 'inf'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
