"""The passes on small data, where the interpreter dominates the cost: dense counts and a dozen vector operations.

With N (n, V) the counts as a dense array, m_i an anchor of sequence i, D_is = g_s - g_{m_i}, M = N * D and e = exp(u),

    Z = N e,   delta = (M e) / Z,   f = g_m + delta,   c_i = y_i sigma(-y_i f_i) / n,   r = c / Z,
    A = e * (N^T r),   B = e * (M^T r - N^T (r delta)).

As in the general forms of `passes`, no difference cancels while the anchor keeps some of the attention: it is the mode
of its sequence, and is chosen again when it has lost too much. While attention is spread out, one pass takes the plain
form instead, f = N (e g) / Z and B = g A - e N^T (r f), unless |B| shows that it has cancelled. Scores that span more
than the range of exp are left to the general forms (``None`` is returned), which also serve the tests as the reference.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed.attention.data import TokenDataset

__all__ = ["SMALLEST_SQUARE", "DenseField", "dense_gradients", "dense_sums", "is_small"]

Vector = NDArray[Any]

# Dense counts pay up to this many entries; BLAS keeps to one thread below 9,216.
_ENTRIES = 8192
# While scores and values span no more than this, neither e^u nor 1/Z nor sigma leaves the range of float64.
_SPAN = 600.0
# Vectors with a square below this span no more than 200, and no entry is beyond 100.
_SHORT = 1e4
# A gradient whose square is smaller is left to the general form, which keeps it from underflowing.
SMALLEST_SQUARE = 1e-140
# A gradient below this share of its terms is rounding.
_NOTHING = 1e-15
# Below this square of the scores the attention is hardly ever close to one, and the plain form is tried.
_LEVEL = 64.0
# The plain form holds where |B| is above this share of L |g|, the size of its terms.
_SMALLEST_SHARE = 1e-3
# An anchor with less of the attention than this (among many tokens, half the least share of a mode) is replaced.
_SMALLEST_ANCHOR = 0.05
# Number of points of a path whose sums are formed at once.
_POINTS = 256


def is_small(data: TokenDataset) -> bool:
    """Whether the dense form is the faster one."""
    return data.n_samples * data.vocab_size <= _ENTRIES


# Scores and values that overflow do so silently: NaN and inf do not get past the tests. As a decorator it costs half of
# what it costs in a `with` statement.
_quiet = np.errstate(over="ignore", invalid="ignore")


@_quiet
def dense_gradients(data: TokenDataset, E: Vector, p: Vector, v: Vector) -> tuple[float, Vector, Vector] | None:
    """(L, A and B (2, V), grad_v L and grad_p L (2, d)); None where the general form must judge what is wrong, or tiny.

    Both arrays are read-only.
    """
    found = _sums(data, E.dot(p), E.dot(v))
    if found is None:
        return None
    loss, _, factors, square = found
    gradients = factors.dot(E)
    if not SMALLEST_SQUARE < abs(gradients[0].dot(gradients[1])) + square < math.inf:
        return None
    np.negative(gradients, gradients)
    factors.setflags(write=False)
    gradients.setflags(write=False)
    return loss, factors, gradients


@_quiet
def dense_sums(data: TokenDataset, u: Vector, g: Vector) -> tuple[float, Vector, Vector] | None:
    """(L, f (n,), A and B (2, V)) for scores u and values g (V,), once; None where they span too much."""
    found = _sums(data, u, g)
    return None if found is None else found[:3]


def _sums(data: TokenDataset, u: Vector, g: Vector) -> tuple[float, Vector, Vector, float] | None:
    """(L, f, A and B, B.B), in the plain form where it loses nothing: it has no array of the size of the counts."""
    level, square = float(u.dot(u)), float(g.dot(g))
    short = level < _SHORT and square < _SHORT
    e = np.exp(u) if short else _shifted_exponentials(u, g)  # in a third of the time
    if e is None:
        return None
    counts = data.dense_counts[0]
    Z = counts.dot(e)
    if short and level < _LEVEL:
        f = counts.dot(e * g)
        f /= Z
        loss, factors = _factors(data, e, Z, f, f, g, None)
        if (own := float(factors[1].dot(factors[1]))) > (_SMALLEST_SHARE * loss) ** 2 * square:
            return loss, f, factors, own
    values = g[(counts * e).argmax(1)]
    moments = g - values[:, None]
    moments *= counts
    delta = moments.dot(e)
    delta /= Z
    f = values + delta
    loss, factors = _factors(data, e, Z, f, delta, g, moments)
    return loss, f, factors, float(factors[1].dot(factors[1]))


def _shifted_exponentials(u: Vector, g: Vector) -> Vector | None:
    """e^u up to a factor; None where scores and values span too much. In Python's floats, which overflow silently."""
    top = float(u.max())
    if not top - float(u.min()) + max(float(g.max()), -float(g.min())) <= _SPAN:
        return None
    e = u - top
    return np.exp(e, out=e)


