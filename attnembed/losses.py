"""Losses with their derivatives, each right to a few digits of rounding over the whole range of float64.

The logistic loss of a margin z is l(z) = log(1 + e^{-z}); its derivative is -sigma(-z), sigma the logistic sigmoid. The
cross-entropy is its form for K labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit

__all__ = [
    "cross_entropy",
    "logistic",
    "logistic_derivative",
    "logistic_increase",
    "logistic_inverse",
    "logistic_second_derivative",
]

Floats = NDArray[np.floating[Any]]


def logistic(z: ArrayLike) -> NDArray[np.floating[Any]]:
    """Logistic loss l(z) = log(1 + e^{-z}), any shape, values in (0, inf).

    >>> float(logistic(0.0)) == float(np.log(2.0))
    True
    """
    return -log_expit(np.asarray(z))


def logistic_derivative(z: ArrayLike) -> NDArray[np.floating[Any]]:
    """l'(z) = -sigma(-z), any shape, values in (-1, 0).

    >>> float(logistic_derivative(0.0))
    -0.5
    """
    return -expit(-np.asarray(z))


def logistic_second_derivative(z: ArrayLike) -> NDArray[np.floating[Any]]:
    """l''(z) = sigma(z) sigma(-z), any shape, values in (0, 1/4].

    >>> float(logistic_second_derivative(0.0))
    0.25
    """
    z = np.asarray(z)
    return expit(z) * expit(-z)


def logistic_inverse(loss: ArrayLike) -> NDArray[np.floating[Any]]:
    """The margin with a given loss: l^{-1}(x) = -log(e^x - 1) for x > 0.

    Written as -x - log(1 - e^{-x}), so that it neither overflows for large x nor cancels for small x.

    >>> float(np.round(logistic_inverse(logistic(3.0)), 12))
    3.0
    """
    x = np.asarray(loss, dtype=float)
    return -(x + np.log(-np.expm1(-x)))


def logistic_increase(margin: Floats, drop: Floats) -> Floats:
    """l(z - drop) - l(z) for drop >= 0, any shape: log1p(expm1(drop) sigma(-z)), exact for the smallest drops.

    >>> float(logistic_increase(np.array(0.0), np.array(1e-20)))
    5e-21
    """
    near = np.log1p(np.expm1(np.minimum(drop, 1.0)) * -logistic_derivative(margin))
    # Far from z nothing cancels, and expm1 could overflow.
    return np.where(drop <= 1.0, near, logistic(margin - drop) - logistic(margin))


def cross_entropy(logits: Floats, labels: NDArray[np.integer[Any]]) -> tuple[Floats, Floats]:
    """-log softmax(u)_y = log(1 + r), r = sum over k != y of e^{u_k - u_y}, and its gradient softmax(u) - onehot(y).

    Neither is the difference of nearly equal numbers: the loss is log1p of the rivals' mass, and the gradient at y is
    minus the sum of the others, so that both keep their digits however certain the label is (docs/numerics.md).

    Parameters
    ----------
    logits : (..., K) u, finite or -inf; that of the label finite
    labels : (...) y in 0..K-1

    Returns
    -------
    losses (...) >= 0 and gradient (..., K), not summed and not averaged. In single precision the losses are of double
    precision where a rival's mass is below its range.

    >>> loss, gradient = cross_entropy(np.array([[40.0, 0.0]]), np.array([0]))
    >>> float(loss[0]), gradient[0].tolist()
    (4.248354255291589e-18, [-4.248354255291589e-18, 4.248354255291589e-18])
    """
    k = logits.shape[-1]
    rows, own = logits.reshape(-1, k), labels.reshape(-1)
    index = np.arange(len(own))
    if k == 2:  # one logistic function
        lead = rows[index, own] - rows[index, 1 - own]
        loss = np.asarray(logistic(lead))
        rival = expit(-lead)
        gradient = np.empty_like(rows, order="C")
        gradient[index, own] = -rival
        gradient[index, 1 - own] = rival
    else:
        top = rows.max(axis=1)
        gap = top - rows[index, own]
        gradient = np.subtract(rows, top[:, None], order="C")
        np.exp(gradient, out=gradient)
        weight = gradient[index, own]
        gradient[index, own] = 0
        rivals = gradient.sum(axis=1)
        # Without a gap the weight is 1; with one the rivals weigh at least 1: nothing cancels in either case.
        loss = gap + np.log1p(rivals + (weight - 1))
        gradient[index, own] = -rivals
        gradient /= (rivals + weight)[:, None]
    if logits.dtype == np.float32 and k > 1 and np.min(loss, initial=1.0) < np.finfo(np.float32).tiny:
        loss, gradient = cross_entropy(logits.astype(np.float64), labels)
        return loss, gradient.astype(np.float32)
    return loss.reshape(labels.shape), gradient.reshape(logits.shape)
