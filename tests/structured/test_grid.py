"""Grids: best labelings, ICM, mean field and the objectives, against enumeration and the laws they must obey."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from attnembed.errors import InputError
from attnembed.reference import enumerate_grid
from attnembed.structured import grid as grid_module
from attnembed.structured.grid import (
    contrast_weights,
    grid_decode,
    grid_icm,
    grid_map,
    grid_mean_field,
    grid_score,
)
from attnembed.structured.grid_objectives import GRID_OBJECTIVES, grid_objective
from attnembed.structured.grid_potentials import GridPotentials
from tests.gradients import quick_check


def grid(seed, height, width, k=2, *, spread=1.0, attractive=True):
    """Random potentials and edge weights of one image."""
    rng = np.random.default_rng(seed)
    unary = spread * rng.normal(size=(1, height, width, k))
    pairwise = spread * rng.normal(size=(2, k, k))
    if attractive:
        for w in pairwise:
            w[0, 0] += max(0.0, w[0, 1] + w[1, 0] - w[0, 0] - w[1, 1])
    weights = rng.random((1, height, width - 1)), rng.random((1, height - 1, width))
    return unary, pairwise, weights


def enumerated(unary, pairwise, weights):
    return enumerate_grid(unary[0], *(w * c[0][..., None, None] for w, c in zip(pairwise, weights)))


SIZES = st.integers(1, 3)


@given(st.integers(0, 2**32), SIZES, SIZES, st.sampled_from((1e-6, 1.0, 1e6)), st.booleans())
def test_decoding_two_labels_equals_enumeration(seed, height, width, spread, attractive):
    problem = grid(seed, height, width, spread=spread, attractive=attractive)
    truth, found = enumerated(*problem), grid_map(*problem)
    assert_allclose(found.score[0], grid_score(*problem[:2], found.labels, problem[2])[0], rtol=1e-13)
    assert truth.score - found.score[0] <= found.gap
    assert found.gap <= 1e-12 * spread * height * width * 10
    assert_allclose(found.score[0], truth.score, rtol=1e-12)
    assert_array_equal(grid_decode(*problem), found.labels)


def test_min_cut_of_a_batch_is_that_of_each_image():
    rng = np.random.default_rng(0)
    unary, pairwise = rng.normal(size=(4, 6, 5, 2)), np.array([[0.7, 0.0], [0.2, 0.9]])
    together = grid_map(unary, pairwise).labels
    for i in range(4):
        assert_array_equal(together[i], grid_map(unary[i : i + 1], pairwise).labels[0])


@given(st.integers(0, 2**32), SIZES, SIZES, st.integers(1, 3))
def test_icm_finds_a_local_optimum(seed, height, width, k):
    unary, pairwise, weights = grid(seed, height, width, k, attractive=False)
    labels = grid_icm(unary, pairwise, weights)
    score = grid_score(unary, pairwise, labels, weights)[0]
    assert score >= grid_score(unary, pairwise, unary.argmax(axis=3), weights)[0] - 1e-12
    for place in np.ndindex(height, width):
        for other in range(k):
            changed = labels.copy()
            changed[0][place] = other
            assert grid_score(unary, pairwise, changed, weights)[0] <= score + 1e-12


@given(st.integers(0, 2**32), SIZES, SIZES)
def test_mean_field_is_a_fixed_point_below_log_partition(seed, height, width):
    unary, pairwise, weights = grid(seed, height, width, 2, spread=0.5, attractive=False)
    truth = enumerated(unary, pairwise, weights)
    found = grid_mean_field(unary, pairwise, weights)
    assert found.change <= 1e-8
    assert found.bound[0] <= truth.log_partition + 1e-12
    q = found.node[0]
    expected = np.sum(q * unary[0]) - np.sum(q * np.log(q))
    expected += np.einsum("hwk,hwl,kl,hw->", q[:, :-1], q[:, 1:], pairwise[0], weights[0][0])
    expected += np.einsum("hwk,hwl,kl,hw->", q[:-1], q[1:], pairwise[1], weights[1][0])
    assert_allclose(found.bound[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weighted", [True, False])
def test_mean_field_of_two_labels_is_that_of_three_of_which_one_is_excluded(weighted):
    unary, pairwise, weights = grid(4, 5, 6)
    third = np.pad(unary, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=-1e9)
    known = weights if weighted else None
    two = grid_mean_field(unary, pairwise, known, max_sweeps=3, tolerance=1e-15)
    three = grid_mean_field(third, np.pad(pairwise, ((0, 0), (0, 1), (0, 1))), known, max_sweeps=3, tolerance=1e-15)
    assert two.sweeps == three.sweeps == 3
    assert_allclose(two.node, three.node[..., :2], rtol=1e-12)
    assert_allclose(two.bound, three.bound, rtol=1e-12)


def test_mean_field_is_exact_without_edges():
    unary, pairwise, _ = grid(1, 2, 3)
    truth = enumerate_grid(unary[0], 0 * pairwise[0], 0 * pairwise[1])
    found = grid_mean_field(unary, 0 * pairwise)
    assert_allclose(found.bound[0], truth.log_partition, rtol=1e-14)
    assert_allclose(found.node[0], truth.node, rtol=1e-13)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", GRID_OBJECTIVES)
def test_gradients(name, shared):
    rng = np.random.default_rng(0)
    unary, labels = rng.normal(size=(2, 2, 3, 2)), rng.integers(0, 2, size=(2, 2, 3))
    pairwise = np.eye(2) * 0.6 + 0.2 * rng.normal(size=(2, 2) if shared else (2, 2, 2))
    weights = rng.random((2, 2, 2)), rng.random((2, 1, 3))
    out = grid_objective(name, unary, pairwise, labels, weights)
    # The gradient of the bound is right to the tolerance of its fixed point: remainders below that say nothing.
    steps = (0.1, 0.03, 0.01, 3e-3, 1e-3) if name == "mean_field" else None
    report = quick_check(
        lambda u: grid_objective(name, u, pairwise, labels, weights).value, out.unary, unary, steps=steps
    )
    assert report.passed, report.message
    assert out.pairwise.shape == pairwise.shape
    if name == "unary":
        assert not out.pairwise.any()
        return
    report = quick_check(
        lambda w: grid_objective(name, unary, w, labels, weights).value, out.pairwise, pairwise, steps=steps
    )
    assert report.passed, report.message


def test_values_by_enumeration():
    unary, pairwise, weights = grid(4, 2, 3)
    labels = np.array([[[0, 1, 1], [1, 0, 0]]])
    score = grid_score(unary, pairwise, labels, weights)[0]
    wrong = (np.arange(2) != labels[..., None]) / 6
    truth = enumerated(unary + wrong, pairwise, weights)
    assert_allclose(grid_objective("ssvm", unary, pairwise, labels, weights).value, truth.score - score, rtol=1e-12)
    expected = 0.0
    for place in np.ndindex(2, 3):
        scores = []
        for k in range(2):
            changed = labels.copy()
            changed[0][place] = k
            scores.append(grid_score(unary, pairwise, changed, weights)[0])
        expected -= scores[labels[0][place]] - np.log(np.exp(scores).sum())
    value = grid_objective("pseudolikelihood", unary, pairwise, labels, weights).value
    assert_allclose(value, expected, rtol=1e-12)


def test_margin_is_a_temperature_of_the_hinge():
    """margin * f(potentials / margin) with the margin 1 is f(potentials) with that margin."""
    unary, pairwise, weights = grid(5, 3, 4)
    labels = np.random.default_rng(0).integers(0, 2, size=(1, 3, 4))
    wide = grid_objective("ssvm", unary, pairwise, labels, weights, margin=12.0)
    plain = grid_objective("ssvm", unary / 12, pairwise / 12, labels, weights)
    assert_allclose(wide.value, 12 * plain.value, rtol=1e-12)
    assert_allclose(wide.unary, plain.unary, atol=1e-12)
    assert_allclose(wide.pairwise, plain.pairwise, atol=1e-12)
    assert wide.value > grid_objective("ssvm", unary, pairwise, labels, weights).value
    with pytest.raises(InputError, match="`margin` must be"):
        grid_objective("ssvm", unary, pairwise, labels, weights, margin=0.0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_likelihood_bound_does_not_sink_with_the_scale(dtype):
    """From softmax(U) alone the mean-field bound on log Z falls ever farther below the score of the true labels."""
    labels = np.zeros((2, 16, 16), dtype=int)
    labels[:, :, 8:] = 1
    unary, pairwise = np.random.default_rng(0).normal(size=(2, 16, 16, 2)).astype(dtype), np.eye(2, dtype=dtype)
    plain, values = [], []
    for scale in (1, 10, 100):
        score = grid_score(unary, scale * pairwise, labels)
        uniform = [grid_score(unary, scale * pairwise, np.full_like(labels, k)) for k in (0, 1)]
        least = float(np.mean(np.max(uniform, axis=0) - score))
        plain.append(float(np.mean(grid_mean_field(unary, scale * pairwise).bound - score)))
        values.append(grid_objective("mean_field", unary, scale * pairwise, labels).value)
        assert values[-1] > least - 1e-3 * abs(least)
        assert values[-1] > 0
    assert plain[2] < 10 * plain[1] < 0
    assert values[0] < values[1] < values[2]


def test_contrast_weights():
    images = np.zeros((1, 2, 3, 1))
    images[0, :, 2] = 5.0
    horizontal, vertical = contrast_weights(images, 1.0)
    assert_allclose(horizontal[0], [[1, np.exp(-12.5)]] * 2, rtol=1e-15)
    assert_array_equal(vertical, np.ones((1, 1, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 2, 2)), np.zeros((2, 2))), "`unary` must have 4 axes"),
        ((np.zeros((1, 2, 2, 2)), np.zeros((3, 3))), r"`pairwise` must have shape \(2, 2\)"),
        ((np.zeros((1, 2, 2, 2)), np.zeros((1, 2, 2))), r"`pairwise` must have shape \(2, 2, 2\)"),
        ((np.full((1, 2, 2, 2), np.nan), np.zeros((2, 2))), "`unary` must be finite"),
        ((np.zeros((1, 2, 2, 2)), np.full((2, 2), -np.inf)), "`pairwise` must be finite"),
        (
            (np.zeros((1, 2, 2, 3)), np.zeros((3, 3))),
            "`unary` must have two labels for a cut; got 3 labels; use grid_icm",
        ),
        ((np.zeros((1, 2, 2, 2)), np.eye(2), (np.ones((1, 2, 2)), np.ones((1, 1, 2)))), r"`weights\[0\]` must have"),
        ((np.zeros((1, 2, 2, 2)), np.eye(2), (np.ones((1, 2, 1)),)), "`weights` must be two arrays"),
        ((np.zeros((1, 2, 2, 2)), np.eye(2), 1.0), "`weights` must be two arrays"),
        ((np.zeros((1, 2, 2, 2)), [[1.0], [1.0, 2.0]]), "`pairwise` must be an array"),
        (
            (np.zeros((1, 2, 2, 2)), np.eye(2), (-np.ones((1, 2, 1)), np.ones((1, 1, 2)))),
            r"`weights\[0\]` must be >= 0",
        ),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        grid_map(*arguments)


def test_decode_takes_icm_for_more_than_two_labels():
    unary, pairwise, _ = grid(0, 3, 3, 3, attractive=False)
    assert_array_equal(grid_decode(unary, pairwise), grid_icm(unary, pairwise))


def test_bad_labels_are_named():
    with pytest.raises(InputError, match=r"`labels` must be in 0..1; got 2"):
        grid_score(np.zeros((1, 1, 1, 2)), np.zeros((2, 2)), [[[2]]])
    with pytest.raises(InputError, match="`labels` must have shape"):
        grid_score(np.zeros((1, 1, 1, 2)), np.zeros((2, 2)), [[0]])


# --- the bound on log Z -------------------------------------------------------------------------------------------


def test_mean_field_of_strong_neighbours_is_a_bound_and_called_one():
    pairwise = 2 * np.eye(2)
    truth = enumerate_grid(np.zeros((2, 2, 2)), pairwise, pairwise).log_partition
    found = grid_mean_field(np.zeros((1, 2, 2, 2)), pairwise)
    assert_allclose(truth, np.log(2 * np.exp(8) + 12 * np.exp(4) + 2), rtol=1e-14)
    assert_allclose(found.bound, 4 + 4 * np.log(2), rtol=1e-14)  # q = 1/2, two below the truth
    assert "bound" in vars(found)
    assert "log_partition" not in vars(found)
    with pytest.warns(DeprecationWarning, match="now MeanField.bound"):
        assert found.log_partition is found.bound


@given(st.integers(0, 2**32), SIZES, st.integers(1, 2), st.sampled_from((2, 3)), st.sampled_from((0.0, 0.5, 3.0)))
def test_the_bound_is_below_log_partition_and_equal_without_edges(seed, height, width, k, strength):
    unary, pairwise, weights = grid(seed, height, width, k, attractive=False)
    pairwise = strength * pairwise
    truth, found = (
        enumerated(unary, pairwise, weights).log_partition,
        grid_mean_field(unary, pairwise, weights).bound[0],
    )
    assert found <= truth + 1e-13 * max(1, abs(truth))
    if strength == 0:
        assert_allclose(found, truth, rtol=1e-13)
    labels = np.random.default_rng(seed).integers(0, k, size=(1, height, width))
    value = grid_objective("mean_field", unary, pairwise, labels, weights).value
    nll = truth - grid_score(unary, pairwise, labels, weights)[0]
    assert value <= nll + 1e-12 * max(1, abs(truth))


def test_old_names_warn_and_lead_to_the_new_ones():
    arguments = np.zeros((1, 1, 2, 2)), np.eye(2), [[[0, 1]]]
    with pytest.warns(DeprecationWarning, match='"nll" is now "mean_field"'):
        old = grid_objective("nll", *arguments)
    assert old.value == grid_objective("mean_field", *arguments).value
    with pytest.warns(DeprecationWarning, match=r"is now attnembed.structured.grid_objectives.grid_objective"):
        assert grid_module.grid_objective is grid_objective
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        grid_module.nothing  # noqa: B018


# --- saturated losses ---------------------------------------------------------------------------------------------


# Enough digits that 1 + e^-700 is not 1.
DIGITS = 360


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("a", [1.0, 30.0, 40.0, 300.0, 700.0])
@pytest.mark.parametrize("name", ["unary", "pseudolikelihood", "mean_field"])
def test_saturated_losses_keep_their_digits(name, a, k):
    """One label leads by ``a`` everywhere, split between the pixel's own part and its neighbours."""
    labels = np.zeros((1, 1, 3), dtype=int)
    unary, pairwise = np.zeros((1, 1, 3, k)), np.zeros((2, k, k))
    unary[..., 0] = a
    if name == "pseudolikelihood":
        unary[..., 0], unary[0, 0, 1, 0] = a / 2, 0
        pairwise[0, 0] = pairwise[0, :, 0] = a / 2
        pairwise[0, 0, 0] = a
    out = grid_objective(name, unary, pairwise, labels)
    with localcontext(prec=DIGITS):
        expected = float(3 * (1 + (k - 1) * Decimal(-a).exp()).ln())
        rival = float(1 / (Decimal(a).exp() + k - 1))
    assert_allclose(out.value, expected, rtol=1e-12, atol=0)
    assert_allclose(out.unary[..., 1:], np.full((1, 1, 3, k - 1), rival), rtol=1e-12, atol=0)
    assert_array_equal(out.unary[..., 0], -out.unary[..., 1:].sum(axis=-1))


