"""The max-margin direction: closed forms, exact arithmetic, planted solutions, invariances and certificates."""

from __future__ import annotations

import itertools
import json
import re
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.optimize import linprog

from attnembed import margins
from attnembed._typing import Floats
from attnembed.errors import InputError, InputTypeError, NotSeparableError
from attnembed.margins import kkt_residual, max_margin, max_margin_pairs
from attnembed.results import Status
from attnembed.testing import generators

Array = NDArray[np.float64]


def relative_error(x: Array, y: Array) -> float:
    """||x - y|| / ||y||."""
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def solution(D: Array) -> Array | None:
    """p, or None where the rows are not separable; either way the certificate has been checked."""
    try:
        result = max_margin(D)
    except NotSeparableError as error:
        if certificate_error(D, error.certificate) > 1e-13:
            raise
        return None
    assert result.success, result.message
    assert kkt_residual(D, result.p, result.dual) < 1e-12
    return result.p


def certificate_error(D: Array, weights: Array) -> float:
    """||D^T w|| over the length of the rows that w combines; inf unless w is convex."""
    if weights.shape != (len(D),) or weights.min() < 0 or abs(weights.sum() - 1) > 1e-14:
        return np.inf
    length = weights @ np.linalg.norm(D, axis=1)
    return float(np.linalg.norm(D.T @ weights) / length) if length else 0.0


def planted(
    rng: np.random.Generator, m: int, d: int, support: int, *, across: float = 1.0, spread: float = 0.0
) -> tuple[Array, Array]:
    """Rows and their minimiser p: d_k = p / ||p||^2 + x_k with x_k across p and sum w_k x_k = 0 on the support.

    ``across`` = ||p|| ||x_k||, roughly, is one over the relative margin; rows outside the support are longer, by
    factors from 1.01 to 1.01 * 10^spread.
    """
    p = rng.standard_normal(d)
    X = rng.standard_normal((m, d))
    w = rng.uniform(0.5, 1.5, support)
    X[0] = -(w[1:] @ X[1:support]) / w[0]
    X -= np.outer(X @ p, p) / (p @ p)
    D = p / (p @ p) + X * across / np.linalg.norm(X[1]) / np.linalg.norm(p)
    D[support:] *= 1.01 * 10 ** rng.uniform(0, spread, (m - support, 1))
    return D[rng.permutation(m)], p


# Closed forms


def test_one_row():
    result = max_margin([[3.0, 4.0]])
    assert_allclose(result.p, [0.12, 0.16], rtol=1e-15)
    assert_allclose(result.margin, 5.0, rtol=1e-15)
    assert_allclose(result.direction, [0.6, 0.8], rtol=1e-15)
    assert_allclose(result.dual, [0.04], rtol=1e-14)


def test_two_rows_in_the_plane_and_one_that_does_not_matter():
    # (2, 1) and (1, 2) are tight at (1/3, 1/3); (5, 1) reaches 2 there.
    result = max_margin([[2.0, 1.0], [5.0, 1.0], [1.0, 2.0]])
    assert_allclose(result.p, [1 / 3, 1 / 3], rtol=1e-14)
    assert_allclose(result.dual, [1 / 9, 0, 1 / 9], rtol=1e-14)
    assert result.support.tolist() == [0, 2]
    # Of (1, 0) and (1, 3) the first alone is tight: (1, 0) already reaches both.
    assert_allclose(max_margin([[1.0, 0.0], [1.0, 3.0]]).p, [1, 0], rtol=1e-14, atol=1e-15)


def test_one_column_is_the_smallest_row():
    result = max_margin([[3.0], [0.5], [7.0], [0.5]])
    assert_allclose(result.p, [2.0], rtol=1e-15)
    assert_allclose(result.margin, 0.5, rtol=1e-15)


def orthogonal_embeddings(tau: float, kappa: Array, n_irrelevant: int, v: Array) -> Array:
    """Rows e_s + kappa_s v for the important tokens, then e_j, with orthogonal e of norm tau across v = c e_0."""
    n = len(kappa) + n_irrelevant
    E = np.zeros((n, n + 1))
    E[:, 1:] = tau * np.eye(n)
    E[: len(kappa)] += np.outer(kappa, v)
    return E


