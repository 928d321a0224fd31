"""Gibbs distributions over segments: softmax, log-partition, mode, and the expectation of values with its derivative.

A *segment* is one sequence of a ragged batch, stored as in a CSR matrix: segment i owns the positions
``indptr[i]:indptr[i+1]`` of every flat array. Position k has a score u_k, a multiplicity m_k > 0 and a probability

    a_k = m_k e^{u_k} / Z_i,      Z_i = sum over the segment of m_k e^{u_k}.

Both subjects of the package are of this form: tokens of a sequence with scores E p, and labelings with scores F(Y|X).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from attnembed._typing import Floats, Ints
from attnembed._validation import freeze
from attnembed.results import Record

__all__ = ["AnchoredSoftmax", "Segments", "cross_entropy", "log_partition", "mode", "probabilities"]


_LONG = 2**14  # positions

# exp(x) is zero below about -745; a difference of scores beyond this is as good as minus infinity.
_LOWEST_EXPONENT = -745.0


@dataclass(frozen=True, eq=False, repr=False)
class Segments(Record):
    """The layout of a ragged batch: ``indptr`` (n+1,), no segment empty.

    >>> Segments(np.array([0, 2, 5])).ids
    array([0, 0, 1, 1, 1])
    """

    indptr: Ints

    @cached_property
    def ids(self) -> Ints:
        """The segment of each position, (N,)."""
        return freeze(np.repeat(np.arange(len(self)), np.diff(self.indptr)))

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def sum(self, x: NDArray[Any]) -> NDArray[Any]:
        """Sum over each segment, (N,) -> (n,)."""
        return np.add.reduceat(x, self.indptr[:-1])

    def max(self, x: Floats) -> Floats:
        """Maximum over each segment, (N,) -> (n,)."""
        return np.maximum.reduceat(x, self.indptr[:-1])

    def spread(self, x: NDArray[Any]) -> NDArray[Any]:
        """Give each position its segment's value, (n,) -> (N,)."""
        # Short ones by their ids, which are kept; repeating takes half the time where there is much to write.
        return x[self.ids] if self.indptr[-1] < _LONG else np.repeat(x, np.diff(self.indptr), axis=0)

    def argmax(self, x: Floats) -> Ints:
        """Position of the first maximum of each segment, (N,) -> (n,)."""
        # "Not below the maximum" instead of "equal to it", so that a segment with NaN still has a position.
        candidates = np.flatnonzero(~(x < self.spread(self.max(x))))
        owner = self.ids[candidates]
        return candidates[np.r_[True, owner[1:] != owner[:-1]]]


def log_partition(scores: Floats, segments: Segments, multiplicity: Floats) -> Floats:
    """log Z_i = log sum m_k e^{u_k} per segment, (N,) -> (n,), with each segment shifted by its own maximum.

    >>> log_partition(np.array([1000.0, 1000.0]), Segments(np.array([0, 2])), np.ones(2)).round(6)
    array([1000.693147])
    """
    top = segments.max(scores)
    value: Floats = top + np.log(segments.sum(multiplicity * np.exp(scores - segments.spread(top))))
    return value


def probabilities(scores: Floats, segments: Segments, multiplicity: Floats) -> Floats:
    """a_k = m_k e^{u_k} / Z_i, (N,) -> (N,), in [0, 1], summing to one over each segment.

    >>> probabilities(np.array([0.0, 0.0, 5.0]), Segments(np.array([0, 2, 3])), np.array([1.0, 3.0, 1.0]))
    array([0.25, 0.75, 1.  ])
    """
    weight = multiplicity * np.exp(scores - segments.spread(segments.max(scores)))
    value: Floats = weight / segments.spread(segments.sum(weight))
    return value


def mode(scores: Floats, segments: Segments) -> Ints:
    """The zero-temperature limit: position of the (first) largest score of each segment, (N,) -> (n,).

    >>> mode(np.array([0.0, 2.0, 2.0, -1.0]), Segments(np.array([0, 3, 4])))
    array([1, 3])
    """
    return segments.argmax(scores)


