"""Checks of arguments, shared by every public function: one sentence per failure, naming the argument."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed._typing import Floats
from attnembed.errors import InputError, InputTypeError

RNGLike = int | np.random.Generator | None

_LARGEST_INTEGER = np.iinfo(np.int64).max


def shown(value: Any) -> str:
    """The repr of a value for an error, in one line; its type if that is too long."""
    text = repr(value)
    return text if len(text) <= 80 and "\n" not in text else type(value).__name__


def as_rng(rng: RNGLike) -> np.random.Generator:
    """Turn an int, a Generator or None into a Generator (a Generator is returned unchanged)."""
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None:
        return np.random.default_rng()
    if isinstance(rng, (bool, np.bool_)) or not isinstance(rng, (int, np.integer)):
        raise InputTypeError("rng", "must be an int, a numpy.random.Generator or None", got=type(rng).__name__)
    if rng < 0:
        raise InputError("rng", "must be a non-negative integer seed", got=rng)
    return np.random.default_rng(int(rng))


def as_array(name: str, value: ArrayLike) -> np.ndarray[Any, Any]:
    """Convert ``value`` to an array; the caller checks the type and the shape."""
    refuse_mask(name, value)
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputTypeError(name, "must be an array, with rows of one length", got=type(value).__name__) from error


def refuse_mask(name: str, value: Any) -> None:
    """Raise for a masked array, or a list that contains one: NumPy would drop the mask and use the masked values."""
    if _has_mask(value):
        hint = "leave out the masked entries, or fill them with `filled`"
        raise InputTypeError(name, "must not be masked", got="a masked array", hint=hint)


def _has_mask(value: Any) -> bool:
    if isinstance(value, np.ma.MaskedArray):
        return True
    if not isinstance(value, (list, tuple)):
        return False
    kinds = set(map(type, value))  # even a list of a million numbers has one type
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        return True
    return not kinds.isdisjoint((list, tuple)) and any(map(_has_mask, value))


def as_real_array(name: str, value: ArrayLike, *, ndim: int | None, dtype: Any = None) -> Floats:
    """A finite real array of ``ndim`` axes (None: any); float32 stays float32 unless ``dtype`` says otherwise."""
    array = as_array(name, value)
    if array.dtype.kind not in "biuf":
        raise InputTypeError(name, "must be a real numeric array", got=f"dtype {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise InputError(name, f"must have {ndim} axes", got=f"shape {array.shape}")
    target = dtype if dtype is not None else (array.dtype.newbyteorder("=") if array.dtype.kind == "f" else np.float64)
    if target == np.float16 or target == np.longdouble:
        target = np.float64
    with np.errstate(over="ignore"):  # values that do not fit become inf and are reported below
        array = np.asarray(array, dtype=target, order="C")
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(k) for k in np.argwhere(~finite)[0])
        raise InputError(name, "must be finite", got=f"{array[where]} at index {where}", hint="remove NaN and inf")
    return array


def as_integer_array(name: str, value: ArrayLike, *, ndim: int) -> NDArray[np.int64]:
    """Convert to an array of integers with ``ndim`` axes."""
    array = as_array(name, value)
    if array.dtype.kind not in "iu":
        raise InputTypeError(name, "must hold integers", got=f"dtype {array.dtype}")
    if array.ndim != ndim:
        raise InputError(name, f"must have {ndim} axes", got=f"shape {array.shape}")
    if array.dtype == np.uint64 and array.max(initial=0) > _LARGEST_INTEGER:  # would come out negative
        raise InputError(name, f"must be at most {_LARGEST_INTEGER}", got=array.max())
    return array.astype(np.int64)


def check_shape(name: str, array: np.ndarray[Any, Any], shape: tuple[int, ...], because: str = "") -> None:
    """Raise unless ``array`` has the given shape."""
    if array.shape != shape:
        raise InputError(name, f"must have shape {shape}", got=f"shape {array.shape}", hint=because)


def _as_float(name: str, value: Any) -> float:
    """A real number as a float, inf if it is too large."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise InputTypeError(name, "must be a real number", got=shown(value))
    try:
        return float(value)
    except OverflowError:
        return math.inf if operator.gt(value, 0) else -math.inf


def check_positive(name: str, value: Any, *, zero_ok: bool = False) -> float:
    """A finite real number above zero (or at least zero)."""
    number = _as_float(name, value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero_ok):
        raise InputError(name, f"must be finite and {'>= 0' if zero_ok else '> 0'}", got=number)
    return number


def check_between(name: str, value: Any, low: float, high: float, *, hint: str = "") -> float:
    """A real number in [low, high]."""
    number = _as_float(name, value)
    if not low <= number <= high:
        raise InputError(name, f"must lie between {low:g} and {high:g}", got=number, hint=hint)
    return number


