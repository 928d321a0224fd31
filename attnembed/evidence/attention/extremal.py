"""Instances that nearly attain a bound, so that a bound with a smaller constant would fail on them."""

from __future__ import annotations

import numpy as np

from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.evidence.attention.instances import Instance


def equal_values(value: float) -> Instance:
    """Zero scores and one value g for all tokens: every |f_i| is F, and the one-step error is sigma(F) - 1/2 ~ F/4."""
    model = AttentionModel(np.full((6, 1), value / 2), [0.0], [2.0])
    return Instance(model, TokenDataset.from_tokens([[0, 1, 2], [3, 4], [5]], [-1, 1, 1]))


def rare_token(score: float, value: float = 1e-3, others: int = 2000) -> Instance:
    """One token of score rho among many of score -rho: its weight is e^{2 rho} times its share, and g_s - f = 2 G0.

    Scores are a multiple of the values (p_0 along v), so that both parts of the one-step error point the same way.
    """
    v = np.array([1.2, 1.6])  # ||v||^2 = 4, so that different powers of it differ
    values = np.array([value, -value, -value])
    model = AttentionModel(np.outer(values, v) / 4, score / value * v, v)
    return Instance(model, TokenDataset.from_tokens([[0] + [1] * others, [2]], [1, -1]))


def curved(value: float) -> Instance:
    """Two tokens with half the mass each and values far apart: at p = 0, Hess_p L = G^2 R^2 / 64 (1 + 16/G) = beta.

    The same sequence has both labels, so that p = 0 is the minimum of the loss; p starts beside it.
    """
    model = AttentionModel([[0.5, 0.0], [-0.5, 0.0]], [1e-5, 0.0], [value, 0.0])
    return Instance(model, TokenDataset.from_tokens([[0, 1], [0, 1]], [1, -1]))


def one_pair_each(values: float, along: float) -> Instance:
    """One pair per sequence and small values: there 1/(gamma^2 t) is the limit of L - L* itself, and kap tends to 1."""
    model = AttentionModel(np.eye(3), along * np.array([1.0, 1.0, -2.0]), values * np.array([1.0, -1.0, 0.0]))
    return Instance(model, TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1]))


def one_unsaturated(share: float, *, types: int = 2) -> Instance:
    """All of the loss gap in the first sequence, whose worst token has attention ``share`` and the top one the rest.

    With three types the runner-up has half the spread and no attention. The second sequence is saturated; it has ten
    times the values and far longer rows, so that it determines neither kap nor gamma.
    """
    E = np.diag([1.0, 1.0, 1.0, 100.0, 100.0])
    lead = np.log1p(-share) - np.log(share)
    p = np.array([lead / 2, -lead / 2, -400.0, 2.0, -2.0])
    v = np.array([1e-3, 0.0, 5e-4, 0.0, -1e-4])  # values 1e-3, 0 and 5e-4; 0 and -1e-2
    tokens = [[0, 1, 2][:types], [3, 4], [4]]
    return Instance(AttentionModel(E, p, v), TokenDataset.from_tokens(tokens, [1, 1, -1], vocab_size=5))


def slow_inactive_row(excess: float) -> Instance:
    """One active row (1, 0) and an inactive one of margin 1 + ``excess``, which alone makes the transient slow."""
    E = [[0.0, 0.0], [-1.0, 0.0], [-1.0 - excess, -1.0], [0.0, 0.0]]
    return Instance(
        AttentionModel(E, [0.0, 0.0], [1.0, 0.0]), TokenDataset.from_tokens([[0, 1], [0, 2], [3]], [1, 1, -1])
    )


def led_astray(n_positive: int, n_private: int, size: float, along: float) -> tuple[Instance, Instance]:
    """A start along the wrong limit of a small step, and the same in the four dimensions of its flow.

    Token 0 (A) has -kappa and each of ``n_positive`` own tokens kappa/2, in a sequence with ``n_private`` irrelevant
    tokens; each of these occurs once with A as well. tau = 1, ||v|| = 1, kappa = ``size``, and p is ``along`` times the
    wrong limit. By the symmetry among the own tokens and among the irrelevant ones, p stays in the span of e_A, their
    sums and v, so that embeddings, p and v may be replaced by their components there.
    """
    M, N = n_positive, n_positive * n_private
    own, irrelevant = 1 + np.arange(M), 1 + M + np.arange(N)
    E = np.eye(1 + M + N, 2 + M + N)
    E[0, -1], E[own, -1] = -size, size / 2
    v = np.zeros(2 + M + N)
    v[-1] = 1.0
    p = along * (E[own].sum(axis=0) - E[irrelevant].sum(axis=0) / n_private)
    private = irrelevant.reshape(M, n_private).tolist()
    tokens = [[1 + i, *private[i]] for i in range(M)] + [[0, *private[i]] for i in range(M)]
    data = TokenDataset.from_tokens(tokens, [1] * M + [-1] * M)
    basis = np.zeros((2 + M + N, 4))
    basis[0, 0], basis[own, 1], basis[irrelevant, 2], basis[-1, 3] = 1.0, M**-0.5, N**-0.5, 1.0
    model = AttentionModel(E, p, v)
    return Instance(model, data), Instance(AttentionModel(E @ basis, p @ basis, v @ basis), data)
