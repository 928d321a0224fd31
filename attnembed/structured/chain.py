"""Exact inference in linear chains: log-partition, marginals, Viterbi, sampling; batched over sequences of any length.

The score of a labeling Y of a chain of length L is F(Y) = sum_i U[i, y_i] + sum_i W[y_i, y_{i+1}] with log-potentials
U (L, K) and W (K, K), and P(Y) = e^{F(Y)} / Z. Potentials may be -inf (forbidden).

Sums over labelings are in `forward_backward`; this module has maxima, samples and the public functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed._typing import Floats, Ints
from attnembed._validation import RNGLike, as_array, as_rng, check_shape, freeze
from attnembed.errors import InputError, InputTypeError
from attnembed.results import Record
from attnembed.structured.constraints import add_ends
from attnembed.structured.forward_backward import (
    Posterior,
    log_partition,
    no_labeling,
    posterior,
    reduced,
    relative,
)
from attnembed.structured.long_chains import Blocks, LogEnds, cut, largest_moved, walk
from attnembed.structured.packing import Packing, short_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


# Rounding a score of this size in single precision costs 2e-6. The errors decide only between labelings whose scores
# differ by less than their sum, which over this many positions stays below the rounding of a potential or two.
_LARGEST_IN_SINGLE = 64.0
_LONGEST_IN_SINGLE = 128

# The cost of one sum and maximum, in multiplications.
_MAX_WORK = 8.0


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


@short_rows
def decode(unary: Floats, pairwise: Floats, packing: Packing, *, rng: np.random.Generator | None = None) -> Ints:
    """The labeling with the largest score, (N,) in packed order; with ``rng`` a sample from P(Y) instead.

    Both walk back from the last position: y_i maximises message[k, i] + W[k, y_{i+1}], where the message is the
    max-sum one, or the sum-product one with Gumbel noise added, whose maximiser is a draw from the softmax. No back
    pointers are stored: one argmax per position costs K, not K^2.
    """
    blocks = cut(packing, len(pairwise), _MAX_WORK if rng is None else 1.0)
    if rng is None:
        message = _best_prefixes(unary, pairwise, packing, blocks)
    else:
        p = posterior(unary, pairwise, packing)
        with np.errstate(divide="ignore"):
            message = p.before if p.log_node is not None else np.log(p.before)
        message = message + rng.gumbel(size=message.shape)
        if blocks is not None:
            message = blocks.gather(message)
    final = packing.last if blocks is None else blocks.inner.last[blocks.inner.rank_of[blocks.outer.last]]
    dead = np.flatnonzero(message[:, final].max(axis=0) == -np.inf)
    if dead.size:
        raise no_labeling(int(packing.order[dead[0]]))
    return _walk(message, pairwise, packing) if blocks is None else blocks.scatter(walk(message, pairwise, blocks))


def _walk(message: Floats, pairwise: Floats, packing: Packing) -> Ints:
    """Labels (N,), from the last position of each sequence backwards: the first maximisers of message + W[:, next]."""
    offsets, labels, by_right = packing.offsets.tolist(), np.empty(message.shape[1], dtype=np.intp), pairwise.T.copy()
    end, follow = offsets[-1], labels[:0]
    for begin in reversed(offsets[:-1]):
        # Rows, so that the argmax over labels reads contiguous memory.
        here = message[:, begin:end].T.copy()
        # Sequences that continue come first; the others end here and use the message itself.
        here[: len(follow)] += by_right[follow]
        end, follow = begin, labels[begin:end]
        here.argmax(axis=1, out=follow)
    return labels


def _best_prefixes(unary: Floats, pairwise: Floats, packing: Packing, blocks: Blocks | None = None) -> Floats:
    """Score of the best prefix that ends in each label, up to a constant per position, (K, N); in the order of blocks.

    The constants are subtracted as the scores grow, so that rounding errors do not grow with the length.
    """
    dtype = max_sum_dtype(unary, pairwise, packing)
    _, columns = relative(np.ascontiguousarray(unary.T, dtype=dtype))
    w = pairwise.astype(dtype, copy=False)
    w = w - max(w.max(), np.finfo(dtype).min)
    if blocks is not None:
        packing, columns = blocks.inner, blocks.gather(columns)
        ends = LogEnds(columns, w, blocks, np.maximum.reduce, largest_moved)
        columns[:, : len(packing)] += ends.arriving
    message = columns  # in place: each position is read before it is written
    for t, (here, left) in enumerate(packing.steps()):
        now = message[:, here]
        now += reduced(message[:, left], w, np.maximum.reduce)
        if t % 8 == 7:
            now -= now.max(axis=0, initial=np.finfo(dtype).min)
    return message


def max_sum_dtype(unary: Floats, pairwise: Floats, packing: Packing) -> Any:
    """The precision for finding the best labeling: single only for short chains with small scores."""
    short = unary.dtype == np.float32 and len(packing.offsets) - 1 <= _LONGEST_IN_SINGLE
    small = short and all(largest(values) <= _LARGEST_IN_SINGLE for values in (unary, pairwise))
    return np.float32 if small else np.float64


def largest(values: Floats) -> float:
    """Largest magnitude of the finite entries."""
    low, high = float(values.min()), float(values.max())
    if low == -np.inf:
        low = float(np.min(values, where=values > -np.inf, initial=0.0))
    return max(-low, high)


# --- public functions: one sequence (L, K) or a padded batch (B, L, K) ------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class ChainMarginals(Record):
    """Marginals of a chain; for a batch every array has a leading axis and is zero in the padding.

    Attributes
    ----------
    node : (L, K) P(y_i = k)
    edge : (L-1, K, K) P(y_i = k, y_{i+1} = l), formed on first access
    log_partition : log Z
    """

    node: Floats
    log_partition: Floats
    _lengths: Ints
    _messages: tuple[Floats, Floats, Floats]  # the factors of an edge's probability, as in `Posterior`
    _in_logarithms: bool

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw P(y_i = k) of one chain as tiles, on new axes where none are given; returns the axes."""
        from attnembed import figures

        return figures.plot_marginals(self.node, ax=ax)

    @cached_property
    def edge(self) -> Floats:
        before, transition, after = self._messages
        logarithms = before if self._in_logarithms else None
        p = Posterior(Packing(self._lengths), self.log_partition, before, before, transition, after, logarithms)
        n, k = len(p.packing), len(transition)
        edge = np.empty((len(before[0]) - n, k, k), dtype=self.node.dtype)
        for here, _, block in p.edges():
            block = block / block.sum(axis=(0, 1), dtype=np.float64)
            edge[here.start - n : here.stop - n] = block.transpose(2, 0, 1)
        single = self.node.ndim == 2
        return freeze(_padded(edge, p.packing, self.node.shape[-2], single=single, drop_last=True))