def check_integer(name: str, value: Any, *, minimum: int | None = None) -> int:
    """An integer, at least ``minimum``."""
    if isinstance(value, (bool, np.bool_)):
        raise InputTypeError(name, "must be an integer", got=shown(value))
    try:
        number = operator.index(value)
    except TypeError as error:
        raise InputTypeError(name, "must be an integer", got=shown(value)) from error
    if minimum is not None and number < minimum:
        raise InputError(name, f"must be at least {minimum}", got=number)
    return number


def check_share(
    name: str, value: Any, *, closed: Literal["both", "left", "neither"] = "both", high: float = 1.0
) -> float:
    """A real number between 0 and ``high``; ``closed`` says which ends belong to the range."""
    number = _as_float(name, value)
    above = number > 0 or (number == 0 and closed != "neither")
    if not (above and (number < high or (number == high and closed == "both"))):
        left, right = "(" if closed == "neither" else "[", "]" if closed == "both" else ")"
        raise InputError(name, f"must be in {left}0, {high:g}{right}", got=number)
    return number


def check_items(name: str, value: Any, what: str) -> list[Any]:
    """The entries of a list, a tuple, an array or another iterable, but not of a text or a dict."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable) or np.ma.is_masked(value):
        raise InputTypeError(name, f"must be a sequence of {what}", got=type(value).__name__)
    try:
        return list(value)
    except TypeError as error:  # arrays without axes only appear to be iterable
        raise InputTypeError(name, f"must be a sequence of {what}", got=type(value).__name__) from error


def check_mapping(name: str, value: Any, what: str) -> Mapping[Any, Any]:
    """A dict or another mapping."""
    if not isinstance(value, Mapping):
        raise InputTypeError(name, f"must be a dict from {what}", got=type(value).__name__)
    return value


def check_integers(name: str, value: Any, *, n: int | None = None, minimum: int = 1) -> tuple[int, ...]:
    """Integers of at least ``minimum``: any number of them, or ``n``."""
    sizes = tuple(check_integer(name, size, minimum=minimum) for size in check_items(name, value, "integers"))
    if n is not None and len(sizes) != n:
        raise InputError(name, f"must hold {n} integers", got=sizes)
    return sizes


def as_float_dtype(name: str, value: Any) -> np.dtype[Any]:
    """float32 or float64, in any form that NumPy accepts."""
    try:
        dtype = None if value is None else np.dtype(value)
    except TypeError:
        dtype = None
    if dtype not in (np.float32, np.float64):
        raise InputTypeError(name, "must be float32 or float64", got=shown(value))
    found: np.dtype[Any] = np.dtype(dtype)
    return found


def check_names(others: Mapping[str, Any], known: str) -> None:
    """Raise for unknown keyword arguments."""
    for name in others:
        raise InputTypeError(name, "is not a parameter of the model", hint=f"those are {known}")


def check_flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputTypeError(name, "must be True or False", got=shown(value))
    return bool(value)


def check_function(name: str, value: Any, *, optional: bool = True) -> None:
    """A callable, or None."""
    if not callable(value) and not (optional and value is None):
        raise InputTypeError(name, "must be a function", got=type(value).__name__)


def as_path(name: str, value: Any) -> Path:
    """A path, given as text or as an `os.PathLike`."""
    if isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str):
        return Path(value)
    raise InputTypeError(name, "must be a path", got=type(value).__name__)


def check_callable(name: str, value: Any, *, hint: str = "") -> Any:
    """A function or another callable."""
    if not callable(value):
        raise InputTypeError(name, "must be a function", got=shown(value), hint=hint)
    return value


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """One of the named choices."""
    options = tuple(choices)
    if not isinstance(value, str) or value not in options:
        raise InputError(name, f"must be one of {', '.join(map(repr, options))}", got=shown(value))
    return value


def as_signs(name: str, value: ArrayLike, *, n: int | None = None) -> NDArray[np.float64]:
    """Labels in {-1, +1} as float64, with both classes present."""
    signs = as_real_array(name, value, ndim=1).astype(np.float64)
    if n is not None and signs.size != n:
        raise InputError(name, f"must have one entry per sequence ({n})", got=signs.size)
    values = np.unique(signs)
    if not np.isin(values, (-1.0, 1.0)).all():
        shown = ", ".join(f"{x:g}" for x in values[:5])
        hint = f"use `2*{name} - 1`" if np.isin(values, (0.0, 1.0)).all() else "map the two classes to -1 and +1"
        raise InputError(name, "must contain only -1 and +1", got=f"values {{{shown}}}", hint=hint)
    if values.size < 2:
        raise InputError(
            name,
            "must contain both classes, -1 and +1",
            got=f"only {values[0]:+g}" if values.size else "no labels",
            hint="one-class data has no separating direction",
        )
    return signs


def freeze(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mark an array read-only and return it; frozen objects hold only such arrays."""
    array.flags.writeable = False
    return array
