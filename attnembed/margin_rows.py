"""The rows of a margin program for the working set, given as a matrix or as pairs of embeddings."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed._frozen import KeepsFrozen
from attnembed._typing import Floats
from attnembed._validation import as_integer_array, as_real_array, check_shape, freeze
from attnembed.enclosures import Rows
from attnembed.errors import InputError

__all__ = ["DenseRows", "Indices", "PairRows", "WorkingRows", "largest", "row_norms", "union"]

Indices = NDArray[np.intp]


class WorkingRows(Rows, Protocol):
    """The rows of D, which need not exist as a matrix: D p, some of the rows, and their norms (or bounds of them)."""

    name: str

    def choose(self, index: Indices, depth: Floats, count: int) -> Indices:
        """At most ``count`` of the violated rows, the deepest first."""
        ...


def _own(array: Floats) -> Floats:
    """The array, read-only; a copy if its owner could change it: the result reads the rows again (`enclosure`)."""
    return array if array.flags.owndata and not array.flags.writeable else freeze(array.copy())


class DenseRows(KeepsFrozen):
    name = "differences"

    def __init__(self, differences: ArrayLike) -> None:
        self.matrix = _own(as_real_array(self.name, differences, ndim=2, dtype=np.float64))
        self.shape = (len(self.matrix), self.matrix.shape[1])
        self.sizes = freeze(row_norms(self.matrix))

    def price(self, p: Floats) -> Floats:
        return self.matrix @ p

    def take(self, index: Indices) -> Floats:
        return self.matrix.take(index, 0)

    def choose(self, index: Indices, depth: Floats, count: int) -> Indices:
        return index[largest(depth, count)]

    def exact(self, index: Indices) -> tuple[Floats, ...]:
        return (self.matrix[index],)


class PairRows(KeepsFrozen):
    name = "pairs"

    def __init__(self, E: ArrayLike, pairs: ArrayLike) -> None:
        self.E = _own(as_real_array("E", E, ndim=2, dtype=np.float64))
        pairs = as_integer_array(self.name, pairs, ndim=2)
        check_shape(self.name, pairs, (len(pairs), 2), "each row names two rows of `E`")
        outside = (pairs < 0) | (pairs >= len(self.E))
        if outside.any():
            raise InputError(self.name, f"must name rows of `E`, 0..{len(self.E) - 1}", got=pairs[outside][0])
        self.first, self.second = freeze(pairs[:, 0].copy()), freeze(pairs[:, 1].copy())
        self.shape = (len(pairs), self.E.shape[1])
        norms = row_norms(self.E)
        self.sizes: Floats = freeze(norms[self.first] + norms[self.second])

    def price(self, p: Floats) -> Floats:
        scores = self.E @ p
        value: Floats = scores[self.first] - scores[self.second]
        return value

    def take(self, index: Indices) -> Floats:
        value: Floats = self.E.take(self.first[index], 0)
        value -= self.E.take(self.second[index], 0)
        return value

    def choose(self, index: Indices, depth: Floats, count: int) -> Indices:
        """The deepest row for each second token: pairs that share both tokens with others are linearly dependent.

        All of them where the program is small and few are violated: a round costs more than dependent rows then.
        """
        if index.size <= count and len(self.first) <= 10 * self.shape[1]:
            return index
        order = index[np.argsort(-depth)]
        first = np.unique(self.second[order], return_index=True)[1]
        first.sort()
        return order[first[:count]]

    def exact(self, index: Indices) -> tuple[Floats, ...]:
        return self.E[self.first[index]], -self.E[self.second[index]]


def largest(values: Floats, count: int) -> Indices:
    """The indices of the ``count`` largest values, in increasing order."""
    if count >= values.size:
        return np.arange(values.size)
    return np.sort(np.argpartition(values, -count)[-count:])


def row_norms(matrix: Floats) -> Floats:
    """Euclidean norms of the rows, without a copy of the matrix; inf where the squares overflow."""
    with np.errstate(over="ignore"):
        value: Floats = np.sqrt(np.vecdot(matrix, matrix))
    return value


def union(size: int, first: Indices, second: Indices) -> Indices:
    """The indices below ``size`` that are in one of the two, in increasing order."""
    chosen = np.zeros(size, dtype=bool)
    chosen[first] = True
    chosen[second] = True
    return chosen.nonzero()[0]
