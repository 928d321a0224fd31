"""One or a few long chains, cut into blocks through which the recursions run in parallel.

A recursion along a chain is a product of one (K, K) matrix per position, and a product may be bracketed anywhere. Cut
at every S-th position, a chain of T positions becomes T / S blocks, and the recursion S steps, each over all blocks:

1. from each of the K labels that may precede a block, a message is carried through it (K messages per block);
2. these are joined block by block, which gives the message that arrives at each block;
3. the plain recursion runs through all blocks at once, each from the message that arrives there.

S is about sqrt(T). This costs K times the arithmetic of the plain recursion and about 1 / sqrt(T) of its steps: it pays
where a step costs the interpreter more than the arithmetic, for few labels and few, long chains (`cut`). Sums, maxima
(with the tie rule of `chain.decode`) and backward walks work alike. The tests compare them with the plain recursions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Floats, Ints
from attnembed.structured.packing import Packing

__all__ = ["Blocks", "ExpEnds", "LogEnds", "carried", "cut", "largest_moved", "walk"]


# The interpreter's cost of one step of a recursion over time, in multiplications.
_STEP = 20_000
_SHORTEST = 128


class Blocks:
    """Chains in packed order, cut into blocks of ``size`` positions; the last block of each chain may be shorter.

    ``inner`` packs the blocks as if each were a sequence; ``outer`` packs the chains as sequences of blocks, and its
    rows number the blocks. Per-block arrays are in the order of ``inner``'s ranks or of ``outer``'s rows.

    >>> blocks = Blocks(Packing(np.array([5])), 2)
    >>> blocks.rows
    array([0, 2, 4, 1, 3])
    >>> blocks.first, blocks.outer_row
    (array([ True, False, False]), array([0, 1, 2]))
    """

    def __init__(self, packing: Packing, size: int) -> None:
        self.packing, self.size = packing, size
        lengths = packing.lengths[packing.order]
        self.outer = Packing(-(-lengths // size))
        left = lengths[self.outer.rank] - size * self.outer.time
        self.inner = Packing(np.minimum(left, size))

    @cached_property
    def outer_row(self) -> Ints:
        """The block at each rank of ``inner``, as a row of ``outer``."""
        return self.inner.order

    @cached_property
    def first(self) -> NDArray[np.bool_]:
        """Whether the block at each rank of ``inner`` begins a chain."""
        first: NDArray[np.bool_] = self.outer_row < len(self.packing)
        return first

    @cached_property
    def rows(self) -> Ints:
        """The packed row of the uncut chains for each packed row of ``inner``, (N,)."""
        block, inner, outer = self.inner.sequence, self.inner, self.outer
        rows: Ints = self.packing.offsets[outer.time[block] * self.size + inner.time] + outer.rank[block]
        return rows

    def gather(self, columns: NDArray[Any]) -> NDArray[Any]:
        """Columns (K, N) or (N,) of the uncut chains in the order of ``inner``."""
        return np.take(columns, self.rows, axis=-1)

    def scatter(self, columns: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `gather`."""
        out = np.empty_like(columns)
        out[..., self.rows] = columns
        return out


def cut(packing: Packing, n_labels: int, work: float = 1.0) -> Blocks | None:
    """The chains in blocks, or None if the plain recursion is faster.

    ``work`` is the cost of a recursion per position and triple of labels, relative to that of a product.
    """
    steps, rows = len(packing.offsets) - 1, int(packing.offsets[-1])
    if steps < _SHORTEST or n_labels > 64:
        return None
    size = max(2, int(np.sqrt(0.6 * steps)))
    plain = float(steps * _STEP) + rows * n_labels * (n_labels * work + 10.0)
    blocked = _STEP * (3.0 * size + 1.5 * steps / size) + rows * n_labels**2 * (n_labels * work + 10.0)
    return Blocks(packing, size) if blocked < 0.8 * plain else None


# --- sums, in the exp domain ------------------------------------------------------------------------------------


