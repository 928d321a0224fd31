"""What every prediction reads from its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed.attention.data import TokenDataset, check_data
from attnembed.attention.parameters import Parameters, check_model, check_scores, check_sizes
from attnembed.losses import logistic, logistic_derivative

Floats = NDArray[np.floating[Any]]

# Deviations below this share (of a squared norm, a norm, a value) count as rounding.
ROUNDING = 1e-12


def parameters(model: Parameters, data: TokenDataset) -> tuple[Floats, Floats, Floats]:
    """E (V, d), p (d,), v (d,) in double precision, whatever the model trains in, checked against the data."""
    check_model(model)
    check_data(data, len(model.E))
    E, p, v = (np.asarray(array, dtype=np.float64) for array in (model.E, model.p, model.v))
    with np.errstate(all="ignore"):
        check_scores(E @ p, E @ v)
    check_sizes(model)
    return E, p, v


def largest_product(rows: Floats, block: int = 1024) -> float:
    """max |x_s . x_r| over different rows, (V, d) -> float, without forming the V x V Gram matrix."""
    largest = 0.0
    for start in range(0, len(rows), block):
        gram = np.abs(rows[start : start + block] @ rows[start:].T)
        np.fill_diagonal(gram, 0.0)
        largest = max(largest, float(gram.max()))
    return largest


def loss_increase(margin: Floats, drop: Floats) -> Floats:
    """l(z - drop) - l(z) for drop >= 0, log1p(expm1(drop) sigma(-z)): exact for the smallest drops, any shape."""
    near = np.log1p(np.expm1(np.minimum(drop, 1.0)) * -logistic_derivative(margin))
    return np.where(drop <= 1.0, near, logistic(margin - drop) - logistic(margin))
