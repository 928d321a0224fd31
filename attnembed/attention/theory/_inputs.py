"""Statistics that the predictions compute from their arguments."""

from __future__ import annotations

import numpy as np

from attnembed._typing import Floats
from attnembed.attention.data import TokenDataset, check_data
from attnembed.attention.parameters import Parameters, check_model, check_scores
from attnembed.attention.selection import ROUNDING

__all__ = [
    "ROUNDING",
    "independence",
    "largest_product",
    "largest_share_along",
    "parameters",
    "unit_rows",
]


_SQUARES = (1e-200, 1e150)  # squares that lose no digits, and whose products do not overflow


def parameters(model: Parameters, data: TokenDataset) -> tuple[Floats, Floats, Floats]:
    """E (V, d), p (d,), v (d,) in double precision whatever the model's type, checked against the data."""
    check_model(model)
    check_data(data, len(model.E))
    E, p, v = (np.asarray(array, dtype=np.float64) for array in (model.E, model.p, model.v))
    with np.errstate(over="ignore", invalid="ignore"):
        u, g = E @ p, E @ v
    check_scores(u, g)
    return E, p, v


def unit_rows(rows: Floats) -> Floats:
    """The rows scaled to norm 1, whatever their norms; rows of zeros stay."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    scaled = rows / np.where(largest > 0, largest, 1.0)
    sizes = np.linalg.norm(scaled, axis=1, keepdims=True)
    return scaled / np.where(sizes > 0, sizes, 1.0)


def largest_share_along(rows: Floats, v: Floats) -> float:
    """max_s |x_s . v| / (||x_s|| ||v||), each row relative to its own norm; 0 for rows or v of norm 0."""
    squares, square = np.einsum("sk,sk->s", rows, rows), float(np.einsum("k,k->", v, v))
    if squares.size and _SQUARES[0] < min(squares.min(), square) and max(squares.max(), square) < _SQUARES[1]:
        return float(np.sqrt((np.dot(rows, v) ** 2 / squares).max() / square))
    return float(np.abs(unit_rows(rows) @ unit_rows(v[None])[0]).max(initial=0.0))


def independence(rows: Floats) -> float:
    """Smallest over largest singular value of the rows scaled to norm 1; 0 if there are more rows than columns."""
    if len(rows) > rows.shape[1]:
        return 0.0
    singular = np.linalg.svd(unit_rows(rows), compute_uv=False)
    return float(singular[-1] / (singular[0] or 1.0))


def largest_product(rows: Floats, block: int = 1024) -> float:
    """max |x_s . x_r| over distinct rows, (V, d) -> float, without forming the V x V Gram matrix."""
    largest = 0.0
    for start in range(0, len(rows), block):
        gram = np.abs(rows[start : start + block] @ rows[start:].T)
        np.fill_diagonal(gram, 0.0)
        largest = max(largest, float(gram.max()))
    return largest
