"""Logistic regression with a squared penalty on sparse features, by Newton's method.

Minimise F(w, b) = mean_i log(1 + exp(-y_i (x_i.w + b))) + (penalty/2) |w|^2. The steps of Newton's method are found by
conjugate gradients (Dembo, Steihaug, Math. Programming 26, 1983; Lin, Weng, Keerthi, JMLR 9, 2008), two products with
the features for each of them. With b' = b + m.w, m the mean of the features, the features are centred without losing
their zeros, and the Hessian is close to its diagonal k (var_s + penalty/k), k the mean of l'': that is the
preconditioner, a third of the products that the same problem takes without it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from attnembed._sparse import with_values
from attnembed._typing import Doubles
from attnembed.errors import RunFailedError

__all__ = ["LogisticRegression"]

# The gradient is at most this share of that at w = b = 0.
_TOLERANCE = 5e-4

# Each system is solved to this share of the gradient: the next step has another Hessian.
_FORCING = 0.1

_MOST_STEPS = 100
_SUFFICIENT = 1e-4  # of the decrease that the slope promises (Armijo)


class _State(NamedTuple):
    """A point (w, b), its margins without the label x_i.w + b, and F with its derivatives in the margins."""

    point: Doubles
    outputs: Doubles
    value: float
    pull: Doubles  # -l'(y f) y / n, by which the features enter minus the gradient
    curvature: Doubles  # l''(y f) / n


class LogisticRegression:
    """The problem for features x (n, V) in CSR form and labels y (n,) in {-1, +1}, both of which occur.

    >>> import scipy.sparse as sp
    >>> problem = LogisticRegression(sp.csr_array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0, -1.0]))
    >>> problem.solve(np.zeros(3), penalty=0.5).round(3)
    array([ 0.401, -0.401,  0.   ])
    """

    def __init__(self, x: Any, y: Doubles) -> None:
        self.x, self.y, self.transposed = x, y, x.T
        n = y.size
        self.mean: Doubles = self.transposed @ np.full(n, 1 / n)
        squares = with_values(x, x.data * x.data).T @ np.full(n, 1 / n)
        self.variance: Doubles = np.maximum(squares - self.mean * self.mean, 0.0)
        self.tolerance = _TOLERANCE * float(np.linalg.norm(self._against(y / (2 * n))))

    def gradient(self, point: Doubles, penalty: float) -> Doubles:
        """The gradient of F at (w, b), (V + 1,)."""
        return self._gradient(self._state(point, penalty), penalty)

    def solve(self, start: Doubles, penalty: float) -> Doubles:
        """The minimiser (w, b), (V + 1,): the norm of the gradient is 5e-4 of that at 0, or less.

        Raises RunFailedError if that is not reached.
        """
        state = self._state(start, penalty)
        for _ in range(_MOST_STEPS):
            gradient = self._gradient(state, penalty)
            size = float(np.linalg.norm(gradient))
            if size <= self.tolerance:
                return state.point
            step, moved = self._newton_step(state, gradient, penalty, max(_FORCING * size, 0.5 * self.tolerance))
            found = self._along(state, step, moved, penalty, float(gradient @ step))
            if found is None:
                break
            state = found
        reason = f"the gradient is still {size:.3g}, more than {self.tolerance:.3g}"
        raise RunFailedError("the logistic regression", reason)

    def _state(self, point: Doubles, penalty: float, outputs: Doubles | None = None) -> _State:
        if outputs is None:
            outputs = self.x @ point[:-1] + point[-1]
        margins = self.y * outputs
        small = np.exp(-np.abs(margins))
        share = np.where(margins > 0, small, 1.0) / (1 + small)  # -l'
        loss = float((np.maximum(-margins, 0) + np.log1p(small)).mean())
        w = point[:-1]
        n = self.y.size
        return _State(point, outputs, loss + penalty / 2 * float(w @ w), self.y * share / n, share * (1 - share) / n)

    def _gradient(self, state: _State, penalty: float) -> Doubles:
        gradient = -self._against(state.pull)
        gradient[:-1] += penalty * state.point[:-1]
        return gradient

    def _against(self, pull: Doubles) -> Doubles:
        """(x^T pull, sum_i pull_i)."""
        return np.append(self.transposed @ pull, pull.sum())

    def _newton_step(self, state: _State, gradient: Doubles, penalty: float, enough: float) -> tuple[Doubles, Doubles]:
        """The step and its outputs x_i.w + b, by conjugate gradients until the residual is ``enough``."""
        d, mean = state.curvature, self.mean
        total = max(float(d.sum()), np.finfo(float).tiny)
        scale = 1 / np.append(total * self.variance + penalty, total)

        residual = -gradient
        residual[:-1] += gradient[-1] * mean  # in the variables w and b'
        step, moved = np.zeros_like(residual), np.zeros_like(d)
        towards = scale * residual
        direction, product = towards, float(residual @ towards)
        for _ in range(residual.size):
            outputs = self.x @ direction[:-1] + (direction[-1] - mean @ direction[:-1])
            weighted = d * outputs
            bent = self._against(weighted)
            bent[:-1] += penalty * direction[:-1] - bent[-1] * mean
            length = product / float(direction @ bent)
            step += length * direction
            moved += length * outputs
            residual -= length * bent
            if np.linalg.norm(residual) <= enough:
                break
            towards = scale * residual
            product, before = float(residual @ towards), product
            direction = towards + (product / before) * direction
        step[-1] -= mean @ step[:-1]
        return step, moved

    def _along(self, state: _State, step: Doubles, moved: Doubles, penalty: float, slope: float) -> _State | None:
        """The first of the states after the step, half of it and so on that decreases F enough; None after 60."""
        rounding = 4 * np.finfo(float).eps * abs(state.value)
        for k in range(60):
            share = math.ldexp(1.0, -k)
            found = self._state(state.point + share * step, penalty, state.outputs + share * moved)
            if found.value <= state.value + _SUFFICIENT * share * slope + rounding:
                return found
        return None