@given(st.integers(1, 5), st.integers(1, 6), st.floats(0.3, 3), st.floats(-0.2, 0.2), st.floats(0.5, 2))
def test_all_pairs_of_orthogonal_tokens(M, N, tau, slope, size):
    # Attention notes, section 6: gamma^2 = tau^2 (1/M_eff + 1/N), with lambda_s as there; valid for lambda > 0.
    kappa = slope * tau * (1 + np.arange(M)) * (-1.0) ** np.arange(M) / M
    v = size * np.eye(M + N + 1)[0]
    W, K1, K2 = size**2, kappa.sum(), kappa @ kappa
    E = orthogonal_embeddings(tau, kappa, N, v)
    effective = M - K1**2 * W / (tau**2 + K2 * W)
    weights = N / ((N + effective) * tau**2) * (1 - kappa * K1 * W / (tau**2 + K2 * W))
    assert weights.min() > 0
    p = weights @ E[:M] - weights.sum() / N * E[M:].sum(axis=0)
    result = max_margin_pairs(E, [(s, j) for s in range(M) for j in range(M, M + N)])
    assert_allclose(result.margin**2, tau**2 * (1 / effective + 1 / N), rtol=1e-12)
    assert relative_error(result.p, p) < 1e-12


@pytest.mark.parametrize("k", [1, 4, 40])
def test_one_important_token(k):
    tau, kappa, v = 0.7, 0.4, 1.5 * np.eye(k + 2)[0]
    result = max_margin_pairs(orthogonal_embeddings(tau, np.array([kappa]), k, v), [(0, j + 1) for j in range(k)])
    assert_allclose(result.margin**2, tau**2 * (1 + 1 / k) + kappa**2 * 1.5**2, rtol=1e-13)


def test_private_irrelevant_tokens():
    tau, size, own = 1.3, 0.8, np.array([1, 3, 2])
    kappa = np.array([0.5, -0.3, 0.2])
    v = size * np.eye(10)[0]
    E = orthogonal_embeddings(tau, kappa, own.sum(), v)
    pairs = [(s, j) for s, j in zip(np.repeat(np.arange(3), own), range(3, 9), strict=True)]
    A = tau**2 * (1 + 1 / own)
    c = (kappa / A).sum() / (1 + size**2 * (kappa**2 / A).sum())
    weights = (1 - kappa * c * size**2) / A
    assert weights.min() > 0
    assert_allclose(1 / max_margin_pairs(E, pairs).margin ** 2, weights.sum(), rtol=1e-13)


# Exact arithmetic


def solve_exactly(G: list[list[Fraction]], b: list[Fraction]) -> list[Fraction] | None:
    """Gauss-Jordan elimination; None for a singular matrix."""
    rows = [[*row, x] for row, x in zip(G, b, strict=True)]
    for k in range(len(rows)):
        pivot = next((i for i in range(k, len(rows)) if rows[i][k] != 0), None)
        if pivot is None:
            return None
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(len(rows)):
            if i != k:
                rows[i] = [x - rows[i][k] * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[-1] for row in rows]


def exact_solution(D: NDArray[np.int64]) -> list[Fraction] | None:
    """The minimiser in rational arithmetic, trying every set of at most d rows as the support; None if infeasible."""
    m, d = D.shape
    rows = [[Fraction(int(x)) for x in row] for row in D]

    def dot(x: list[Fraction], y: list[Fraction]) -> Fraction:
        return sum((a * b for a, b in zip(x, y, strict=True)), Fraction(0))

    for size in range(1, min(m, d) + 1):
        for S in itertools.combinations(rows, size):
            weights = solve_exactly([[dot(x, y) for y in S] for x in S], [Fraction(1)] * size)
            if weights is None or min(weights) < 0:
                continue
            p = [dot(weights, [x[j] for x in S]) for j in range(d)]
            if all(dot(row, p) >= 1 for row in rows):
                return p
    return None