def test_a_saturated_mean_field_bound_against_sixty_digits():
    """Two pixels that attract each other: the fixed point and its bound by iteration in 60 digits."""
    unary, w = np.array([[[[30.0, 0.0], [25.0, 0.0]]]]), np.array([[8.0, 0.0], [0.0, 7.0]])
    with localcontext(prec=60):
        q = [Decimal(0), Decimal(0)]  # of label 1
        for _ in range(50):
            for u, gain in ((0, 30), (1, 25)):
                lead = gain + 8 * (1 - q[1 - u]) - 7 * q[1 - u]
                q[u] = 1 / (1 + lead.exp())
        entropy = -sum(x * x.ln() + (1 - x) * (1 - x).ln() for x in q)
        energy = -30 * q[0] - 25 * q[1] + 8 * ((1 - q[0]) * (1 - q[1]) - 1) + 7 * q[0] * q[1]
        expected = float(energy + entropy)
    out = grid_objective("mean_field", unary, w, [[[0, 0]]])
    assert_allclose(out.value, expected, rtol=1e-12, atol=0)
    # The gradient is that of the q found, right to the tolerance of the fixed point; the value is stationary in q.
    assert_allclose(out.unary[0, 0, :, 1], [float(x) for x in q], rtol=1e-9)
    assert_allclose(out.pairwise[0, 0], -float(q[0] + q[1] - q[0] * q[1]), rtol=1e-9)


