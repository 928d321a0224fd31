"""Closed forms of the margin program against the solver."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.attention.theory import (
    OrthogonalMargin,
    balanced_pair_margin,
    orthogonal_embeddings,
    orthogonal_margin,
    private_margin,
    single_margin,
    unequal_pair_margin,
)
from attnembed.errors import InputError
from attnembed.margins import max_margin

Array = NDArray[np.float64]

kappas = st.lists(st.floats(-2, 2), min_size=1, max_size=6)
taus = st.floats(0.2, 5)
squares = st.floats(0.05, 20)


def embeddings(kappa: list[float], irrelevant: int, tau: float, W: float) -> tuple[Array, Array, Array]:
    """Important rows, irrelevant rows and v of an exactly orthogonal instance."""
    M = len(kappa)
    E = tau * np.eye(M + irrelevant, M + irrelevant + 1)
    E[:M, -1] = np.array(kappa) * np.sqrt(W)
    v = np.zeros(E.shape[1])
    v[-1] = np.sqrt(W)
    return E[:M], E[M:], v


def all_pairs(important: Array, irrelevant: Array) -> Array:
    return (important[:, None] - irrelevant).reshape(-1, important.shape[1])


@given(kappas, st.integers(1, 6), taus, squares)
def test_all_pairs(kappa: list[float], N: int, tau: float, W: float) -> None:
    closed = orthogonal_margin(kappa, N, tau=tau, W=W)
    important, irrelevant, v = embeddings(kappa, N, tau, W)
    solved = max_margin(all_pairs(important, irrelevant))
    smallest = closed.hypotheses[0].measured / closed.multipliers.max()
    assume(abs(smallest) > 1e-9)
    if closed.holds:
        p = closed.multipliers @ important + closed.irrelevant[0] * irrelevant.sum(axis=0)
        assert np.linalg.norm(p - solved.p) <= 1e-10 * np.linalg.norm(p)
        np.testing.assert_allclose(closed.margin, solved.margin, rtol=1e-10)
        assert abs(closed.value - p @ v) <= 1e-10 * np.linalg.norm(p) * np.sqrt(W)
    else:
        # Not all constraints are active then: the closed form solves the equalities, which cost more.
        assert closed.squared_norm > solved.p @ solved.p * (1 + 1e-12)


def test_the_validity_condition_is_needed() -> None:
    # A token with a far larger kappa than the others satisfies its constraint with a negative multiplier.
    kappa = [3.0, 0.5, 0.5, 0.5]
    closed = orthogonal_margin(kappa, 3)
    solved = max_margin(all_pairs(*embeddings(kappa, 3, 1.0, 1.0)[:2]))
    assert not closed.holds
    assert closed.failures[0].measured == closed.multipliers.min() < 0
    assert abs(closed.margin / solved.margin - 1) > 1e-2


@given(kappas, st.data(), taus, squares)
def test_private_irrelevant_tokens(kappa: list[float], drawn: st.DataObject, tau: float, W: float) -> None:
    k = drawn.draw(st.lists(st.integers(1, 4), min_size=len(kappa), max_size=len(kappa)))
    closed = private_margin(kappa, k, tau=tau, W=W)
    important, irrelevant, v = embeddings(kappa, sum(k), tau, W)
    owner = np.repeat(np.arange(len(k)), k)
    solved = max_margin(important[owner] - irrelevant)
    assume(abs(closed.hypotheses[0].measured) > 1e-9 * closed.multipliers.max())
    if closed.holds:
        p = closed.multipliers @ important + closed.irrelevant[owner] @ irrelevant
        assert np.linalg.norm(p - solved.p) <= 1e-10 * np.linalg.norm(p)
        np.testing.assert_allclose(closed.margin, solved.margin, rtol=1e-10)
        assert abs(closed.value - p @ v) <= 1e-10 * np.linalg.norm(p) * np.sqrt(W)
    else:
        assert closed.squared_norm > solved.p @ solved.p * (1 + 1e-12)


@given(st.floats(-2, 2), st.integers(1, 6), taus, squares)
def test_single(kappa: float, k: int, tau: float, W: float) -> None:
    closed = single_margin(kappa, k, tau=tau, W=W)
    np.testing.assert_allclose(closed.margin**2, tau**2 * (1 + 1 / k) + kappa**2 * W, rtol=1e-14)
    for other in (orthogonal_margin([kappa], k, tau=tau, W=W), private_margin([kappa], k, tau=tau, W=W)):
        np.testing.assert_allclose(closed.margin, other.margin, rtol=1e-10)
        np.testing.assert_allclose(closed.irrelevant, other.irrelevant, rtol=1e-10)
    assert closed.holds


@given(st.floats(-2, 2), st.integers(1, 6), taus, squares)
def test_balanced_pair(kappa: float, N: int, tau: float, W: float) -> None:
    closed = balanced_pair_margin(kappa, N, tau=tau, W=W)
    general = orthogonal_margin([kappa, -kappa], N, tau=tau, W=W)
    np.testing.assert_allclose(closed.margin**2, tau**2 * (1 / 2 + 1 / N), rtol=1e-14)
    np.testing.assert_allclose(closed.multipliers, general.multipliers, rtol=1e-12)
    assert closed.value == 0.0
    assert closed.margin == balanced_pair_margin(2 * kappa + 1, N, tau=tau, W=W).margin
    # Unbalanced, kappa does matter.
    assert orthogonal_margin([1.0, -0.5], N).margin != orthogonal_margin([2.0, -1.0], N).margin


@given(st.floats(-2, 2), st.floats(-2, 2), st.integers(1, 6), taus, squares)
def test_unequal_pair(plus: float, minus: float, N: int, tau: float, W: float) -> None:
    closed = unequal_pair_margin(plus, minus, N, tau=tau, W=W)
    general = orthogonal_margin([plus, minus], N, tau=tau, W=W)
    assume(abs(general.hypotheses[0].measured) > 1e-9 * general.multipliers.max())
    np.testing.assert_allclose(closed.squared_norm, general.squared_norm, rtol=1e-9)
    assert closed.holds == general.holds
    if plus * minus <= 0:
        assert closed.holds


def test_the_sign_of_the_unequal_pair() -> None:
    # G12 = tau^2/N + kappa_+ kappa_- W: with opposite signs the product is negative.
    important, irrelevant, _ = embeddings([1.0, -0.4], 3, 1.0, 1.0)
    solved = max_margin(all_pairs(important, irrelevant)).margin
    np.testing.assert_allclose(unequal_pair_margin(1.0, -0.4, 3).margin, solved, rtol=1e-12)
    assert abs(unequal_pair_margin(1.0, 0.4, 3).margin / solved - 1) > 0.05


# By another way than the closed forms: the Gram matrix of the active rows, solved by elimination in exact fractions.
def precise(kappa: list[float], groups: list[int] | int, tau: float, W: float) -> tuple[list[Fraction], Fraction]:
    """Multipliers per important token and p_mm.v, from G lambda = 1 with G_sr = tau^2 (...) + kappa_s kappa_r W."""
    k, t, w = [Fraction(x) for x in kappa], Fraction(tau), Fraction(W)
    M = len(k)
    rows = []
    for i in range(M):
        shared = [Fraction(1, groups) if isinstance(groups, int) else Fraction(i == j, groups[i]) for j in range(M)]
        rows.append([t * t * ((i == j) + shared[j]) + k[i] * k[j] * w for j in range(M)] + [Fraction(1)])
    for i in range(M):  # G is positive definite: no pivot vanishes
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for j in range(M):
            if j != i:
                rows[j] = [x - rows[j][i] * y for x, y in zip(rows[j], rows[i])]
    solution = [row[-1] for row in rows]
    return solution, w * sum(x * y for x, y in zip(solution, k))


SHAPES = {
    "one": [1.0],
    "balanced": [1.0, -1.0],
    "equal": [1.0, 1.0, 1.0],
    "nearly equal": [1.0, 1.0 + 2.0**-40, 1.0 - 2.0**-41],
    "mixed": [0.3, -0.7, 1.1, 0.9],
}


@pytest.mark.parametrize("size", [1e3, 1e6, 1e8, 1e12, 1e100])
@pytest.mark.parametrize("name", SHAPES)
def test_large_kappa_costs_no_digit(name: str, size: float) -> None:
    kappa, tau, W = [size * x for x in SHAPES[name]], 0.7, 1.3
    forms: list[tuple[OrthogonalMargin, list[Fraction], Fraction]] = [
        (orthogonal_margin(kappa, 3, tau=tau, W=W), *precise(kappa, 3, tau, W)),
    ]
    k = [1, 2, 3, 4][: len(kappa)]
    forms.append((private_margin(kappa, k, tau=tau, W=W), *precise(kappa, k, tau, W)))
    if len(kappa) == 1:
        forms.append((single_margin(kappa[0], 3, tau=tau, W=W), *precise(kappa, 3, tau, W)))
    if len(kappa) == 2:
        forms.append((unequal_pair_margin(*kappa, 3, tau=tau, W=W), *precise(kappa, 3, tau, W)))
        forms.append((balanced_pair_margin(kappa[0], 3, tau=tau, W=W), *precise(kappa, 3, tau, W)))
    for closed, multipliers, value in forms:
        for got, exact in zip(closed.multipliers, multipliers):
            assert abs(got - exact) <= 1e-12 * abs(exact)
        assert abs(closed.squared_norm - sum(multipliers)) <= 1e-12 * abs(sum(multipliers))
        if sum(multipliers) > 0:
            assert abs(Fraction(closed.margin) ** 2 * sum(multipliers) - 1) <= 1e-12
        assert abs(closed.value - value) <= 1e-12 * abs(value)
        assert closed.holds == (min(multipliers) >= 0)


def test_the_formula_in_floats_has_lost_them() -> None:
    kappa, tau, W = 1e6 * np.array(SHAPES["nearly equal"]), 0.7, 1.3
    K1, stiffness = kappa.sum(), tau**2 + kappa @ kappa * W
    M_eff = 3 - K1**2 * W / stiffness
    exact = sum(precise(kappa.tolist(), 3, tau, W)[0])
    in_floats = 1 / (tau**2 * (1 / M_eff + 1 / 3))
    assert abs(in_floats / exact - 1) > 1e-6
    assert abs(orthogonal_margin(kappa, 3, tau=tau, W=W).squared_norm / exact - 1) < 1e-15


def test_wide_random_embeddings_approach_the_limit() -> None:
    rng = np.random.default_rng(0)
    kappa, N = np.array([0.6, 0.2, -0.5]), 4
    limit = orthogonal_margin(kappa, N).squared_norm
    widths, deviation = [100, 1000, 10000], []
    for d in widths:
        squared_norms = []
        for _ in range(15):
            v = rng.choice([-1.0, 1.0], size=d) / np.sqrt(d)
            E = rng.standard_normal((3 + N, d)) / np.sqrt(d)
            E[:3] += np.outer(kappa, v)
            squared_norms.append(max_margin(all_pairs(E[:3], E[3:])).p)
        deviation.append(np.sqrt(np.mean([(p @ p / limit - 1) ** 2 for p in squared_norms])))
    slope = np.polyfit(np.log(widths), np.log(deviation), 1)[0]
    assert -0.7 < slope < -0.3


def test_decomposition() -> None:
    rng = np.random.default_rng(1)
    data = TokenDataset.from_tokens([[0, 2], [1, 3]], [1, -1], vocab_size=5)
    basis = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    v = 3 * basis[-1]
    kappa = np.array([0.5, -0.2, 0.0, 0.0, 7.0])
    E = 2 * basis[:5] + np.outer(kappa, v)
    split = orthogonal_embeddings(AttentionModel(E, np.zeros(8), v), data)
    np.testing.assert_allclose(split.kappa, kappa, rtol=0, atol=1e-14)
    np.testing.assert_allclose((split.tau, split.W), (2.0, 9.0), rtol=1e-14)
    assert split.holds
    # A token that never occurs does not count; one that does is measured.
    far = E.copy()
    far[4] *= 100
    assert orthogonal_embeddings(AttentionModel(far, np.zeros(8), v), data).holds
    bent = E.copy()
    bent[0] += 0.02 * basis[1]
    report = orthogonal_embeddings(AttentionModel(bent, np.zeros(8), v), data)
    assert len(report.failures) == 2
    np.testing.assert_allclose(report.hypotheses[0].measured, 0.01, rtol=1e-3)


def test_many_tokens_are_measured_in_blocks() -> None:
    V = 1100
    E = np.eye(V, V + 1)
    E[1050, 3] = 0.25
    v = np.zeros(V + 1)
    v[-1] = 1.0
    data = TokenDataset.from_tokens([list(range(V)), [0]], [1, -1])
    split = orthogonal_embeddings(AttentionModel(E, np.zeros(V + 1), v), data)
    np.testing.assert_allclose(split.hypotheses[0].measured, 0.25, rtol=1e-3)


def test_without_v_there_is_nothing_to_split() -> None:
    data = TokenDataset.from_tokens([[0, 1], [2, 1]], [1, -1])
    split = orthogonal_embeddings(AttentionModel(np.eye(3), np.zeros(3), np.zeros(3)), data)
    assert not split.holds
    assert split.failures[0].name.startswith("there is a direction v")
    assert (split.kappa == 0).all()
    np.testing.assert_array_equal(split.e, np.eye(3))


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: orthogonal_margin([], 2), "kappa"),
        (lambda: orthogonal_margin([1.0], 0), "n_irrelevant"),
        (lambda: orthogonal_margin([1.0], 2, tau=0.0), "tau"),
        (lambda: orthogonal_margin([1.0], 2, W=-1.0), "W"),
        (lambda: private_margin([1.0, 2.0], [1, 0]), "n_irrelevant"),
        (lambda: private_margin([1.0, 2.0], [1.5, 2.0]), "n_irrelevant"),
        (lambda: private_margin([1.0, 2.0], [1, 2, 3]), "n_irrelevant"),
        (lambda: single_margin(float("nan"), 2), "kappa"),
    ],
)
def test_bad_arguments(call: object, argument: str) -> None:
    with pytest.raises(InputError, match=f"`{argument}`"):
        call()  # type: ignore[operator]