small_matrices = st.tuples(st.integers(1, 6), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(-3, 3))
)
# One column is positive, so that the rows are separable.
separable_matrices = st.tuples(st.integers(1, 9), st.integers(1, 5)).flatmap(
    lambda shape: st.builds(
        lambda first, others: np.column_stack([first, others]).astype(float),
        arrays(np.int64, shape[0], elements=st.integers(1, 3)),
        arrays(np.int64, shape, elements=st.integers(-5, 5)),
    )
)


@given(small_matrices)
def test_agrees_with_exact_arithmetic(D):
    expected, p = exact_solution(D), solution(D.astype(float))
    if expected is None:
        assert p is None
    else:
        assert p is not None
        assert relative_error(p, np.array([float(x) for x in expected])) < 1e-13


@given(generators(), st.integers(20, 300), st.integers(2, 12), st.floats(-0.5, 2.5))
def test_separable_exactly_where_linear_programming_says_so(rng, m, d, shift):
    # max t subject to D x >= t, |x_j| <= 1: the rows are separable iff t > 0. The shifts make both outcomes common.
    D = rng.standard_normal((m, d))
    D[:, 0] += shift
    program = linprog(
        -np.eye(d + 1)[d],
        A_ub=np.column_stack([-D, np.ones(m)]),
        b_ub=np.zeros(m),
        bounds=[(-1, 1)] * d + [(None, 1)],
    )
    assert program.success
    reach = -program.fun
    if reach > 1e-6 or reach < 1e-9:
        assert (solution(D) is not None) == (reach > 1e-6)


# Planted solutions


@given(generators(), st.integers(0, 6).map(lambda k: 10.0**k), st.integers(-6, 6).map(lambda k: 10.0**k))
def test_planted_solution_at_any_conditioning_and_scale(rng, across, scale):
    D, p = planted(rng, m=120, d=15, support=8, across=across)
    result = max_margin(D * scale)
    assert result.success, result.message
    # Planting rounds the rows, and a row's relative error of 1e-16 is worth `across` times as much in p.
    assert relative_error(result.p * scale, p) < 1e-13 * across
    assert result.kkt_residual < 1e-14 * across + 1e-13
    assert (result.support.size, result.dual[result.support].min() > 0) == (8, True)


@given(generators(), st.floats(1, 6))
def test_rows_of_very_different_lengths(rng, spread):
    D, p = planted(rng, m=120, d=15, support=8, spread=spread)
    assert relative_error(max_margin(D).p, p) < 1e-12
    tilted = D * 10 ** rng.uniform(-spread, spread, (len(D), 1))
    result = max_margin(tilted)
    assert result.success, result.message
    assert kkt_residual(tilted, result.p, result.dual) < 1e-12


def test_many_rows_take_few_rounds():
    rng = np.random.default_rng(0)
    D, p = planted(rng, m=6000, d=128, support=60)
    result = max_margin(D)
    assert relative_error(result.p, p) < 1e-12
    assert result.support.size == 60
    assert 1 < result.rounds < 20
    gap = abs(result.p @ result.p - result.dual.sum()) / (result.p @ result.p)
    assert gap < 1e-12


@pytest.mark.parametrize("m", [3, 50])
def test_fewer_rows_than_columns(m):
    D = np.random.default_rng(m).standard_normal((m, 100))
    result = max_margin(D)
    # Independent rows are always separable: the least-norm solution of D p = 1 is feasible.
    assert result.margin >= 1 / np.linalg.norm(np.linalg.pinv(D).sum(axis=1)) * (1 - 1e-12)
    assert kkt_residual(D, result.p, result.dual) < 1e-12


def test_rows_that_nearly_cancel_do_not_cycle():
    # Without the rule that a row is dropped only once this takes hundreds of rounds.
    D = np.random.default_rng(2).standard_normal((1000, 100))
    D[:, 0] = 1e-3 * np.abs(D[:, 0] + 0.3)
    result = max_margin(D)
    assert result.success, result.message
    assert result.rounds < 60


