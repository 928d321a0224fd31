"""The passes of the one-layer softmax classifier: loss, gradients and Hessian from token counts.

Everything follows from two matrix-vector products, u = E p and g = E v, and a few passes over the nonzero counts; no
(n, T, d) array is ever formed. With s_i = sigma(-y_i f_i) and c_i = y_i s_i / n (derivation: docs/derivations):

    A_s = sum_i c_i a_is,   B_s = sum_i c_i a_is (g_s - f_i),   sum_s B_s = 0,
    grad_{E_s} L = -(A_s v + B_s p),   grad_p L = -E^T B,   grad_v L = -E^T A.

There are three forms of the same sums; `TokenPasses` uses the cheapest that is accurate:
  - plain: e = exp(u) once per token, two passes over the counts. The textbook difference g_s - f_i loses all digits
    when one token takes all the attention, which shows in the result: B is then small relative to its terms;
  - anchored: the same two passes, with each sequence's top entry kept apart (`_AnchoredCounts`);
  - row by row (`AnchoredPass`): scores that overflow e are shifted by each sequence's own maximum, at ten times the
    cost. It also has the second derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from attnembed._sparse import with_values
from attnembed._typing import Floats, Ints
from attnembed.attention.data import TokenDataset
from attnembed.attention.parameters import check_scores
from attnembed.attention.products import count_product, two_columns
from attnembed.gibbs import AnchoredSoftmax
from attnembed.losses import Loss, logistic
from attnembed.results import Record

__all__ = [
    "AnchoredPass",
    "TokenPasses",
    "TokenSums",
    "is_wide",
    "loss_gap",
    "token_outputs",
    "token_sums",
    "uniform_sums",
]


# The rounding of the plain form is below 1e-15 L ptp(g); above this multiple of L ptp(g) the sum
# of |B| is right to 1e-12 of itself.
_SMALLEST_SHARE = 1e-3

# While the scores and the values span no more than this, neither e^u nor 1/Z nor sigma leaves the range of float64.
_LINEAR_SPAN = 600.0

# An anchor is kept while it has this much of the attention (among many tokens, half the least share of a mode): the
# attention of every other token then stays away from one, and g_s - f_i keeps all but three digits.
_SMALLEST_ANCHOR = 1e-3

# Values within this share of the range of the anchor's value count as almost equal to it.
_NEAR = 1e-2


@dataclass(frozen=True, eq=False, repr=False)
class TokenSums(Record):
    """Loss, outputs f (n,) and the factors A, B (V,) of all gradients; ``B`` is ``scaled_B * exp(log_scale)``."""

    loss: float
    output: Floats
    A: Floats
    scaled_B: Floats
    log_scale: float = 0.0

    @property
    def B(self) -> Floats:
        """B_s = sum_i c_i a_is (g_s - f_i), (V,)."""
        value: Floats = self.scaled_B * np.exp(self.log_scale)
        return value


def token_sums(data: TokenDataset, token_scores: Floats, token_values: Floats, loss: Loss = logistic) -> TokenSums:
    """The factors A and B for scores u = E p and values g = E v, (V,) each, by the cheapest accurate form."""
    return TokenPasses(data, loss).sums(token_scores, token_values)


def token_outputs(
    data: TokenDataset, token_scores: Floats, token_values: Floats, loss: Loss = logistic
) -> tuple[float, Floats]:
    """The loss and the outputs f (n,) alone, at half the cost of `token_sums`."""
    u, g = token_scores, token_values
    if is_wide(u, g):
        sums = AnchoredPass(data, u, g, loss).sums
        return sums.loss, sums.output
    f = _plain_outputs(data, u, g)[0]
    return _loss_factors(data, f, loss)[0], f


def uniform_sums(data: TokenDataset, token_values: Floats, loss: Loss = logistic) -> TokenSums:
    """`token_sums` where all scores are 0, without B, which is set to 0: it enters the gradients of E with p = 0.

    Then Z is the length, and each product has one column instead of two.
    """
    if is_wide(np.zeros(1), token_values):
        return AnchoredPass(data, np.zeros_like(token_values), token_values, loss).sums
    _, h, centre = _token_factors(np.zeros(1), token_values)
    f = data.counts @ h / data.lengths + centre
    value, c = _loss_factors(data, f, loss)
    return TokenSums(value, f, data.counts_transposed @ (c / data.lengths), np.zeros_like(token_values))


class TokenPasses:
    """`token_sums` for many scores on one data set; the anchors are kept from call to call while they serve."""

    def __init__(self, data: TokenDataset, loss: Loss = logistic) -> None:
        self.data, self.loss = data, loss
        self._anchored: _AnchoredCounts | None = None

    def sums(self, u: Floats, g: Floats) -> TokenSums:
        """The factors A and B for scores u = E p and values g = E v, (V,) each."""
        if is_wide(u, g):
            return AnchoredPass(self.data, u, g, self.loss).sums
        if self._anchored is not None and (sums := self._anchored.sums(u, g)) is not None:
            return sums
        sums = _plain_sums(self.data, u, g, self.loss)
        if np.abs(sums.scaled_B).sum() < _SMALLEST_SHARE * self._size(sums) * np.ptp(g):
            self._anchored = _AnchoredCounts(self.data, u, g, self.loss)
            sums = self._anchored.sums(u, g) or sums
        return sums

    def _size(self, sums: TokenSums) -> float:
        """A bound on sum |c_i| = mean_i -l'(y_i f_i), within a small factor: the logistic loss itself is one."""
        if self.loss is logistic:
            return sums.loss
        return float(-np.mean(self.loss.derivative(self.data.labels * sums.output)))