# --- laws ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), SIZES, SIZES, st.integers(1, 3), st.sampled_from((1.0, 50.0)), st.booleans())
def test_probabilities_are_probabilities(seed, height, width, k, spread, single):
    unary, pairwise, weights = grid(seed, height, width, k, spread=spread, attractive=False)
    unary = unary.astype(np.float32) if single else unary
    q = grid_mean_field(unary, pairwise, weights, max_sweeps=20).node
    assert q.min() >= 0
    assert q.max() <= 1
    assert_allclose(q.sum(axis=3), 1, rtol=1e-6 if single else 1e-14)


@given(st.integers(0, 2**32), SIZES, SIZES, st.integers(2, 3))
def test_without_edges_a_grid_is_a_product_of_softmaxes(seed, height, width, k):
    rng = np.random.default_rng(seed)
    unary, nothing = 3 * rng.normal(size=(2, height, width, k)), np.zeros((k, k))
    p = np.exp(unary) / np.exp(unary).sum(axis=3, keepdims=True)
    found = grid_mean_field(unary, nothing)
    assert_allclose(found.node, p, rtol=1e-13)
    assert_allclose(found.bound, np.log(np.exp(unary).sum(axis=3)).sum(axis=(1, 2)), rtol=1e-13, atol=1e-14)
    assert_array_equal(grid_decode(unary, nothing), unary.argmax(axis=3))
    labels = rng.integers(0, k, size=(2, height, width))
    expected = -np.log(np.take_along_axis(p, labels[..., None], axis=3)).sum() / 2
    for name in ("mean_field", "pseudolikelihood", "unary"):
        assert_allclose(grid_objective(name, unary, nothing, labels).value, expected, rtol=1e-12)


