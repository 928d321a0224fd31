"""How gradient flow on p runs to infinity: p_t = p_mm log t + rho + o(1), and every constant that follows.

Derivation: docs/derivations/asymptotics.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog
from scipy.special import log_expit

from attnembed._validation import freeze
from attnembed.attention.data import TokenDataset
from attnembed.attention.selection import Parameters, Selection, top_tokens
from attnembed.attention.theory._inputs import parameters
from attnembed.attention.theory._program import MarginProgram, solve_program
from attnembed.attention.theory.hypotheses import Hypothesis, Prediction

__all__ = ["Asymptotics", "asymptotics"]

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

# A row counts as active when d_k . p_mm exceeds 1 by less than this.
_ACTIVE = 1e-8
# Singular values below this share of the largest count as zero in ranks and spans.
_RANK = 1e-10
# The smallest multiplier, relative to the largest, that counts as positive.
_INTERIOR = 1e-9


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Asymptotics(Prediction):
    """The flow at late times, for the margin program with rows d_k = E_{s*} - E_s of ``pairs`` (m, 2) = (s*, s).

    Attributes
    ----------
    p_mm : (d,) the max-margin point; margin : gamma = 1/||p_mm||
    C : (m,) C_k = sum over the sequences with that pair of (sigma(-gamma_i*)/n) D_is n_is / n_is*; NaN where a
        selected token is not the top
    support : (m_s,) the active rows, d_k . p_mm = 1; next_margin : the smallest d_k . p_mm of the others
    dual : (m,) lambda_k = C_k e^{-rho.d_k} on the support, else 0: the multipliers that the flow selects
    rho : (d,) the offset, in the span of the support; NaN where it does not exist
    conserved : (d,) the component of p_0 outside the span of all d_k, which never changes
    norm_constant : limit of ||p_t|| - ||p_mm|| log t
    angle_constant : limit of (1 - cos) log^2 t, or a lower bound on it where ``angle_is_exact`` is False
    angle_is_exact : whether the support spans all d_k; if not, the offset outside its span depends on the path
    loss_gap_constant : ||p_mm||^2, limit of t (L - L*)
    transient_rate : mu, p_t - p_mm log t - rho = O(t^-mu) up to powers of log t
    attention_constants : (m,) lambda_k / C_k, limit of t a_is n_is* / n_is on the support, else 0
    certificate : (m,) convex weights w with D^T w = 0 where the program is infeasible, else None
    """

    p_mm: Floats
    margin: float
    pairs: Ints
    C: Floats
    support: Ints
    next_margin: float
    dual: Floats
    rho: Floats
    conserved: Floats
    norm_constant: float
    angle_constant: float
    angle_is_exact: bool
    loss_gap_constant: float
    transient_rate: float
    attention_constants: Floats
    certificate: Floats | None

    def p(self, log_time: ArrayLike) -> Floats:
        """p_mm log t + rho + the conserved component, (..., d)."""
        return np.asarray(log_time, dtype=np.float64)[..., None] * self.p_mm + self.rho + self.conserved


def asymptotics(model: Parameters, data: TokenDataset, selected: ArrayLike | Selection | None = None) -> Asymptotics:
    """Predict the flow from the model's p as t -> infinity, given the tokens that it selects.

    rho = argmin over span{d_k : support} of sum_k C_k e^{-rho.d_k} + rho.p_mm, lambda_k = C_k e^{-rho.d_k};
    rho exists if and only if p_mm is in the relative interior of the cone of its support, that is, has a
    representation with all lambda_k > 0. Then
        ||p_t|| - ||p_mm|| log t -> (1/||p_mm||) sum_k lambda_k log(C_k / lambda_k),
        (1 - cos) log^2 t -> ||rho_perp||^2 / (2 ||p_mm||^2),   t (L - L*) -> ||p_mm||^2,
        mu = min( smallest eigenvalue of sum lambda_k d_k d_k^T on the span, next margin - 1 ).

    Parameters
    ----------
    selected : (n,) token ids, a `Selection`, or None for the top tokens. The formulas need the selected token of each
        sequence to be its unique top token; a hypothesis says whether it is.

    Source: derived here (docs/derivations/asymptotics.md); [SHNGS18] for the separable linear case.

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> late = asymptotics(AttentionModel(np.eye(3), np.zeros(3), [1.0, -1.0, 0.0]), data)
    >>> late.p_mm.round(6), round(late.loss_gap_constant, 6), late.support, late.holds
    (array([ 0.333333,  0.333333, -0.666667]), 0.666667, array([0, 1]), True)
    """
    E, p, v = parameters(model, data)
    g = E @ v
    top, _, _, _ = top_tokens(data, g)
    chosen = top if selected is None else np.asarray(selected.tokens if isinstance(selected, Selection) else selected)
    program = solve_program(model, data, chosen)
    log_C, worst = _log_coefficients(data, g, chosen, program)

    feasible = program.certificate is None
    margins = program.differences @ program.p
    active = margins <= 1 + _ACTIVE if feasible else np.zeros(margins.size, dtype=bool)
    support = np.flatnonzero(active)
    everything, span = _row_basis(program.differences), _row_basis(program.differences[support])
    # Coordinates in the span of the active rows: A (m_s, r), and D^T lambda = p_mm reads A^T lambda = target.
    A, target = program.differences[support] @ span, program.p @ span
    start = _interior_multipliers(A, target) if feasible else np.array([np.nan])
    rho, residual = np.full(p.size, np.nan), np.nan
    if feasible and worst > 0 and start.min() > _INTERIOR * start.max():
        x, residual = _offset(A, target, log_C[support], start)
        rho = span @ x

    squared_norm = float(program.p @ program.p)
    next_margin = float(margins.min(where=~active, initial=np.inf)) if feasible else np.nan
    conserved = p - everything @ (everything.T @ p)
    offset = rho + conserved
    across = offset - program.p * (offset @ program.p) / squared_norm
    dual, constants = np.zeros(margins.size), np.zeros(margins.size)
    constants[support] = np.exp(-program.differences[support] @ rho)
    dual[support] = np.exp(log_C[support] - program.differences[support] @ rho)
    curvature = A.T @ (dual[support, None] * A)
    rate = min(float(np.linalg.eigvalsh(curvature)[0]), next_margin - 1) if np.isfinite(residual) else np.nan
    return Asymptotics(
        hypotheses=(
            Hypothesis("every selected token is the unique top: smallest D_is", worst, ">", 0.0),
            *program.hypotheses,
            Hypothesis(
                "p_mm is in the relative interior of its support's cone: smallest over largest multiplier",
                float(start.min() / start.max()),
                ">",
                _INTERIOR,
            ),
            Hypothesis("rho was found: ||D^T lambda - p_mm|| / ||p_mm||", residual, "<=", _INTERIOR),
        ),
        p_mm=freeze(program.p.copy()),
        margin=program.margin,
        pairs=program.pairs,
        C=freeze(np.exp(log_C) if worst > 0 else np.full(margins.size, np.nan)),
        support=freeze(support),
        next_margin=next_margin,
        dual=freeze(dual),
        rho=freeze(rho),
        conserved=freeze(conserved),
        norm_constant=float(rho @ program.p * program.margin),
        angle_constant=float(across @ across / (2 * squared_norm)),
        angle_is_exact=feasible and span.shape[1] == everything.shape[1],
        loss_gap_constant=squared_norm,
        transient_rate=rate,
        attention_constants=freeze(constants),
        certificate=program.certificate,
    )


def _log_coefficients(data: TokenDataset, g: Floats, chosen: Ints, program: MarginProgram) -> tuple[Floats, float]:
    """log C_k, (m,), and the smallest D_is over all sequences; log C is -inf where D_is is not positive."""
    columns, row = data.counts.indices.astype(np.int64), data.segments.ids
    winner = chosen.astype(np.int64)[row]
    is_winner = columns == winner
    gamma = data.labels * g[chosen]
    D = gamma[row] - data.labels[row] * g[columns]
    count = np.empty(data.n_samples)
    count[row[is_winner]] = data.counts.data[is_winner]
    other = ~is_winner
    with np.errstate(divide="ignore"):
        terms = np.log(np.maximum(D, 0)) + np.log(data.counts.data / count[row]) + log_expit(-gamma)[row]
    keys = program.pairs[:, 0] * data.vocab_size + program.pairs[:, 1]
    log_C = np.full(len(keys), -np.inf)
    np.logaddexp.at(log_C, np.searchsorted(keys, (winner * data.vocab_size + columns)[other]), terms[other])
    return log_C - np.log(data.n_samples), float(D[other].min())


def _interior_multipliers(A: Floats, target: Floats) -> Floats:
    """Multipliers with A^T lambda = target whose smallest is positive if there are any, (m_s,).

    The solution of least norm serves where it is positive, and is the only one where the rows are independent. Else a
    linear program maximises the smallest multiplier.
    """
    least: Floats = np.linalg.lstsq(A.T, target)[0]
    m, r = A.shape
    if least.min() > _INTERIOR * least.max() or m == r:
        return least
    size = float(np.abs(least).max())
    result = linprog(
        np.append(np.zeros(m), -1.0),
        A_ub=sp.hstack([-sp.eye_array(m), np.ones((m, 1))]),
        b_ub=np.zeros(m),
        A_eq=np.hstack([A.T, np.zeros((r, 1))]),
        b_eq=target / size,
        bounds=[(None, None)] * m + [(None, 1.0)],
    )
    return least if result.x is None else size * result.x[:m]


def _offset(A: Floats, target: Floats, log_C: Floats, start: Floats) -> tuple[Floats, float]:
    """Coordinates of rho, (r,), and the relative residual of A^T lambda = target, lambda_k = C_k e^{-A_k.x}.

    Newton's method on the strictly convex sum_k C_k e^{-A_k.x} + target.x, from the least-squares solution of
    log C - A x = log(start), which is already the answer where the rows are independent.
    """
    x = np.linalg.lstsq(A, log_C - np.log(start))[0]
    for _ in range(200):
        lam = np.exp(np.minimum(log_C - A @ x, 700.0))
        step = np.linalg.lstsq(A.T @ (lam[:, None] * A), A.T @ lam - target)[0]
        reach = float(np.abs(A @ step).max())
        # Along the step the Hessian changes by at most e^reach, so that this length always decreases the sum.
        x = x + step / (1 + reach)
        if reach < 1e-9:
            break
    lam = np.exp(np.minimum(log_C - A @ x, 700.0))
    return x, float(np.linalg.norm(A.T @ lam - target) / np.linalg.norm(target))


def _row_basis(D: Floats) -> Floats:
    """Orthonormal basis of the span of the rows, (d, r)."""
    if D.size == 0 or not np.isfinite(D).all():
        return np.zeros((D.shape[1], 0))
    triangle = np.linalg.qr(D, mode="r") if len(D) > D.shape[1] else D
    _, singular, right = np.linalg.svd(triangle, full_matrices=False)
    return right[singular > _RANK * singular[0]].T
