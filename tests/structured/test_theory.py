"""The predictions about scale against differences, against training steps and against a grid of scales."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from attnembed.errors import InputError
from attnembed.reference import enumerate_chain
from attnembed.results import Status
from attnembed.structured.chain import chain_sample
from attnembed.structured.objectives import chain_objective
from attnembed.structured.theory import component_norms, effective_step_size, fit_scales, scale_objective
from tests.gradients import quick_check

LENGTHS = np.array([4, 3, 1, 2, 4])


def problem(seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    return spread * rng.normal(size=(5, 4, 3)), spread * rng.normal(size=(3, 3)), rng.integers(0, 3, size=(5, 4))


@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.3, 2.0), (-0.5, 0.0), (300.0, 200.0)])
def test_derivatives_in_the_scales(scales):
    unary, pairwise, labels = problem()

    def at(s):
        return scale_objective(unary, pairwise, labels, LENGTHS, scales=tuple(s))

    point = np.array(scales)
    plain = chain_objective("nll", scales[0] * unary, scales[1] * pairwise, labels, LENGTHS).value
    assert_allclose(at(point).value, plain, rtol=1e-14)
    assert quick_check(lambda s: at(s).value, at(point).gradient, point).passed
    hessian = at(point).hessian
    assert_allclose(hessian, hessian.T, rtol=1e-12)
    if max(scales) < 10:
        for i in (0, 1):
            report = quick_check(lambda s, i=i: at(s).gradient[i], hessian[i], point)
            assert report.passed, report.message


def test_hessian_is_the_covariance_of_the_totals():
    unary, pairwise, labels = problem(3)
    hessian = scale_objective(unary[:1], pairwise, labels[:1]).hessian
    shape = (3,) * 4
    ys = np.array(list(np.ndindex(shape)))
    totals = np.stack([unary[0][np.arange(4), ys].sum(1), pairwise[ys[:, :-1], ys[:, 1:]].sum(1)])
    weights = np.exp(totals.sum(0) - enumerate_chain(unary[0], pairwise).log_partition)
    assert_allclose(hessian, np.cov(totals, aweights=weights, ddof=0), rtol=1e-12)


@given(st.integers(0, 2**32), st.sampled_from((0.1, 1.0, 30.0)))
def test_objective_is_convex_in_the_scales(seed, spread):
    hessian = scale_objective(*problem(seed, spread), LENGTHS).hessian
    assert np.linalg.eigvalsh(hessian).min() >= -1e-12 * np.abs(hessian).max()


def test_newton_finds_the_best_scales():
    unary, pairwise, _ = problem()
    # Labels drawn from the scales (1.5, 0.5): the optimum exists, and is near them for many sequences.
    many = np.repeat(unary, 200, axis=0)
    labels = chain_sample(1.5 * many, 0.5 * pairwise, rng=0)
    fit = fit_scales(many, pairwise, labels)
    assert fit.status is Status.CONVERGED
    assert np.linalg.norm(fit.gradient) <= 1e-9 * fit.value
    assert_allclose([fit.unary_scale, fit.pairwise_scale], [1.5, 0.5], rtol=0.15)
    for a in (0.99, 1.01):
        for b in (0.99, 1.01):
            scales = (a * fit.unary_scale, b * fit.pairwise_scale)
            assert scale_objective(many, pairwise, labels, scales=scales).value > fit.value


def test_separable_data_has_no_best_scale():
    unary = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    fit = fit_scales(unary, np.zeros((2, 2)), [[0, 1]], tolerance=1e-30, max_iterations=5)
    assert fit.status is Status.MAX_ITERATIONS
    assert "diverges" in fit.message
    assert fit.unary_scale > 3


def test_component_norms_ignore_constants():
    rng = np.random.default_rng(0)
    unary, pairwise = rng.normal(size=(7, 3)), rng.normal(size=(2, 3, 3))
    moved = component_norms(unary + rng.normal(size=(7, 1)), pairwise + rng.normal(size=(2, 1, 1)))
    assert_allclose(moved, component_norms(unary, pairwise), rtol=1e-13)
    assert_allclose(
        component_norms(3 * unary, 5 * pairwise), np.multiply(component_norms(unary, pairwise), (3, 5)), rtol=1e-13
    )


def test_bad_input_is_named():
    with pytest.raises(InputError, match="`method` must be one of"):
        effective_step_size("lbfgs", 1.0, 1.0)
    with pytest.raises(InputError, match="`scale` must be finite and > 0"):
        effective_step_size("sgd", 0.0, 1.0)
    with pytest.raises(InputError, match="`allowed` must allow at least one pair"):
        component_norms(np.zeros((1, 2)), np.zeros((2, 2)), np.zeros((2, 2), dtype=bool))
