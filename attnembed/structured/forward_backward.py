"""Sums over the labelings of a chain: log-partition and posterior, by the forward-backward recursion.

Everything runs on the packed layout of `packing.Packing`, label-major: arrays are (K, N), so that a step over all
sequences is one (K, K) x (K, b) product and every elementwise operation runs along contiguous sequences.

A recursion runs in one of three domains, the first that is exact up to rounding: products of exponentials in single
precision, for short chains of narrow potentials in single precision; the same in double precision; logarithms. Each
normalises every step and stores the divisors separately, so that no error grows with the length. Where the bounds on
the messages do not exclude it, underflow is measured afterwards (`_amplification`). A few long chains are cut into
blocks, through which the same recursions run in parallel (`long_chains`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from attnembed._typing import Floats
from attnembed.errors import InputError
from attnembed.results import Record
from attnembed.structured.long_chains import Blocks, ExpEnds, LogEnds, carried, cut
from attnembed.structured.packing import Packing, short_rows

__all__ = ["Posterior", "log_partition", "no_labeling", "posterior", "reduced", "relative"]


# Number of entries of a temporary that should stay in the cache.
_CACHED = 2**16

# Single precision rounds each factor by 6e-8 of itself, and a repeated factor by the same amount every time. Over more
# positions than this, with arguments of exp beyond this, or in sums over more labels than this, the marginals would
# be off by more than 1e-6.
_LONGEST_IN_SINGLE = 32
_DEEPEST_IN_SINGLE = 32.0
_LABELS_IN_SINGLE = 512

# The cost of one term of a log-sum, in multiplications.
_LOG_WORK = 40.0

# The largest loss of a probability through underflow.
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
        self, given: Literal["left", "right"] | None = None, *, backwards: bool | None = None
    ) -> Iterator[tuple[slice, slice, Floats]]:
        """Rows, their left neighbours, and P(y_{t-1} = k, y_t = l) on the edges between as (K, K, b).

        Times may be merged and come in any order; with ``backwards`` True or False they come one by one, in that order.
        With ``given`` the probabilities are conditional on the label of the left or the right end.
        """
        steps = self._spans() if backwards is None else self.packing.steps()
        for here, left in reversed(steps) if backwards else steps:
            before, after = self.before[:, None, left], self.after[None, :, here]
            end = {"left": (slice(None), None, left), "right": (None, slice(None), here), None: None}[given]
            if self.log_node is not None:
                exponent = before + self.transition[:, :, None] + after
                if end is not None:
                    condition = self.log_node[end]
                    exponent = np.subtract(exponent, condition, where=condition > -np.inf, out=exponent)
                edge = np.exp(exponent)
                # The exponents are rounded like the potentials; their sum is known.
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

        ``weight`` (N,), by right end, weights the edges.
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
        for here, left in self._spans():
            total += before[:, left] @ after[:, here].T
        total *= self.transition
        return total

    def _spans(self) -> list[tuple[slice, slice]]:
        return self.packing.spans(max(1, _CACHED // len(self.transition) ** 2))

    def carry(self, given: Literal["left", "right"], start: Floats) -> tuple[Floats, Floats]:
        """Carry a number per label along the chains, through the probabilities of a label given its neighbour's.

        x_t = start_t + P(y_{t-1}, y_t) x_{t-1} / P(y_{t-1}) from left to right (``given`` "left"), or the same from
        right to left. Returns x (K, N) and, in the exp domain, before * x / node ("right": after * x / node), which
        replaces the message in the probability of an edge to give x / node times that probability.
        """
        x, from_left = start.copy(), given == "left"
        if self.log_node is not None:
            for here, left, edge in self.edges(given, backwards=not from_left):
                moved: Floats = edge * (x[:, None, left] if from_left else x[None, :, here])
                x[:, here if from_left else left] += moved.sum(axis=0 if from_left else 1)
            return x, x
        # The factors of an edge probability stay factors: no (K, K, b) array is formed.
        message, gain = (self.before, self.after) if from_left else (self.after, self.before)
        weight = self._per_node(message)
        matrix = self.transition.T if from_left else self.transition
        x = carried(x, gain, weight, matrix, self.packing, self._blocks(), right=not from_left)
        weight *= x
        return x, weight

    def ahead(self, node: Floats, pair: Floats) -> Floats:
        """The mean contribution of a position and the positions after it, given its label, (K, N).

        A position contributes node[k, t] and an edge pair[k, l] (K, K).
        """
        x: Floats = node.astype(np.float64)
        if self.log_node is not None:
            for here, left, edge in self.edges("left", backwards=True):
                x[:, left] += np.einsum("klb,klb->kb", edge, x[None, :, here] + pair[:, :, None])
            return x
        gain, weighted = self._per_node(self.before), self.transition * pair
        for here, left in self._spans():
            x[:, left] += gain[:, left] * (weighted @ self.after[:, here])
        return carried(x, gain, self.after, self.transition, self.packing, self._blocks(), right=True)

    def _per_node(self, message: Floats) -> Floats:
        return np.divide(message, self.node, where=self.node > 0, out=np.zeros_like(self.node))

    def _blocks(self) -> Blocks | None:
        return cut(self.packing, len(self.transition)) if self.node.dtype == np.float64 else None


@short_rows
def posterior(unary: Floats, pairwise: Floats, packing: Packing, *, resolution: float = np.inf) -> Posterior:
    """Log-partition and posterior of every chain by forward-backward; ``unary`` (N, K) in packed order.

    ``resolution`` is the largest acceptable one; 0 requests logarithms, at ten to forty times the cost. The result is
    in double precision even for potentials in single precision where only that keeps its digits.
    """
    columns = np.ascontiguousarray(unary.T)
    dtypes: list[Any] = [np.float64]
    short = len(packing.offsets) - 1 <= _LONGEST_IN_SINGLE and len(columns) <= _LABELS_IN_SINGLE
    if columns.dtype == np.float32 and short:
        dtypes.insert(0, np.float32)
    result = None
    for dtype in dtypes if resolution > 0 else ():
        wide = columns.astype(dtype, copy=False), pairwise.astype(dtype, copy=False)
        blocks = cut(packing, len(columns)) if dtype == np.float64 else None
        result = _exp_posterior(*wide, packing, blocks)
        if result is not None and result.resolution <= resolution:
            return result
    blocks = cut(packing, len(columns), _LOG_WORK)
    wide = columns.astype(np.float64, copy=False), pairwise.astype(np.float64, copy=False)
    return _log_posterior(*wide, packing, blocks)


def no_labeling(sequence: int) -> InputError:
    return InputError(
        "pairwise",
        f"must allow at least one labeling of every sequence; sequence {sequence} has none",
        hint="too many potentials are -inf",
    )


@short_rows
def log_partition(unary: Floats, pairwise: Floats, packing: Packing) -> Floats:
    """log Z of every chain, (n,), as in `posterior`, for long chains without the parts that it does not need."""
    blocks = cut(packing, len(pairwise))
    if blocks is not None:
        columns = blocks.gather(np.ascontiguousarray(unary.T, dtype=np.float64))
        factors = _Factors(columns, pairwise.astype(np.float64, copy=False))
        if factors.bounded:
            out = np.empty(len(packing))
            out[packing.order] = ExpEnds(factors.unary, factors.transition, blocks).log_partition
            return out + packing.sum(blocks.scatter(factors.top)) + (packing.lengths - 1) * factors.shift
    return posterior(unary, pairwise, packing).log_partition


class _Factors:
    """Potentials (K, N) and (K, K) as exponentials, relative to the largest of a position and to the largest of W.

    With a finite W, each forward or backward message of a step lies within e^{depth of a row of U + range of W} of the
    largest of that step: nothing relevant underflows while their sum stays below the exponent range, in which case
    ``bounded`` is True. ``fit`` is False where single precision would lose digits.
    """

    def __init__(self, columns: Floats, pairwise: Floats) -> None:
        self.top, self.unary = relative(columns)
        depth = -float(self.unary.min())
        if depth == np.inf:
            depth = -float(np.min(self.unary, where=self.unary > -np.inf, initial=0.0))
        allowed = pairwise[pairwise > -np.inf]
        range_w = float(np.ptp(allowed)) if allowed.size else 0.0
        free = allowed.size == pairwise.size
        self.bounded = free and depth + range_w < 0.8 * float(np.log(np.finfo(columns.dtype).max))
        self.fit = True
        if columns.dtype == np.float32:
            # A label far below the best of its position matters only where its neighbours can compensate.
            deepest = min(depth, 2 * range_w) if free else depth
            self.fit = deepest <= _DEEPEST_IN_SINGLE and not (free and not self.bounded)
        self.shift = float(allowed.max()) if allowed.size else 0.0
        self.transition = np.exp(pairwise.astype(np.float64) - self.shift).astype(columns.dtype)
        if self.fit:
            np.exp(self.unary, out=self.unary)


def _exp_posterior(columns: Floats, pairwise: Floats, packing: Packing, blocks: Blocks | None) -> Posterior | None:
    """The posterior by products of exponentials, or None where they would lose digits."""
    chains = packing if blocks is None else blocks.inner
    factors = _Factors(columns if blocks is None else blocks.gather(columns), pairwise)
    if not factors.fit:
        return None
    factor, transition = factors.unary, factors.transition
    # Rows are indexed by the output label, so that each product reads contiguous memory.
    transposed = np.ascontiguousarray(transition.T)
    forward = np.empty_like(factor)
    scale = np.empty_like(factor[0])
    start, ones = slice(0, len(chains)), np.ones(len(factor), factor.dtype)
    # An impossible prefix, or one that underflows, becomes NaN, which stays within its sequence.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ends = None if blocks is None else ExpEnds(factor, transition, blocks)
        first = factor[:, start] if ends is None else factor[:, start] * ends.arriving
        first.sum(axis=0, out=scale[start])
        np.divide(first, scale[start], out=forward[:, start])
        for here, left in chains.steps():
            message = forward[:, here]
            np.matmul(transposed, forward[:, left], out=message)
            message *= factor[:, here]
            np.matmul(ones, message, out=scale[here])  # a sum along the first axis in half the time
            message /= scale[here]
        if not scale.min() > 0:
            return None
        factor /= scale
        unseen = len(pairwise) ** 2 * len(packing.offsets) * float(np.finfo(columns.dtype).tiny)
        if ends is not None:
            unseen *= 3  # the messages at the ends of the blocks have lost the same, in either direction
        if not factors.bounded:
            negligible = _NEGLIGIBLE[columns.dtype]
            unseen *= _amplification(factor, transition, scale, chains, negligible, ends)
            if not unseen <= negligible:
                return None
        backward = np.ones_like(factor)
        if ends is not None:
            backward[:, chains.last] = ends.after()
        for here, left in reversed(chains.steps()):
            factor[:, here] *= backward[:, here]
            np.matmul(transition, factor[:, here], out=backward[:, left])
        if ends is not None:
            factor[:, start] *= backward[:, start]
        backward *= forward
    log_scale = np.log(scale, dtype=np.float64) + factors.top
    if blocks is not None:
        log_scale, backward, forward, factor = (blocks.scatter(x) for x in (log_scale, backward, forward, factor))
    log_z = packing.sum(log_scale) + (packing.lengths - 1) * factors.shift
    return Posterior(packing, log_z, backward, forward, transition, factor, resolution=unseen)


def _amplification(
    factor: Floats, transition: Floats, scale: Floats, packing: Packing, floor: float, ends: ExpEnds | None
) -> float:
    """The factor by which a loss in a forward message can grow on the way to Z: the largest backward message.

    A product below the smallest number ``tiny`` takes at most K tiny / scale_t from a forward message of step t, hence
    at most that times the backward message from Z. The backward messages lose in the same way: the floor, above all
    that they can lose, makes them upper bounds. (A path may underflow at both ends and lead in between.)
    """
    bound = np.ones_like(factor)
    if ends is not None:
        bound[:, packing.last] = ends.bound(factor, scale, floor)
    for here, left in reversed(packing.steps()):
        np.maximum(transition @ (factor[:, here] * bound[:, here]), floor, out=bound[:, left])
    return float(np.max(bound.max(axis=0) / scale.astype(np.float64)))


def relative(columns: Floats) -> tuple[Floats, Floats]:
    """The largest potential of each position (0 where there is none), and all potentials relative to it."""
    top = columns.max(axis=0, initial=np.finfo(columns.dtype).min)
    return top, columns - top


def _log_posterior(columns: Floats, pairwise: Floats, packing: Packing, blocks: Blocks | None) -> Posterior:
    chains = packing if blocks is None else blocks.inner
    top, shifted = relative(columns if blocks is None else blocks.gather(columns))
    ends = None if blocks is None else LogEnds(shifted, pairwise, blocks, _log_sum, _log_moved)
    forward, scale = np.empty_like(shifted), np.empty_like(top)
    start = slice(0, len(chains))
    forward[:, start], scale[start] = _log_normalised(shifted[:, start] + (0 if ends is None else ends.arriving))
    for here, left in chains.steps():
        message: Floats = shifted[:, here] + _log_moved(forward[:, left], pairwise)
        forward[:, here], scale[here] = _log_normalised(message)
    scale += top
    log_z = packing.sum(scale if blocks is None else blocks.scatter(scale))
    impossible = np.flatnonzero(log_z == -np.inf)
    if impossible.size:
        raise no_labeling(int(impossible[0]))
    backward, after = np.zeros_like(shifted), shifted.copy()
    if ends is not None:
        backward[:, chains.last] = ends.after()
    for here, left in reversed(chains.steps()):
        after[:, here] += backward[:, here]
        message = _log_moved(after[:, here], pairwise.T)
        # Not the scale of the forward message: its rounding errors, of the order of the potentials, would accumulate.
        total = _finite(_log_sum(forward[:, left] + message))
        after[:, here] -= total
        np.subtract(message, total, out=backward[:, left])
    if ends is not None and blocks is not None:
        after[:, start] += backward[:, start]
        before = ends.before[:, blocks.outer_row]
        after[:, start] -= _finite(_log_sum(before + _log_moved(after[:, start], pairwise.T)))
    log_node = forward + backward
    log_node -= _finite(_log_sum(log_node.copy()))
    if blocks is not None:
        forward, after, log_node = (blocks.scatter(x) for x in (forward, after, log_node))
    return Posterior(packing, log_z, np.exp(log_node), forward, pairwise, after, log_node)


def _log_moved(message: Floats, pairwise: Floats) -> Floats:
    return reduced(message, pairwise, _log_sum)


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
    # Many labels at once where the batch is small, one where a (K, b) block fills the cache by itself.
    chunk = max(1, _CACHED // message.size)
    if chunk >= len(pairwise):
        whole: Floats = reduce(message[:, None] + pairwise[:, :, None], axis=0)
        return whole
    out = np.empty_like(message)
    for start in range(0, len(pairwise), chunk):
        labels = slice(start, start + chunk)
        out[labels] = reduce(message[:, None] + pairwise[:, labels, None], axis=0)
    return out
