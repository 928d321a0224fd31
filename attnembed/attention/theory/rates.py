"""The divergence of gradient flow on p: p_t = p_mm log t + rho + o(1), and every constant that follows.

Derivation: docs/derivations/asymptotics.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from attnembed._typing import Floats, Ints
from attnembed._validation import as_integer_array, freeze
from attnembed.attention.data import TokenDataset
from attnembed.attention.parameters import Parameters
from attnembed.attention.selection import Selection, TokenValues, top_tokens
from attnembed.attention.theory._inputs import parameters, unit_rows
from attnembed.attention.theory._program import MarginProgram, solve_program
from attnembed.attention.theory.hypotheses import Hypothesis, Prediction
from attnembed.errors import InputError
from attnembed.losses import Loss, check_loss, logistic

__all__ = ["Asymptotics", "asymptotics"]


# A row counts as active when d_k . p_mm exceeds 1 by less than this.
_ACTIVE = 1e-8
# Singular values below this share of the largest count as zero in ranks and spans.
_RANK = 1e-10
# The smallest multiplier, relative to the largest, that counts as positive.
_INTERIOR = 1e-9


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Asymptotics(Prediction):
    """The flow at late times, if it selects ``selected``; the program has the rows d_k = E_{s_i} - E_s of ``pairs``.

    Where the hypotheses hold, flows from an open set of starts do. Below, s_i is the selected token of X_i, top or not,
    and gamma_i = y_i g_{s_i}.

    Attributes
    ----------
    selected : (n,) the tokens s_i
    p_mm : (d,) the max-margin point; margin : gamma = 1/||p_mm||
    loss_limit : L_sigma = mean_i l(gamma_i), the limit of L; the infimum L* where all s_i are top tokens
    pairs : (m, 2) = (s_i, s)
    C : (m,) C_k = sum over the sequences with that pair of (-l'(gamma_i)/n) D_is n_is / n_{i s_i}, with
        D_is = y_i (g_{s_i} - g_s) of any sign and, for the logistic loss, -l' = sigma(-gamma_i): row k pulls p towards
        the selection if C_k > 0, away if C_k < 0
    support : (m_s,) the active rows, d_k . p_mm = 1; next_margin : the smallest d_k . p_mm of the others
    dual : (m,) lambda_k = C_k e^{-rho.d_k} on the support, else 0: the multipliers that the flow selects
    rho : (d,) the offset, in the span of the support; NaN where it does not exist
    conserved : (d,) the component of p_0 outside the span of all d_k, which never changes
    undetermined : (d, j) orthonormal directions in the span of all rows and orthogonal to the support's span: along
        them p_t converges to a point that depends on the path
    angle_is_exact : whether j = 0, so that data and parameters determine the whole offset
    norm_constant : limit of ||p_t|| - ||p_mm|| log t
    angle_constant : limit of (1 - cos) log^2 t, or a lower bound on it where ``angle_is_exact`` is False
    loss_gap_constant : ||p_mm||^2, limit of t (L - loss_limit)
    transient_rate : mu, up to powers of log t: p_t - p(log t) = O(t^-mu) where ``angle_is_exact``; otherwise this
        holds only outside ``undetermined``, and p_t - p(log t) has a nonzero limit
    attention_constants : (m,) lambda_k / C_k, limit of t a_is n_{i s_i} / n_is on the support, else 0
    curvature : lambda_max(H_perp), H = sum_k lambda_k d_k d_k^T over the support and H_perp its part across p_mm:
        normalised descent is stable for steps below ``step_limit``, Polyak's step if the curvature is below 2
    certificate : (m,) convex weights w with D^T w = 0 where the program is infeasible, else None
    """

    selected: Ints
    p_mm: Floats
    margin: float
    loss_limit: float
    pairs: Ints
    C: Floats
    support: Ints
    next_margin: float
    dual: Floats
    rho: Floats
    conserved: Floats
    undetermined: Floats
    norm_constant: float
    angle_constant: float
    loss_gap_constant: float
    transient_rate: float
    attention_constants: Floats
    curvature: float
    certificate: Floats | None

    @property
    def angle_is_exact(self) -> bool:
        """Whether the support spans all rows of a feasible program, so that the offset does not depend on the path."""
        return bool(np.isfinite(self.p_mm).all()) and self.undetermined.shape[1] == 0

    @property
    def step_limit(self) -> float:
        """eta* = 2 ||p_mm|| / lambda_max(H_perp), inf where the support has one row: normalised steps below it settle.

        Below it the offset of `normalised_descent` converges to the flow's; above it, it cycles. NaN without an offset.
        """
        return float(np.inf if self.curvature == 0 else 2 / (self.margin * self.curvature))

    @property
    def gap_constant(self) -> float:
        """2 log ||p_mm|| + gamma norm_constant, the limit of log(L - loss_limit) + gamma ||p|| in any clock."""
        return float(np.log(self.loss_gap_constant) + self.margin * self.norm_constant)

    def contraction(self, step_size: ArrayLike) -> Floats:
        """e^{-gamma eta}, the factor of L - loss_limit in a late step of length eta of `normalised_descent`.

        NaN from ``step_limit`` on, where the offset does not converge and the contraction is slower.

        Parameters
        ----------
        step_size : eta > 0, of any shape

        Raises
        ------
        InputError
            for a step size that is not positive.

        Source: derived here (docs/derivations/normalised-steps.md).
        """
        eta = np.asarray(step_size, dtype=np.float64)
        if not (eta > 0).all():
            raise InputError("step_size", "must be positive", got=float(np.min(eta)))
        return np.where(eta < self.step_limit, np.exp(-self.margin * eta), np.nan)[()]

    def p(self, log_time: ArrayLike) -> Floats:
        """The asymptote p_mm log t + rho + the conserved component, (..., d), without its part in ``undetermined``."""
        return np.asarray(log_time, dtype=np.float64)[..., None] * self.p_mm + self.rho + self.conserved


def asymptotics(
    model: Parameters,
    data: TokenDataset,
    selected: ArrayLike | Selection | None = None,
    *,
    loss: Loss | str = logistic,
) -> Asymptotics:
    """Predict the flow from the model's p as t -> infinity, given the tokens it selects.

    rho = argmin over span{d_k : support} of sum_k C_k e^{-rho.d_k} + rho.p_mm, lambda_k = C_k e^{-rho.d_k};
    rho exists if and only if p_mm is in the relative interior of the cone of its support, that is, has a
    representation with all lambda_k > 0. Then
        ||p_t|| - ||p_mm|| log t -> (1/||p_mm||) sum_k lambda_k log(C_k / lambda_k),
        (1 - cos) log^2 t -> ||rho_perp||^2 / (2 ||p_mm||^2),   t (L - L_sigma) -> ||p_mm||^2,
        mu = min( smallest eigenvalue of sum lambda_k d_k d_k^T on the span, next margin - 1 ).

    A selection for which all hypotheses hold is locally optimal: flows from an open set of starts end in it. If an
    active row has C_k < 0, none does.

    Parameters
    ----------
    selected : (n,) token ids, a `Selection` (its ``tokens``), or None for the top tokens. Any selection is allowed, of
        top tokens or not: only its active rows need D_is > 0.
    loss : a `losses.Loss`, or the name of one. Only C_k and ``loss_limit`` depend on it, through -l'(gamma_i); where
        that vanishes for all sequences of an active row, the row does not pull, and nothing is predicted

    Source: derived here (docs/derivations/asymptotics.md, limit-direction.md), as [TLTO23] for locally optimal
    selections; [SHNGS18] for the separable linear case.

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> late = asymptotics(AttentionModel(np.eye(3), np.zeros(3), [1.0, -1.0, 0.0]), data)
    >>> late.p_mm.round(6), round(late.loss_gap_constant, 6), late.support, late.holds
    (array([ 0.333333,  0.333333, -0.666667]), 0.666667, array([0, 1]), True)
    """
    (_, p, _), values, kind = parameters(model, data), TokenValues.of(model), check_loss(loss)
    chosen = _tokens(data, values, selected)
    return asymptotics_of(p, data, values, solve_program(model, data, chosen), chosen, kind)


def asymptotics_of(
    p: Floats, data: TokenDataset, values: TokenValues, program: MarginProgram, chosen: Ints, kind: Loss = logistic
) -> Asymptotics:
    """`asymptotics` of the tokens ``chosen`` whose margin program is solved already."""
    log_weight, mean_D = _pulls(data, values, chosen, program, kind)
    solved = len(program.pairs) > 0 and bool(np.isfinite(program.p).all())
    # Without a solution no row is active, and the rows of large infeasible programs need never be formed.
    D = program.differences if solved else np.empty((0, p.size))
    margins = D @ program.p if solved else np.full(len(program.pairs), np.nan)
    active = margins <= 1 + _ACTIVE if solved else np.zeros(margins.size, dtype=bool)
    support = np.flatnonzero(active)
    # In units of the longest row (multipliers and C of its square) nothing under- or overflows.
    unit = float(np.abs(D).max(initial=0.0)) or 1.0
    rows, p_mm = D[support] / unit, program.p * unit
    everything, span = _span_of_all(program), _row_basis(rows)
    worst = float(mean_D[support].min(initial=np.inf)) if solved else float(mean_D.min(initial=np.inf))
    # Coordinates in the span of the active rows: A (m_s, r), and D^T lambda = p_mm reads A^T lambda = target.
    A, target = rows @ span, p_mm @ span
    with np.errstate(divide="ignore"):
        log_C = log_weight + np.log(np.maximum(mean_D, 0.0)) + 2 * np.log(unit)
    start = _interior_multipliers(A, target) if solved else np.array([np.nan])
    inside, rho, residual = float(start.min() / start.max()), np.full(p.size, np.nan), np.nan
    if solved and worst > 0 and start.min() > _INTERIOR * start.max():
        x, residual = _offset(A, target, log_C[support], start)
        rho = span @ x

    squared_norm = float(p_mm @ p_mm) or np.nan
    next_margin = float(margins.min(where=~active, initial=np.inf)) if solved else np.nan
    conserved = p - everything @ (everything.T @ p)
    offset = rho + conserved * unit
    dual, constants = np.zeros(margins.size), np.zeros(margins.size)
    dual[support] = np.exp(log_C[support] - rows @ rho)
    with np.errstate(over="ignore"):  # values beyond the range of floats in the caller's units become inf
        constants[support] = np.exp(-rows @ rho)
        multipliers = dual / unit / unit
    H = A.T @ (dual[support, None] * A)
    rate = min(float(np.linalg.eigvalsh(H)[0]), next_margin - 1) if np.isfinite(residual) else np.nan
    return Asymptotics(
        hypotheses=_hypotheses(worst, program, inside, residual),
        selected=freeze(chosen),
        p_mm=freeze(program.p.copy()),
        margin=program.margin,
        loss_limit=float(np.mean(kind(data.labels * values.values[chosen]))),
        pairs=program.pairs,
        C=freeze(np.exp(log_weight) * mean_D),
        support=freeze(support),
        next_margin=next_margin,
        dual=freeze(multipliers),
        rho=freeze(rho / unit),
        conserved=freeze(conserved),
        undetermined=freeze(_row_basis((everything - span @ (span.T @ everything)).T, floor=_RANK)),
        norm_constant=float(rho @ p_mm / np.sqrt(squared_norm)) / unit,
        angle_constant=_angle_constant(offset, p_mm, squared_norm),
        loss_gap_constant=squared_norm / unit / unit,
        transient_rate=rate,
        attention_constants=freeze(constants),
        curvature=_across(H, target) if np.isfinite(residual) else np.nan,
        certificate=program.certificate,
    )


def _tokens(data: TokenDataset, values: TokenValues, selected: ArrayLike | Selection | None) -> Ints:
    """The selected tokens, (n,)."""
    if selected is None:
        selected = top_tokens(data, values)[0]
    return as_integer_array("selected", selected.tokens if isinstance(selected, Selection) else selected, ndim=1)


def _hypotheses(pull: float, program: MarginProgram, inside: float, residual: float) -> tuple[Hypothesis, ...]:
    """The hypotheses: every active row pulls, the program is solved, p_mm lies inside its cone, and rho was found."""
    return (
        Hypothesis(
            "every active row pulls towards the selection: smallest D_is, mean over its sequences", pull, ">", 0.0
        ),
        *program.hypotheses,
        Hypothesis(
            "p_mm is in the relative interior of its support's cone: smallest over largest multiplier",
            inside,
            ">",
            _INTERIOR,
        ),
        Hypothesis("rho was found: ||D^T lambda - p_mm|| / ||p_mm||", residual, "<=", _INTERIOR),
    )


def _pulls(
    data: TokenDataset, values: TokenValues, chosen: Ints, program: MarginProgram, loss: Loss
) -> tuple[Floats, Floats]:
    """log w_k and the mean D_k, each (m,), of C_k = w_k D_k: w_ik = (-l'(gamma_i)/n) n_is/n_{i s_i} sums to w_k."""
    columns, row = data.counts.indices.astype(np.int64), data.segments.ids
    winner = chosen[row]
    is_winner = columns == winner
    gamma, D = data.labels * values.values[chosen], values.shortfalls(data, chosen)
    count = np.empty(data.n_samples)
    count[row[is_winner]] = data.counts.data[is_winner]
    log_terms = np.log(data.counts.data / count[row]) + loss.log_pull(gamma)[row] - np.log(data.n_samples)
    keys = program.pairs[:, 0] * data.vocab_size + program.pairs[:, 1]
    other = ~is_winner
    place = np.searchsorted(keys, (winner * data.vocab_size + columns)[other])
    log_weight, mean_D = np.full(len(keys), -np.inf), np.zeros(len(keys))
    np.logaddexp.at(log_weight, place, log_terms[other])
    # A row whose sequences do not pull (l' = 0 in all of them) has weight 0, and its mean stays 0.
    reference = np.where(log_weight[place] > -np.inf, log_weight[place], 0.0)
    np.add.at(mean_D, place, np.exp(log_terms[other] - reference) * D[other])
    return log_weight, mean_D


def _interior_multipliers(A: Floats, target: Floats) -> Floats:
    """Multipliers with A^T lambda = target whose smallest is positive if there are any, (m_s,).

    The least-norm solution is used where it is positive, and is the only one where the rows are independent. Otherwise
    a linear program maximises the smallest multiplier.
    """
    least: Floats = np.linalg.lstsq(A.T, target)[0]
    m, r = A.shape
    if least.min() > _INTERIOR * least.max() or m == r:
        return least
    size = float(np.abs(least).max())
    if not (0 < size < np.inf and np.isfinite(target / size).all()):
        return least
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
        # Along the step the Hessian changes by a factor of at most e^reach, so this length always decreases the sum.
        x = x + step / (1 + reach)
        if reach < 1e-9:
            break
    lam = np.exp(np.minimum(log_C - A @ x, 700.0))
    return x, float(np.linalg.norm(A.T @ lam - target) / np.linalg.norm(target))


def _angle_constant(offset: Floats, p_mm: Floats, squared_norm: float) -> float:
    """||rho_perp||^2 / (2 ||p_mm||^2), of the part of the offset across p_mm."""
    across = offset - p_mm * (offset @ p_mm / squared_norm)
    return float(across @ across / (2 * squared_norm))


def _across(H: Floats, along: Floats) -> float:
    """The largest eigenvalue of H (r, r) on the complement of its eigenvector ``along`` (r,); 0 where r = 1."""
    if len(along) < 2:
        return 0.0
    complement = np.linalg.svd(along[None])[2][1:]
    return float(np.linalg.eigvalsh(complement @ H @ complement.T)[-1])


def _span_of_all(program: MarginProgram) -> Floats:
    """Orthonormal basis of the span of all rows of the program, (d, r)."""
    m, d = len(program.pairs), program.E.shape[1]
    if m > 20 * d:  # a sample may show that the rows span everything: more rows leave no smaller singular value
        sample = program.pairs[:: m // (4 * d)]
        rows = unit_rows(program.E[sample[:, 0]] - program.E[sample[:, 1]])
        _, singular, right = np.linalg.svd(np.nan_to_num(rows), full_matrices=False)
        if singular[-1] > _RANK * np.sqrt(m):
            return right.T
    return _row_basis(program.differences)


def _row_basis(D: Floats, floor: float = 0.0) -> Floats:
    """Orthonormal basis of the span of the rows, (d, r); each row counts by its direction, unless ``floor`` is given.

    With a floor the rows keep their norms, and singular values below it count as zero.
    """
    if D.size == 0 or not np.isfinite(D).all():
        return np.zeros((D.shape[1], 0))
    rows = D if floor else unit_rows(D)
    triangle = np.linalg.qr(rows, mode="r") if len(rows) > rows.shape[1] else rows
    _, singular, right = np.linalg.svd(triangle, full_matrices=False)
    return right[singular > (floor or _RANK * singular[0])].T
