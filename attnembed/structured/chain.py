"""Exact inference in linear chains: log-partition, marginals, Viterbi, sampling; batched over sequences of any length.

The score of a labeling Y of a chain of length L is F(Y) = sum_i U[i, y_i] + sum_i W[y_i, y_{i+1}] with log-potentials
U (L, K) and W (K, K), and P(Y) = e^{F(Y)} / Z. Potentials may be -inf (forbidden).

Everything runs on the packed layout of `packing.Packing`, label-major: arrays are (K, N), so that a step over all
sequences is one (K, K) x (K, b) product and every elementwise operation runs along contiguous sequences. Sums of
products are taken in the exp domain, rescaled at every step, where the potentials are narrow enough for that to be
exact to rounding (see `_shift`), and in the log domain otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from attnembed._validation import RNGLike, as_array, as_rng, check_shape, freeze
from attnembed.errors import InputError, InputTypeError
from attnembed.structured.constraints import add_ends
from attnembed.structured.packing import Packing

__all__ = [
    "ChainMarginals",
    "Posterior",
    "chain_log_partition",
    "chain_marginals",
    "chain_sample",
    "chain_score",
    "chain_viterbi",
    "decode",
    "posterior",
    "score",
]

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

# Entries of a temporary that should stay in the cache.
_CACHED = 2**16


# --- packed core: unary (N, K) in packed order, no checks -------------------------------------------------------


def score(unary: Floats, pairwise: Floats, labels: Ints, packing: Packing) -> Floats:
    """F(Y) of every sequence, (n,)."""
    total = packing.sum(unary[np.arange(len(unary)), labels])
    total += np.bincount(
        packing.sequence[packing.right],
        weights=pairwise[labels[packing.left], labels[packing.right]],
        minlength=len(packing),
    )
    return total


@dataclass(frozen=True, eq=False)
class Posterior:
    """P(Y) = e^{F(Y)} / Z in factored form.

    The probability of the pair (k, l) on an edge is before[k, i] * transition[k, l] * after[l, j], with i and j the
    packed rows of its two ends. Where ``log_node`` is not None the three are logarithms.

    Attributes
    ----------
    log_partition : (n,) log Z
    node : (K, N) P(y_i = k)
    log_node : (K, N) its logarithm, in the log domain only
    """

    packing: Packing
    log_partition: Floats
    node: Floats
    before: Floats
    transition: Floats
    after: Floats
    log_node: Floats | None = None

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
                yield here, left, np.exp(exponent)
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
        total = np.zeros_like(self.transition)
        if self.log_node is not None:
            for here, _, edge in self.edges():
                total += edge.sum(axis=2) if weight is None else edge @ weight[here]
            return total
        after = self.after if weight is None else weight * self.after
        for here, left in self.packing.steps():
            total += self.before[:, left] @ after[:, here].T
        return total * self.transition

    def carry(self, given: Literal["left", "right"], start: Floats) -> tuple[Floats, Floats]:
        """Carry a number per label along the chains, through the probabilities of a label given its neighbour's.

        x_t = start_t + P(y_{t-1}, y_t) x_{t-1} / P(y_{t-1}) from left to right (``given`` "left"), or the same from
        right to left. Returned are x (K, N) and the sum over all edges of what was carried, by pair (K, K).
        """
        total = np.zeros_like(self.transition)
        x, from_left = start.copy(), given == "left"
        if self.log_node is not None:
            for here, left, edge in self.edges(given, backwards=not from_left):
                moved: Floats = edge * (x[:, None, left] if from_left else x[None, :, here])
                x[:, here if from_left else left] += moved.sum(axis=0 if from_left else 1)
                total += moved.sum(axis=2)
            return x, total
        # The factors of an edge probability stay factors: no (K, K, b) array is formed.
        scaled = np.divide(self.before if from_left else self.after, self.node, where=self.node > 0, out=0 * self.node)
        steps = self.packing.steps()
        for here, left in steps if from_left else reversed(steps):
            if from_left:
                moved = x[:, left] * scaled[:, left]
                x[:, here] += self.after[:, here] * (self.transition.T @ moved)
                total += moved @ self.after[:, here].T
            else:
                moved = x[:, here] * scaled[:, here]
                x[:, left] += self.before[:, left] * (self.transition @ moved)
                total += self.before[:, left] @ moved.T
        return x, total * self.transition


def posterior(unary: Floats, pairwise: Floats, packing: Packing, *, log_domain: bool = False) -> Posterior:
    """Log-partition and posterior of every chain by forward-backward; ``unary`` (N, K) in packed order.

    ``log_domain`` asks for logarithms of the marginals, at ten to forty times the cost. Potentials in single precision
    that are too wide for its exponents are taken in double precision, and so is the result.
    """
    columns = np.ascontiguousarray(unary.T)
    tried = () if log_domain else (columns.dtype,) if columns.dtype == np.float64 else (columns.dtype, np.float64)
    for dtype in tried:
        cast = columns.astype(dtype, copy=False), pairwise.astype(dtype, copy=False)
        shift = _shift(*cast, len(packing.offsets) - 1)
        if shift is not None:
            result = _exp_posterior(*cast, packing, shift)
            break
    else:
        result = _log_posterior(columns, pairwise, packing)
    impossible = np.flatnonzero(result.log_partition == -np.inf)
    if impossible.size:
        raise _no_labeling(int(impossible[0]))
    return result


def _shift(columns: Floats, pairwise: Floats, longest: int) -> Floats | None:
    """What to subtract from the unary potentials before exp, or None where the exp domain is not safe.

    With a finite W, each forward or backward message of a step lies within e^{range U + range W} of the largest of
    that step, so nothing that matters underflows while the two ranges (over finite entries) stay below the exponent
    range of the type. Forbidden pairs can keep a small message alive over the whole chain: then the bound is L times
    larger. One common shift is the fastest; a shift per row serves rows of very different levels.
    """
    limit = 0.8 * float(np.log(np.finfo(columns.dtype).max))
    w = pairwise[pairwise > -np.inf]
    range_w = float(np.ptp(w)) if w.size else 0.0
    factor = 1 if w.size == pairwise.size else longest
    low, high = float(columns.min()), columns.max()
    if low == -np.inf:
        low = float(np.min(columns, where=columns > -np.inf, initial=np.inf))
    if factor * (high - low + range_w) < limit:
        return np.asarray(high, dtype=columns.dtype)
    top = columns.max(axis=0)
    depth = np.max(top - columns, where=columns > -np.inf, initial=0.0)
    return top if factor * (depth + range_w) < limit else None


def _exp_posterior(columns: Floats, pairwise: Floats, packing: Packing, shift: Floats) -> Posterior:
    shift_w = pairwise.max(initial=-np.inf)
    shift_w = shift_w if shift_w > -np.inf else pairwise.dtype.type(0)
    transition = np.exp(pairwise - shift_w)
    # Rows are indexed by the label that comes out, so that each product reads contiguous memory.
    transposed = np.ascontiguousarray(transition.T)
    factor = np.subtract(columns, shift)
    np.exp(factor, out=factor)
    forward = np.empty_like(factor)
    scale = np.empty_like(factor[0])
    start = slice(0, len(packing))
    forward[:, start] = factor[:, start]
    _normalise(forward[:, start], scale[start])
    for here, left in packing.steps():
        np.matmul(transposed, forward[:, left], out=forward[:, here])
        forward[:, here] *= factor[:, here]
        _normalise(forward[:, here], scale[here])

    with np.errstate(divide="ignore"):
        log_partition = packing.sum(np.log(scale) + shift) + (packing.lengths - 1) * float(shift_w)
    if not np.all(log_partition > -np.inf):
        scale = np.where(scale > 0, scale, 1)  # reported by the caller
    factor /= scale
    backward = np.ones_like(factor)
    for here, left in reversed(packing.steps()):
        factor[:, here] *= backward[:, here]
        np.matmul(transition, factor[:, here], out=backward[:, left])
    backward *= forward
    return Posterior(packing, log_partition, backward, forward, transition, factor)


def _normalise(message: Floats, total: Floats) -> None:
    """Divide each column by its sum, in place, and leave the sums in ``total``; a column of zeros stays."""
    message.sum(axis=0, out=total)
    if total.all():
        message /= total


def _log_posterior(columns: Floats, pairwise: Floats, packing: Packing) -> Posterior:
    forward = _forward(columns, pairwise, packing, logsumexp)
    backward = np.zeros_like(columns)
    for here, left in reversed(packing.steps()):
        backward[:, left] = _reduced(columns[:, here] + backward[:, here], pairwise.T, logsumexp)
    start = slice(0, len(packing))
    by_rank = logsumexp(columns[:, start] + backward[:, start], axis=0)
    log_partition = np.empty_like(by_rank)
    log_partition[packing.order] = by_rank
    if np.any(by_rank == -np.inf):  # reported by the caller
        by_rank = np.where(by_rank > -np.inf, by_rank, 0)
    before = forward - by_rank[packing.rank]
    log_node = before + backward
    return Posterior(packing, log_partition, np.exp(log_node), before, pairwise, columns + backward, log_node)


def _forward(columns: Floats, pairwise: Floats, packing: Packing, reduce: Callable[..., Floats]) -> Floats:
    """Forward messages (K, N) in the log domain; ``reduce``: np.maximum.reduce (max-sum), logsumexp (sum-product)."""
    message = np.empty_like(columns)
    message[:, : len(packing)] = columns[:, : len(packing)]
    for here, left in packing.steps():
        np.add(columns[:, here], _reduced(message[:, left], pairwise, reduce), out=message[:, here])
    return message


def _reduced(message: Floats, pairwise: Floats, reduce: Callable[..., Floats]) -> Floats:
    """``reduce`` over k of message[k, i] + W[k, l], as (l, i)."""
    out = np.empty_like(message)
    # Many labels at once where the batch is small, one where a (K, b) block fills the cache by itself.
    chunk = max(1, _CACHED // message.size)
    for start in range(0, len(pairwise), chunk):
        labels = slice(start, start + chunk)
        out[labels] = reduce(message[:, None] + pairwise[:, labels, None], axis=0)
    return out


def decode(unary: Floats, pairwise: Floats, packing: Packing, *, rng: np.random.Generator | None = None) -> Ints:
    """The labeling of largest score, (N,) in packed order; with ``rng`` a sample from P(Y) instead.

    Both walk back from the last position: y_i maximises message[k, i] + W[k, y_{i+1}], where the message is the
    max-sum one, or the sum-product one with Gumbel noise added, whose maximiser is a draw from the softmax. No back
    pointers are stored: one argmax per position costs K, not K^2.
    """
    columns = np.ascontiguousarray(unary.T)
    if rng is None:
        message = _forward(columns, pairwise, packing, np.maximum.reduce)
    else:
        p = posterior(unary, pairwise, packing)
        with np.errstate(divide="ignore"):
            message = p.before if p.log_node is not None else np.log(p.before)
        message = message + rng.gumbel(size=message.shape)
    offsets, labels, by_right = packing.offsets, np.empty(len(unary), dtype=np.intp), np.ascontiguousarray(pairwise.T)
    for t in range(len(offsets) - 2, -1, -1):
        # Rows, so that the argmax over labels runs along memory.
        here = np.ascontiguousarray(message[:, offsets[t] : offsets[t + 1]].T)
        if t + 2 < len(offsets):
            # The sequences that go on come first; the others end here and take the message as it is.
            follow = labels[offsets[t + 1] : offsets[t + 2]]
            here[: len(follow)] += by_right[follow]
        best = here.argmax(axis=1)
        labels[offsets[t] : offsets[t + 1]] = best
        dead = np.flatnonzero(here[np.arange(len(best)), best] == -np.inf)
        if dead.size:
            raise _no_labeling(int(packing.order[dead[0]]))
    return labels


def _no_labeling(sequence: int) -> InputError:
    return InputError(
        "pairwise",
        f"must allow at least one labeling of every sequence; sequence {sequence} has none",
        hint="too many potentials are -inf",
    )


# --- public functions: one sequence (L, K) or a padded batch (B, L, K) ------------------------------------------


@dataclass(frozen=True, eq=False)
class ChainMarginals:
    """Marginals of a chain; for a batch every array has a leading axis and is zero in the padding.

    Attributes
    ----------
    node : (L, K) P(y_i = k)
    edge : (L-1, K, K) P(y_i = k, y_{i+1} = l)
    log_partition : log Z
    """

    node: Floats
    edge: Floats
    log_partition: Floats


class ChainBatch:
    """Checked potentials in packed order, and the way back to the caller's layout."""

    def __init__(
        self,
        unary: ArrayLike,
        pairwise: ArrayLike,
        lengths: ArrayLike | None,
        start: ArrayLike | None = None,
        end: ArrayLike | None = None,
    ) -> None:
        padded = _as_potentials("unary", unary)
        if padded.ndim not in (2, 3) or 0 in padded.shape:
            raise InputError("unary", "must have shape (L, K) or (B, L, K), no axis empty", got=f"shape {padded.shape}")
        self.single = padded.ndim == 2
        if self.single:
            if lengths is not None:
                raise InputError("lengths", "belongs to a batch (B, L, K); leave it out for one sequence")
            padded = padded[None]
        n, self.longest, k = padded.shape
        self.packing = Packing(_lengths(lengths, n, self.longest))
        self.pairwise = _as_potentials("pairwise", pairwise)
        if self.pairwise.shape != (k, k):
            raise InputError(
                "pairwise",
                f"must have shape {(k, k)}, one row and column per label",
                got=f"shape {self.pairwise.shape}",
            )
        ends = [_end_potentials(name, value, k) for name, value in (("start", start), ("end", end))]
        dtype = np.result_type(padded.dtype, self.pairwise.dtype, *(value.dtype for value in ends if value is not None))
        self.pairwise = self.pairwise.astype(dtype, copy=False)
        self.unary = padded[self.packing.sequence, self.packing.time].astype(dtype, copy=False)
        _check_potentials("pairwise", self.pairwise)
        _check_potentials("unary", self.unary, self._place)
        self.unary = add_ends(self.unary, self.packing, *ends)

    def _place(self, row: int) -> str:
        sequence, time = int(self.packing.sequence[row]), int(self.packing.time[row])
        return f"position {time}" if self.single else f"sequence {sequence}, position {time}"

    def pad(self, values: NDArray[Any], fill: float = 0, *, drop_last: bool = False) -> NDArray[Any]:
        """Packed rows (N, ...) as (B, L, ...), ``fill`` in the padding; without the batch axis for one sequence."""
        shape = (len(self.packing), self.longest - drop_last, *values.shape[1:])
        out = np.full(shape, fill, dtype=values.dtype)
        place = slice(None) if not drop_last else self.packing.left
        out[self.packing.sequence[place], self.packing.time[place]] = values
        return out[0] if self.single else out

    def per_sequence(self, values: Floats) -> Floats:
        return values[0] if self.single else values

    def pack_labels(self, labels: ArrayLike) -> Ints:
        """Labels (L,) or (B, L) in packed order, checked."""
        array = _as_integers("labels", labels)
        shape = (len(self.packing), self.longest)
        expected = shape[1:] if self.single else shape
        if array.shape != expected:
            raise InputError("labels", f"must have shape {expected}, as `unary` has", got=f"shape {array.shape}")
        packed = array.reshape(shape)[self.packing.sequence, self.packing.time]
        _check_labels(packed, self.pairwise.shape[0], self._place)
        return packed