class ExpEnds:
    """The messages at the ends of the blocks of one recursion in the exp domain, (K, blocks) in the order of ranks.

    ``arriving``: the forward messages before the blocks, moved through the transition; 1 at the first block of a chain.
    ``log_partition``: log Z of each chain, for the potentials after normalisation.
    """

    def __init__(self, factor: Floats, transition: Floats, blocks: Blocks) -> None:
        self.blocks, self.transition = blocks, transition
        self._through, self._log_scale = _exp_transfers(factor, transition, blocks)
        self.before, self.log_partition = self._join_forward()
        arriving = np.ascontiguousarray(transition.T) @ self.before
        arriving[:, : len(blocks.packing)] = 1
        self.arriving: Floats = arriving[:, blocks.outer_row]

    def _join_forward(self) -> tuple[Floats, NDArray[np.float64]]:
        blocks, through, log_scale = self.blocks, self._through, self._log_scale
        n, k = len(blocks.packing), len(self.transition)
        before = np.ones((k, log_scale.shape[1]))  # forward message before each block, in the order of outer's rows
        log_total = np.zeros(n)
        # All K messages through the first block of a chain are equal.
        now, total = through[0, :, :n], log_scale[0, :n].copy()
        log_total += total
        for here, _ in blocks.outer.steps():
            b = here.stop - here.start
            before[:, here] = now[:, :b]
            weight = np.where(now[:, :b] > 0, log_scale[:, here], -np.inf)
            top = weight.max(axis=0)
            weight = now[:, :b] * np.exp(weight - top)
            now = np.einsum("ib,iob->ob", weight, through[:, :, here])
            total = now.sum(axis=0)
            now /= total
            log_total[:b] += np.log(total) + top
        return before, log_total

    def after(self) -> Floats:
        """The backward message at the last position of each block, with sum over labels of forward * backward = 1."""
        blocks, through, log_scale = self.blocks, self._through, self._log_scale
        out = np.ones_like(self.before)
        for here, left in reversed(blocks.outer.steps()):
            before = self.before[:, here]
            top = np.where(before > 0, log_scale[:, here], -np.inf).max(axis=0)
            message = np.einsum("iob,ob->ib", through[:, :, here], out[:, here]) * np.exp(log_scale[:, here] - top)
            out[:, left] = message / np.sum(before * message, axis=0)
        return out[:, blocks.outer_row]

    def bound(self, factor: Floats, scale: Floats, floor: float) -> Floats:
        """Upper bounds on `after`, where each backward message of ``factor / scale`` is at least ``floor``."""
        blocks, inner = self.blocks, self.blocks.inner
        lost = np.zeros_like(self.before)
        offsets = inner.offsets
        for t in range(len(offsets) - 2, -1, -1):
            here, b = slice(offsets[t], offsets[t + 1]), offsets[t + 1] - offsets[t]
            lost[:, :b] = self.transition @ (factor[:, here] * lost[:, :b]) + floor
        lost = lost[:, inner.rank_of]
        growth = np.exp(self._log_scale - inner.sum(np.log(scale)))
        out = np.ones_like(self.before)
        for here, left in reversed(blocks.outer.steps()):
            moved = np.einsum("iob,ob->ib", self._through[:, :, here], out[:, here]) * growth[:, here]
            out[:, left] = np.maximum(moved + lost[:, here], floor)
        return out[:, blocks.outer_row]


def _exp_transfers(factor: Floats, transition: Floats, blocks: Blocks) -> tuple[Floats, Floats]:
    """Messages [before, out, block] of sum 1 through each block from each label before it, and the log of their scale.

    Blocks in the order of outer's rows. A message that is impossible is 0 throughout, its logarithm -inf.
    """
    inner, k = blocks.inner, len(transition)
    offsets, transposed = inner.offsets, np.ascontiguousarray(transition.T)
    tiny = float(np.finfo(factor.dtype).tiny)
    width = len(inner)
    message = np.empty((k, k, width))
    message[:] = transition[:, :, None]
    message[:, :, blocks.first] = 1
    log_scale = np.zeros((k, width))
    moved, scale = np.empty_like(message), np.empty((k, width))
    for t in range(len(offsets) - 1):
        here, b = slice(offsets[t], offsets[t + 1]), int(offsets[t + 1] - offsets[t])
        if b < width:  # blocks that have ended keep their values
            width = b
            moved, scale = np.empty((k, k, b)), np.empty((k, b))
        now = message[:, :, :b]
        if t:
            np.matmul(transposed, now, out=moved)
            np.multiply(moved, factor[:, here], out=now)
        else:
            now *= factor[:, here]
        np.add.reduce(now, axis=1, out=scale)
        np.maximum(scale, tiny, out=scale)
        now /= scale[:, None]
        log_scale[:, :b] += np.log(scale)
    log_scale[~message.any(axis=1)] = -np.inf
    return message[:, :, inner.rank_of], log_scale[:, inner.rank_of]


# --- numbers carried along a chain --------------------------------------------------------------------------------