class ChainBatch:
    """Checked potentials in packed order, and the conversion back to the caller's layout."""

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

    def pad(self, values: NDArray[Any], fill: float = 0) -> NDArray[Any]:
        """Packed rows (N, ...) as (B, L, ...), ``fill`` in the padding; without the batch axis for one sequence."""
        return _padded(values, self.packing, self.longest, single=self.single, fill=fill)

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


def _padded(
    values: NDArray[Any], packing: Packing, longest: int, *, single: bool, fill: float = 0, drop_last: bool = False
) -> NDArray[Any]:
    """Packed rows of positions or edges as (B, L, ...) or (B, L-1, ...)."""
    if len(packing) == 1 and len(values) == longest - drop_last:
        return values if single else values[None]
    out = np.full((len(packing), longest - drop_last, *values.shape[1:]), fill, dtype=values.dtype)
    place = packing.left if drop_last else slice(None)
    out[packing.sequence[place], packing.time[place]] = values
    return out[0] if single else out


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
    """Compute log Z = log sum_Y e^{F(Y)} by the forward recursion.

    Parameters
    ----------
    unary : (L, K), or (B, L, K) with padding of any value beyond each length
    pairwise : (K, K), row = left label
    lengths : (B,) in 1..L; all L by default
    start, end : (K,) potentials of the first and the last label; none by default

    Returns
    -------
    scalar, or (B,)

    Raises
    ------
    InputError
        for shapes that do not match, NaN, +inf, a position without an allowed label, or a sequence without a labeling.

    >>> float(chain_log_partition(np.zeros((3, 2)), np.zeros((2, 2))).round(6))
    2.079442
    """
    batch = ChainBatch(unary, pairwise, lengths, start, end)
    return batch.per_sequence(log_partition(batch.unary, batch.pairwise, batch.packing))


def chain_marginals(
    unary: ArrayLike,
    pairwise: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> ChainMarginals:
    """Node and edge marginals, the gradient of log Z in U and (summed over edges) in W.

    Edge marginals take K times the memory of everything else; they are formed on first access to ``.edge``.

    Arguments and errors as in `chain_log_partition`; derivation in docs/derivations/chain-marginals.md.

    >>> chain_marginals(np.log([[1.0, 3.0]]), np.zeros((2, 2))).node
    array([[0.25, 0.75]])
    """
    batch = ChainBatch(unary, pairwise, lengths, start, end)
    result = posterior(batch.unary, batch.pairwise, batch.packing)
    node = result.node.T / result.node.sum(axis=0, dtype=np.float64)[:, None]
    padded = freeze(batch.pad(node.astype(batch.unary.dtype, copy=False)))
    messages = freeze(result.before), freeze(result.transition.copy()), freeze(result.after)
    log_z = batch.per_sequence(result.log_partition)
    return ChainMarginals(padded, log_z, batch.packing.lengths, messages, result.log_node is not None)


def chain_viterbi(
    unary: ArrayLike,
    pairwise: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Ints:
    """The labeling with the largest score, argmax_Y F(Y), by the max-sum recursion.

    Arguments and errors as in `chain_log_partition`. Returns (L,), or (B, L) with -1 in the padding. Among equal
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
    """Draw one exact sample from P(Y) per sequence: forward filtering, backward sampling.

    Arguments and errors as in `chain_log_partition`. Returns (L,), or (B, L) with -1 in the padding.

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
