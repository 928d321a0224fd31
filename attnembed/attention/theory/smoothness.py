"""Smoothness of the loss in p: ||Hess_p L|| <= beta everywhere, from the data and the embeddings alone.

Derivation: docs/derivations/smoothness.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Floats
from attnembed.attention.data import TokenDataset
from attnembed.attention.parameters import Parameters
from attnembed.attention.theory._inputs import parameters
from attnembed.attention.theory.hypotheses import Prediction
from attnembed.gibbs import Segments

__all__ = ["SmoothnessBound", "smoothness_bound"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SmoothnessBound(Prediction):
    """``beta`` = G^2 R^2 / 64 + G R^2 / 4 with G the ``value_range`` and R the ``diameter``; no hypotheses."""

    beta: float
    value_range: float
    diameter: float


# The sequences to try before tokens are dropped.
_TRIED = 64


def smoothness_bound(model: Parameters, data: TokenDataset) -> SmoothnessBound:
    """An upper bound on ||Hess_p L|| that holds at every p.

    beta = G^2 R^2 / 64 + G R^2 / 4, with G = max_i (max g - min g over the tokens of X_i) and R = max_i diameter of
    {E_s : s in X_i}. Gradient descent on p with a step below 2/beta never increases the loss.

    Source: derived here (docs/derivations/smoothness.md).

    >>> from attnembed.attention.model import AttentionModel
    >>> model = AttentionModel([[0.0, 0.0], [3.0, 4.0]], [0.0, 0.0], [1.0, 0.0])
    >>> bound = smoothness_bound(model, TokenDataset.from_tokens([[0, 1], [1, 1]], [1, -1]))
    >>> bound.value_range, bound.diameter, bound.beta == 3**2 * 5**2 / 64 + 3 * 5**2 / 4
    (3.0, 5.0, True)
    """
    E, _, v = parameters(model, data)
    columns, segments = data.counts.indices, data.segments
    g = (E @ v)[columns]
    G = float((segments.max(g) + segments.max(-g)).max())
    R = _largest_diameter(E, columns, segments)
    try:
        beta = G**2 * R**2 / 64 + G * R**2 / 4
    except OverflowError:  # ** of Python's floats raises where * gives inf
        beta = math.inf
    return SmoothnessBound(hypotheses=(), beta=beta, value_range=G, diameter=R)


def _largest_diameter(E: Floats, columns: NDArray[np.integer[Any]], segments: Segments) -> float:
    """max_i max_{s,t in X_i} ||E_s - E_t||.

    With radii r about a common centre, ||E_s - E_t|| <= r_s + r_t. So a sequence is skipped when its two largest radii
    add up to no more than the best distance so far, and in the others one token of the pair has r > best/2 and the
    other r > best - max r. Where there are fewer pairs of tokens than pairs in sequences, a few sequences are tried
    first, and then the tokens dropped whose distance from any other is no more than the best.
    """
    occurs = np.bincount(columns, minlength=len(E)) > 0
    X = E - E[occurs].mean(axis=0)
    radius = np.linalg.norm(X, axis=1)
    reach = segments.max(radius[columns])
    order = np.argsort(-reach)
    lengths = np.diff(segments.indptr).astype(np.float64)
    if len(order) > _TRIED and float(np.count_nonzero(occurs)) ** 2 < float(lengths @ lengths):
        best = _farthest(X, radius, columns, segments.indptr, order[:_TRIED], reach, 0.0)
        kept = np.zeros(len(E), dtype=bool)
        kept[np.flatnonzero(occurs)[_eccentricities(X[occurs], radius[occurs]) > best]] = True
        inside = kept[columns]
        n_kept = segments.sum(inside.astype(np.int64))
        order = order[_TRIED:]
        order = order[n_kept[order] > 1]
        return _farthest(X, radius, columns[inside], np.r_[0, np.cumsum(n_kept)], order, reach, best)
    return _farthest(X, radius, columns, segments.indptr, order, reach, 0.0)


def _farthest(
    X: Floats, radius: Floats, columns: NDArray[Any], indptr: NDArray[Any], order: NDArray[Any], reach: Floats,
    best: float,
) -> float:  # fmt: skip
    """The larger of ``best`` and the largest distance of two tokens of a sequence in ``order``, by falling reach."""
    for i in order:
        if 2 * reach[i] <= best:
            break
        tokens = columns[indptr[i] : indptr[i + 1]]
        r = radius[tokens]
        near, far = tokens[r > best - reach[i]], tokens[r >= best / 2]
        if near.size < 2 or far.size == 0:
            continue
        # About the sequence's own centre the Gram form of the distance does not cancel; the farthest pair that it
        # finds is then measured directly.
        centre = X[near].mean(axis=0)
        A, B = X[far] - centre, X[near] - centre
        square = (-2 * A) @ B.T
        square += np.einsum("ij,ij->i", B, B)
        square += np.einsum("ij,ij->i", A, A)[:, None]
        a, b = np.divmod(int(np.argmax(square)), near.size)
        best = max(best, float(np.linalg.norm(X[far[a]] - X[near[b]])))
    return best


def _eccentricities(X: Floats, radius: Floats, block: int = 512) -> Floats:
    """max_t ||X_s - X_t|| for each row, (V,), rounded up by the cancellation of the Gram form."""
    squares = radius**2
    slack = 4 * (X.shape[1] + 4) * np.finfo(np.float64).eps * float(squares.max())
    largest = np.empty(len(X))
    for start in range(0, len(X), block):
        product = (-2 * X[start : start + block]) @ X.T
        product += squares
        largest[start : start + block] = product.max(axis=1)
    value: Floats = np.sqrt(np.maximum(largest + squares + slack, 0.0))
    return value
