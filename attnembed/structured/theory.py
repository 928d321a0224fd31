"""The effect of scale, predicted from potentials alone: component norms, the objective as a function of the scales,
and the step of an optimiser in the scaled component.

With F = a U + b P (U and P the two totals of a labeling) the negative log-likelihood log Z(a, b) - F(Y) has gradient
E_P[(U, P)] - (U, P)(Y) and Hessian Cov_P(U, P): it is convex, and its minimum is a two-variable Newton solve.
Nothing here reads the model or the training with which the predictions are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from attnembed._typing import Floats
from attnembed._validation import (
    as_array,
    as_real_array,
    check_choice,
    check_integer,
    check_positive,
    check_shape,
    freeze,
)
from attnembed.errors import InputError, InputTypeError
from attnembed.results import Record, Result, Status
from attnembed.structured.chain import ChainBatch
from attnembed.structured.constraints import as_mask, constrained, split_forbidden
from attnembed.structured.forward_backward import posterior
from attnembed.structured.objectives import nll

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "ScaleFit",
    "ScaleObjective",
    "component_norms",
    "effective_step_size",
    "fit_scales",
    "scale_objective",
]


def component_norms(unary: ArrayLike, pairwise: ArrayLike, allowed: ArrayLike | None = None) -> tuple[float, float]:
    """The norms n_U = sqrt(mean (U_i(y) - mean_y U_i)^2) and n_W = sqrt(mean (W - mean W)^2).

    Only differences between labels count: a constant added to a row of U, or to W, changes no probability. Forbidden
    pairs have no scale and are excluded.

    Parameters
    ----------
    unary : (..., K)
    pairwise : (..., K, K), the mean taken per matrix
    allowed : (K, K) bool, the pairs over which both means of n_W are taken; all by default

    NaN is accepted, and makes the norm NaN.

    >>> component_norms([[1.0, -1.0], [5.0, 3.0]], [[2.0, 0.0], [0.0, 2.0]])
    (1.0, 1.0)
    """
    u, w = _as_numbers("unary", unary, 1), _as_numbers("pairwise", pairwise, 2)
    mask = as_mask("allowed", allowed, w.shape[-2:])
    where: Any = True if mask is None else np.broadcast_to(mask, w.shape)
    if not np.any(where):
        raise InputError("allowed", "must allow at least one pair")
    n_u = np.sqrt(np.mean(np.square(u - u.mean(axis=-1, keepdims=True)), dtype=np.float64))
    centred = w - w.mean(axis=(-2, -1), keepdims=True, where=where)
    n_w = np.sqrt(np.mean(np.square(centred), dtype=np.float64, where=where))
    return float(n_u), float(n_w)


def _as_numbers(name: str, value: ArrayLike, axes: int) -> Floats:
    array = as_array(name, value)
    if array.dtype.kind not in "biuf":
        raise InputTypeError(name, "must be a real numeric array", got=f"dtype {array.dtype}")
    if array.ndim < axes or array.size == 0:
        raise InputError(name, f"must have {axes} axes or more, none empty", got=f"shape {array.shape}")
    return array


def effective_step_size(method: str, scale: float, step_size: float) -> float:
    """The effective step size of W = c W~ when the optimiser moves W~: c^2 eta with SGD, c eta with Adam.

    The gradient in W~ is c times that in W. SGD moves W~ by eta c g, hence W by eta c^2 g; Adam moves W~ by about eta
    in every entry whatever the size of the gradient, hence W by c eta. Derived in docs/derivations/effective-steps.md.

    >>> effective_step_size("sgd", 10.0, 0.1), effective_step_size("adam", 10.0, 0.1)
    (10.0, 1.0)
    """
    c, eta = check_positive("scale", scale), check_positive("step_size", step_size)
    return c * c * eta if check_choice("method", method, ("sgd", "adam")) == "sgd" else c * eta


@dataclass(frozen=True, eq=False, repr=False)
class ScaleObjective(Record):
    """Negative log-likelihood at the scales (a, b): value, gradient (2,), Hessian (2, 2), averaged over sequences."""

    value: float
    gradient: Floats
    hessian: Floats


def scale_objective(
    unary: ArrayLike,
    pairwise: ArrayLike,
    labels: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    scales: tuple[float, float] = (1.0, 1.0),
) -> ScaleObjective:
    """The objective log Z - F(Y) for F = a U + b P with its first two derivatives in (a, b).

    The covariance of the totals follows from the posterior as a Markov chain, from the end to the start: with m_t(k)
    the mean and V_t(k) the covariance of the contribution of the positions from t on, given y_t = k,

        V_t(k) = sum_l P(l | k) [V_{t+1}(l) + d d^T],   d = (0, W[k, l]) + m_{t+1}(l) - their mean,

    a sum of squares, so that it stays non-negative up to rounding. Derived in docs/derivations/two-scales.md.

    Potentials, ``labels`` and ``lengths`` as in `objectives.chain_objective`; -inf stays -inf at every scale.

    >>> result = scale_objective([[0.0, 1.0]], np.zeros((2, 2)), [1])
    >>> result.gradient.round(3), result.hessian.round(3)
    (array([-0.269,  0.   ]), array([[0.197, 0.   ],
           [0.   , 0.   ]]))
    """
    batch = ChainBatch(unary, pairwise, lengths)
    pair = as_real_array("scales", scales, ndim=1, dtype=np.float64)
    check_shape("scales", pair, (2,), "one for the unary and one for the pairwise part")
    a, b = pair.tolist()
    packing, y = batch.packing, batch.pack_labels(labels)
    # A forbidden label or pair has probability 0 and adds nothing to a mean.
    (u, free_u), (w, free_w) = split_forbidden(batch.unary.T, None), split_forbidden(batch.pairwise, None)
    scaled = np.ascontiguousarray(constrained(a * u, free_u).T), constrained(b * w, free_w)
    n = len(packing)
    at = nll(*scaled, y, packing)
    # E_P[(U, P)] - (U, P)(Y) through the gradient in the potentials, which keeps its digits where Y is certain.
    gradient = np.array([np.sum(at.unary.T * u), np.sum(at.pairwise * w)])

    p = posterior(*scaled, packing)
    moments = np.stack([p.ahead(u, np.zeros_like(w)), p.ahead(np.zeros_like(u), w)])  # m_t(k)
    first = slice(0, n)
    step = moments[:, :, first] - np.einsum("kb,ikb->ib", p.node[:, first], moments[:, :, first])[:, None]
    hessian = np.einsum("kb,ikb,jkb->ij", p.node[:, first], step, step)
    # V_1 as a sum over edges: the contribution of each, averaged over its left end. The edges come in any order.
    for here, _, edge in p.edges():
        step = np.empty((2, *edge.shape))
        step[:] = moments[:, None, :, here]
        step[1] += w[:, :, None]
        weighted, total = edge * step, edge.sum(axis=1)
        mean = np.divide(weighted.sum(axis=2), total, where=total > 0, out=np.zeros((2, *total.shape)))
        step -= mean[:, :, None]
        np.multiply(edge, step, out=weighted)
        hessian += weighted.reshape(2, -1) @ step.reshape(2, -1).T
    return ScaleObjective(at.value, gradient, hessian / n)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ScaleFit(Result):
    """The scales that minimise the negative log-likelihood, with its value and gradient there.

    ``path`` (iterations + 1, 2) holds the scales of every iteration, from (1, 1) to the result.
    """

    unary_scale: float
    pairwise_scale: float
    value: float
    gradient: Floats
    iterations: int
    path: Floats

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the path of the search in the plane of the two scales.

        Draws on new axes if none are given; returns the axes.
        """
        from attnembed import figures

        return figures.plot_scales(self.path, ax=ax)


