"""Mean field of two labels on a grid, one colour of the checkerboard after the other, each in an array of its own.

With two labels q is a number per pixel, and its field the difference x of those of the labels: a constant plus a
weight times q for each neighbour. All neighbours of a pixel have the other colour, so that a half sweep reads one half
and writes the other. Place k of row r holds column 2 k, or 2 k + 1, of its colour; the neighbours above, below and one
at the side are at the same k, the other one at k - 1 or k + 1.
"""

from __future__ import annotations

import numpy as np

from attnembed._typing import Floats
from attnembed.structured.grid_potentials import edge_ends

__all__ = ["two_label_sweeps"]


def two_label_sweeps(
    constant: Floats, slopes: tuple[Floats, Floats], ones: Floats, tolerance: float, max_sweeps: int
) -> tuple[Floats, float, int]:
    """x after sweeps of q = 1 / (1 + e^-x), the last change of q, and the number of sweeps.

    Parameters
    ----------
    constant : (n, H, W)
    slopes : weights of q at the other end of horizontal (n, H, W-1) and vertical (n, H-1, W) edges
    ones : q to begin with, (n, H, W)
    max_sweeps : >= 1
    """
    halves = [_Half(constant, slopes, ones, colour) for colour in (0, 1)]
    change, sweep = np.inf, 0
    with np.errstate(over="ignore"):
        while change > tolerance and sweep < max_sweeps:
            sweep += 1
            change = max(own.update(other.q) for own, other in (halves, halves[::-1]))
    out = np.empty_like(constant)
    for half in halves:
        half.unfold(half.x, out)
    return out, change, sweep


class _Half:
    """The pixels of one colour: x, q and the weights of their neighbours, (n, H, ceil(W / 2))."""

    def __init__(self, constant: Floats, slopes: tuple[Floats, Floats], ones: Floats, colour: int) -> None:
        self.colour = colour
        left, right, up, down = (np.zeros_like(constant) for _ in range(4))
        for (before, after), d in (((left, right), 0), ((up, down), 1)):
            edge_ends(before, d)[1][...] = edge_ends(after, d)[0][...] = slopes[d]
        self.constant, self.q = self._fold(constant), self._fold(ones, 0.5)
        self.up, self.down = self._fold(up)[:, 1:], self._fold(down)[:, :-1]
        # In rows with columns 2 k the neighbour at k is on the right, in the others on the left.
        first, second = slice(colour, None, 2), slice(1 - colour, None, 2)
        left, right = self._fold(left), self._fold(right)
        self.near = left.copy()
        self.near[:, first] = right[:, first]
        self.sides = (
            (np.s_[:, first, 1:], np.s_[:, first, :-1], left[:, first, 1:].copy()),
            (np.s_[:, second, :-1], np.s_[:, second, 1:], right[:, second, :-1].copy()),
        )
        self.x, self.scratch = np.empty_like(self.q), np.empty_like(self.q)

    def update(self, q: Floats) -> float:
        """q of this colour for that of the other; the largest change."""
        x, scratch = self.x, self.scratch
        np.multiply(self.near, q, out=x)
        x += self.constant
        for here, there, weight in self.sides:
            x[here] += weight * q[there]
        x[:, 1:] += np.multiply(self.up, q[:, :-1], out=scratch[:, 1:])
        x[:, :-1] += np.multiply(self.down, q[:, 1:], out=scratch[:, :-1])
        np.negative(x, out=scratch)
        np.exp(scratch, out=scratch)
        scratch += 1
        np.divide(1, scratch, out=scratch)
        self.q, self.scratch = scratch, self.q
        np.subtract(self.scratch, scratch, out=self.scratch)
        return float(max(self.scratch.max(), -self.scratch.min()))

    def _fold(self, values: Floats, fill: float = 0.0) -> Floats:
        n, height, width = values.shape
        out = np.full((n, height, (width + 1) // 2), fill, dtype=values.dtype)
        for row, column in ((self.colour, 0), (1 - self.colour, 1)):
            part = values[:, row::2, column::2]
            out[:, row::2, : part.shape[2]] = part
        return out

    def unfold(self, half: Floats, out: Floats) -> None:
        """Write the pixels of this colour into (n, H, W)."""
        for row, column in ((self.colour, 0), (1 - self.colour, 1)):
            part = out[:, row::2, column::2]
            part[...] = half[:, row::2, : part.shape[2]]
