"""The max-margin direction in the norms of sign descent (linf) and coordinate descent (l1), as a linear program.

For a norm with dual norm ||.||_* the margin and its certificate are the two sides of

    gamma = max_{||x|| <= 1} min_k d_k.x = min_{w >= 0, sum w = 1} ||D^T w||_*,

and p = x / gamma is the point of least norm with D p >= 1. Solved by HiGHS (scipy.optimize.linprog), whose answer is
accepted only after both sides have been evaluated again.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

from attnembed._typing import Floats

__all__ = ["NORMS", "Norm", "dual_norm", "norm", "solve_linear"]

Norm = Literal["l2", "linf", "l1"]
NORMS: tuple[Norm, ...] = ("l2", "linf", "l1")

_ORDER = {"l2": 2, "linf": np.inf, "l1": 1}
_DUAL = {"l2": "l2", "linf": "l1", "l1": "linf"}


def norm(x: Floats, name: str) -> float:
    """||x|| in the named norm."""
    return float(np.linalg.norm(x, _ORDER[name]))


def dual_norm(x: Floats, name: str) -> float:
    """max of x.z over ||z|| <= 1.

    >>> dual_norm(np.array([3.0, -4.0]), "linf"), dual_norm(np.array([3.0, -4.0]), "l1")
    (7.0, 4.0)
    """
    return norm(x, _DUAL[name])


def solve_linear(D: Floats, name: Norm) -> tuple[Floats, Floats]:
    """x (d,) of norm <= 1 with the largest min_k d_k.x, and the convex weights w (m,) of the dual.

    Rows in any unit: they are divided by their largest entry. Both results are NaN if HiGHS fails.
    """
    m, d = D.shape
    scale = float(np.abs(D).max())
    A = D / scale
    column = np.ones((m, 1))
    if name == "linf":  # x in the cube
        variables, left = d, np.hstack([-A, column])
        extra: Any = None
        bounds = [(-1.0, 1.0)] * d
    else:  # x = a - b with a, b >= 0 and sum(a + b) <= 1
        variables, left = 2 * d, np.hstack([-A, A, column])
        extra = np.append(np.ones(2 * d), 0.0)[None]
        bounds = [(0.0, np.inf)] * (2 * d)
    matrix = left if extra is None else np.vstack([left, extra])
    right = np.zeros(m) if extra is None else np.append(np.zeros(m), 1.0)
    result = linprog(
        np.append(np.zeros(variables), -1.0),
        A_ub=sp.csr_array(matrix),
        b_ub=right,
        bounds=[*bounds, (-np.inf, np.inf)],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if result.x is None:
        return np.full(d, np.nan), np.full(m, np.nan)
    x = result.x[:d] if name == "linf" else result.x[:d] - result.x[d : 2 * d]
    w = np.maximum(-result.ineqlin.marginals[:m], 0.0)
    x, total = x / max(1.0, norm(x, name)), w.sum()
    return x, w / total if total > 0 else np.full(m, np.nan)
