"""Chains and grids by enumeration of every labeling."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed.errors import InputError

__all__ = [
    "ChainEnumeration",
    "GridEnumeration",
    "enumerate_chain",
    "enumerate_grid",
]

Array = NDArray[Any]


class ChainEnumeration(NamedTuple):
    """Exact results for a chain: log Z, marginals (L, K) and (L-1, K, K), the best labeling (L,) and its score."""

    log_partition: float
    node: NDArray[np.float64]
    edge: NDArray[np.float64]
    labeling: NDArray[np.intp]
    score: float


class GridEnumeration(NamedTuple):
    """Exact results for a grid: log Z, marginals of nodes (H, W, K) and of the horizontal (H, W-1, K, K) and
    vertical (H-1, W, K, K) edges, the best labeling (H, W) and its score."""

    log_partition: float
    node: NDArray[np.float64]
    horizontal: NDArray[np.float64]
    vertical: NDArray[np.float64]
    labeling: NDArray[np.intp]
    score: float


def enumerate_chain(unary: ArrayLike, pairwise: ArrayLike) -> ChainEnumeration:
    """Enumerate all K^L labelings of a chain: F(Y) = sum_i U(i, y_i) + sum_i W(y_i, y_{i+1}), P(Y) = e^F / Z.

    ``unary`` (L, K) and ``pairwise`` (K, K), or (L-1, K, K) with one matrix per edge, are log-potentials; -inf
    forbids. Among equal scores the first labeling in lexicographic order is the best. If every labeling is forbidden,
    log Z is -inf and the marginals are NaN. Raises InputError above a million labelings.

    >>> result = enumerate_chain(np.zeros((2, 2)), np.log([[1.0, 2.0], [3.0, 4.0]]))
    >>> result.labeling.tolist(), round(math.exp(result.log_partition), 12), result.node[0].round(12).tolist()
    ([1, 1], 10.0, [0.3, 0.7])
    """
    U = np.asarray(unary, dtype=float)
    L, K = U.shape
    W = np.broadcast_to(np.asarray(pairwise, dtype=float), (L - 1, K, K))
    log_partition, node, edge, labeling, score = _enumerate(U, [(i, i + 1) for i in range(L - 1)], W)
    return ChainEnumeration(log_partition, node, edge, labeling, score)


def enumerate_grid(unary: ArrayLike, horizontal: ArrayLike, vertical: ArrayLike) -> GridEnumeration:
    """Enumerate all K^(HW) labelings of a 4-connected grid, like `enumerate_chain` for a chain.

    ``unary`` (H, W, K); ``horizontal`` (K, K) or (H, W-1, K, K) scores (left, right); ``vertical`` (K, K) or
    (H-1, W, K, K) scores (upper, lower). Lexicographic order reads the rows one after the other.

    >>> stripes = [[0.0, 1.0], [1.0, 0.0]]
    >>> enumerate_grid(np.zeros((2, 3, 2)), stripes, stripes).labeling.tolist()
    [[0, 1, 0], [1, 0, 1]]
    """
    U = np.asarray(unary, dtype=float)
    H, W, K = U.shape
    across = np.broadcast_to(np.asarray(horizontal, dtype=float), (H, W - 1, K, K))
    down = np.broadcast_to(np.asarray(vertical, dtype=float), (H - 1, W, K, K))
    edges = [(r * W + c, r * W + c + 1) for r in range(H) for c in range(W - 1)]
    edges += [(r * W + c, (r + 1) * W + c) for r in range(H - 1) for c in range(W)]
    matrices = np.concatenate([across.reshape(-1, K, K), down.reshape(-1, K, K)])
    log_partition, node, edge, labeling, score = _enumerate(U.reshape(H * W, K), edges, matrices)
    return GridEnumeration(
        log_partition,
        node.reshape(U.shape),
        edge[: H * (W - 1)].reshape(across.shape),
        edge[H * (W - 1) :].reshape(down.shape),
        labeling.reshape(H, W),
        score,
    )


def _enumerate(unary: Array, edges: list[tuple[int, int]], matrices: Array) -> tuple[float, Array, Array, Array, float]:
    """log Z, node and edge marginals, best labeling and its score, for any graph."""
    L, K = unary.shape
    if K**L > 10**6:
        raise InputError("unary", "must allow at most a million labelings", got=f"{K}^{L}")
    labelings = list(itertools.product(range(K), repeat=L))
    # fsum rounds once, so scores that are equal in exact arithmetic are equal here as well.
    scores = [
        math.fsum(
            [unary[i, k] for i, k in enumerate(Y)] + [W[Y[i], Y[j]] for (i, j), W in zip(edges, matrices, strict=True)]
        )
        for Y in labelings
    ]
    best = max(scores)
    node, edge = np.zeros((L, K)), np.zeros((len(edges), K, K))
    labeling = np.array(labelings[scores.index(best)], dtype=np.intp)
    if best == -math.inf:
        return best, np.full_like(node, np.nan), np.full_like(edge, np.nan), labeling, best
    total = math.fsum(math.exp(score - best) for score in scores)
    for Y, score in zip(labelings, scores, strict=True):
        probability = math.exp(score - best) / total
        for i, k in enumerate(Y):
            node[i, k] += probability
        for e, (i, j) in enumerate(edges):
            edge[e, Y[i], Y[j]] += probability
    return best + math.log(total), node, edge, labeling, best
