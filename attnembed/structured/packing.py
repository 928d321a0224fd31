"""The layout of a batch of sequences of any length: packed, time-major, the longest sequence first.

At time t only the sequences longer than t are stored, and those are always the first ones. A recursion over time is
then one matrix product per step on a contiguous block, without padding and without a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed._frozen import KeepsFrozen
from attnembed._validation import freeze

__all__ = ["Packing"]

Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Packing(KeepsFrozen):
    """Packed layout of n sequences with the given ``lengths`` (n,), each at least 1; N = sum of the lengths.

    Rank r is the place of a sequence in the order by decreasing length. The packed row of time t and rank r is
    ``offsets[t] + r`` for r < ``offsets[t + 1] - offsets[t]``.

    >>> p = Packing(np.array([1, 3, 2]))
    >>> p.sequence, p.time
    (array([1, 2, 0, 1, 2, 1]), array([0, 0, 0, 1, 1, 2]))
    >>> p.left, p.right
    (array([0, 1, 3]), array([3, 4, 5]))
    """

    lengths: Ints

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", freeze(np.array(self.lengths)))

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def order(self) -> Ints:
        """The sequence at each rank, (n,)."""
        return freeze(np.argsort(-self.lengths, kind="stable"))

    @cached_property
    def rank_of(self) -> Ints:
        """The rank of each sequence, (n,)."""
        return freeze(np.argsort(self.order))

    @cached_property
    def offsets(self) -> Ints:
        """First packed row of each time, with N at the end, (T+1,)."""
        active = len(self) - np.cumsum(np.bincount(self.lengths))[:-1]
        return freeze(np.concatenate([[0], np.cumsum(active)]))

    @cached_property
    def time(self) -> Ints:
        """The time of each packed row, (N,)."""
        return freeze(np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets)))

    @cached_property
    def rank(self) -> Ints:
        """The rank of each packed row's sequence, (N,)."""
        return freeze(np.arange(self.offsets[-1]) - self.offsets[self.time])

    @cached_property
    def sequence(self) -> Ints:
        """The sequence of each packed row, (N,)."""
        return freeze(self.order[self.rank])

    @cached_property
    def rows(self) -> Ints:
        """Where each packed row stands when the sequences are laid one after another, (N,)."""
        return freeze((np.cumsum(self.lengths) - self.lengths)[self.sequence] + self.time)

    @cached_property
    def right(self) -> Ints:
        """The packed rows that have a left neighbour, (N-n,)."""
        return freeze(np.arange(len(self), self.offsets[-1]))

    @cached_property
    def left(self) -> Ints:
        """The left neighbours of ``right``, (N-n,)."""
        return freeze(self.right - np.diff(self.offsets)[self.time[self.right] - 1])

    def steps(self) -> list[tuple[slice, slice]]:
        """For each time t >= 1: the rows of time t, and those of their left neighbours."""
        o = self.offsets
        return [(slice(o[t], o[t + 1]), slice(o[t - 1], o[t - 1] + o[t + 1] - o[t])) for t in range(1, len(o) - 1)]

    def sum(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Sum of one number per packed row over each sequence, (N,) -> (n,)."""
        return np.bincount(self.sequence, weights=values, minlength=len(self)).astype(np.float64, copy=False)
