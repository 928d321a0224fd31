"""Losses of a margin z, each with its derivatives, stable over the whole range of float64.

The logistic loss is l(z) = log(1 + e^{-z}); its derivative is -sigma(-z), sigma the logistic sigmoid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit

__all__ = ["logistic", "logistic_derivative", "logistic_inverse", "logistic_second_derivative"]


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
