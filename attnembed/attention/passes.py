"""The passes of the one-layer softmax classifier: loss, gradients and Hessian from token counts.

Everything follows from two matrix-vector products, u = E p and g = E v, and a few passes over the nonzero counts; no
(n, T, d) array is ever formed. With s_i = sigma(-y_i f_i) and c_i = y_i s_i / n (derivation: docs/derivations):

    A_s = sum_i c_i a_is,   B_s = sum_i c_i a_is (g_s - f_i),   sum_s B_s = 0,
    grad_{E_s} L = -(A_s v + B_s p),   grad_p L = -E^T B,   grad_v L = -E^T A.

There are two forms of the same sums. `token_sums` is fast (one exp per token, two columns per sparse pass) and exact
while the scores span a few units. `AnchoredPass` takes over beyond that: the textbook difference g_s - f_i loses
every digit when one token takes all the attention (see `gibbs.AnchoredSoftmax`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

from attnembed.attention.data import TokenDataset
from attnembed.gibbs import AnchoredSoftmax
from attnembed.losses import logistic, logistic_derivative

__all__ = ["AnchoredPass", "TokenSums", "loss_gap", "token_sums"]

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

# Within this span of scores + log(length) every attention weight stays above e^-10, so that g_s - f_i keeps
# 1e-16 / 1e-5 = 1e-11 of relative accuracy without an anchor.
_PLAIN_SPAN = 10.0


@dataclass(frozen=True, eq=False)
class TokenSums:
    """Loss, outputs f (n,) and the factors A, B (V,) of all gradients; ``B`` is ``scaled_B * exp(log_scale)``."""

    loss: float
    output: Floats
    A: Floats
    scaled_B: Floats
    log_scale: float = 0.0

    @property
    def B(self) -> Floats:
        """B_s = sum_i c_i a_is (g_s - f_i), (V,)."""
        return self.scaled_B * np.exp(self.log_scale)


def token_sums(data: TokenDataset, token_scores: Floats, token_values: Floats) -> TokenSums:
    """The factors A and B for scores u = E p and values g = E v, by whichever form is exact for them."""
    span = float(np.ptp(token_scores)) + np.log(data.lengths.max())
    if span <= _PLAIN_SPAN:
        return _plain_sums(data, token_scores, token_values)
    return AnchoredPass(data, token_scores, token_values).sums


def _plain_sums(data: TokenDataset, u: Floats, g: Floats) -> TokenSums:
    """Z = C e, f = C(e g)/Z, A = e C^T(c/Z), B = e (g C^T(c/Z) - C^T(c f/Z)), e = exp(u - max u)."""
    e = np.exp(u - u.max())
    # Subtracting a constant from g leaves B unchanged and shrinks the terms whose difference B is.
    centre = 0.5 * (g.max() + g.min())
    h = g - centre
    # Two columns per pass, and the orientation whose product scatters: half the memory traffic of two matvecs.
    Z, N = (data.counts_csc @ np.stack([e, e * h], axis=1)).T
    q = N / Z
    f = q + centre
    margins = data.labels * f
    c = -data.labels * logistic_derivative(margins) / data.n_samples
    r = c / Z
    S, Q = (data.counts.T @ np.stack([r, r * q], axis=1)).T
    return TokenSums(float(logistic(margins).mean()), f, e * S, e * (h * S - Q))


class AnchoredPass:
    """The same sums and the second derivatives in p, exact at any ||p||; arrays run over the nonzero counts.

    ``slope`` and ``log_scale`` hold s_i a_is (g_s - f_i) / n = slope * exp(log_scale), without the label's sign.
    """

    def __init__(self, data: TokenDataset, token_scores: Floats, token_values: Floats) -> None:
        self.data = data
        columns = data.counts.indices
        self.softmax = AnchoredSoftmax(token_scores[columns], token_values[columns], data.counts.data, data.segments)
        self.output = self.softmax.expectation
        self.margins = data.labels * self.output
        self._log_weight = log_expit(-self.margins) - np.log(data.n_samples)
        self.slope, self.log_scale = self.softmax.sensitivity(self._log_weight)

    def _over_tokens(self, per_position: Floats) -> Floats:
        """Sum positions by token, (nnz,) -> (V,)."""
        return np.bincount(self.data.counts.indices, weights=per_position, minlength=self.data.vocab_size)

    @cached_property
    def scaled_B(self) -> Floats:
        """B_s / exp(log_scale), (V,)."""
        return self._over_tokens(self.data.segments.spread(self.data.labels) * self.slope)

    @property
    def sums(self) -> TokenSums:
        """The loss and the factors of the first derivatives."""
        c = self.data.labels * np.exp(self._log_weight)
        A = self._over_tokens(self.data.segments.spread(c) * self.softmax.probability)
        return TokenSums(float(logistic(self.margins).mean()), self.output, A, self.scaled_B, self.log_scale)

    def scaled_hessian(self, E: Floats) -> Floats:
        """Hess_p L / exp(log_scale), (d, d), for embeddings E (V, d).

        With G_i = (s_i/n) grad f_i, a_i the attention and Ebar_i = sum_s a_is E_s, the Hessian of attention.md reads
            sum_i (1 - s_i) G_i (grad f_i)^T + y_i (Ebar_i G_i^T + G_i Ebar_i^T) - E^T diag(B) E,
        because sum_s a_is (g_s - f_i) = 0. One (d, n) x (n, d) product serves all three sums over i.
        """
        counts, y = self.data.counts, self.data.labels[:, None]
        G = _with_data(counts, self.slope) @ E
        mean_E = _with_data(counts, self.softmax.probability) @ E
        half = G.T @ (self._curvature[:, None] / 2 * G + y * mean_E)
        return half + half.T - (E.T * self.scaled_B) @ E

    def scaled_hessian_vector(self, E: Floats, x: Floats) -> Floats:
        """(Hess_p L) x / exp(log_scale), (d,), at the cost of one sparse pass."""
        spread, sum_ = self.data.segments.spread, self.data.segments.sum
        z = (E @ x)[self.data.counts.indices]
        z = z - spread(z[self.softmax.anchor])  # the Hessian sees differences of embeddings only
        a, y = self.softmax.probability, self.data.labels
        Gx, mean_z = sum_(self.slope * z), sum_(a * z)
        weight = self.slope * spread(self._curvature * Gx + y * mean_z) + spread(y * Gx) * a
        return E.T @ self._over_tokens(weight - spread(y) * self.slope * z)

    @property
    def _curvature(self) -> Floats:
        """(1 - s_i) times the factor that turns G_i / exp(log_scale) into grad f_i, (n,)."""
        # A sequence whose weight is e^700 below the largest contributes nothing; the clip keeps 0 * inf out.
        return -logistic_derivative(-self.margins) * np.exp(np.minimum(self.log_scale - self._log_weight, 700.0))


def loss_gap(data: TokenDataset, token_values: Floats, top: Ints, gamma: Floats, attention: Floats) -> float:
    """L - L* >= 0, L* = mean_i l(gamma_i*), without cancellation.

    With the top tokens s_i* as anchors, y_i f_i = gamma_i* - delta_i, delta_i = sum_s a_is y_i (g_{s_i*} - g_s) >= 0:
        L - L* = mean_i log1p( expm1(delta_i) sigma(-gamma_i*) ).
    """
    spread = data.segments.spread
    difference = spread(data.labels) * (spread(token_values[top]) - token_values[data.counts.indices])
    delta = data.segments.sum(attention * difference)
    near = np.log1p(np.expm1(np.minimum(delta, 1.0)) * -logistic_derivative(gamma))
    # Far from the best value nothing cancels, and expm1 could overflow.
    return float(np.where(delta <= 1.0, near, logistic(gamma - delta) - logistic(gamma)).mean())


def _with_data(counts: Any, values: Floats) -> Any:
    """A CSR matrix with the sparsity of ``counts`` and other entries (indices shared, not copied)."""
    return type(counts)((values, counts.indices, counts.indptr), shape=counts.shape)
