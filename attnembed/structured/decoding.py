"""Labelings of a chain besides the best one: the k best, and the most probable label at each position.

`chain_k_best` keeps k prefixes per label where Viterbi keeps one (Schwartz, Chow, ICASSP 1990). Posterior decoding
needs the marginals only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed._typing import Floats, Ints
from attnembed._validation import check_integer, freeze
from attnembed.results import Record
from attnembed.structured.chain import ChainBatch, score
from attnembed.structured.forward_backward import no_labeling, posterior

__all__ = ["ChainBest", "chain_k_best", "chain_posterior_decode"]

# Number of entries of the temporary with all continuations of the prefixes of some sequences.
_CACHED = 2**20


@dataclass(frozen=True, eq=False, repr=False)
class ChainBest(Record):
    """The k best labelings, best first; for a batch both arrays have a leading axis.

    Attributes
    ----------
    labels : (k, L), -1 in the padding and for labelings that do not exist
    scores : (k,) F(Y) of each, non-increasing; -inf for labelings that do not exist

    >>> ChainBest(np.array([[0, 1]]), np.array([2.0]))
    ChainBest(labels=array(1, 2), scores=array(1,))
    """

    labels: Ints
    scores: Floats


def chain_k_best(
    unary: ArrayLike,
    pairwise: ArrayLike,
    k: int,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> ChainBest:
    """The k labelings with the largest scores F(Y), all different, best first.

    Ties are broken by the smaller label, compared from the last position backwards, so that the first labeling is that
    of `chain_viterbi`. Scores that differ only by rounding may come in either order.

    Parameters
    ----------
    k : number of labelings, at least 1
    unary, pairwise, lengths, start, end : as in `chain_log_partition`

    Returns
    -------
    `ChainBest`: ``labels`` (k, L) and ``scores`` (k,), or (B, k, L) and (B, k). P(Y) is e^(score - log Z)

    Raises
    ------
    InputError
        for k < 1, and as for `chain_log_partition`.

    >>> best = chain_k_best([[0.0, 1.0], [0.5, 0.0]], np.zeros((2, 2)), 3)
    >>> best.labels
    array([[1, 0],
           [1, 1],
           [0, 0]])
    >>> best.scores
    array([1.5, 1. , 0.5])
    """
    number = check_integer("k", k, minimum=1)
    batch = ChainBatch(unary, pairwise, lengths, start, end)
    packing, n_labels = batch.packing, len(batch.pairwise)
    n, longest = len(packing), int(packing.lengths.max())
    padded = np.zeros((n, longest, n_labels))
    padded[packing.sequence, packing.time] = batch.unary
    labels = np.full((n, number, longest), -1)
    step = max(1, _CACHED // (n_labels * n_labels * number))
    for first in range(0, n, step):
        rows = slice(first, first + step)
        labels[rows] = _best(padded[rows], batch.pairwise.astype(np.float64), packing.lengths[rows], number)
    missing = labels[:, :, 0] < 0
    if missing[:, 0].any():
        raise no_labeling(int(np.flatnonzero(missing[:, 0])[0]))
    scores = np.empty((n, number))
    for place in range(number):
        known = np.maximum(labels[packing.sequence, place, packing.time], 0)
        scores[:, place] = score(batch.unary, batch.pairwise, known, packing)
    scores[missing] = -np.inf
    # The prefixes were compared by separately rounded sums; the result is in the order of the scores.
    order = np.argsort(-scores, axis=1, kind="stable")
    scores = np.take_along_axis(scores, order, axis=1)
    labels = np.take_along_axis(labels, order[:, :, None], axis=1)
    out = np.full((n, number, batch.longest), -1)
    out[:, :, :longest] = labels
    return ChainBest(freeze(out[0] if batch.single else out), freeze(scores[0] if batch.single else scores))


def _best(unary: Floats, pairwise: Floats, lengths: Ints, number: int) -> Ints:
    """Labels (b, number, L) of padded sequences (b, L, K), -1 where there are none."""
    b, longest, n_labels = unary.shape
    scores = np.full((b, n_labels, number), -np.inf)
    scores[:, :, 0] = unary[:, 0]
    back = np.empty((longest, b, n_labels, number), dtype=np.intp)  # label * number + rank of the prefix before
    for t in range(1, longest):
        # Prefixes by label, then by rank: a stable sort keeps equal ones in the order of their labels.
        candidates = (scores[:, :, :, None] + pairwise[:, None, :]).reshape(b, n_labels * number, n_labels)
        values, chosen = _largest(candidates.transpose(0, 2, 1), number)
        values = values + unary[:, t, :, None]
        goes_on = lengths > t
        scores[goes_on], back[t] = values[goes_on], chosen
        top = scores.max(axis=(1, 2), keepdims=True)
        scores -= np.where(top > -np.inf, top, 0.0)  # constants, so that rounding does not grow with the length
    values, place = _largest(scores.reshape(b, -1), number)
    labels = np.full((b, number, longest), -1)
    sequence = np.arange(b)[:, None]
    for t in range(longest - 1, -1, -1):
        inside = (lengths > t)[:, None]
        label, rank = np.divmod(place, number)
        labels[:, :, t] = np.where(inside & (values > -np.inf), label, -1)
        if t:
            place = np.where(inside, back[t][sequence, label, rank], place)
    return labels


def _largest(values: Floats, number: int) -> tuple[Floats, NDArray[np.intp]]:
    """The largest entries of the last axis, best first and equal ones as they stand, and their places."""
    chosen = np.argsort(-values, axis=-1, kind="stable")[..., :number]
    return np.take_along_axis(values, chosen, axis=-1), chosen


def chain_posterior_decode(
    unary: ArrayLike,
    pairwise: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Ints:
    """The most probable label at each position, argmax_k P(y_i = k): max-marginal (posterior) decoding.

    No labeling has a smaller expected number of wrong labels, whereas that of `chain_viterbi` is the most probable as a
    whole. Labels are chosen independently: a pair of neighbours may be forbidden. Among equal marginals the smaller
    label wins, up to rounding.

    Arguments and errors as in `chain_log_partition`. Returns (L,), or (B, L) with -1 in the padding.

    >>> U, W = np.zeros((2, 2)), np.log([[0.36, 0.04], [0.3, 0.3]])  # P(y_1, y_2)
    >>> chain_posterior_decode(U, W)  # the best labeling is (0, 0)
    array([1, 0])
    """
    batch = ChainBatch(unary, pairwise, lengths, start, end)
    node = posterior(batch.unary, batch.pairwise, batch.packing).node
    return batch.pad(np.asarray(node.argmax(axis=0), dtype=np.intp), -1)