# Invariances


@given(separable_matrices, st.integers(-12, 12))
def test_scaling_the_rows_scales_the_solution(D, power):
    c = 1.7 * 10.0**power
    assert relative_error(max_margin(c * D).p * c, max_margin(D).p) < 1e-13


@pytest.mark.parametrize("power", [-30, 20])
def test_a_power_of_two_changes_no_digit(power):
    D, _ = planted(np.random.default_rng(0), m=3000, d=64, support=40)
    c = 2.0**power
    result, scaled = max_margin(D), max_margin(c * D)
    assert (scaled.p * c == result.p).all()
    assert (scaled.dual * c**2 == result.dual).all()
    assert (scaled.rounds, scaled.kkt_residual) == (result.rounds, result.kkt_residual)


@given(separable_matrices, st.randoms(use_true_random=False))
def test_order_and_repetition_of_rows_do_not_matter(D, random):
    order = random.sample(range(len(D)), len(D)) + random.choices(range(len(D)), k=len(D))
    result = max_margin(D[order])
    assert relative_error(result.p, max_margin(D).p) < 1e-13
    # The multipliers of equal rows are shared in some way or other: only their sum is determined.
    assert kkt_residual(D[order], result.p, result.dual) < 1e-13


@given(separable_matrices, generators())
def test_rotating_the_rows_rotates_the_solution(D, rng):
    Q = np.linalg.qr(rng.standard_normal((D.shape[1] + 2, D.shape[1])))[0]  # also into a larger space
    assert relative_error(max_margin(D @ Q.T).p, Q @ max_margin(D).p) < 1e-12


@given(generators(), st.integers(2, 30), st.integers(1, 40), st.integers(1, 60))
def test_pairs_agree_with_their_rows(rng, V, d, m):
    E = rng.standard_normal((V, d))
    pairs = np.array([rng.choice(V, 2, replace=False) for _ in range(m)])
    scores = E @ rng.standard_normal(d)
    losing = scores[pairs[:, 0]] < scores[pairs[:, 1]]
    pairs[losing] = pairs[losing, ::-1]
    D = E[pairs[:, 0]] - E[pairs[:, 1]]
    dense, result = max_margin(D), max_margin_pairs(E, pairs)
    assert relative_error(result.p, dense.p) < 1e-14 * (dense.dual @ np.linalg.norm(D, axis=1)) * dense.margin + 1e-13
    assert kkt_residual(D, result.p, result.dual) < 1e-11


def test_pairs_are_priced_without_their_rows():
    rng = np.random.default_rng(0)
    V, d, m = 60, 64, 40_000
    E = rng.standard_normal((V, d))
    pairs = np.column_stack([rng.integers(30, size=m), rng.integers(30, V, size=m)])

    def peak(solve, *arguments):
        tracemalloc.start()
        result = solve(*arguments)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result, memory

    result, memory = peak(max_margin_pairs, E, pairs)
    dense, dense_memory = peak(lambda: max_margin(E[pairs[:, 0]] - E[pairs[:, 1]]))
    assert relative_error(result.p, dense.p) < 1e-12
    assert memory < 0.3 * 8 * m * d < dense_memory


# Certificates of infeasibility


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shape", [(2, 1), (30, 5), (400, 40)])
def test_opposite_rows_are_not_separable(shape, scale):
    D = np.random.default_rng(0).standard_normal(shape)
    D[:, 0] = np.abs(D[:, 0]) + 0.1
    D[-1] = -D[:-1][:2].sum(axis=0)
    with pytest.raises(NotSeparableError, match=r"\|\|D\^T w\|\| = \d\.\de[-+]\d+ where") as caught:
        max_margin(scale * D)
    weights = caught.value.certificate
    assert certificate_error(D, weights) < 1e-14
    assert weights[-1] > 0
    assert not weights.flags.writeable
    # Controls: moving a thousandth of the weight is no certificate, and without the last row there is none.
    assert certificate_error(D, 0.999 * weights + 0.001 * np.eye(len(D))[0]) > 1e-5
    assert max_margin(scale * D[:-1]).success