@given(st.integers(0, 2**32), SIZES, SIZES, st.integers(1, 3), st.sampled_from((0.0, 1.0, 50.0)), st.booleans())
def test_objectives_are_not_negative(seed, height, width, k, spread, single):
    """All but the bound; and those of label probabilities have gradients that sum to 0 at every pixel."""
    unary, pairwise, weights = grid(seed, height, width, k, spread=spread, attractive=False)
    unary = unary.astype(np.float32) if single else unary
    for labels in (np.random.default_rng(seed).integers(0, k, size=(1, height, width)), grid_decode(unary, pairwise)):
        for name in GRID_OBJECTIVES:
            out = grid_objective(name, unary, pairwise, labels, weights)
            assert name == "mean_field" or out.value >= 0
            assert_allclose(out.unary.sum(axis=3), 0, atol=1e-6 if single else 1e-15)


def test_the_hinge_of_many_labels_is_not_negative_where_icm_is_below_the_truth():
    """ICM from the unary argmax can end below the true labeling, which is a candidate as well."""
    below = 0
    for seed in range(30):
        unary, pairwise, _ = grid(seed, 2, 3, 3, attractive=False)
        pairwise = 2 * pairwise
        best = enumerate_grid(unary[0], *pairwise).labeling[None]
        out = grid_objective("ssvm", unary, pairwise, best)
        wrong = (np.arange(3) != best[..., None]) / 6
        found = grid_score(unary + wrong, pairwise, grid_icm(unary + wrong, pairwise))[0]
        below += found < grid_score(unary, pairwise, best)[0]
        assert out.value >= 0
    assert below > 2