class AnchoredSoftmax:
    """Expectation f_i = sum a_k g_k over each segment and its derivative in the scores, exact at saturation.

    d f_i / d u_k = a_k (g_k - f_i). When one position m takes all the probability, g_m - f_i loses all digits.
    Here the most probable position m of each segment is the *anchor*: with D_k = g_k - g_m (zero at the anchor),

        f_i - g_m = sum_k a_k D_k =: delta_i,        g_k - f_i = D_k - delta_i,

    so that at the anchor the difference is -delta_i, a sum of small terms instead of a difference of large ones. (The
    anchor is the position with the mass, not with the largest value or score: otherwise D_k - delta_i would cancel
    where the mass is. Derived in docs/numerics.md.)

    Parameters
    ----------
    scores, values, multiplicity : (N,) u_k, g_k, m_k
    segments : the layout

    Attributes
    ----------
    probability : (N,) a_k
    expectation : (n,) f_i
    centred : (N,) g_k - f_i
    anchor : (n,) the most probable positions, m_k e^{u_k} largest

    >>> soft = AnchoredSoftmax(np.array([0.0, -800.0]), np.array([1.0, -1.0]), np.ones(2), Segments(np.array([0, 2])))
    >>> derivative, log_scale = soft.sensitivity()
    >>> derivative, log_scale  # the derivative is (2, -2) e^{-800}
    (array([ 2., -2.]), -800.0)
    """

    def __init__(self, scores: Floats, values: Floats, multiplicity: Floats, segments: Segments) -> None:
        self.segments = segments
        self._exponent = scores - segments.spread(segments.max(scores))
        self._multiplicity = multiplicity
        weight = multiplicity * np.exp(self._exponent)
        self.anchor = segments.argmax(weight)
        self._difference = values - segments.spread(values[self.anchor])
        self._partition = segments.sum(weight)
        self.probability = weight / segments.spread(self._partition)
        self._delta = segments.sum(self.probability * self._difference)
        self.expectation = values[self.anchor] + self._delta

    @property
    def centred(self) -> Floats:
        """g_k - f_i, (N,), with the anchor's entry free of cancellation."""
        value: Floats = self._difference - self.segments.spread(self._delta)
        return value

    def sensitivity(self, log_weight: Floats | None = None) -> tuple[Floats, float]:
        """w_i a_k (g_k - f_i) for segment weights w_i = e^{log_weight_i}, as (array, log_scale).

        The product is ``array * exp(log_scale)``. The scale is the largest log-magnitude of the terms, so that
        neither probabilities nor weights underflow, however large the scores are.
        """
        exponent = self._exponent
        if log_weight is not None:
            exponent = exponent + self.segments.spread(log_weight)
        # Positions with the anchor's value, including the anchor itself, contribute no term.
        active = self._difference != 0
        log_scale = float(np.max(exponent, where=active, initial=-np.inf))
        if log_scale == -np.inf:
            return np.zeros_like(self.probability), 0.0
        power = np.where(active, exponent - log_scale, _LOWEST_EXPONENT - 1)
        term = self._multiplicity * np.exp(power) * self._difference / self.segments.spread(self._partition)
        return term - self.probability * self.segments.spread(self.segments.sum(term)), log_scale


def cross_entropy(logits: Floats, labels: NDArray[np.integer[Any]]) -> tuple[Floats, Floats]:
    """-log softmax(u)_y = log(1 + r), r = sum over k != y of e^{u_k - u_y}, and its gradient softmax(u) - onehot(y).

    Neither is a difference of nearly equal numbers: the loss is log1p of the rivals' mass, and the gradient at y is
    minus the sum of the others, so that both keep their digits however certain the label is (docs/numerics.md).

    Parameters
    ----------
    logits : (..., K) u, finite or -inf; that of the label finite
    labels : (...) y in 0..K-1

    Returns
    -------
    losses (...) >= 0 and gradient (..., K), neither summed nor averaged. For single-precision logits the losses are in
    double precision where a rival's mass is below the single range.

    >>> loss, gradient = cross_entropy(np.array([[40.0, 0.0]]), np.array([0]))
    >>> float(loss[0]), gradient[0].tolist()
    (4.248354255291589e-18, [-4.248354255291589e-18, 4.248354255291589e-18])
    """
    k = logits.shape[-1]
    rows, own = logits.reshape(-1, k), labels.reshape(-1)
    if k == 2:  # one logistic function
        second, lead = own == 1, rows[:, 1] - rows[:, 0]
        lead = np.where(second, lead, -lead)
        loss = np.asarray(-log_expit(lead))
        rival = expit(-lead)
        gradient = np.empty_like(rows, order="C")
        gradient[:, 1] = np.where(second, -rival, rival)
        np.negative(gradient[:, 1], out=gradient[:, 0])
    else:
        top, index = rows.max(axis=1), np.arange(len(own))
        gap = top - rows[index, own]
        gradient = np.subtract(rows, top[:, None], order="C")
        np.exp(gradient, out=gradient)
        weight = gradient[index, own]
        gradient[index, own] = 0
        rivals = gradient.sum(axis=1)
        # Without a gap the weight is 1; with one the rivals weigh at least 1: nothing cancels in either case.
        loss = gap + np.log1p(rivals + (weight - 1))
        gradient[index, own] = -rivals
        gradient /= (rivals + weight)[:, None]
    if logits.dtype == np.float32 and k > 1 and np.min(loss, initial=1.0) < np.finfo(np.float32).tiny:
        loss, gradient = cross_entropy(logits.astype(np.float64), labels)
        return loss, gradient.astype(np.float32)
    return loss.reshape(labels.shape), gradient.reshape(logits.shape)
