"""The losses and their derivatives against fifty digits, over the whole range of float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from attnembed.gibbs import cross_entropy
from attnembed.losses import (
    logistic,
    logistic_derivative,
    logistic_inverse,
    logistic_second_derivative,
)

MARGINS = st.one_of(st.floats(-708, 708), st.floats(-40, 40), st.floats(-1e-3, 1e-3))


def exact(function: Callable[[Decimal], Decimal], z: float) -> float:
    with localcontext(Context(prec=400, Emax=MAX_EMAX, Emin=MIN_EMIN)):
        return float(function(Decimal(z)))


@given(MARGINS)
def test_values_and_derivatives_in_many_digits(z: float) -> None:
    with np.errstate(under="raise", over="raise", invalid="raise"):
        found = [f(z) for f in (logistic, logistic_derivative, logistic_second_derivative)]
    assert_allclose(found[0], exact(lambda z: (1 + (-z).exp()).ln(), z), rtol=1e-15, atol=1e-320)
    assert_allclose(found[1], exact(lambda z: -1 / (1 + z.exp()), z), rtol=1e-15, atol=1e-320)
    assert_allclose(found[2], exact(lambda z: 1 / (1 + z.exp()) / (1 + (-z).exp()), z), rtol=1e-15, atol=1e-320)


@pytest.mark.parametrize("z", [40.0, -800.0])
def test_the_textbook_formula_fails_where_these_do_not(z: float) -> None:
    with np.errstate(over="ignore"):
        naive = np.log(1 + np.exp(-z))
    truth = exact(lambda z: (1 + (-z).exp()).ln(), z)
    assert abs(naive - truth) > 0.1 * truth
    assert_allclose(logistic(z), truth, rtol=1e-15)


@given(st.floats(-700, 700))
def test_the_inverse_gives_the_margin_back(z: float) -> None:
    # Near z the loss is known to one part in 1e16: the margin to |l / l'| times that.
    condition = float(-logistic(z) / logistic_derivative(z))
    assert_allclose(logistic_inverse(logistic(z)), z, rtol=1e-15, atol=4e-16 * max(condition, 1))
    assert_allclose(logistic(logistic_inverse(abs(z) + 1e-3)), abs(z) + 1e-3, rtol=1e-13)


def test_hand_worked_values() -> None:
    assert_allclose(logistic([0.0, math.log(3)]), [math.log(2), math.log(4 / 3)], rtol=1e-15)
    assert_allclose(logistic_derivative([0.0, math.log(3)]), [-0.5, -0.25], rtol=1e-15)
    assert_allclose(logistic_second_derivative([0.0, math.log(3)]), [0.25, 3 / 16], rtol=1e-15)
    assert_allclose(logistic_inverse([math.log(2), math.log(4 / 3)]), [0, math.log(3)], rtol=1e-15, atol=1e-15)


def test_shapes_and_precision_are_kept() -> None:
    z = np.zeros((2, 3), dtype=np.float32)
    for function in (logistic, logistic_derivative, logistic_second_derivative):
        assert function(z).shape == (2, 3)
        assert function(z).dtype == np.float32


def test_far_out_nothing_overflows() -> None:
    assert logistic([-1e308, 1e308, np.inf]).tolist() == [1e308, 0, 0]
    assert logistic_derivative([-1e308, 1e308]).tolist() == [-1, 0]
    assert logistic_second_derivative([-1e308, 1e308]).tolist() == [0, 0]
    assert_allclose(logistic_inverse([1e308, 1e-300]), [-1e308, 300 * math.log(10)], rtol=1e-15)


@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("lead", [700.0, 40.0, 5.0, 0.0, -40.0, -700.0])
def test_cross_entropy_in_many_digits(k: int, lead: float) -> None:
    rng = np.random.default_rng(k)
    logits, labels = rng.normal(size=(2, k)), rng.integers(0, k, size=2)
    logits[np.arange(2), labels] += lead
    found, gradient = cross_entropy(logits, labels)
    with localcontext(Context(prec=700, Emax=MAX_EMAX, Emin=MIN_EMIN)):
        for i, y in enumerate(labels):
            weight = [(Decimal(u) - Decimal(logits[i, y])).exp() for u in logits[i].tolist()]
            rivals = sum((w for j, w in enumerate(weight) if j != y), Decimal(0))
            assert_allclose(found[i], float((1 + rivals).ln()), rtol=1e-12)
            right = [float((w if j != y else -rivals) / (1 + rivals)) for j, w in enumerate(weight)]
            assert_allclose(gradient[i], right, rtol=1e-12, atol=1e-305)


def test_cross_entropy_by_shape_and_precision() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 3, 4, 5)), rng.integers(0, 5, size=(2, 3, 4))
    labels[0, 0, 0] = 0
    logits[0, 0, 0, 1:] = -np.inf  # no rival is left
    found, gradient = cross_entropy(logits, labels)
    assert found.shape == labels.shape
    assert found[0, 0, 0] == 0
    assert not gradient[0, 0, 0].any()
    assert_allclose(found[1, 2, 3], cross_entropy(logits[1, 2, 3:], labels[1, 2, 3:])[0][0], rtol=1e-15)
    single, residual = cross_entropy(logits.astype(np.float32), labels)
    assert residual.dtype == np.float32
    assert_allclose(single, found, rtol=1e-6)
    # A rival below the range of single precision still counts.
    single, residual = cross_entropy(np.array([[300, 0]], dtype=np.float32), np.array([0]))
    assert residual.dtype == np.float32
    assert_allclose(single, math.exp(-300), rtol=1e-12)
