"""The parameters that the theory reads, E, p and v, and the checks at the start of every function on models."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from attnembed._typing import Floats
from attnembed._validation import as_array, check_shape
from attnembed.errors import InputError, InputTypeError

__all__ = ["Parameters", "check_model", "check_scores", "check_sizes", "scores_and_values"]


_LARGEST_ENTRY = 1e50


class Parameters(Protocol):
    """Anything that holds E (V, d), p (d,) and v (d,); `AttentionModel` does."""

    @property
    def E(self) -> Floats: ...
    @property
    def p(self) -> Floats: ...
    @property
    def v(self) -> Floats: ...


def check_model(model: Any) -> None:
    """Raise unless ``model`` holds E, p and v of matching shapes and nothing else: the theory has no mixing matrix."""
    parts: list[Any] = [getattr(model, name, None) for name in ("E", "p", "v")]
    if any(part is None for part in parts) or hasattr(model, "W"):
        hint = "the theory is about one layer" if hasattr(model, "W") else ""
        raise InputTypeError("model", "must be an AttentionModel", got=type(model).__name__, hint=hint)
    E, p, v = (
        part if type(part) is np.ndarray else as_array(f"model.{name}", part) for name, part in zip("Epv", parts)
    )
    for name, array in (("E", E), ("p", p), ("v", v)):
        if array.dtype.kind != "f":
            raise InputTypeError(f"model.{name}", "must be an array of floats", got=f"dtype {array.dtype}")
    if E.ndim != 2:
        raise InputError("model.E", "must have shape (V, d)", got=f"shape {E.shape}")
    for name, array in (("p", p), ("v", v)):
        check_shape(f"model.{name}", array, E.shape[1:], "E has shape (V, d); p and v have shape (d,)")


def check_scores(u: Floats, g: Floats, dtype: Any = np.float64) -> None:
    """Raise unless the scores u = E p, the values g = E v (V,) and their differences are finite.

    ``dtype`` is the type of the model if u and g have been cast to another.
    """
    for name, array in (("scores p.E_s", u), ("values E_s.v", g)):
        if math.isfinite(float(array.max()) - float(array.min())):  # Python's floats overflow silently
            continue
        wrong = np.flatnonzero(~np.isfinite(array))
        got = f"{array[wrong[0]]} for token {wrong[0]}" if wrong.size else f"{array.min():.3g} to {array.max():.3g}"
        wider = "" if np.dtype(dtype) == np.float64 else ", or float64"
        hint = f"the products overflow in {np.dtype(dtype)}: use smaller parameters{wider}"
        raise InputError("model", f"must have finite {name}", got=got, hint=hint)


def check_sizes(model: Parameters) -> None:
    """Raise where the flow would overflow: it forms products of up to six entries."""
    for name in ("E", "p", "v"):
        largest = float(np.abs(getattr(model, name)).max())
        if not largest <= _LARGEST_ENTRY:
            expected = f"must have entries of {name} of at most {_LARGEST_ENTRY:g}"
            raise InputError("model", expected, got=f"{largest:g}", hint="scale E, p and v down")


def scores_and_values(model: Parameters) -> tuple[Floats, Floats]:
    """u = E p and g = E v, (V,) each, finite."""
    with np.errstate(all="ignore"):
        u, g = model.E @ model.p, model.E @ model.v
    check_scores(u, g, model.E.dtype)
    return u, g
