"""One step on the embeddings: it is the gradient step, and the prediction and its bound stand beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from attnembed.attention.data import TokenDataset, make_balanced_dataset
from attnembed.attention.first_step import one_step
from attnembed.attention.model import AttentionModel
from attnembed.errors import InputError
from tests.attention.theory.instances import as_model, random_instance
from tests.plain import AttentionProblem, attention_problems


def orthogonal_start(model: AttentionModel) -> AttentionModel:
    """p = 0 and E v = 0."""
    v = model.v / (np.linalg.norm(model.v) or 1.0)
    return model.replace(p=np.zeros(model.dim), E=model.E - np.outer(model.E @ v, v))


@given(attention_problems(), st.floats(-3, 3), st.floats(-3, 1))
def test_the_step_is_the_gradient_step(problem: AttentionProblem, power: float, norm: float) -> None:
    model, data = as_model(problem.scaled(10**norm))
    eta = 10**power
    step = one_step(model, data, eta)
    expected = model.E - eta * model.loss_and_grads(data)[1].E
    assert_allclose(step.model.E, expected, rtol=0, atol=1e-15 * (1 + eta) * (1 + np.abs(expected).max()))
    assert_array_equal(step.model.p, model.p)
    assert_array_equal(step.model.v, model.v)
    moved = step.model.E - model.E
    assert np.linalg.matrix_rank(moved, tol=1e-9 * (1 + eta) * (1 + np.abs(moved).max())) <= 2


@given(attention_problems(), st.floats(-3, 3), st.floats(-4, 1), st.floats(-3, 0.5))
def test_the_error_is_within_the_bound(problem: AttentionProblem, power: float, norm: float, scale: float) -> None:
    problem = problem.scaled(10**norm)
    model, data = as_model(problem)
    model, eta = model.replace(E=10**scale * model.E), 10**power
    step = one_step(model, data, eta)
    predicted = model.E + eta / 2 * np.outer(data.signed_frequency, model.v)
    assert_allclose(step.predicted_E, predicted, rtol=0, atol=1e-15 * (np.abs(model.E).max() + eta))
    assert_allclose(step.error, np.linalg.norm(step.model.E - predicted, axis=1), rtol=1e-12, atol=1e-14 * (1 + eta))
    rounding = 1e-14 * (1 + eta) * (1 + np.abs(model.E).max()) * (1 + float(model.v @ model.v))
    assert (step.error <= step.bound * (1 + 1e-12) + rounding).all()
    assert_array_equal(step.bound[data.frequency == 0], 0)
    assert (step.error[data.frequency == 0] <= rounding).all()


def test_the_bound_is_not_far_from_the_error() -> None:
    # A bound that was too large by a factor of two, or lacked a term, would not come as close.
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(200):
        model, data = random_instance(rng)
        step = one_step(
            model.replace(E=10 ** rng.uniform(-3, 0.5) * model.E, p=10 ** rng.uniform(-4, 0.5) * model.p), data, 1.0
        )
        occurs = data.frequency > 0
        ratios.append((step.error[occurs] / step.bound[occurs]).max())
    assert 0.9 < max(ratios) <= 1 + 1e-12


@given(attention_problems(), st.floats(-2, 4))
def test_exact_from_an_orthogonal_start(problem: AttentionProblem, power: float) -> None:
    model, data = as_model(problem)
    model, eta = orthogonal_start(model), 10**power
    step = one_step(model, data, eta)
    size = float(model.v @ model.v)
    assert step.error.max() <= 1e-14 * (1 + eta) * (1 + np.abs(model.E).max()) * (1 + size)
    assert step.slope == pytest.approx(eta / 2 * size, rel=1e-15)
    assert step.step_size == eta
    if np.abs(data.signed_frequency).max() > 1e-3:
        assert_allclose(step.measured_slope, step.slope, rtol=1e-9)


@pytest.mark.parametrize("dim", [100, 10_000])
def test_the_measured_slope_tends_to_the_predicted_one(dim: int) -> None:
    data = make_balanced_dataset(n_samples=40, length=6, n_irrelevant=12, rng=0)
    step = one_step(AttentionModel.random(data.vocab_size, dim, rng=1), data, 100.0)
    assert step.slope == pytest.approx(50.0, rel=1e-14)
    # the deviation is O(1/sqrt d)
    assert 0.01 < abs(step.measured_slope / step.slope - 1) * np.sqrt(dim) < 3


def test_no_signed_frequency_no_slope() -> None:
    data = TokenDataset.from_tokens([[0, 1], [0, 1]], [1, -1])
    step = one_step(AttentionModel(np.eye(2), np.zeros(2), np.ones(2)), data, 1.0)
    assert np.isnan(step.measured_slope)
    assert step.slope == 1.0


def test_single_precision_stays_single() -> None:
    model, data = random_instance(np.random.default_rng(1))
    single = AttentionModel(model.E.astype(np.float32), model.p, model.v)
    step, exact = one_step(single, data, 10.0), one_step(single.replace(E=model.E), data, 10.0)
    assert step.model.E.dtype == np.float32
    assert_allclose(step.model.E, exact.model.E, rtol=0, atol=1e-4)


def test_the_arrays_cannot_be_written() -> None:
    model, data = random_instance(np.random.default_rng(2))
    step = one_step(model, data, 1.0)
    for array in (step.predicted_E, step.error, step.bound, step.model.E):
        assert not array.flags.writeable


@pytest.mark.parametrize("step_size", [0, -1.0, np.nan, np.inf, "1", None, True, 10**400])
def test_step_sizes_that_are_refused(step_size: Any) -> None:
    model, data = random_instance(np.random.default_rng(3))
    with pytest.raises(InputError, match=r"`step_size` must be (a real number|finite and > 0); got "):
        one_step(model, data, step_size)
    with pytest.raises(InputError, match="`data` must have the model's vocabulary"):
        one_step(AttentionModel(np.eye(2), np.zeros(2), np.ones(2)), TokenDataset.from_tokens([[0], [2]], [1, -1]), 1.0)
