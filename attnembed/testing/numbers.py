"""Strategies for numbers and arrays: readable ones, at which shrinking ends, and as often generic ones."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from attnembed._typing import Doubles
from attnembed._validation import check_positive
from attnembed.errors import InputError, InputTypeError

__all__ = ["Draw", "check_range", "digits", "draw_matrix", "generators", "integers", "readable", "reals"]

Draw = Callable[[st.SearchStrategy[Any]], Any]


def check_range(name: str, bounds: tuple[int, int], *, least: int = 1, most: int = 256) -> tuple[int, int]:
    """Inclusive bounds (low, high), least <= low <= high <= most."""
    try:
        low, high = (operator.index(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise InputTypeError(name, "must be two integers (low, high)", got=repr(bounds)) from None
    if not least <= low <= high <= most:
        raise InputError(name, f"must be (low, high) with {least} <= low <= high <= {most}", got=bounds)
    return low, high


# A strategy is checked on its first draw: cached ones are checked once.
integers = lru_cache(maxsize=None)(st.integers)
BOOLEANS = st.booleans()
SEEDS = st.integers(0, 2**32 - 1)


def generators() -> st.SearchStrategy[np.random.Generator]:
    """NumPy generators, for arrays too large to draw entry by entry.

    >>> from hypothesis import find
    >>> find(generators(), lambda rng: True).integers(100, size=3)
    array([85, 63, 51])
    """
    return SEEDS.map(np.random.default_rng)


def reals(bound: float = 2.0) -> st.SearchStrategy[float]:
    """Floats in [-bound, bound], zero or at least 1e-6 of the bound in size, so that products do not underflow.

    >>> from hypothesis import find
    >>> find(reals(), lambda x: x > 0.5)
    1.0
    """
    check_positive("bound", bound)
    return st.floats(-bound, bound).map(lambda x: x if abs(x) >= 1e-6 * bound else 0.0)


@cache
def digits(base: int, count: int | tuple[int, int]) -> st.SearchStrategy[NDArray[np.int64]]:
    """``count`` integers in 0..base-1 (or a number of them between inclusive bounds), base <= 256, as one draw.

    A draw of bytes costs as much as a draw of one number, and shrinks to zeros and to fewer just as well.
    """
    low, high = (count, count) if isinstance(count, int) else count
    return st.binary(min_size=low, max_size=high).map(
        lambda b: np.frombuffer(b, dtype=np.uint8).astype(np.int64) % base
    )


# By digit, the simplest first, to which an array shrinks.
_QUARTERS = np.array([0.0, 1.0, -1.0, 0.5, -0.5, 0.25, -0.25, 0.75, -0.75])


@cache
def readable(shape: tuple[int, ...], scale: float = 2.0) -> st.SearchStrategy[Doubles]:
    """Arrays of multiples of ``scale`` / 4 from -scale to scale: many entries are equal, and many zero."""
    return digits(len(_QUARTERS), int(np.prod(shape))).map(lambda k: (scale * _QUARTERS[k]).reshape(shape))


def draw_matrix(draw: Draw, shape: tuple[int, ...], scale: float = 2.0, *, generic: bool | None = None) -> Doubles:
    """A float64 array: readable entries, or (as often, by default) normal ones of standard deviation scale/2.

    Hypothesis's own floats repeat too often for generic arrays, so these are generated from a drawn seed.
    """
    if generic is None:
        generic = draw(BOOLEANS)
    if not generic:
        value: Doubles = draw(readable(shape, scale)).copy()
        return value
    rng = np.random.default_rng(draw(SEEDS))
    # Three digits keep them readable and almost always different.
    return np.round(rng.normal(scale=scale / 2, size=shape), 3) + 0.0