def is_wide(u: Floats, g: Floats) -> bool:
    """Whether scores and values span so much that each sequence needs a maximum of its own."""
    # In Python's floats, which overflow silently.
    wide = float(u.max()) - float(u.min()) + float(np.abs(g).max()) > _LINEAR_SPAN
    if wide:
        check_scores(u, g)  # differences of finite scores overflow, too
    return wide


def _plain_outputs(data: TokenDataset, u: Floats, g: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """f = C(e g)/Z, Z = C e, f without the centre, e = exp(u - max u), and g without the centre."""
    e, h, centre = _token_factors(u, g)
    Z, N = count_product(data.counts_csc, two_columns(e, e * h)).T
    q = N / Z
    return q + centre, Z, q, e, h


def _plain_sums(data: TokenDataset, u: Floats, g: Floats, kind: Loss = logistic) -> TokenSums:
    """Z = C e, f = C(e g)/Z, A = e C^T(c/Z), B = e (g C^T(c/Z) - C^T(c f/Z)), e = exp(u - max u)."""
    f, Z, q, e, h = _plain_outputs(data, u, g)
    loss, c = _loss_factors(data, f, kind)
    r = c / Z
    S, Q = count_product(data.counts_transposed, two_columns(r, r * q)).T
    return TokenSums(loss, f, e * S, e * (h * S - Q))


class _AnchoredCounts:
    """The counts without the entries from which the sums of each sequence are measured.

    The anchor m of a sequence is its mode when the object was made. With Z' and N' the plain sums over the entries s
    that stay and D_s = g_s - g_m on those taken out (the anchor, D = 0, and tokens of almost its value),

        Z = Z' + sum n_s e_s,   delta = (N' - g_m Z' + sum n_s e_s D_s) / Z,   f = g_m + delta,

    the entries that stay contribute to B as in the plain form, the others c a_s (D_s - delta): no difference cancels.
    """

    def __init__(self, data: TokenDataset, u: Floats, g: Floats, loss: Loss = logistic) -> None:
        self.loss = loss
        columns, ids, counts = data.counts.indices, data.segments.ids, data.counts.data
        self.data, self.g = data, g.copy()
        mode = data.segments.argmax(u[columns] + np.log(counts))
        self.anchor, self.anchor_count = columns[mode], counts[mode]
        self.smallest = np.minimum(_SMALLEST_ANCHOR, 0.5 / np.diff(data.segments.indptr))
        difference = g[columns] - g[self.anchor][ids]
        out = np.flatnonzero(np.abs(difference) <= _NEAR * np.ptp(g))
        self.token, self.row, self.count, self.difference = columns[out], ids[out], counts[out], difference[out]
        # Zeros are stored in their place, so the layout, and with it the speed, is that of the counts.
        rest = counts.copy()
        rest[out] = 0
        remaining = with_values(data.counts, rest)
        self.counts_csc, self.counts_transposed = remaining.tocsc(), remaining.T

    def sums(self, u: Floats, g: Floats) -> TokenSums | None:
        """The same sums; None where the values have changed, or where an anchor has lost its attention."""
        if not np.array_equal(g, self.g):
            return None
        data = self.data
        e, h, centre = _token_factors(u, g)
        Z, N = count_product(self.counts_csc, two_columns(e, e * h)).T
        out = self.count * e[self.token]
        base = h[self.anchor]
        N = N - base * Z + np.bincount(self.row, weights=out * self.difference, minlength=data.n_samples)
        Z = Z + np.bincount(self.row, weights=out, minlength=data.n_samples)
        if (self.anchor_count * e[self.anchor] < self.smallest * Z).any():
            return None
        delta = N / Z
        q = base + delta
        f = q + centre
        loss, c = _loss_factors(data, f, self.loss)
        r = c / Z
        S, Q = count_product(self.counts_transposed, two_columns(r, r * q)).T
        A, B = e * S, e * (h * S - Q)
        out *= r[self.row]
        A += np.bincount(self.token, weights=out, minlength=A.size)
        B += np.bincount(self.token, weights=out * (self.difference - delta[self.row]), minlength=B.size)
        return TokenSums(loss, f, A, B)


def _token_factors(u: Floats, g: Floats) -> tuple[Floats, Floats, float]:
    """e = exp(u - max u), h = g - centre and the centre; shifting g leaves B unchanged and makes its terms smaller."""
    centre = 0.5 * float(g.max() + g.min())
    return np.exp(u - u.max()), g - centre, centre


def _loss_factors(data: TokenDataset, f: Floats, kind: Loss) -> tuple[float, Floats]:
    """The loss and c_i = -(y_i/n) l'(y_i f_i), (n,), at the outputs; the logistic ones from one exponential."""
    margins = data.labels * f
    if kind is not logistic:
        slope = np.asarray(kind.derivative(margins), dtype=np.float64)
        return float(np.mean(kind.value(margins))), data.labels * -slope / data.n_samples
    small = np.exp(-np.abs(margins))
    loss = float((np.maximum(-margins, 0) + np.log1p(small)).mean())
    return loss, data.labels * np.where(margins > 0, small, 1.0) / ((1 + small) * data.n_samples)


class AnchoredPass:
    """The same sums and the second derivatives in p, exact at any ||p||; arrays run over the nonzero counts.

    ``slope`` and ``log_scale`` hold s_i a_is (g_s - f_i) / n = slope * exp(log_scale), without the label's sign.
    """

    def __init__(self, data: TokenDataset, token_scores: Floats, token_values: Floats, loss: Loss = logistic) -> None:
        self.data, self.loss = data, loss
        columns = data.counts.indices
        self.softmax = AnchoredSoftmax(token_scores[columns], token_values[columns], data.counts.data, data.segments)
        self.output = self.softmax.expectation
        self.margins = data.labels * self.output
        self._log_weight = loss.log_pull(self.margins) - np.log(data.n_samples)
        self.slope, self.log_scale = self.softmax.sensitivity(self._log_weight)

    def _over_tokens(self, per_position: Floats) -> Floats:
        """Sum positions by token, (nnz,) -> (V,)."""
        return np.asarray(np.bincount(self.data.counts.indices, per_position, self.data.vocab_size), dtype=np.float64)

    @cached_property
    def scaled_B(self) -> Floats:
        """B_s / exp(log_scale), (V,)."""
        return self._over_tokens(self.data.segments.spread(self.data.labels) * self.slope)

    @property
    def sums(self) -> TokenSums:
        """The loss and the factors of the first derivatives."""
        c = self.data.labels * np.exp(self._log_weight)
        A = self._over_tokens(self.data.segments.spread(c) * self.softmax.probability)
        return TokenSums(float(np.mean(self.loss(self.margins))), self.output, A, self.scaled_B, self.log_scale)

    def scaled_hessian(self, E: Floats) -> Floats:
        """Hess_p L / exp(log_scale), (d, d), for embeddings E (V, d).

        With G_i = (s_i/n) grad f_i, a_i the attention and Ebar_i = sum_s a_is E_s, the Hessian of attention.md reads
            sum_i k_i G_i (grad f_i)^T + y_i (Ebar_i G_i^T + G_i Ebar_i^T) - E^T diag(B) E,
        because sum_s a_is (g_s - f_i) = 0; k_i = l''/(-l') is 1 - s_i for the logistic loss. One (d, n) x (n, d)
        product serves all three sums over i.
        """
        counts, y = self.data.counts, self.data.labels[:, None]
        E = E - E.mean(axis=0)  # the Hessian depends on differences of embeddings only
        G = with_values(counts, self.slope) @ E
        mean_E = with_values(counts, self.softmax.probability) @ E
        half = G.T @ (self._curvature[:, None] / 2 * G + y * mean_E) - (E.T * (self.scaled_B / 2)) @ E
        value: Floats = half + half.T
        return value

    def scaled_hessian_vector(self, E: Floats, x: Floats) -> Floats:
        """(Hess_p L) x / exp(log_scale), (d,), at the cost of one sparse pass."""
        spread, sum_ = self.data.segments.spread, self.data.segments.sum
        z = (E @ x)[self.data.counts.indices]
        z = z - spread(z[self.softmax.anchor])
        a, y = self.softmax.probability, self.data.labels
        Gx, mean_z = sum_(self.slope * z), sum_(a * z)
        weight = self.slope * spread(self._curvature * Gx + y * mean_z) + spread(y * Gx) * a
        return E.T @ self._over_tokens(weight - spread(y) * self.slope * z)

    @property
    def _curvature(self) -> Floats:
        """k_i = l''/(-l') at y_i f_i times the factor that turns G_i / exp(log_scale) into grad f_i, (n,)."""
        # A sequence whose weight is e^700 below the largest contributes nothing; the clip keeps 0 * inf out.
        value: Floats = self.loss.curvature(self.margins) * np.exp(np.minimum(self.log_scale - self._log_weight, 700.0))
        return value


def loss_gap(
    data: TokenDataset, token_values: Floats, top: Ints, gamma: Floats, attention: Floats, loss: Loss = logistic
) -> float:
    """L - L* >= 0, L* = mean_i l(gamma_i*), without cancellation.

    With the top tokens s_i* as anchors, y_i f_i = gamma_i* - delta_i, delta_i = sum_s a_is y_i (g_{s_i*} - g_s) >= 0:
        L - L* = mean_i log1p( expm1(delta_i) sigma(-gamma_i*) )
    for the logistic loss; every loss brings its own form (`Loss.rise`).
    """
    spread = data.segments.spread
    difference = spread(data.labels) * (spread(token_values[top]) - token_values[data.counts.indices])
    delta = data.segments.sum(attention * difference)
    return float(loss.rise(gamma, delta).mean())