def carried(
    start: Floats, gain: Floats, weight: Floats, matrix: Floats, packing: Packing, blocks: Blocks | None, *, right: bool
) -> Floats:
    """x_t = start_t + gain_t * (matrix @ (weight * x) at the neighbour before t), (K, N) in packed order.

    The neighbour before t is the left one for ``right`` False, and the right one for ``right`` True, where the numbers
    come from the end. With ``blocks`` they pass through all blocks side by side: in each, x is affine in what enters.
    """
    if blocks is None:
        return _carried(start.copy(), gain, weight, matrix, packing, right=right)
    inner, outer = blocks.inner, blocks.outer
    start, gain, weight = (blocks.gather(x) for x in (start, gain, weight))
    first, last = inner.rank_of, inner.last[inner.rank_of]  # rows of inner, by row of outer
    # For each edge between two blocks: the source of the numbers, and where they enter.
    before, after = (outer.right, outer.left) if right else (outer.left, outer.right)
    source, entry = (first[before], last[after]) if right else (last[before], first[after])
    ends = _block_ends(start, gain, weight, matrix, blocks, source, entry, right=right)
    out = ends[:, -1].copy()
    for here, left in reversed(outer.steps()) if right else outer.steps():
        to, of = (left, here) if right else (here, left)
        out[:, to] += np.einsum("okb,kb->ob", ends[:, :-1, to], out[:, of])
    start[:, entry] += gain[:, entry] * (matrix @ (weight[:, source] * out[:, before]))
    return blocks.scatter(_carried(start, gain, weight, matrix, inner, right=right))


def _carried(x: Floats, gain: Floats, weight: Floats, matrix: Floats, packing: Packing, *, right: bool) -> Floats:
    """`carried` in one piece and in place."""
    for here, left in reversed(packing.steps()) if right else packing.steps():
        to, of = (left, here) if right else (here, left)
        x[:, to] += gain[:, to] * (matrix @ (weight[:, of] * x[:, of]))
    return x


def _block_ends(
    start: Floats,
    gain: Floats,
    weight: Floats,
    matrix: Floats,
    blocks: Blocks,
    source: Ints,
    entry: Ints,
    *,
    right: bool,
) -> Floats:
    """The output of each block, (K, K + 1, blocks) by row of outer: per unit of input at each label, and without."""
    inner, k = blocks.inner, len(matrix)
    rank = inner.rank[entry]
    state = np.zeros((k, k + 1, len(inner)))
    state[:, k] = start[:, inner.last] if right else start[:, : len(inner)]
    state[:, :k, rank] = gain[:, None, entry] * matrix[:, :, None] * weight[:, source]
    for here, left in reversed(inner.steps()) if right else inner.steps():
        to, of = (left, here) if right else (here, left)
        b = here.stop - here.start
        moved = (state[:, :, :b] * weight[:, None, of]).reshape(k, -1)
        now = (matrix @ moved).reshape(k, k + 1, b)
        now *= gain[:, None, to]
        now[:, k] += start[:, to]
        state[:, :, :b] = now
    return state[:, :, inner.rank_of]


# --- sums and maxima of logarithms ------------------------------------------------------------------------------

Reduce = Callable[..., Floats]  # along an axis: a maximum, or the logarithm of a sum of exponentials
Step = Callable[[Floats, Floats], Floats]  # of message (K, b) and pairwise: that over k of message[k] + pairwise[k, l]