def _as_potentials(name: str, value: ArrayLike) -> Floats:
    """A real array, float32 or float64; the values are checked by `_check_potentials`."""
    array = as_array(name, value)
    if array.dtype.kind not in "biuf":
        raise InputTypeError(name, "must be a real numeric array", got=f"dtype {array.dtype}")
    return array if array.dtype == np.float32 else array.astype(np.float64, copy=False)


def _end_potentials(name: str, value: ArrayLike | None, n_labels: int) -> Floats | None:
    if value is None:
        return None
    array = _as_potentials(name, value)
    check_shape(name, array, (n_labels,), "one per label")
    _check_potentials(name, array[None], lambda row: "the labels")
    return array


def _as_integers(name: str, value: ArrayLike) -> Ints:
    array = as_array(name, value)
    if array.dtype.kind not in "iu":
        raise InputTypeError(name, "must be integers", got=f"dtype {array.dtype}")
    return array


def _check_potentials(name: str, rows: Floats, place: Callable[[int], str] = lambda row: f"row {row}") -> None:
    """Raise for NaN and +inf, and for a row of ``rows`` (N, K) that is -inf throughout."""
    # The maximum of a row is NaN or +inf exactly when one of its entries is.
    top = rows.max(axis=-1)
    bad = np.flatnonzero(np.isnan(top) | (top == np.inf))
    if bad.size:
        raise InputError(name, "must be finite or -inf", got=f"NaN or +inf at {place(int(bad[0]))}")
    empty = np.flatnonzero(top == -np.inf)
    if empty.size and name != "pairwise":
        raise InputError(
            name, "must allow at least one label everywhere", got=f"-inf throughout {place(int(empty[0]))}"
        )


