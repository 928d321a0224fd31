"""Losses as objects: every part against many digits, and what is asked of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from decimal import Context, Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from attnembed import losses
from attnembed.errors import InputError, InputTypeError
from attnembed.losses import Loss, check_loss

HALF = 0.5


DIGITS = Context(prec=90, Emin=-(10**6), Emax=10**6)


def _hinge(z: Decimal) -> Decimal:
    delta, x = Decimal(HALF), max(1 - z, Decimal(0))
    return x**3 / (6 * delta) if x <= delta else x**2 / 2 - delta * x / 2 + delta**2 / 6


def _log1p(x: Decimal) -> Decimal:
    return x - x**2 / 2 if x < Decimal("1e-40") else (1 + x).ln()


def _softplus(T: float) -> Callable[[Decimal], Decimal]:
    return lambda z: Decimal(T) * _log1p((-z / Decimal(T)).exp())


# Each loss beside its definition, and how its second derivative is known in closed form.
CASES = {
    "logistic": (losses.logistic, _softplus(1.0)),
    "exponential": (losses.exponential, lambda z: (-z).exp()),
    "softplus": (losses.softplus(0.25), _softplus(0.25)),
    "hinge": (losses.smoothed_squared_hinge(HALF), _hinge),
}
MARGINS = st.one_of(st.floats(-600, 600), st.floats(-30, 30), st.floats(-1.2, 1.2))


@pytest.mark.parametrize("name", CASES)
@given(z=MARGINS)
def test_values_and_derivatives_in_many_digits(name: str, z: float) -> None:
    loss, truth = CASES[name]
    with localcontext(DIGITS):
        if name == "hinge":
            delta, x = Decimal(HALF), max(1 - Decimal(z), Decimal(0))
            slope = x**2 / (2 * delta) if x <= delta else x - delta / 2
            right = [truth(Decimal(z)), -slope, min(x / delta, Decimal(1))]
        else:
            T = Decimal("0.25") if name == "softplus" else Decimal(1)
            e = (-Decimal(z) / T).exp()
            s = e if name == "exponential" else e / (1 + e)
            right = [truth(Decimal(z)), -s, s if name == "exponential" else s / (1 + e) / T]
        tiny = Decimal("1e-300")
        expected = [float(x) if abs(x) > tiny else 0.0 for x in right]
    found = [float(np.asarray(part(z))) for part in (loss, loss.derivative, loss.second_derivative)]
    assert_allclose(found, expected, rtol=2e-13 if name != "hinge" else 1e-12, atol=1e-300)
    if right[1] != 0:
        with localcontext(DIGITS):
            log_pull, bend = float((-right[1]).ln()), float(-right[2] / right[1])
        assert_allclose(loss.log_pull(z), log_pull, rtol=1e-13, atol=1e-12)
        if name != "hinge" or bend < 1e6:
            assert_allclose(loss.curvature(z), bend, rtol=1e-9)
    else:
        assert loss.log_pull(z) == -np.inf
        assert loss.curvature(z) == 0


@pytest.mark.parametrize("own", [True, False], ids=["its own form", "the default"])
@pytest.mark.parametrize("name", CASES)
@given(z=st.floats(-20, 40), log_drop=st.floats(-45, 3.5))
def test_the_rise_has_no_cancellation(name: str, own: bool, z: float, log_drop: float) -> None:
    loss, truth = CASES[name]
    drop = float(np.exp(log_drop))
    if not own:
        loss = Loss(loss.value, loss.derivative, loss.second_derivative)
    with localcontext(DIGITS):
        right = float(truth(Decimal(z) - Decimal(drop)) - truth(Decimal(z)))
    # The default sees through the kinks in the second derivative of the hinge only to a few digits.
    rtol = 1e-13 if own else (2e-2 if name == "hinge" else 1e-12)
    if name == "hinge" and abs(z - 1) < 1e-9:
        return  # z itself is rounded against the place where the loss begins
    # What of a drop to below z = 1 is spent where the loss is 0 is a difference of given numbers.
    slack = 1e-15 * (abs(z) + 1) / max(drop - max(z - 1, 0.0), 1e-300) if name == "hinge" and z > 0.5 - 1e-9 else 0.0
    assert_allclose(loss.rise(z, drop), right, rtol=rtol + 4 * slack, atol=1e-300)


@pytest.mark.parametrize("name", CASES)
@given(z=st.floats(-500, 0.97))
def test_the_inverse_gives_the_margin_back(name: str, z: float) -> None:
    loss, _ = CASES[name]
    assert_allclose(loss.margin(loss(z)), z, rtol=1e-13, atol=1e-11)


def test_the_second_derivative_of_the_hinge_is_continuous() -> None:
    loss = losses.smoothed_squared_hinge(0.3)
    z = np.linspace(-1, 1.5, 20_001)
    for function, derivative in ((loss, loss.derivative), (loss.derivative, loss.second_derivative)):
        slope = np.diff(function(z)) / np.diff(z)
        assert np.abs(slope - derivative((z[1:] + z[:-1]) / 2)).max() < 1e-3
    assert np.abs(np.diff(loss.second_derivative(z))).max() < 1e-3


def test_names_and_calls() -> None:
    assert check_loss("logistic") is losses.logistic
    assert check_loss(losses.exponential) is losses.exponential
    assert losses.softplus(0.3) is losses.softplus(0.3)
    assert repr(losses.softplus(0.5)) == "Loss('softplus(0.5)')"
    for loss, _ in CASES.values():
        again = pickle.loads(pickle.dumps(loss))
        assert again(0.3) == loss(0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.exp, np.exp, np.exp), "`value` must decrease"),
        ((lambda z: -z, None, np.zeros_like), "`derivative` must be a function"),
        ((lambda z: 0.0, lambda z: -1 + 0 * z, lambda z: 0 * z), "`value` must give one finite number"),
        ((lambda z: -(z**3), lambda z: -3 * z**2, lambda z: -6 * z), "`second_derivative` must be >= 0"),
        ((lambda z: z * np.nan, lambda z: -1 + 0 * z, lambda z: 0 * z), "finite"),
    ],
)
def test_what_is_no_loss_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        Loss(*arguments)


def test_what_is_not_offered() -> None:
    with pytest.raises(InputError, match=r"`loss` must be a Loss or one of 'logistic', 'exponential'"):
        check_loss("hinge")
    with pytest.raises(InputTypeError, match="`loss` must be a Loss or a name; got int"):
        check_loss(3)
    with pytest.raises(InputError, match="`temperature` must be finite and > 0"):
        losses.softplus(-1.0)
    without = Loss(lambda z: np.exp(-z), lambda z: -np.exp(-z), lambda z: np.exp(-z), name="bare")
    with pytest.raises(InputError, match=r"`loss` must have an inverse here; got Loss\('bare'\)"):
        without.margin(1.0)