def test_rows_around_the_origin_are_not_separable():
    D = np.random.default_rng(1).standard_normal((2000, 60))
    with pytest.raises(NotSeparableError) as caught:
        max_margin(D)
    assert certificate_error(D, caught.value.certificate) < 1e-14
    assert np.count_nonzero(caught.value.certificate) <= 61


def test_rows_whose_mean_is_zero_are_not_separable():
    with pytest.raises(NotSeparableError) as caught:
        max_margin([[1.0, 2.0], [-1.0, -2.0]])
    assert caught.value.certificate.tolist() == [0.5, 0.5]


def test_what_is_infeasible_to_rounding_is_told_from_what_is_infeasible() -> None:
    exact = [[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]], [[3.0, 0.25], [-1.5, -0.125]]]
    for rows in exact:
        with pytest.raises(NotSeparableError) as caught:
            max_margin(rows)
        assert str(caught.value).startswith("no p has D p >= 1: 0 is in the convex hull of ")
        weights = [Fraction(float(w)).limit_denominator(10) for w in caught.value.certificate]
        assert all(sum(w * Fraction(row[k]) for w, row in zip(weights, rows)) == 0 for k in range(2))
    # -0.1/3 is not a third of -0.1: an exact p exists, and has a length near 1e16
    nearly = [[3.0, 0.1], [-1.0, -0.1 / 3]]
    with pytest.raises(NotSeparableError, match=r"^no p has D p >= 1, up to rounding: ") as caught:
        max_margin(nearly)
    (a, b), (c, d) = [[Fraction(x) for x in row] for row in nearly]
    determinant = a * d - b * c
    p = (d - b) / determinant, (a - c) / determinant
    assert (a * p[0] + b * p[1], c * p[0] + d * p[1]) == (1, 1)
    stated = float(re.search(r"such a p would have norm (\S+) or more", str(caught.value))[1])
    assert 1e15 < stated <= 1.1 * float(p[0] ** 2 + p[1] ** 2) ** 0.5


@pytest.mark.parametrize("where", [0, 3])
def test_a_zero_row_is_its_own_certificate(where):
    D = np.insert(np.random.default_rng(0).uniform(1, 2, (4, 3)), where, 0, axis=0)
    with pytest.raises(NotSeparableError) as caught:
        max_margin(D)
    assert caught.value.certificate.tolist() == np.eye(5)[where].tolist()


def test_tokens_with_equal_embeddings_are_not_separable():
    E = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    for pairs in ([[0, 1], [0, 2]], [[0, 1], [1, 1]]):
        with pytest.raises(NotSeparableError) as caught:
            max_margin_pairs(E, pairs)
        assert caught.value.certificate.tolist() == [0, 1]


