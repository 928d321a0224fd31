"""Checked potentials of a batch of images on the 4-connected grid, and sums over pixels and edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed._typing import Floats, Ints
from attnembed._validation import as_array, as_real_array, check_shape
from attnembed.errors import InputError, InputTypeError

__all__ = ["GridPotentials", "Weights", "edge_ends"]

Weights = tuple[Floats, Floats]

_FEW_LABELS = 4


class GridPotentials:
    """Checked potentials of a batch of images.

    Parameters
    ----------
    unary : (n, H, W, K)
    pairwise : (K, K) for both directions, or (2, K, K): horizontal, vertical
    weights : of horizontal (n, H, W-1) and vertical (n, H-1, W) edges, >= 0; None for all ones
    """

    def __init__(self, unary: ArrayLike, pairwise: ArrayLike, weights: Weights | None) -> None:
        self.unary = as_real_array("unary", unary, ndim=4)
        if 0 in self.unary.shape:
            raise InputError("unary", "must have shape (n, H, W, K), no axis empty", got=f"shape {self.unary.shape}")
        k = self.unary.shape[3]
        raw = as_array("pairwise", pairwise)
        self.shared = raw.ndim == 2
        array = as_real_array("pairwise", raw, ndim=2 if self.shared else 3)
        check_shape("pairwise", array, (k, k) if self.shared else (2, k, k), "(K, K), or (2, K, K) by direction")
        self.pairwise = np.broadcast_to(array, (2, k, k))
        self.weights: Weights | None = None
        if weights is not None:
            if not isinstance(weights, (tuple, list)) or len(weights) != 2:
                raise InputTypeError(
                    "weights", "must be two arrays, for horizontal and vertical edges", got=type(weights).__name__
                )
            horizontal, vertical = (
                as_real_array(f"weights[{d}]", w, ndim=3, dtype=self.unary.dtype) for d, w in enumerate(weights)
            )
            self.weights = horizontal, vertical
            for d in (0, 1):
                check_shape(f"weights[{d}]", self.weights[d], edge_ends(self.unary, d)[0].shape[:3])
                if self.weights[d].size and self.weights[d].min() < 0:
                    raise InputError(f"weights[{d}]", "must be >= 0", got=self.weights[d].min())

    def labels(self, labels: ArrayLike) -> Ints:
        """Checked labels, (n, H, W)."""
        array = as_array("labels", labels)
        if array.dtype.kind not in "iu":
            raise InputTypeError("labels", "must be integers", got=f"dtype {array.dtype}")
        check_shape("labels", array, self.unary.shape[:3], "one per pixel")
        k = self.unary.shape[3]
        if array.min() < 0 or array.max() >= k:
            bad = array[(array < 0) | (array >= k)][0]
            raise InputError("labels", f"must be in 0..{k - 1}", got=bad)
        return array

    def score(self, y: Ints) -> Floats:
        """F of checked labels, (n,)."""
        total: Floats = np.take_along_axis(self.unary, y[..., None], axis=3).sum(axis=(1, 2, 3))
        for d in (0, 1):
            first, second = edge_ends(y, d)
            total = total + self.weighted(self.pairwise[d][first, second], d).sum(axis=(1, 2))
        return total

    def score_size(self, y: Ints) -> tuple[Floats, int]:
        """The sum of the sizes of the terms of `score`, (n,), and their number in an image."""
        sizes = object.__new__(GridPotentials)
        sizes.unary, sizes.pairwise, sizes.weights = np.abs(self.unary), np.abs(self.pairwise), self.weights
        return sizes.score(y), sum(part[0].size for part in (y, edge_ends(y, 0)[0], edge_ends(y, 1)[0]))

    def field(self, q: Floats) -> Floats:
        """U_u plus the expected pairwise potentials of the neighbours under q, (n, H, W, K)."""
        out, rows = self.unary.copy(), q.reshape(-1, q.shape[3])
        for d, w in enumerate(self.pairwise):
            # All pixels in one product, and then the ends: the ends of one row each would be a product of their own.
            (a, b), (from_b, from_a) = edge_ends(out, d), ((rows @ side).reshape(q.shape) for side in (w.T, w))
            a += self.weighted(edge_ends(from_b, d)[1], d)
            b += self.weighted(edge_ends(from_a, d)[0], d)
        return out

    def pair_counts(self, a: Floats, b: Floats) -> Floats:
        """sum over edges of c_uv a_u b_v^T, in the shape of the caller's pairwise."""
        k = self.unary.shape[3]
        counts = np.stack(
            [
                self.weighted(edge_ends(a, d)[0], d).reshape(-1, k).T
                @ np.ascontiguousarray(edge_ends(b, d)[1]).reshape(-1, k)
                for d in (0, 1)
            ]
        )
        return counts.sum(axis=0) if self.shared else counts

    def onehot(self, y: Ints) -> Floats:
        """1 at the label of every pixel, (n, H, W, K)."""
        return np.eye(self.unary.shape[3], dtype=self.unary.dtype)[y]

    def weighted(self, values: NDArray[Any], d: int) -> NDArray[Any]:
        """Numbers (or rows of K) of the edges of direction ``d``, times the weights."""
        if self.weights is None:
            return values
        w = self.weights[d]
        if values.ndim < 4 or values.shape[3] > _FEW_LABELS:
            return values * (w[..., None] if values.ndim == 4 else w)
        out = np.empty(values.shape, dtype=np.result_type(values, w))
        for k in range(values.shape[3]):  # label by label: a loop over two numbers costs more than their product
            np.multiply(values[..., k], w, out=out[..., k])
        return out

    def colours(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The two colours of the checkerboard as masks, (H, W)."""
        odd = np.add.outer(np.arange(self.unary.shape[1]), np.arange(self.unary.shape[2])) % 2 == 1
        return ~odd, odd


def edge_ends(array: NDArray[Any], direction: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The two ends of every horizontal (0) or vertical (1) edge, as views."""
    return (array[:, :, :-1], array[:, :, 1:]) if direction == 0 else (array[:, :-1], array[:, 1:])
