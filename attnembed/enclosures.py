"""Intervals guaranteed to contain a margin: bounds that account for every rounding error.

By weak duality any p and any u >= 0 bound the margin gamma = max over ||x|| = 1 of min_k d_k.x of rows d_k:

    min_k d_k.p / ||p||  <=  gamma  <=  ||sum_k u_k d_k|| / sum_k u_k.

Floating point enters only where the two sides are evaluated. A sum of n products in any order, with or without fused
multiplication, is off by at most gamma_n = n eps/(1 - n eps) times the sum of the products' sizes (Higham 2002, Section
3.1), eps = 2^-53; by the Cauchy-Schwarz inequality that is at most gamma_n ||d_k|| ||p||. Where these bounds are too
wide, the deciding rows are summed exactly.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Floats

__all__ = ["Rows", "combination_above", "margin_enclosure", "rounding_constant"]

Indices = NDArray[np.intp]

_UNIT = 2.0**-53
_TINY = float(np.nextafter(0.0, 1.0))
# The accepted width: beyond this share of the margin the deciding rows are summed exactly.
_WIDTH = 2e-12
# Largest number of products summed exactly: about a second.
_MOST_EXACT = 4_000_000


class Rows(Protocol):
    """Rows d_k that need not exist as a matrix; ``sizes`` are their norms, or bounds on them, up to rounding."""

    shape: tuple[int, int]
    sizes: Floats

    def price(self, p: Floats) -> Floats: ...

    def take(self, index: Indices) -> Floats: ...

    def exact(self, index: Indices) -> tuple[Floats, ...]:
        """Matrices that sum to the rows in exact arithmetic."""
        ...


def rounding_constant(n: int) -> float:
    """gamma_n = n eps / (1 - n eps), rounded up: the relative error of a sum of n products.

    >>> rounding_constant(1000) > 1000 * 2.0**-53
    True
    """
    return n * _UNIT / (1 - n * _UNIT) * (1 + 4 * _UNIT)


def margin_enclosure(rows: Rows, p: Floats, dual: Floats) -> tuple[float, float]:
    """Floats (low, high) with low <= gamma <= high for the rows as given, whatever ``p`` and ``dual`` are.

    ``p`` (d,) is nonzero; ``dual`` (m,) >= 0, not all zero. The interval is narrow if they are nearly optimal.
    """
    low, high = _low(rows, p, exact=False), _high(rows, dual, exact=False)
    if high - low > _WIDTH * high:
        low, high = max(low, _low(rows, p, exact=True)), min(high, _high(rows, dual, exact=True))
    return low, high


def combination_above(rows: Floats, weights: Floats) -> float:
    """||D^T w|| / sum w, rounded up, for a matrix D (m, d) and weights w >= 0: no unit x has a larger margin."""
    support = np.flatnonzero(weights > 0)
    u, parts = weights[support], np.ascontiguousarray(rows[support].T)
    combination = _exact_products((parts,), u)
    slack = 2 * _UNIT * _norm_above(combination) + 16 * parts.size * _TINY
    return _up(_up(_norm_above(combination) + slack) / (math.fsum(u) * (1 - 2 * _UNIT)))


def _low(rows: Rows, p: Floats, *, exact: bool) -> float:
    """min_k d_k.p / ||p||, rounded down."""
    d = rows.shape[1]
    p_norm = _norm_above(p)
    values = rows.price(p)
    # The sizes themselves have a relative error of at most gamma_{d+2}; forming a row adds one more.
    slack = rounding_constant(2 * d + 8) * rows.sizes * p_norm + 2 * d * _TINY
    if exact:
        least = (values + slack).min()
        critical = np.flatnonzero(values - slack <= least)
        if critical.size * d <= _MOST_EXACT:
            values[critical] = _exact_products(rows.exact(critical), p)
            slack[critical] = 16 * d * _TINY  # for products whose error underflows
    bound = float((values - slack).min())
    bound -= 4 * _UNIT * abs(bound) + _TINY
    # A negative bound divided by an overestimated norm would be too large.
    return _down(bound / p_norm) if bound >= 0 else _down(bound / _norm_below(p))


def _high(rows: Rows, dual: Floats, *, exact: bool) -> float:
    """||D^T u|| / sum u, rounded up."""
    support = np.flatnonzero(dual > 0)
    u, d = dual[support], rows.shape[1]
    total = math.fsum(u) * (1 - 2 * _UNIT)
    if exact and support.size * d <= _MOST_EXACT:
        parts = [np.ascontiguousarray(part.T) for part in rows.exact(support)]
        combination = _exact_products(tuple(parts), u)
        slack = 2 * _UNIT * _norm_above(combination) + 16 * d * support.size * _TINY
    else:
        combination = rows.take(support).T @ u
        weighted = float(u @ rows.sizes[support])
        slack = rounding_constant(2 * support.size + 2 * d + 8) * weighted + 2 * d * support.size * _TINY
    return _up(_up(_norm_above(combination) + slack) / total)


def _exact_products(parts: tuple[Floats, ...], x: Floats) -> Floats:
    """sum over the parts of A x, each entry correctly rounded: products are split exactly and summed by fsum."""
    terms = np.concatenate([half for part in parts for half in _two_product(part, x)], axis=1)
    return np.array([math.fsum(row) for row in terms])


def _two_product(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """a * b as the unevaluated sum of its rounded value and the rounding error (Dekker 1971)."""
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def _split(a: Floats) -> tuple[Floats, Floats]:
    """a as the sum of two numbers of 26 bits (Veltkamp 1968)."""
    scaled = 134217729.0 * a
    high = scaled - (scaled - a)
    return high, a - high


def _norm_above(x: Floats) -> float:
    """||x||, rounded up."""
    scale = float(np.abs(x).max())
    if scale == 0:
        return 0.0
    y = x / scale  # each entry off by a relative eps, or by an underflow that the last term covers
    square = math.fsum(y * y)
    return scale * (math.sqrt(square) * (1 + 8 * _UNIT) + len(x) * 1e-160) * (1 + 2 * _UNIT)


def _norm_below(x: Floats) -> float:
    """||x||, rounded down."""
    above = _norm_above(x)
    return above * (1 - 32 * _UNIT) - len(x) * 1e-160 * above


def _down(x: float) -> float:
    return float(np.nextafter(x, -np.inf))


def _up(x: float) -> float:
    return float(np.nextafter(x, np.inf))