def test_contradicting_pairs_are_not_separable():
    E = np.random.default_rng(0).standard_normal((4, 6))
    with pytest.raises(NotSeparableError) as caught:
        max_margin_pairs(E, [[0, 1], [1, 2], [2, 0], [0, 3]])
    assert_allclose(caught.value.certificate, [1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-12, atol=1e-15)


# What can be certified, and what cannot


def thin_cone(relative_margin: float, seed: int = 5) -> Array:
    """Rows in every direction of a plane, which lean to one side of it by about ``relative_margin``."""
    D = np.random.default_rng(seed).standard_normal((100, 8))
    D[:, 0] = relative_margin * np.abs(D[:, 0])
    return D


def nearly_opposite_pairs(relative_margin: float, seed: int = 5) -> Array:
    """Pairs of rows g + a u and -g + b u with g across u and small a, b > 0."""
    rng = np.random.default_rng(seed)
    u = rng.standard_normal(20)
    u /= np.linalg.norm(u)
    G = rng.standard_normal((30, 20))
    G -= np.outer(G @ u, u)
    return np.concatenate([G, -G]) + 5 * relative_margin * rng.uniform(1, 2, (60, 1)) * u


@pytest.mark.parametrize("relative_margin", [1e-2, 1e-4, 1e-6])
def test_small_margins_are_certified(relative_margin):
    D = thin_cone(relative_margin)
    result = max_margin(D)
    assert result.success, result.message
    assert result.margin < relative_margin
    assert kkt_residual(D, result.p, result.dual) < 1e-13 / result.margin
    # The other side of the fence: one of the supporting rows leans the other way.
    D[result.support[0], 0] *= -1e3
    with pytest.raises(NotSeparableError) as caught:
        max_margin(D)
    assert certificate_error(D, caught.value.certificate) < 1e-14


@pytest.mark.parametrize(("relative_margin", "certified"), [(1e-3, 20), (1e-7, 20), (2e-8, 16)])
def test_nearly_opposite_pairs_are_certified(relative_margin, certified):
    # At 2e-8 nnls alone finds the support of one in ten; the exchange of rows finds nearly all.
    for seed in range(20):
        D = nearly_opposite_pairs(relative_margin, seed)
        result = max_margin(D)
        certified -= result.success
        if result.success:
            # No convex combination of the rows is shorter than the margin, and this one is no longer.
            shortest = np.linalg.norm(D.T @ result.dual) / result.dual.sum()
            assert_allclose(shortest, result.margin, rtol=1e-14 / relative_margin)
    assert certified <= 0


@pytest.mark.parametrize("rows", [thin_cone, nearly_opposite_pairs])
@pytest.mark.parametrize("relative_margin", [1e-10, 1e-12])
def test_margins_within_rounding_are_soon_given_up(rows, relative_margin):
    result = max_margin(rows(relative_margin))
    assert not result.success
    assert result.status is Status.FAILED
    assert "not certified" in result.message
    assert "too close to rounding" in result.message
    assert result.rounds <= 20
    assert np.isfinite(result.p).all()


def test_margins_below_rounding_are_infeasible_to_rounding():
    D = thin_cone(1e-16)
    with pytest.raises(NotSeparableError) as caught:
        max_margin(D)
    assert certificate_error(D, caught.value.certificate) < 1e-13


@pytest.mark.parametrize("calls", [0, 2])
def test_nnls_that_does_not_converge_is_no_success(monkeypatch, calls):
    left = [calls]
    nnls = margins.nnls

    def failing(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("Maximum number of iterations reached.")
        return nnls(*args, **options)

    monkeypatch.setattr(margins, "nnls", failing)
    result = max_margin(planted(np.random.default_rng(0), m=6000, d=128, support=60)[0])
    assert not result.success
    assert result.status is Status.MAX_ITERATIONS
    assert result.rounds == calls
    assert "nnls did not converge" in result.message
    assert np.isfinite(result.p).all()


def test_too_few_rounds_are_no_success(monkeypatch):
    monkeypatch.setattr(margins, "MAX_ROUNDS", 1)
    result = max_margin(planted(np.random.default_rng(0), m=6000, d=128, support=60)[0])
    assert (result.status, result.rounds) == (Status.MAX_ITERATIONS, 1)
    assert "still violated" in result.message


def test_a_result_that_is_not_finite_is_no_success(monkeypatch):
    def broken(rows, target):
        return np.full(len(rows), np.nan), np.full(rows.shape[1], np.nan)

    monkeypatch.setattr(margins, "_least_distance", broken)
    assert not max_margin(np.eye(3)).success


# The KKT residual


@given(separable_matrices, st.integers(-6, 6))
def test_kkt_residual_does_not_depend_on_the_unit(D, power):
    c = 10.0**power
    result = max_margin(D)
    wrong = result.p * 1.01
    assert_allclose(kkt_residual(c * D, wrong / c, result.dual / c**2), kkt_residual(D, wrong, result.dual), rtol=1e-9)


@given(generators(), st.floats(1, 1000))
def test_kkt_residual_catches_what_is_slightly_wrong(rng, across):
    D, p = planted(rng, m=60, d=10, support=6, across=across)
    result = max_margin(D)
    dual, support = result.dual, result.support
    assert kkt_residual(D, result.p, dual) < 1e-13 * across
    noise = rng.standard_normal(10)
    dropped = max_margin(np.delete(D, support[0], axis=0))
    flipped = np.where(np.arange(60) == support[0], -dual, dual)
    wrong = {
        "p longer by 0.1 %": (result.p * 1.001, dual),
        "p shorter by 0.1 %": (result.p * 0.999, dual),
        "p off by 0.1 % in some direction": (result.p + 1e-3 * noise / np.linalg.norm(noise) * np.linalg.norm(p), dual),
        "dual larger by 0.1 %": (result.p, dual * 1.001),
        "one multiplier of the wrong sign": (result.p, flipped),
        "p of the wrong sign": (-result.p, dual),
        "one supporting row left out": (dropped.p, np.insert(dropped.dual, support[0], 0.0)),
        "the solution of an unconstrained problem": (np.zeros(10), np.zeros(60)),
    }
    for name, (q, weights) in wrong.items():
        assert kkt_residual(D, q, weights) > 4e-4, name


def test_kkt_residual_is_the_largest_of_its_parts():
    rng = np.random.default_rng(0)
    dominant = set()
    for _ in range(300):
        D, p = rng.integers(1, 4, (3, 2)) * rng.choice([-1.0, 1.0], (3, 2)), rng.integers(1, 4, 2) * 0.5
        dual = rng.integers(1, 4, 3) * 0.25
        length = [np.hypot(*row) for row in D]
        typical = sum(x * y for x, y in zip(dual, length, strict=True)) / sum(dual)
        reach = [row[0] * p[0] + row[1] * p[1] for row in D]
        back = [sum(x * row[j] for x, row in zip(dual, D, strict=True)) for j in range(2)]
        square = p[0] ** 2 + p[1] ** 2
        parts = (
            max((1 - x) * min(1, typical / y) for x, y in zip(reach, length, strict=True)),
            np.hypot(p[0] - back[0], p[1] - back[1]) / np.sqrt(square),
            sum(abs(x * (y - 1)) for x, y in zip(dual, reach, strict=True)) / square,
            abs(square - 2 * sum(dual) + back[0] ** 2 + back[1] ** 2) / square,
        )
        dominant.add(np.argmax(parts))
        assert_allclose(kkt_residual(D, p, dual), max(parts), rtol=1e-13)
    assert dominant == {0, 1, 2, 3}


def test_kkt_residual_asks_for_feasibility_alone():
    # A dual-feasible pair with every other condition met: the row left out is the only thing wrong.
    D = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert_allclose(kkt_residual(D, [1.0, 0.0], [1.0, 0.0]), 0.5, rtol=1e-15)
    assert kkt_residual(D[:1], [1.0, 0.0], [1.0]) == 0.0


def test_kkt_residual_asks_for_the_sign_alone():
    # p = D^T dual, both rows tight and no gap, but p = (1, 0) would be shorter with the second row idle.
    D = np.array([[1.0, 0.0], [2.0, 1.0]])
    dual = np.array([3.0, -1.0])
    p = D.T @ dual
    assert_allclose(D @ p, [1, 1], rtol=1e-15)
    assert_allclose(kkt_residual(D, p, dual), 0.25, rtol=1e-15)


def test_kkt_residual_does_not_take_nan_for_zero():
    assert np.isnan(margins._residual(*np.full((5, 3), np.nan)))


# Results and input


def test_results_are_frozen_and_plain():
    result = max_margin(np.eye(3))
    for name in ("p", "direction", "dual", "support"):
        assert not getattr(result, name).flags.writeable, name
    with pytest.raises(AttributeError):
        result.margin = 2.0
    assert json.loads(json.dumps(result.to_dict()))["success"] is True
    assert "certified" in result.message
    assert "p=array(3,)" in repr(result)


def test_lists_integers_and_single_precision_are_taken():
    for D in ([[1, 0], [0, 1]], np.eye(2, dtype=np.float32), np.asfortranarray(np.eye(2))):
        assert_allclose(max_margin(D).p, [1, 1], rtol=1e-15)


@pytest.mark.parametrize(
    ("differences", "problem"),
    [
        ([1.0, 2.0], "must have 2 axes"),
        (np.zeros((0, 3)), "must have at least one row"),
        (np.zeros((3, 0)), "must have at least one row"),
        ([[1.0, np.nan]], "must be finite"),
        ([[1.0, np.inf]], "must be finite"),
        ([[1.0, 0.0], [1e-170, 0.0]], "got entries up to 1e-170 in row 1"),
        ([[1.0, 0.0], [1e170, 0.0]], "up to 1e.170 in row 1; scale all rows"),
    ],
)
def test_bad_rows(differences, problem):
    with pytest.raises(InputError, match=f"differences.*{problem}"):
        max_margin(differences)


@pytest.mark.parametrize("differences", [[[1j, 0.0]], [["a", "b"]], [[1.0], [1.0, 2.0]]])
def test_rows_of_the_wrong_type(differences):
    with pytest.raises(InputTypeError, match="differences"):
        max_margin(differences)


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([[0, 3]], r"0\.\.2; got 3"),
        ([[0, -1]], r"0\.\.2; got -1"),
        ([[0, 1, 2]], "must have shape"),
        ([0, 1], "must have 2 axes"),
        (np.zeros((0, 2), dtype=int), "must have at least one row"),
        ([[0.0, 1.0]], "must hold integers"),
    ],
)
def test_bad_pairs(pairs, problem):
    with pytest.raises(InputError, match=f"`pairs`.*{problem}"):
        max_margin_pairs(np.eye(3), pairs)