def _factors(
    data: TokenDataset, e: Vector, Z: Vector, f: Vector, delta: Vector, g: Vector, moments: Vector | None
) -> tuple[float, Vector]:
    """L and the rows A, B (2, V) from e^u, Z, f, delta and M; in the plain form delta is f, and M is not needed."""
    # On vectors this short a Python number as an operand, `np.add.reduce` in place of a product and the iteration over
    # the rows of an array each cost as much as another operation or two.
    counts = data.dense_counts[0]
    minus_labels, share, ones, weights = data._operands
    odds = f * minus_labels
    np.exp(odds, odds)  # at most e^600
    r = odds + ones
    r *= Z
    np.divide(odds, r, r)
    r *= share
    factors = np.empty((2, len(e)))
    A, B = factors[0], factors[1]
    r.dot(counts, A)
    A *= e
    if moments is None:
        r *= delta
        r.dot(counts, B)
        B *= e
        np.subtract(g * A, B, B)
    else:
        r.dot(moments, B)
        r *= delta
        B -= r.dot(counts)
        B *= e
    np.log1p(odds, odds)
    return float(odds.dot(weights)), factors


class DenseField:
    """-grad_p L, its Jacobian and the observables of a path, for embeddings R (V, r) and scores u = u_0 + R x."""

    def __init__(self, data: TokenDataset, embeddings: Vector, scores: Vector, values: Vector) -> None:
        self.counts, self.share, types = data.dense_counts
        self.labels = data.labels
        self._rows = np.arange(data.n_samples)
        self._least_share = np.minimum(_SMALLEST_ANCHOR, 0.5 / types)
        self._values = values
        self._from_top = scores - scores.max()
        # The forces depend on differences of embeddings only.
        self._embeddings = embeddings - embeddings.mean(axis=0)
        self._transposed = np.ascontiguousarray(self._embeddings.T)
        span = -self._from_top.min() + np.abs(values).max()
        longest = float(np.sqrt(np.einsum("sk,sk->s", self._embeddings, self._embeddings).max()))
        room = (_SPAN - float(span)) / 2.0
        # |x|^2 up to which the scores stay within the span, in every direction; -1 where x = 0 exceeds it already.
        self._within = -1.0 if room <= 0 else (room / longest) ** 2 if longest > 0 else math.inf
        self._largest_value, self._inverse = float(np.abs(values).max()), 1.0 / data.n_samples
        n, V = self.counts.shape
        sums, weights = np.empty(3 * n), np.empty(2 * n)
        self._buffers = np.empty(V), sums, weights, np.empty(V), np.empty(V)
        self._parts = sums[:n], sums[n : 2 * n], sums[2 * n :], weights[:n], weights[n:]
        self._anchor(np.exp(self._from_top))

    def _anchor(self, e: Vector) -> None:
        """Make the mode of each sequence its anchor, and stack the factors of a force.

        On the way in N, y M and N less what an anchor may take, on the way back -N and y M.
        """
        mode = (self.counts * e).argmax(axis=1)
        self._mode, self._anchor_values = mode, self._values[mode]
        self._difference = self._values - self._anchor_values[:, None]
        self._moments = self.counts * self._difference
        self._most = self.counts[self._rows, mode] / self._least_share
        n = len(self.counts)
        self._signed_values = self.labels * self._anchor_values
        signed = self.labels[:, None] * self._moments
        spare = self.counts.copy()
        spare[self._rows, self._mode] -= self._most
        inwards, back = np.concatenate([self.counts, signed, spare]), np.concatenate([-self.counts, signed])
        # One product is faster than three, where BLAS keeps to one thread for it.
        count = 1 if inwards.size <= _ENTRIES else 3
        rows = [slice(3 * n * k // count, 3 * n * (k + 1) // count) for k in range(count)]
        self._inwards = [(inwards[part], self._buffers[1][part]) for part in rows]
        self._back = [back] if count == 1 else [back[:n], back[n:]]

    def _weights(self, x: Vector, out: Vector) -> bool:
        """e^u (V,) up to a factor; False where it would leave the range."""
        np.dot(self._embeddings, x, out=out)
        out += self._from_top
        if not x.dot(x) <= self._within:
            top = out.max()
            if not top - out.min() + self._largest_value <= _SPAN:
                return False
            out -= top
        np.exp(out, out=out)
        return True

    def force(self, x: Vector) -> Vector | None:
        """-grad_p L (r,)."""
        e, _, weights, B, C = self._buffers
        Z, delta, spare, shift, r = self._parts
        if not self._weights(x, e):
            return None
        for matrix, out in self._inwards:
            np.dot(matrix, e, out=out)
        if spare[spare.argmax()] > 0.0:  # an anchor has lost its attention
            self._anchor(e)
            for matrix, out in self._inwards:
                np.dot(matrix, e, out=out)
        delta /= Z  # times y, as the values are
        np.add(delta, self._signed_values, out=r)
        np.exp(r, out=r)
        r += 1.0
        r *= Z
        np.divide(self._inverse, r, out=r)
        np.multiply(r, delta, out=shift)
        if len(self._back) == 1:
            np.dot(weights, self._back[0], out=B)
        else:
            np.dot(shift, self._back[0], out=B)
            np.dot(r, self._back[1], out=C)
            B += C
        B *= e
        # At a point of rest only rounding remains, which late in the flow, times t, would keep an integrator busy.
        if (square := B.dot(B)) <= (2.0 * _NOTHING * self._largest_value) ** 2:
            terms = float(np.abs(shift, out=shift).dot(Z))
            if terms > SMALLEST_SQUARE and square <= (_NOTHING * terms) ** 2:
                B.fill(0.0)
        return np.asarray(self._transposed.dot(B))

    def jacobian(self, x: Vector) -> Vector | None:
        """-Hess_p L (r, r), as in `passes.AnchoredPass.scaled_hessian`."""
        e = self._buffers[0]
        if not self._weights(x, e):
            return None
        self._anchor(e)
        Z = self.counts @ e
        delta = self._moments @ e / Z
        a = self.counts * e
        a /= Z[:, None]
        R, sigma = self._embeddings, 1.0 / (1.0 + np.exp(self._signed_values + self.labels * delta))
        slope = a * (self._difference - delta[:, None])
        G, mean = slope @ R, a @ R
        c = self.share * sigma
        # Half of a symmetric sum: its mirror image is added.
        half = (self._transposed * (c @ slope / 2)) @ R
        half -= G.T @ (c[:, None] * mean + (np.abs(c) * (1.0 - sigma) / 2)[:, None] * G)
        value: Vector | None = half + half.T
        return value

    def observe(self, path: Vector, top: NDArray[np.integer[Any]], gamma: Vector) -> Vector | None:
        """(L - L*, least attention on a top token) at the points (k, r) of a path, (2, k); see `passes.loss_gap`."""
        u = path @ self._transposed
        u += self._from_top
        u -= u.max(axis=1, keepdims=True)
        if not -u.min() + 2.0 * self._largest_value <= _SPAN:  # delta is a difference of values
            return None
        e = np.exp(u, out=u)
        short = self.labels[:, None] * (self._values[top][:, None] - self._values)
        short *= self.counts
        own = self.counts[self._rows, top]
        best = 1.0 / (1.0 + np.exp(gamma))  # sigma(-gamma*)
        seen = np.empty((2, len(path)))
        for k in range(0, len(path), _POINTS):
            part = e[k : k + _POINTS]
            Z = part @ self.counts.T
            delta = part @ short.T
            delta /= Z
            seen[0, k : k + _POINTS] = np.log1p(np.expm1(delta) * best).mean(axis=1)
            seen[1, k : k + _POINTS] = (part[:, top] * own / Z).min(axis=1)
        return seen