class LogEnds:
    """The messages at the ends of the blocks of a recursion on logarithms, with sums or with maxima.

    ``before`` (K, blocks), in the order of outer's rows, has the total 0. ``arriving``, in the order of inner's ranks,
    is ``before`` moved through the pairwise potentials; 0 at the first block of a chain.
    """

    def __init__(self, columns: Floats, pairwise: Floats, blocks: Blocks, reduce: Reduce, step: Step) -> None:
        self.blocks, self._reduce = blocks, reduce
        inner, k, n = blocks.inner, len(pairwise), len(blocks.packing)
        offsets = inner.offsets
        message = np.empty((k, k, len(inner)))  # [out, before, block]
        message[:] = pairwise.T[:, :, None]
        message[:, :, blocks.first] = 0
        level = np.zeros((k, len(inner)))
        for t in range(len(offsets) - 1):
            here, b = slice(offsets[t], offsets[t + 1]), int(offsets[t + 1] - offsets[t])
            now: Floats = message[:, :, :b]
            if t:
                now[:] = step(np.ascontiguousarray(now).reshape(k, k * b), pairwise).reshape(k, k, b)
            now += columns[:, None, here]
            top = now.max(axis=0)
            top[top == -np.inf] = 0  # impossible
            now -= top
            level[:, :b] += top
        message += level
        self._through: Floats = message[:, :, inner.rank_of]
        self.before: Floats = np.zeros((k, len(inner)))
        now = self._through[:, 0, :n]
        for here, _ in blocks.outer.steps():
            self.before[:, here] = now = self._levelled(now[:, : here.stop - here.start])
            now = reduce(now[:, None] + self._through[:, :, here].swapaxes(0, 1), axis=0)
        arriving = step(self.before, pairwise)
        arriving[:, :n] = 0
        self.arriving: Floats = arriving[:, blocks.outer_row]

    def after(self) -> Floats:
        """The backward message at the last position of each block, of total 0; 0 throughout at a chain's last."""
        out = np.zeros_like(self.before)
        for here, left in reversed(self.blocks.outer.steps()):
            out[:, left] = self._levelled(self._reduce(out[:, None, here] + self._through[:, :, here], axis=0))
        return out[:, self.blocks.outer_row]

    def _levelled(self, message: Floats) -> Floats:
        total = self._reduce(message.copy(), axis=0)
        out: Floats = message - np.where(total > -np.inf, total, 0)
        return out


def largest_moved(message: Floats, pairwise: Floats) -> Floats:
    """max over k of message[k, i] + W[k, l], as (l, i): K sums and maxima along memory."""
    out: Floats = message[0] + pairwise[0][:, None]
    rival = np.empty_like(out)
    for k in range(1, len(pairwise)):
        np.add(message[k], pairwise[k][:, None], out=rival)
        np.maximum(out, rival, out=out)
    return out


# --- the backward walk ------------------------------------------------------------------------------------------

_CHUNK = 2**15  # entries of a temporary


def walk(message: Floats, pairwise: Floats, blocks: Blocks) -> Ints:
    """Labels (N,) in packed order: y_t maximises message[k, t] + pairwise[k, y_{t+1}], the first of equals.

    ``message`` (K, N) in the order of ``inner``, as the labels. The last position of a chain uses the message alone.
    """
    inner, outer, k = blocks.inner, blocks.outer, len(pairwise)
    offsets, last = inner.offsets, inner.last
    back = _choices(message, pairwise).ravel()  # at row * K + label on the right: the label
    paths = np.empty((message.shape[1], k), dtype=back.dtype)  # the label for each label after the block
    every = np.arange(k)
    now = np.empty((len(inner), k), dtype=np.intp)
    now[:] = every
    ends = np.zeros(len(inner), dtype=bool)  # by rank of inner: whether the chain ends with the block
    ends[inner.rank_of[outer.last]] = True
    top = message[:, last].argmax(axis=0)
    place = np.arange(len(message[0])) * k
    started = 0
    for t in range(len(offsets) - 2, -1, -1):
        rows, b = slice(offsets[t], offsets[t + 1]), int(offsets[t + 1] - offsets[t])
        label = back[place[rows, None] + now[:b]]
        if b > started:  # the blocks that end here
            final = np.flatnonzero(ends[started:b]) + started
            label[final] = top[final, None]
            started = b
        paths[rows] = now[:b] = label
    first = now[inner.rank_of]  # by row of outer: the first label of the block, for each label after it
    chosen = np.zeros(len(inner), dtype=np.intp)  # the label after each block
    label = np.zeros(len(inner), dtype=np.intp)
    label[outer.last] = first[outer.last, 0]
    for here, left in reversed(outer.steps()):
        chosen[left] = label[here]
        label[left] = first[np.arange(left.start, left.stop), label[here]]
    labels: Ints = paths[np.arange(len(paths)), chosen[inner.sequence]].astype(np.intp)
    return labels


def _choices(message: Floats, pairwise: Floats) -> Ints:
    """argmax over k of message[k, i] + pairwise[k, l], the first of equals, as (i, l)."""
    k, n = message.shape
    out = np.empty((n, k), dtype=np.min_scalar_type(k))
    size = max(1, _CHUNK // k)
    for start in range(0, n, size):
        here = message[:, start : start + size]
        best = here[0] + pairwise[0][:, None]
        label = np.zeros(best.shape, dtype=out.dtype)
        for j in range(1, k):
            rival = here[j] + pairwise[j][:, None]
            np.copyto(label, j, where=rival > best)
            np.maximum(best, rival, out=best)
        out[start : start + size] = label.T
    return out