def test_bad_embeddings():
    with pytest.raises(InputError, match="`E` must be finite"):
        max_margin_pairs([[1.0, np.nan], [0.0, 0.0]], [[0, 1]])


def test_kkt_residual_checks_shapes():
    with pytest.raises(InputError, match="`p` must have shape"):
        kkt_residual(np.eye(2), [1.0], [1.0, 1.0])
    with pytest.raises(InputError, match="`dual` must have shape"):
        kkt_residual(np.eye(2), [1.0, 1.0], [1.0])
    with pytest.raises(InputError, match="`p` must be finite"):
        kkt_residual(np.eye(2), [1.0, np.nan], [1.0, 1.0])


@given(st.floats(0, 1), st.integers(1, 1200), st.floats(-3e-9, 3e-9))
def test_near_fractions_are_those_that_a_search_over_denominators_finds(x: float, k: int, off: float) -> None:
    denominators = np.arange(1.0, margins.LARGEST_DENOMINATOR + 1)
    for value in (x, abs(round(x * k) / k + off)):
        gap = float(np.abs(value - np.rint(value * denominators) / denominators).min())
        if abs(gap - 2 * margins.NEAR_FRACTION) > 1e-15:
            assert margins._near_fraction(value) == (gap < 2 * margins.NEAR_FRACTION)


@pytest.mark.parametrize("most", [1.0, margins.MOST_PIVOTED])
def test_more_tied_rows_than_columns_are_not_pivoted(most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 300 rows are tight at one p: with fewer rows pivoted, the solver takes them one by one, with one result."""
    rng, d = np.random.default_rng(0), margins.WIDE
    A, p = rng.normal(size=(300, d)), rng.normal(size=d)
    rows = A - np.outer(A @ p - 1.0, p) / (p @ p)
    sizes: list[int] = []
    pivoted = margins.shortest

    def counted(block: Floats, target: Floats) -> tuple[Floats, Floats] | None:
        sizes.append(len(block))
        return pivoted(block, target)

    monkeypatch.setattr(margins, "shortest", counted)
    monkeypatch.setattr(margins, "MOST_PIVOTED", np.inf)
    expected = max_margin(rows).margin
    sizes.clear()
    monkeypatch.setattr(margins, "MOST_PIVOTED", most)
    found = max_margin(rows)
    assert sizes
    assert max(sizes) <= most * d
    assert (max(sizes) > d) == (most > 1.0)
    assert found.margin == pytest.approx(expected, rel=1e-11)
    assert found.kkt_residual <= 1e-11
