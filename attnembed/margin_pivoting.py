"""Working sets of the max-margin program by block principal pivoting, and infeasibility by Newton's method.

The dual of min ||q||^2 subject to R q >= t is min u'Gu/2 - t'u over u >= 0, G = R R'. Block principal pivoting (J. J.
Judice and F. M. Pires, Computers & Operations Research 21, 1994) guesses which u are positive, solves for them by one
Cholesky factor, and exchanges every row with a wrong sign at once: a handful of factors, where active-set methods take
one step per row. A proximal term makes the factor exist for linearly dependent rows. The result is a guess of the
support; `margins` solves the program on it and certifies the answer, or falls back to its own method.

If there is no q, half the squared hinge ||(t - R q)_+||^2 / 2 has a positive minimum, where u = (t - R q)_+ has R'u =
0, which is the certificate. Newton's method on this piecewise quadratic function takes a few steps.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from attnembed._typing import Floats

__all__ = ["combination_to_zero", "shortest"]


Indices = NDArray[np.intp]

EPS = float(np.finfo(np.float64).eps)
PROXIMAL = 1e-9  # of the mean square of the rows
TRIES = 3  # exchanges without progress before only rows may leave
FACTORS = 60
CORRECTIONS = 6
STEPS = 16  # of Newton
ROUNDED = 1e-14  # ||R'u|| <= this sum(u) for rows of norm 1 is 0 up to rounding


def shortest(rows: Floats, target: Floats) -> tuple[Floats, Floats] | None:
    """u >= 0 and q = R'u, the shortest q with R q >= t; None if it is not found up to rounding.

    Parameters
    ----------
    rows : (k, d) of norm 1
    target : (k,) positive

    >>> shortest(np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([1.0, 0.1]))
    (array([1., 0.]), array([1., 0.]))
    """
    k = len(rows)
    G = rows @ rows.T
    passive = np.arange(k)
    chosen = np.ones(k, dtype=bool)
    fewest, tries, only_drop = k + 1, TRIES, False
    for _ in range(FACTORS):
        if passive.size == 0:
            return None
        A = G.copy() if passive.size == k else np.take(np.take(G, passive, 0), passive, 1)
        A.flat[:: passive.size + 1] += PROXIMAL
        factor, failed = lapack.dpotrf(A.T, lower=1, clean=0, overwrite_a=1)
        if failed:
            return None
        z = lapack.dpotrs(factor, target[passive], lower=1)[0]
        u = np.zeros(k)
        u[passive] = z
        slope = G @ u
        slope -= target
        slope[passive] = 0.0
        wrong = u < 0.0
        if not only_drop:
            wrong |= slope < -64 * EPS * max(1.0, float(np.abs(z).sum()))
        count = int(np.count_nonzero(wrong))
        if count == 0:
            return _refined(rows, target, passive, factor, u)
        if count < fewest:
            fewest, tries = count, TRIES
        elif tries > 0:
            tries -= 1
        else:
            only_drop = True
            wrong = u < 0.0
        chosen ^= wrong
        passive = np.flatnonzero(chosen)
    return None


def _refined(rows: Floats, target: Floats, passive: Indices, factor: Floats, u: Floats) -> tuple[Floats, Floats] | None:
    """The solution without the proximal term, by corrections with residuals of the rows themselves."""
    R, t, z = rows[passive], target[passive], u[passive]
    for _ in range(CORRECTIONS):
        q = z @ R
        left = t - R @ q
        if np.abs(left).max() <= 8 * EPS * np.sqrt(q @ q):
            break
        z = z + lapack.dpotrs(factor, left, lower=1)[0]
        if not z.min() >= 0.0:
            return None
    else:
        return None
    u[passive] = z
    return (u, q) if (target - rows @ q).max() <= 64 * EPS * np.sqrt(q @ q) else None


def combination_to_zero(rows: Floats) -> Floats | None:
    """Weights u >= 0 (k,) with R'u = 0 up to rounding; None if there are none, or none is found in a few steps.

    >>> combination_to_zero(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    array([1., 1.])
    """
    q = np.full(len(rows), 1.0 / len(rows)).dot(rows)
    left = 1.0 - rows @ q
    short = np.maximum(left, 0.0)
    value = 0.5 * float(short.dot(short))
    for _ in range(STEPS):
        active = (left > 0.0).nonzero()[0]
        if active.size == 0:
            return None  # q is feasible
        R, u = (rows, left) if active.size == len(rows) else (rows.take(active, 0), left.take(active))
        slope = -u.dot(R)
        if math.sqrt(slope.dot(slope)) <= ROUNDED * float(np.add.reduce(u)):
            weights = np.zeros(len(rows))
            weights[active] = u
            return weights
        H = blas.dsyrk(1.0, R.T, lower=1)
        H.flat[:: H.shape[0] + 1] += 1e-12 * max(H[0, 0], 1.0)
        factor, failed = lapack.dpotrf(H, lower=1, clean=0, overwrite_a=1)
        if failed:
            return None
        step = lapack.dpotrs(factor, -slope, lower=1)[0]
        along, decrease, share = rows @ step, float(slope @ step), 1.0
        while True:
            moved = left - share * along
            np.maximum(moved, 0.0, out=moved)
            new = 0.5 * float(moved.dot(moved))
            if new <= value * (1.0 + 8 * EPS) + 1e-4 * share * decrease or share < 1e-8:  # up to rounding
                break
            share *= 0.5
        q, value = q + share * step, new
        left = 1.0 - rows @ q
    return None
