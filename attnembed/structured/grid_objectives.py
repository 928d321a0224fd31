"""Objectives of grids: value and gradient with respect to the potentials, averaged over images.

| name             | value                                            | exact for        |
|------------------|--------------------------------------------------|------------------|
| mean_field       | max_q E_q[F] + entropy(q) - F(Y), q factorised   | W = 0; a bound   |
| ssvm             | max_Y' [Delta(Y, Y') + F(Y')] - F(Y)             | two labels       |
| pseudolikelihood | -sum_u log q_u(y_u)                              | any grid         |
| unary            | -sum_u log softmax(U_u)[y_u]                     | any grid         |

q_u in the third row is the conditional of y_u given its neighbours' labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from attnembed._typing import Floats, Ints
from attnembed._validation import check_choice, check_positive
from attnembed.gibbs import cross_entropy
from attnembed.structured.grid import decode, mean_field
from attnembed.structured.grid_potentials import GridPotentials, Weights
from attnembed.structured.objectives import ObjectiveValue

__all__ = ["GRID_OBJECTIVES", "grid_objective", "grid_objective_name"]


def _mean_field(grid: GridPotentials, y: Ints) -> ObjectiveValue:
    # At a fixed point the bound is stationary in q, so its gradient is that of E_q[F] with q fixed (envelope theorem).
    # Few sweeps in single precision: the walls between regions keep moving for long and hardly change the bound.
    tolerance = max(1e-6, float(np.sqrt(np.finfo(grid.unary.dtype).eps)))
    sweeps = 100 if tolerance < 1e-5 else 20
    n, found = len(y), mean_field(grid, tolerance, sweeps)
    # Where neighbours attract each other strongly, q keeps its initial regions, and its bound can fall below F(y): the
    # value would decrease without limit as W grows. A sweep never lowers the bound, so a second start from the best
    # labeling with one label everywhere keeps it above the score of that labeling.
    constant = np.stack([grid.score(np.full_like(y, k)) for k in range(grid.unary.shape[3])])
    stuck = constant.max(axis=0) > found.bound
    if stuck.any():
        uniform = grid.onehot(np.broadcast_to(constant.argmax(axis=0)[:, None, None], y.shape))
        found = mean_field(grid, tolerance, sweeps, np.where(stuck[:, None, None, None], uniform, found.node))
    q, onehot = found.node, grid.onehot(y)
    # q - onehot with minus the sum of the others at y: E_q[F] - F(y) then is a sum over the others, and nothing cancels
    # where q is nearly certain. F is quadratic in q, with the field as its gradient.
    others = np.where(onehot > 0, 0, q)
    missing = others.sum(axis=3, keepdims=True)
    residual = np.where(onehot > 0, -missing, q)
    slope = (grid.field(q) + grid.field(onehot)) / 2
    slope -= np.take_along_axis(slope, y[..., None], axis=3)
    own = np.where(missing < 0.5, -(1 - missing) * np.log1p(-np.minimum(missing, 0.5)), entr(1 - missing))
    value = np.sum(others * slope + entr(others), dtype=np.float64) + np.sum(own, dtype=np.float64)
    d_pairwise = grid.pair_counts(residual, q) + grid.pair_counts(onehot, residual)
    return ObjectiveValue(float(value) / n, residual / n, d_pairwise / n)


def _ssvm(grid: GridPotentials, y: Ints, margin: float = 1.0) -> ObjectiveValue:
    n, (height, width) = len(y), y.shape[1:]
    onehot = grid.onehot(y)
    plain = grid.unary
    grid.unary = plain + (1 - onehot) * (margin / (height * width))
    rival, own = decode(grid), grid.score(y)
    best = grid.score(rival)
    # The true labeling is a candidate: the result of ICM may score less.
    worse = best < own
    rival, best = np.where(worse[:, None, None], y, rival), np.maximum(best, own)
    grid.unary = plain
    value = float(np.mean(best - own))
    other = grid.onehot(rival)
    d_pairwise = grid.pair_counts(other, other) - grid.pair_counts(onehot, onehot)
    return ObjectiveValue(value, (other - onehot) / n, d_pairwise / n)


def _pseudolikelihood(grid: GridPotentials, y: Ints) -> ObjectiveValue:
    onehot = grid.onehot(y)
    value, residual = _mean_cross_entropy(grid.field(onehot), y)
    d_pairwise = grid.pair_counts(residual, onehot) + grid.pair_counts(onehot, residual)
    return ObjectiveValue(value, residual, d_pairwise)


def _unary(grid: GridPotentials, y: Ints) -> ObjectiveValue:
    value, residual = _mean_cross_entropy(grid.unary, y)
    shape = grid.pairwise[0].shape if grid.shared else grid.pairwise.shape
    return ObjectiveValue(value, residual, np.zeros(shape, dtype=residual.dtype))


def _mean_cross_entropy(logits: Floats, y: Ints) -> tuple[float, Floats]:
    losses, residual = cross_entropy(logits, y)
    return float(losses.sum(dtype=np.float64)) / len(y), residual / len(y)


GRID_OBJECTIVES: dict[str, Callable[..., ObjectiveValue]] = {
    "mean_field": _mean_field,
    "ssvm": _ssvm,
    "pseudolikelihood": _pseudolikelihood,
    "unary": _unary,
}


def grid_objective_name(objective: str) -> str:
    """The checked name; "nll", the old name of "mean_field", is accepted for one more release."""
    if isinstance(objective, str) and objective == "nll":
        warnings.warn('on grids the objective "nll" is now "mean_field": it is a bound', DeprecationWarning, 3)
        return "mean_field"
    return check_choice("objective", objective, GRID_OBJECTIVES)


def grid_objective(
    objective: str,
    unary: ArrayLike,
    pairwise: ArrayLike,
    labels: ArrayLike,
    weights: Weights | None = None,
    *,
    margin: float = 1.0,
) -> ObjectiveValue:
    """Value and gradient in the potentials, averaged over images.

    Parameters
    ----------
    objective : "pseudolikelihood" and "unary" are exact, as is "ssvm" for two labels; with more, its maximum is taken
        over the result of ICM and the true labeling, and is too small. "mean_field" is the negative log-likelihood
        with log Z replaced by the mean-field bound (never below the score of one label everywhere): it is too small
        by the divergence of q from P and may be negative, and its gradient is that of the bound. Unlike the others it
        is not convex in the potentials. ("nll", its old name, gives a DeprecationWarning.)
    unary, pairwise, weights : as in `grid`
    labels : (n, H, W)
    margin : of "ssvm", for a labeling wrong in all pixels; each wrong pixel costs margin / (H W)

    >>> round(grid_objective("mean_field", np.zeros((1, 1, 2, 2)), np.zeros((2, 2)), [[[0, 1]]]).value, 6)
    1.386294
    """
    name = grid_objective_name(objective)
    grid = GridPotentials(unary, pairwise, weights)
    options = {"margin": check_positive("margin", margin)} if name == "ssvm" else {}
    return GRID_OBJECTIVES[name](grid, grid.labels(labels), **options)