def test_the_default_width_is_the_root_mean_square_difference() -> None:
    images = np.array([[[[0.0], [1.0]], [[3.0], [7.0]]]])
    squares = np.array([1.0, 16.0, 9.0, 36.0])  # two horizontal edges, two vertical ones
    horizontal, vertical = contrast_weights(images)
    expected = np.exp(-squares / (2 * squares.mean()))
    assert_allclose(np.concatenate([horizontal.ravel(), vertical.ravel()]), expected, rtol=1e-14)
    named = contrast_weights(images, width=float(np.sqrt(squares.mean())))
    assert_allclose(named[0], horizontal, rtol=1e-14)


def test_the_gap_counts_the_terms_of_the_score() -> None:
    """Four pixels and four edges, whose sizes add up to 4 + 4 * 3 in the best labeling."""
    unary = np.zeros((1, 2, 2, 2))
    unary[..., 1] = 1.0
    found = grid_map(unary, np.diag([0.0, 3.0]))
    assert found.score.tolist() == [16.0]
    assert found.gap == np.finfo(float).eps * 8 * 16


@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7)),
    shared=st.booleans(),
    weighted=st.booleans(),
    n_sweeps=st.integers(1, 12),
)
def test_half_sweeps_of_two_labels_are_those_of_any_number(seed, shape, shared, weighted, n_sweeps):
    rng = np.random.default_rng(seed)
    n, height, width = shape
    unary = rng.normal(size=(*shape, 2)) * 10.0 ** rng.integers(-1, 3)
    weights = (rng.random((n, height, width - 1)), rng.random((n, height - 1, width))) if weighted else None
    potentials = GridPotentials(unary, rng.normal(size=(2, 2) if shared else (2, 2, 2)), weights)
    start = rng.dirichlet([1, 1], size=shape)
    plain, change, _ = grid_module._sweeps(potentials, start, 1e-300, n_sweeps)
    found, found_change, swept = grid_module._two_label_sweeps(potentials, start, 1e-300, n_sweeps)
    assert swept == n_sweeps or found_change == 0
    assert_allclose(found, plain, rtol=1e-9, atol=1e-12)
    assert abs(change - found_change) <= 1e-12
