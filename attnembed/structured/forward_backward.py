"""Sums over the labelings of a chain: log-partition and posterior, by the forward-backward recursion.

Everything runs on the packed layout of `packing.Packing`, label-major: arrays are (K, N), so that a step over all
sequences is one (K, K) x (K, b) product and every elementwise operation runs along contiguous sequences.

A recursion runs in one of three domains, the first that is exact to rounding: products of exponentials in single
precision, for short chains of narrow potentials in single precision; the same in double precision; logarithms. Each
normalises every step and keeps what it divides by apart, so that no error grows with the length. Where the bounds on
the messages do not exclude it, underflow is measured afterwards (`_amplification`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from attnembed.errors import InputError
from attnembed.results import Record
from attnembed.structured.packing import Packing

__all__ = ["Posterior", "no_labeling", "posterior", "reduced", "relative"]

Floats = NDArray[np.floating[Any]]

# Entries of a temporary that should stay in the cache.
_CACHED = 2**16

# Single precision rounds each factor by 6e-8 of itself, and the same factor at every position by the same amount. Over
# more positions than this, with arguments of exp beyond this, or in sums over more labels than this, the marginals
# would be off by more than 1e-6.
_LONGEST_IN_SINGLE = 32
_DEEPEST_IN_SINGLE = 32.0
_LABELS_IN_SINGLE = 512

# What underflow may take from a probability.
_NEGLIGIBLE = {np.dtype(np.float32): 1e-12, np.dtype(np.float64): 1e-30}


@dataclass(frozen=True, eq=False, repr=False)
class Posterior(Record):
    """P(Y) = e^{F(Y)} / Z in factored form.

    The probability of the pair (k, l) on an edge is before[k, i] * transition[k, l] * after[l, j], with i and j the
    packed rows of its two ends. Where ``log_node`` is not None the three are logarithms.

    Attributes
    ----------
    log_partition : (n,) log Z
    node : (K, N) P(y_i = k)
    log_node : (K, N) its logarithm, in the log domain only
    resolution : probabilities below it may be missing, because of underflow; 0 in the log domain
    """

    packing: Packing
    log_partition: Floats
    node: Floats
    before: Floats
    transition: Floats
    after: Floats
    log_node: Floats | None = None
    resolution: float = 0.0

    def edges(
        self, given: Literal["left", "right"] | None = None, *, backwards: bool = False
    ) -> Iterator[tuple[slice, slice, Floats]]:
        """For each time t >= 1: its rows, their left neighbours, and P(y_{t-1} = k, y_t = l) as (K, K, b).

        With ``given`` the probabilities are conditional on the label of the left or the right end.
        """
        steps = self.packing.steps()
        for here, left in reversed(steps) if backwards else steps:
            before, after = self.before[:, None, left], self.after[None, :, here]
            end = {"left": (slice(None), None, left), "right": (None, slice(None), here), None: None}[given]
            if self.log_node is not None:
                exponent = before + self.transition[:, :, None] + after
                if end is not None:
                    condition = self.log_node[end]
                    exponent = np.subtract(exponent, condition, where=condition > -np.inf, out=exponent)
                edge = np.exp(exponent)
                # The exponents are rounded as the potentials are; what they sum to is known.
                axes = {"left": (1,), "right": (0,), None: (0, 1)}[given]
                total = edge.sum(axis=axes, keepdims=True)
                np.divide(edge, total, where=total > 0, out=edge)
                yield here, left, edge
                continue
            edge = before * self.transition[:, :, None] * after
            if end is not None:
                node = self.node[end]
                np.divide(edge, node, where=node > 0, out=edge)
            yield here, left, edge

    def pair_counts(self, weight: Floats | None = None) -> Floats:
        """Expected number of each pair of neighbouring labels, summed over all edges, (K, K).

        ``weight`` (N,), of the right end, counts some edges more than others.
        """
        if self.log_node is not None:
            total = np.zeros_like(self.transition)
            for here, _, edge in self.edges():
                total += edge.sum(axis=2) if weight is None else edge @ weight[here]
            return total
        return self.pair_sums(self.before, self.after if weight is None else weight * self.after)

    def pair_sums(self, before: Floats, after: Floats) -> Floats:
        """Sum over all edges of before[k] * transition[k, l] * after[l], (K, K); in the exp domain."""
        total = np.zeros_like(self.transition)
        for here, left in self.packing.steps():
            total += before[:, left] @ after[:, here].T
        total *= self.transition
        return total

    def carry(self, given: Literal["left", "right"], start: Floats) -> tuple[Floats, Floats]:
        """Carry a number per label along the chains, through the probabilities of a label given its neighbour's.

        x_t = start_t + P(y_{t-1}, y_t) x_{t-1} / P(y_{t-1}) from left to right (``given`` "left"), or the same from
        right to left. Returned are x (K, N) and, in the exp domain, before * x / node ("right": after * x / node): what
        takes the place of the message in the probability of an edge for x / node times that probability.
        """
        x, from_left = start.copy(), given == "left"
        if self.log_node is not None:
            for here, left, edge in self.edges(given, backwards=not from_left):
                moved: Floats = edge * (x[:, None, left] if from_left else x[None, :, here])
                x[:, here if from_left else left] += moved.sum(axis=0 if from_left else 1)
            return x, x
        # The factors of an edge probability stay factors: no (K, K, b) array is formed.
        message = self.before if from_left else self.after
        moved = np.divide(message, self.node, where=self.node > 0, out=np.zeros_like(self.node))
        steps = self.packing.steps()
        for here, left in steps if from_left else reversed(steps):
            if from_left:
                moved[:, left] *= x[:, left]
                x[:, here] += self.after[:, here] * (self.transition.T @ moved[:, left])
            else:
                moved[:, here] *= x[:, here]
                x[:, left] += self.before[:, left] * (self.transition @ moved[:, here])
        return x, moved


def posterior(unary: Floats, pairwise: Floats, packing: Packing, *, resolution: float = np.inf) -> Posterior:
    """Log-partition and posterior of every chain by forward-backward; ``unary`` (N, K) in packed order.

    ``resolution`` is the largest one that will do; 0 asks for logarithms, at ten to forty times the cost. The result is
    of double precision also for potentials in single precision where only that keeps its digits.
    """
    columns = np.ascontiguousarray(unary.T)
    dtypes: list[Any] = [np.float64]
    short = len(packing.offsets) - 1 <= _LONGEST_IN_SINGLE and len(columns) <= _LABELS_IN_SINGLE
    if columns.dtype == np.float32 and short:
        dtypes.insert(0, np.float32)
    result = None
    for dtype in dtypes if resolution > 0 else ():
        result = _exp_posterior(columns.astype(dtype, copy=False), pairwise.astype(dtype, copy=False), packing)
        if result is not None and result.resolution <= resolution:
            return result
    result = _log_posterior(columns.astype(np.float64, copy=False), pairwise.astype(np.float64, copy=False), packing)
    impossible = np.flatnonzero(result.log_partition == -np.inf)
    if impossible.size:
        raise no_labeling(int(impossible[0]))
    return result


def no_labeling(sequence: int) -> InputError:
    return InputError(
        "pairwise",
        f"must allow at least one labeling of every sequence; sequence {sequence} has none",
        hint="too many potentials are -inf",
    )


def _exp_posterior(columns: Floats, pairwise: Floats, packing: Packing) -> Posterior | None:
    """The posterior by products of exponentials, or None where they would lose digits.

    With a finite W, each forward or backward message of a step lies within e^{depth of a row of U + range of W} of the
    largest of that step: nothing that matters underflows while the two together stay below the exponent range.
    """
    info = np.finfo(columns.dtype)
    top, factor = relative(columns)
    depth = -float(factor.min())
    if depth == np.inf:
        depth = -float(np.min(factor, where=factor > -np.inf, initial=0.0))
    allowed = pairwise[pairwise > -np.inf]
    range_w = float(np.ptp(allowed)) if allowed.size else 0.0
    free = allowed.size == pairwise.size
    bounded = free and depth + range_w < 0.8 * float(np.log(info.max))
    if columns.dtype == np.float32:
        # A label far below the best of its position matters only where its neighbours can make up for it.
        deepest = min(depth, 2 * range_w) if free else depth
        if deepest > _DEEPEST_IN_SINGLE or (free and not bounded):
            return None
    shift_w = float(allowed.max()) if allowed.size else 0.0
    transition = np.exp(pairwise.astype(np.float64) - shift_w).astype(columns.dtype)
    # Rows are indexed by the label that comes out, so that each product reads contiguous memory.
    transposed = np.ascontiguousarray(transition.T)
    np.exp(factor, out=factor)
    forward = np.empty_like(factor)
    scale = np.empty_like(factor[0])
    start = slice(0, len(packing))
    # An impossible prefix, or one that underflows, becomes NaN: it goes no further than its own sequence.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor[:, start].sum(axis=0, out=scale[start])
        np.divide(factor[:, start], scale[start], out=forward[:, start])
        for here, left in packing.steps():
            message = forward[:, here]
            np.matmul(transposed, forward[:, left], out=message)
            message *= factor[:, here]
            message.sum(axis=0, out=scale[here])
            message /= scale[here]
        if not scale.min() > 0:
            return None
        factor /= scale
        unseen = len(pairwise) ** 2 * len(packing.offsets) * float(info.tiny)
        if not bounded:
            negligible = _NEGLIGIBLE[columns.dtype]
            unseen *= _amplification(factor, transition, scale, packing, floor=negligible)
            if not unseen <= negligible:
                return None
        backward = np.ones_like(factor)
        for here, left in reversed(packing.steps()):
            factor[:, here] *= backward[:, here]
            np.matmul(transition, factor[:, here], out=backward[:, left])
        backward *= forward
    log_scale = np.log(scale, dtype=np.float64) + top
    log_partition = packing.sum(log_scale) + (packing.lengths - 1) * shift_w
    return Posterior(packing, log_partition, backward, forward, transition, factor, resolution=unseen)


def _amplification(factor: Floats, transition: Floats, scale: Floats, packing: Packing, floor: float) -> float:
    """How much larger than where it was lost a loss of a forward message can be in Z: the largest backward message.

    A product below the smallest number ``tiny`` takes at most K tiny / scale_t from a forward message of step t, hence
    at most that times the backward message from Z. The backward messages lose in the same way: with the floor, which is
    above all that they can lose, they are upper bounds. (A path may underflow at both ends and lead in between.)
    """
    bound = np.ones_like(factor)
    for here, left in reversed(packing.steps()):
        np.maximum(transition @ (factor[:, here] * bound[:, here]), floor, out=bound[:, left])
    return float(np.max(bound.max(axis=0) / scale.astype(np.float64)))


def relative(columns: Floats) -> tuple[Floats, Floats]:
    """The largest potential of each position (0 where there is none), and all potentials relative to it."""
    top = columns.max(axis=0, initial=np.finfo(columns.dtype).min)
    return top, columns - top


def _log_posterior(columns: Floats, pairwise: Floats, packing: Packing) -> Posterior:
    top, shifted = relative(columns)
    forward, scale = np.empty_like(shifted), np.empty_like(top)
    start = slice(0, len(packing))
    forward[:, start], scale[start] = _log_normalised(shifted[:, start])
    for here, left in packing.steps():
        message: Floats = shifted[:, here] + reduced(forward[:, left], pairwise, _log_sum)
        forward[:, here], scale[here] = _log_normalised(message)
    backward, after = np.zeros_like(shifted), shifted.copy()
    for here, left in reversed(packing.steps()):
        after[:, here] += backward[:, here]
        message = reduced(after[:, here], pairwise.T, _log_sum)
        # Not the scale of the forward message: its rounding errors, of the size of the potentials, would add up.
        total = _finite(_log_sum(forward[:, left] + message))
        after[:, here] -= total
        np.subtract(message, total, out=backward[:, left])
    log_node = forward + backward
    total = _finite(_log_sum(log_node.copy()))
    log_node -= total
    return Posterior(packing, packing.sum(scale + top), np.exp(log_node), forward, pairwise, after, log_node)


def _log_normalised(message: Floats) -> tuple[Floats, Floats]:
    total = _log_sum(message.copy())
    return message - _finite(total), total


def _finite(values: Floats) -> Floats:
    """-inf as the lowest number, from which -inf can be subtracted."""
    out: Floats = np.maximum(values, np.finfo(values.dtype).min)
    return out


def _log_sum(values: Floats, axis: int = 0) -> Floats:
    """log of the sum of exponentials along the first axis; overwrites ``values``."""
    top = values.max(axis=axis, initial=np.finfo(values.dtype).min)
    values -= top
    np.exp(values, out=values)
    with np.errstate(divide="ignore"):
        out: Floats = np.log(values.sum(axis=axis))
    out += top
    return out


def reduced(message: Floats, pairwise: Floats, reduce: Callable[..., Floats]) -> Floats:
    """``reduce`` over k of message[k, i] + W[k, l], as (l, i)."""
    out = np.empty_like(message)
    # Many labels at once where the batch is small, one where a (K, b) block fills the cache by itself.
    chunk = max(1, _CACHED // message.size)
    for start in range(0, len(pairwise), chunk):
        labels = slice(start, start + chunk)
        out[labels] = reduce(message[:, None] + pairwise[:, labels, None], axis=0)
    return out