def _check_labels(labels: Ints, n_labels: int, place: Callable[[int], str]) -> None:
    """Raise for a label outside 0..n_labels-1."""
    bad = np.flatnonzero((labels < 0) | (labels >= n_labels))
    if bad.size:
        raise InputError("labels", f"must be in 0..{n_labels - 1}", got=f"{labels[bad[0]]} at {place(int(bad[0]))}")


def _lengths(lengths: ArrayLike | None, n: int, longest: int) -> Ints:
    if lengths is None:
        return np.full(n, longest)
    array = _as_integers("lengths", lengths)
    if array.shape != (n,):
        raise InputError("lengths", f"must have one entry per sequence ({n})", got=f"shape {array.shape}")
    bad = np.flatnonzero((array < 1) | (array > longest))
    if bad.size:
        raise InputError("lengths", f"must be in 1..{longest}", got=f"{array[bad[0]]} for sequence {bad[0]}")
    return array.astype(np.intp)


def chain_log_partition(
    unary: ArrayLike,
    pairwise: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Floats:
    """log Z = log sum_Y e^{F(Y)} by the forward recursion.

    Parameters
    ----------
    unary : (L, K), or (B, L, K) padded, of any value, beyond each length
    pairwise : (K, K), row = left label
    lengths : (B,) in 1..L; all L by default
    start, end : (K,) potentials of the first and the last label; none by default

    Returns
    -------
    scalar, or (B,)

    Raises
    ------
    InputError
        for shapes that do not fit, NaN, +inf, a position without an allowed label, a sequence without a labeling.

    >>> float(chain_log_partition(np.zeros((3, 2)), np.zeros((2, 2))).round(6))
    2.079442
    """
    batch = ChainBatch(unary, pairwise, lengths, start, end)
    return batch.per_sequence(posterior(batch.unary, batch.pairwise, batch.packing).log_partition)


def chain_marginals(
    unary: ArrayLike,
    pairwise: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> ChainMarginals:
    """Node and edge marginals, the gradient of log Z in U and (summed over edges) in W.

    Arguments and errors as `chain_log_partition`; derivation in docs/derivations/chain-marginals.md.

    >>> chain_marginals(np.log([[1.0, 3.0]]), np.zeros((2, 2))).node
    array([[0.25, 0.75]])
    """
    batch = ChainBatch(unary, pairwise, lengths, start, end)
    result = posterior(batch.unary, batch.pairwise, batch.packing)
    k = len(batch.pairwise)
    edge = np.empty((len(batch.packing.right), k, k), dtype=batch.unary.dtype)
    for here, _, block in result.edges():
        edge[here.start - len(batch.packing) : here.stop - len(batch.packing)] = block.transpose(2, 0, 1)
    return ChainMarginals(
        freeze(batch.pad(result.node.T.astype(batch.unary.dtype, copy=False))),
        freeze(batch.pad(edge, drop_last=True)),
        batch.per_sequence(result.log_partition),
    )


def chain_viterbi(
    unary: ArrayLike,
    pairwise: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Ints:
    """The labeling of largest score, argmax_Y F(Y), by the max-sum recursion.

    Arguments and errors as `chain_log_partition`. Returns (L,), or (B, L) with -1 in the padding. Among equal
    scores the smaller label wins, from the last position backwards. For loss-augmented decoding pass the potentials
    of `objectives.loss_augmented`.

    >>> chain_viterbi(np.array([[0.0, 1.0], [0.4, 0.0]]), np.array([[0.0, 0.0], [0.0, 1.0]]))
    array([1, 1])
    """
    batch = ChainBatch(unary, pairwise, lengths, start, end)
    return batch.pad(decode(batch.unary, batch.pairwise, batch.packing), -1)


def chain_sample(
    unary: ArrayLike,
    pairwise: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
    rng: RNGLike = None,
) -> Ints:
    """One exact sample from P(Y) per sequence: forward filtering, backward sampling.

    Arguments and errors as `chain_log_partition`. Returns (L,), or (B, L) with -1 in the padding.

    >>> chain_sample(np.array([[0.0, -np.inf]] * 3), np.zeros((2, 2)), rng=0)
    array([0, 0, 0])
    """
    batch = ChainBatch(unary, pairwise, lengths, start, end)
    return batch.pad(decode(batch.unary, batch.pairwise, batch.packing, rng=as_rng(rng)), -1)


def chain_score(
    unary: ArrayLike,
    pairwise: ArrayLike,
    labels: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Floats:
    """F(Y) of given labels, a scalar or (B,); ``labels`` (L,) or (B, L), the rest as in `chain_log_partition`.

    >>> float(chain_score(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 10.0], [20.0, 0.0]]), [1, 0]))
    25.0
    """
    batch = ChainBatch(unary, pairwise, lengths, start, end)
    return batch.per_sequence(score(batch.unary, batch.pairwise, batch.pack_labels(labels), batch.packing))