def fit_scales(
    unary: ArrayLike,
    pairwise: ArrayLike,
    labels: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    tolerance: float = 1e-9,
    max_iterations: int = 100,
) -> ScaleFit:
    """Minimise over the two scales by Newton's method, halving steps until the value falls.

    Use labels on which the potentials were not trained: if the scaled scores separate the data, the common scale has no
    finite optimum, and the status says so.

    >>> u = np.array([[[1.0, 0.0]]] * 3)
    >>> fit = fit_scales(u, np.zeros((2, 2)), [[0], [0], [1]])
    >>> round(fit.unary_scale, 6)  # log 2
    0.693147
    """
    check_positive("tolerance", tolerance)
    limit = check_integer("max_iterations", max_iterations, minimum=1)
    scales = np.ones(2)
    path = [scales]

    def at(point: Floats) -> ScaleObjective:
        return scale_objective(unary, pairwise, labels, lengths, scales=(point[0], point[1]))

    current, status, iterations = at(scales), Status.MAX_ITERATIONS, 0
    while iterations < limit:
        if np.linalg.norm(current.gradient) <= tolerance * max(1.0, abs(current.value)):
            status = Status.CONVERGED
            break
        # The pseudo-inverse leaves a scale unchanged if nothing depends on it (a constant component).
        direction = -np.linalg.pinv(current.hessian, rcond=1e-14, hermitian=True) @ current.gradient
        if not np.isfinite(scales + direction).all():
            status = Status.NOT_FINITE
            break
        length, slope = 1.0, float(current.gradient @ direction)
        while True:
            trial = at(scales + length * direction)
            if trial.value <= current.value + 1e-4 * length * slope or length < 1e-10:
                break
            length /= 2
        if not trial.value < current.value:
            # No representable decrease is left: the gradient is at its rounding error.
            status = Status.CONVERGED if abs(slope) <= 1e-12 * max(1.0, current.value) else Status.FAILED
            break
        scales, current, iterations = scales + length * direction, trial, iterations + 1
        path.append(scales)
    finite = bool(np.isfinite(scales).all() and np.isfinite(current.value))
    status = status if finite else Status.NOT_FINITE
    message = {
        Status.CONVERGED: f"gradient {np.linalg.norm(current.gradient):.1e} after {iterations} steps",
        Status.MAX_ITERATIONS: "no optimum within max_iterations; on separable data the common scale diverges",
    }.get(status, "the search broke down; check the potentials")
    return ScaleFit(
        status=status,
        message=message,
        unary_scale=float(scales[0]),
        pairwise_scale=float(scales[1]),
        value=current.value,
        gradient=current.gradient,
        iterations=iterations,
        path=freeze(np.array(path)),
    )
