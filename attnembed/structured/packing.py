"""The layout of a batch of sequences of any length: packed, time-major, the longest sequence first.

At time t only the sequences longer than t are stored, and those are always the first ones. A recursion over time is
then one matrix product per step on a contiguous block, without padding and without a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from itertools import pairwise
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Floats, Ints
from attnembed._validation import freeze
from attnembed.results import Record

__all__ = ["Packing", "short_rows"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class Packing(Record):
    """Packed layout of n sequences with the given ``lengths`` (n,), each at least 1; N = sum of the lengths.

    Rank r is the place of a sequence in the order by decreasing length. The packed row of time t and rank r is
    ``offsets[t] + r`` for r < ``offsets[t + 1] - offsets[t]``.

    >>> p = Packing(np.array([1, 3, 2]))
    >>> p.sequence, p.time
    (array([1, 2, 0, 1, 2, 1]), array([0, 0, 0, 1, 1, 2]))
    >>> p.left, p.right
    (array([0, 1, 3]), array([3, 4, 5]))
    >>> p.last
    array([5, 4, 2])
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
    def _widths(self) -> Ints:
        """The number of sequences longer than each time, (T,)."""
        return freeze(self.offsets[1:] - self.offsets[:-1])

    @cached_property
    def time(self) -> Ints:
        """The time of each packed row, (N,)."""
        return freeze(np.repeat(np.arange(len(self._widths)), self._widths))

    @cached_property
    def rank(self) -> Ints:
        """The rank of each packed row's sequence, (N,)."""
        return freeze(np.arange(self.offsets[-1]) - np.repeat(self.offsets[:-1], self._widths))

    @cached_property
    def sequence(self) -> Ints:
        """The sequence of each packed row, (N,)."""
        return freeze(self.order[self.rank])

    @cached_property
    def rows(self) -> Ints:
        """The position of each packed row when the sequences are laid end to end, (N,)."""
        return freeze((np.cumsum(self.lengths) - self.lengths)[self.sequence] + self.time)

    @cached_property
    def right(self) -> Ints:
        """The packed rows that have a left neighbour, (N-n,)."""
        return freeze(np.arange(len(self), self.offsets[-1]))

    @cached_property
    def left(self) -> Ints:
        """The left neighbours of ``right``, (N-n,)."""
        return freeze(self.right - np.repeat(self._widths[:-1], self._widths[1:]))

    @cached_property
    def last(self) -> Ints:
        """The packed row of each rank's last position, (n,)."""
        return freeze(self.offsets[self.lengths[self.order] - 1] + np.arange(len(self)))

    def steps(self) -> list[tuple[slice, slice]]:
        """For each time t >= 1: the rows of time t, and those of their left neighbours."""
        return self._steps

    @cached_property
    def _steps(self) -> list[tuple[slice, slice]]:
        o = self.offsets.tolist()
        return [(slice(o[t], o[t + 1]), slice(o[t - 1], o[t - 1] + o[t + 1] - o[t])) for t in range(1, len(o) - 1)]

    def spans(self, rows: int) -> list[tuple[slice, slice]]:
        """As `steps`, but with neighbouring times merged, up to this many rows, where their rows are adjacent.

        That is where no sequence ends. For operations on all edges at once, in any order.

        >>> for here, left in Packing(np.array([5, 3])).spans(100):
        ...     print(f"{here.start}:{here.stop} right of {left.start}:{left.stop}")
        2:6 right of 0:4
        6:7 right of 4:5
        7:8 right of 6:7
        """
        if rows < 2 * int(self.offsets[-1] - self.offsets[-2]):  # the last time is the narrowest
            return self.steps()
        o = self.offsets.tolist()
        widths = self._widths
        begins = [0, *(np.flatnonzero(widths[1:] != widths[:-1]) + 1).tolist(), len(widths)]
        out: list[tuple[slice, slice]] = []
        for begin, end in pairwise(begins):  # times of equal width
            width = o[begin + 1] - o[begin]
            if begin:
                out.append((slice(o[begin], o[begin + 1]), slice(o[begin - 1], o[begin - 1] + width)))
            step = width * max(1, rows // width)
            for first in range(o[begin + 1], o[end], step):
                last = min(first + step, o[end])
                out.append((slice(first, last), slice(first - width, last - width)))
        return out

    def sum(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Sum of one number per packed row over each sequence, (N,) -> (n,)."""
        steps = len(self.offsets) - 1
        if steps < 512:
            return np.bincount(self.sequence, weights=values, minlength=len(self)).astype(np.float64, copy=False)
        # In two levels: a single running sum would accumulate the rounding errors of all positions.
        size = int(np.sqrt(steps))
        pieces = -(-steps // size)
        where = self.sequence * pieces + self.time // size
        total = np.bincount(where, weights=values, minlength=len(self) * pieces).astype(np.float64, copy=False)
        value: NDArray[np.float64] = total.reshape(len(self), pieces).sum(axis=1)
        return value


def short_rows(
    recursion: Callable[Concatenate[Floats, Floats, Packing, P], T],
) -> Callable[Concatenate[Floats, Floats, Packing, P], T]:
    """Run a recursion of (unary, pairwise, packing) with a NumPy buffer shorter than the rows of a step.

    Rows shorter than about a third of the buffer, which has 8,192 entries by default, are copied to it where they are
    combined with a column or a row. That takes as long as the arithmetic, and pays only for rows of fewer than 64
    entries. The results are the same. The size is set for the calling thread, and restored afterwards.
    """

    @wraps(recursion)
    def run(unary: Floats, pairwise: Floats, packing: Packing, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if len(packing) < 64:
            return recursion(unary, pairwise, packing, *args, **kwargs)
        before = np.setbufsize(256)
        try:
            return recursion(unary, pairwise, packing, *args, **kwargs)
        finally:
            np.setbufsize(before)

    return run
