"""Family(T, r): a data set on which selection fails at intermediate step sizes (F6), and its flow in four scalars.

Derivation: docs/derivations/failure-window.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.special import expit

from attnembed._typing import Floats
from attnembed._validation import as_real_array, check_between, check_integer, check_positive, check_shape
from attnembed.attention.data import TokenDataset
from attnembed.losses import logistic

__all__ = ["Family", "FamilyState"]


@dataclass(frozen=True, eq=False)
class FamilyState:
    """The observables at a point of the reduced flow.

    ``attention_shared`` is the attention on A in every negative sequence, ``attention_own`` the attention on the own
    token of every positive one, ``loss_gap`` = L - L*.
    """

    attention_shared: float
    attention_own: float
    loss: float
    loss_gap: float


@dataclass(frozen=True)
class Family:
    """r negative sequences share one token A, (T-1) r positive ones each have their own token.

    Negative: {A once, T-1 irrelevant tokens}. Positive: {own token T-1 times, 1 irrelevant token}. Each of the
    N = (T-1) r irrelevant tokens occurs once in a negative and once in a positive sequence. Token 0 is A, tokens 1..N
    are the own ones, N+1..2N the irrelevant ones. E^0 is orthonormal and orthogonal to v, p_0 = 0, and E is E^0 after
    one gradient step of size eta: E_s = e_s + kappa_s v with kappa = (eta/2) alpha, exactly.

    By symmetry p stays in the span of e_A, sum e_own, sum e_irr and v: the flow has four coordinates
    x = (x_A, x_own, x_irr, x_v), p = x_A e_A + x_own sum e_own + x_irr sum e_irr + x_v v.

    Parameters
    ----------
    length : T >= 2
    repeats : r >= 1
    step_size : eta >= 0
    W : ||v||^2 > 0

    Source: derived here (docs/derivations/failure-window.md).

    >>> family = Family(3, 2, step_size=10.0)
    >>> family.dataset().check_assumption().holds, family.n_samples, round(family.observe(np.zeros(4)).attention_own, 4)
    (True, 6, 0.6667)
    """

    length: int
    repeats: int
    step_size: float
    W: float = 1.0

    def __post_init__(self) -> None:
        check_integer("length", self.length, minimum=2)
        check_integer("repeats", self.repeats, minimum=1)
        check_positive("step_size", self.step_size, zero_ok=True)
        check_positive("W", self.W)

    @property
    def n_samples(self) -> int:
        """n = T r."""
        return self.length * self.repeats

    @property
    def n_positive(self) -> int:
        """(T-1) r, the number of positive sequences, of own tokens and of irrelevant tokens (N)."""
        return (self.length - 1) * self.repeats

    @property
    def kappa(self) -> tuple[float, float]:
        """kappa_A = -(eta/2) / T^2 and kappa_own = (eta/2) (T-1) / (T^2 r)."""
        T = self.length
        half = self.step_size / 2
        return -half / T**2, half * (T - 1) / (T**2 * self.repeats)

    def dataset(self) -> TokenDataset:
        """The data set, n = T r sequences over V = 1 + 2 (T-1) r tokens; negative sequences first."""
        T, r, N = self.length, self.repeats, self.n_positive
        shared = sp.csr_array(np.ones((r, 1)))
        own = sp.eye_array(N) * (T - 1.0)
        spread = sp.kron(sp.eye_array(r), np.ones((1, T - 1)))
        counts = sp.block_array([[shared, None, spread], [None, own, sp.eye_array(N)]], format="csr")
        return TokenDataset.from_counts(counts, np.repeat([-1, 1], [r, N]))

    def parameters(self) -> tuple[Floats, Floats, Floats]:
        """E (V, V+1) after the step, p_0 = 0 and v = sqrt(W) times the last unit vector."""
        vocab_size = 1 + 2 * self.n_positive
        E = np.eye(vocab_size, vocab_size + 1)
        shared, own = self.kappa
        v = np.zeros(vocab_size + 1)
        v[-1] = math.sqrt(self.W)
        E[0, -1] = shared * v[-1]
        E[1 : 1 + self.n_positive, -1] = own * v[-1]
        return E, np.zeros(vocab_size + 1), v

    def lift(self, x: ArrayLike) -> Floats:
        """p (V+1,) from the four coordinates."""
        x = _coordinates(x)
        N = self.n_positive
        return np.concatenate([x[:1], np.full(N, x[1]), np.full(N, x[2]), [x[3] * math.sqrt(self.W)]])

    def rate(self, x: ArrayLike) -> Floats:
        """dx/dt of gradient flow on p at the coordinates x (4,); lift(rate(x)) = -grad_p L(lift(x)).

        dx_A/dt = B_A, dx_own/dt = B_own, dx_irr/dt = B_irr = -(B_A + N B_own) / N because sum_s B_s = 0, and
        dx_v/dt = kappa_A B_A + N kappa_own B_own.
        """
        return self._rate(_coordinates(x))

    def _rate(self, x: Floats) -> Floats:
        N, (kappa_shared, kappa_own) = self.n_positive, self.kappa
        (a, rest), (b, other), f_negative, f_positive = self._attention(x)
        # B_s = sum over its sequences of (y/n) sigma(-y f) a (g_s - f); g_s - f = (1 - a) g_s, for irrelevant g = 0.
        n = self.n_samples
        B_shared = -self.repeats / n * float(expit(f_negative)) * a * rest * kappa_shared * self.W
        B_own = 1 / n * float(expit(-f_positive)) * b * other * kappa_own * self.W
        B_irrelevant = -(B_shared / N + B_own)
        return np.array([B_shared, B_own, B_irrelevant, kappa_shared * B_shared + N * kappa_own * B_own])

    def observe(self, x: ArrayLike) -> FamilyState:
        """Attention, loss and L - L* at the coordinates x (4,)."""
        kappa_shared, kappa_own = self.kappa
        (a, rest), (b, other), f_negative, f_positive = self._attention(_coordinates(x))
        best = np.array([-kappa_shared, kappa_own]) * self.W
        weight = np.array([self.repeats, self.n_positive]) / self.n_samples
        return FamilyState(
            attention_shared=a,
            attention_own=b,
            loss=float(weight @ logistic(np.array([-f_negative, f_positive]))),
            loss_gap=float(weight @ logistic.rise(best, np.array([rest, other]) * best)),
        )

    def limit(self, log_time: float = 60.0) -> FamilyState:
        """The state of the reduced flow from p = 0 at log t, integrated in s = log(1 + t)."""
        log_time = check_between("log_time", log_time, -700, 700)
        end = float(np.logaddexp(0.0, log_time))
        path = solve_ivp(
            lambda s, x: math.exp(s) * self._rate(x), (0.0, end), np.zeros(4), method="LSODA", rtol=1e-9, atol=1e-9
        )
        return self.observe(path.y[:, -1])

    def _attention(self, x: Floats) -> tuple[tuple[float, float], tuple[float, float], float, float]:
        """(a_A, 1 - a_A) in the negative sequences, the same for the own tokens, and both outputs."""
        x_shared, x_own, x_irrelevant, x_v = x.tolist()  # on NumPy's scalars a flow takes a third longer
        kappa_shared, kappa_own = self.kappa
        lead = math.log(self.length - 1)
        score = x_shared - x_irrelevant + kappa_shared * self.W * x_v - lead
        own_score = x_own - x_irrelevant + kappa_own * self.W * x_v + lead
        a, b = float(expit(score)), float(expit(own_score))
        return (
            (a, float(expit(-score))),
            (b, float(expit(-own_score))),
            a * kappa_shared * self.W,
            b * kappa_own * self.W,
        )


def _coordinates(x: ArrayLike) -> Floats:
    x = as_real_array("x", x, ndim=1, dtype=np.float64)
    check_shape("x", x, (4,), "the coordinates of p")
    return x
