"""The gradient checks on right gradients, and on wrong ones, which they must catch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from attnembed import reference as ref
from attnembed.errors import InputError, InputTypeError
from attnembed.gradcheck import check_gradient, check_gradient_complex_step
from attnembed.results import Status
from attnembed.testing import generators, reals
from tests.plain import AttentionProblem, attention_problems

SCALES = [1e-6, 1.0, 1e6]


@st.composite
def analytic_functions(draw):
    """A function of an array of any shape, real or complex, its gradient, and a point."""
    shape = draw(array_shapes(max_dims=3, max_side=3))
    scale, x = 10.0 ** draw(st.integers(-6, 6)), draw(arrays(float, shape, elements=reals(3.0)))
    a, b, c = (draw(arrays(float, shape, elements=reals(2.0))) for _ in range(3))
    kind = draw(st.sampled_from(["linear", "waves", "bumps", "log-sum-exp", "product"]))

    def function(x):
        if kind == "linear":
            return scale * (a * x).sum()
        if kind == "waves":
            return scale * (a * np.sin(b * x + c)).sum()
        if kind == "bumps":
            return scale * (a * np.exp(-((x - b) ** 2))).sum()
        if kind == "log-sum-exp":
            return scale * np.log(np.exp(a * x + b).sum())
        return scale * np.sin((a * x).sum()) * (1 + (b * x).sum() ** 2)

    def gradient(x):
        if kind == "linear":
            return scale * a
        if kind == "waves":
            return scale * a * b * np.cos(b * x + c)
        if kind == "bumps":
            return -2 * scale * a * (x - b) * np.exp(-((x - b) ** 2))
        if kind == "log-sum-exp":
            weights = np.exp(a * x + b)
            return scale * a * weights / weights.sum()
        u, w = (a * x).sum(), (b * x).sum()
        return scale * (np.cos(u) * (1 + w**2) * a + 2 * np.sin(u) * w * b)

    return function, gradient, x


def decidable(function, gradient, x):
    """Whether the gradient stands clear of the rounding of the function."""
    return np.linalg.norm(gradient(x)) > 1e-6 * abs(function(x))


@given(analytic_functions(), generators())
def test_right_gradients_pass(problem, rng):
    function, gradient, x = problem
    report = check_gradient(function, gradient, x, rng=rng)
    assert not report.slope < 1.8, report.message
    if decidable(*problem):
        assert report.passed, report.message
        assert report.relative_error < 1e-6
    complex_report = check_gradient_complex_step(function, gradient, x, tolerance=1e-9)
    assert complex_report.passed or not decidable(*problem), complex_report.message


WRONG = {
    "0.1 % too large": lambda g: 1.001 * g,
    "0.1 % too small": lambda g: 0.999 * g,
    "sign": lambda g: -g,
    "zero": lambda g: 0 * g,
    "one coordinate": lambda g: np.where(np.abs(g) == np.abs(g).max(), 1.01 * g, g),
    "one sign": lambda g: np.where(np.abs(g) == np.abs(g).max(), -g, g),
    "not a number": lambda g: np.where(np.abs(g) == np.abs(g).max(), np.nan, g),
}


@pytest.mark.parametrize("name", WRONG)
@settings(max_examples=settings().max_examples // 2)  # for each of the seven
@given(problem=analytic_functions(), rng=generators())
def test_wrong_gradients_fail(name, problem, rng):
    function, gradient, x = problem
    grad = gradient(x)
    if not grad.any():
        return
    assert not check_gradient(function, WRONG[name](grad), x, rng=rng).passed
    assert not check_gradient_complex_step(function, WRONG[name](grad), x).passed


def fifty(x):
    """A function of 50 variables whose partial derivatives differ in size by a factor of 50."""
    k = np.arange(1, 51)
    return (k * np.sin(x)).sum() + np.exp(x.sum() / 50)


def fifty_gradient(x):
    return np.arange(1, 51) * np.cos(x) + np.exp(x.sum() / 50) / 50


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("coordinate", [0, 30])
def test_the_one_wrong_coordinate_of_fifty_is_named(scale, coordinate):
    x = np.linspace(-1, 1, 50)
    grad = scale * fifty_gradient(x)
    assert check_gradient(lambda x: scale * fifty(x), grad, x, rng=0).passed
    grad[coordinate] *= 1.001
    report = check_gradient(lambda x: scale * fifty(x), grad, x, rng=0)
    exact = check_gradient_complex_step(lambda x: scale * fifty(x), grad, x)
    share = 0.001 * abs(grad[coordinate]) / np.linalg.norm(grad)
    for found in (report, exact):
        assert not found.passed
        assert found.status is Status.FAILED
        assert found.worst_coordinate == (coordinate,)
        assert found.worst_direction[coordinate] == 1
        assert f"coordinate ({coordinate},)" in found.message
        np.testing.assert_allclose(found.relative_error, share, rtol=0.02)
    np.testing.assert_allclose(report.slope, 1, rtol=0.01)


def test_random_directions_find_what_a_sample_of_coordinates_misses():
    x = np.linspace(-1, 1, 2000)
    grad = np.cos(x)
    grad[1234] *= 1.01
    report = check_gradient(lambda x: np.sin(x).sum(), grad, x, coordinates=1, directions=4, rng=0)
    assert not report.passed
    assert report.worst_coordinate is None
    assert check_gradient(lambda x: np.sin(x).sum(), np.cos, x, coordinates=1, directions=4, rng=0).passed
    # along the gradient itself an error of its length shows in full
    long = check_gradient(lambda x: np.sin(x).sum(), 1.001 * np.cos(x), x, coordinates=1, directions=4, rng=0)
    np.testing.assert_allclose(long.relative_error, 1e-3 / 1.001, rtol=1e-2)


@example(  # the odd part of a remainder that curvature hides vanishes at one step by chance
    AttentionProblem(np.array([[0.0], [0.0], [0.0], [-2.0]]), -np.ones(1), -2 * np.ones(1), [[0], [0, 0, 3]], [1, -1]),
    10.0,
)
@given(attention_problems(n=(2, 3), length=(1, 4), vocab=(2, 4), dim=(1, 2)), st.sampled_from([0.1, 1.0, 10.0]))
def test_gradients_of_the_attention_loss(problem, norm):
    E, p, v, tokens, labels = problem.scaled(norm).arguments
    gradients = ref.attention_gradients(E, p, v, tokens, labels)
    for function, x, grad in (
        (lambda E: ref.attention_loss(E, p, v, tokens, labels), E, gradients.E),
        (lambda p: ref.attention_loss(E, p, v, tokens, labels), p, gradients.p),
    ):
        report = check_gradient(function, grad, x, directions=2, coordinates=8, rng=0)
        assert report.passed or np.linalg.norm(grad) < 1e-6, report.message
        if grad.any():
            assert not check_gradient(function, 1.001 * grad, x, directions=2, coordinates=2, rng=0).passed


@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("curvature", [0.0, 1.0])
def test_kinks_near_the_point_do_no_harm(distance, curvature):
    def function(x):
        return abs(x[0] - distance) + max(0.0, 1 - x[1]) + curvature * np.exp(x.sum())

    x = np.array([0.0, 0.5])
    grad = np.array([-1.0, -1.0]) + curvature * np.exp(x.sum())
    assert check_gradient(function, grad, x, rng=0).passed
    assert not check_gradient(function, 1.001 * grad, x, rng=0).passed


def test_a_kink_at_the_point_has_no_gradient():
    for one_sided in (-1.0, 0.0, 1.0):
        report = check_gradient(lambda x: abs(x[0]), [one_sided], [0.0], rng=0)
        assert not report.passed
        np.testing.assert_allclose(report.slope, 1, rtol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_a_linear_function_has_a_remainder_of_rounding_only(scale):
    a, x = scale * np.array([1.0, -2.0, 3.0]), np.zeros(3)
    assert check_gradient(lambda x: a @ x, a, x, rng=0).passed
    # what a gradient may lack is relative to its norm, not to f(x) = 0
    assert check_gradient(lambda x: a @ x, a * (1 + 1e-9), x, rng=0).passed
    assert not check_gradient(lambda x: a @ x, a * (1 + 1e-6), x, rng=0).passed


def test_a_remainder_that_vanishes_at_one_step_only():
    # f(h) - f(0) - h = 1e-3 h (1 - (h / h0)^2) is zero at the step h0 = 4^-6.
    report = check_gradient(lambda x: float(x[0] + 1e-3 * x[0] * (1 - (4.0**6 * x[0]) ** 2)), [1.0], [0.0], rng=0)
    assert report.slope < 1.2
    np.testing.assert_allclose(report.relative_error, 1e-3, rtol=1e-2)


def test_a_change_of_a_few_units_in_the_last_place_decides_nothing():
    # 2^20 + 2^-26 x moves by exactly 4 and 1 units at the first two steps: no error is seen, but the unit is coarse.
    report = check_gradient(lambda x: float(2.0**20 + 2.0**-26 * x[0]), [2.0**-26], [0.0], rng=0)
    assert "not decided" in report.message


def test_saturated_attention_is_not_decided():
    # At ||p|| = 300 the loss does not move: neither a right nor a wrong gradient may pass.
    E, p, v = np.array([[1.0, 0.0], [-1.0, 0.5]]), np.array([300.0, 0.0]), np.array([1.0, 0.0])

    def function(p):
        return ref.attention_loss(E, p, v, [[0, 1], [1]], [1, -1])

    right = ref.precise_gradient_p(E, p, v, [[0, 1], [1]], [1, -1])
    assert -650 < right.log_norm < -550
    for grad in (np.array([float(x) for x in right.values]), np.array([1e-30, 0.0])):
        report = check_gradient(function, grad, p, rng=0)
        assert report.status is Status.FAILED
        assert "not decided" in report.message
    visible = check_gradient(function, [1e-3, 0.0], p, rng=0)
    assert "wrong by 1.0e+00" in visible.message


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_a_gradient_of_exactly_zero(offset, scale):
    zero, x = np.zeros(2), np.zeros(2)
    assert check_gradient(lambda x: scale * offset, zero, x, rng=0).passed
    assert check_gradient(lambda x: scale * (offset + x @ x), zero, x, rng=0).passed
    # the flat bottom of a trough
    assert check_gradient(lambda x: scale * (offset + max(0.0, abs(x[0]) - 0.01)), zero, x, rng=0).passed
    report = check_gradient(lambda x: scale * (offset + x @ x), zero, [1e-3, 0.0], rng=0)
    assert not report.passed
    assert report.worst_coordinate == (0,)
    constant = check_gradient_complex_step(lambda x: 0 * x.sum() + scale * offset, zero, x)
    assert constant.passed
    assert constant.relative_error == 0
    assert check_gradient_complex_step(lambda x: 0 * x.sum() + scale * offset, zero + 1, x).relative_error == math.inf


@pytest.mark.parametrize(
    ("size", "steps"), [(1e-3, None), (1e6, None), (1e12, None), (1e-9, [1e-10 * 4.0**-k for k in range(16)])]
)
def test_the_steps_follow_the_size_of_the_point(size, steps):
    x = size * np.array([0.3, -0.7])
    grad = np.cos(x / size) / size
    assert check_gradient(lambda x: np.sin(x / size).sum(), grad, x, steps=steps, rng=0).passed
    assert not check_gradient(lambda x: np.sin(x / size).sum(), 1.001 * grad, x, steps=steps, rng=0).passed


def test_steps_out_of_the_domain_are_left_out():
    x = np.array([1e-3, 2.0])
    assert check_gradient(lambda x: np.log(x).sum(), 1 / x, x, rng=0).passed
    assert not check_gradient(lambda x: np.log(x).sum(), 1.001 / x, x, rng=0).passed


def test_a_noisy_function_is_judged_by_its_own_rounding():
    # 1e6 is added and taken away again: the rounding of the result is 1e-10, not 1e-16.
    def function(x):
        return float((1e6 + np.sin(x).sum()) - 1e6)

    x = np.linspace(-1, 1, 5)
    assert check_gradient(function, np.cos(x), x, rng=0).passed
    assert not check_gradient(function, 1.001 * np.cos(x), x, rng=0).passed
    # sines in single precision: wrong by 10 % shows
    x = x.astype(np.float32).astype(float)
    single = {
        factor: check_gradient(
            lambda x: np.sin(x.astype(np.float32)).sum(dtype=np.float32), factor * np.cos(x), x, rng=0
        )
        for factor in (1.0, 1.1)
    }
    assert not single[1.0].slope < 1.8
    assert single[1.1].slope < 1.2
    # a sine so small beside a constant that nothing can be said
    faint = check_gradient(lambda x: 1e-6 * np.sin(x).sum() + 1e6, 1e-6 * np.cos(x), x, rng=0)
    assert "not decided" in faint.message


def test_what_is_not_finite_is_named():
    x = np.ones((2, 2))
    report = check_gradient(np.sum, [[1.0, 1.0], [np.inf, 1.0]], x, rng=0)
    assert (report.status, report.worst_coordinate) == (Status.NOT_FINITE, (1, 0))
    assert report.message == "the gradient is not finite in coordinate (1, 0)"
    assert not report.success
    report = check_gradient(lambda x: np.nan, np.ones((2, 2)), x, rng=0)
    assert (report.status, report.message) == (Status.NOT_FINITE, "the function is not finite")
    report = check_gradient_complex_step(np.sum, [[1.0, np.nan], [1.0, 1.0]], x)
    assert (report.status, report.worst_coordinate) == (Status.NOT_FINITE, (0, 1))
    report = check_gradient_complex_step(lambda x: x.sum() * complex(0, np.nan), x, x)
    assert "complex step is not finite" in report.message


def test_complex_steps_are_exact():
    x = np.linspace(-1, 1, 50)
    assert check_gradient_complex_step(fifty, fifty_gradient, x).relative_error < 1e-15
    wrong = fifty_gradient(x)
    wrong[7] += 1e-9 * np.linalg.norm(wrong)
    report = check_gradient_complex_step(fifty, wrong, x)
    assert not report.passed
    assert report.worst_coordinate == (7,)
    assert math.isnan(report.slope)


def test_complex_steps_need_an_analytic_function():
    with pytest.raises(InputTypeError, match="`function` must be analytic"):
        check_gradient_complex_step(lambda x: np.abs(x).sum(), [1.0], [1.0])


@pytest.mark.parametrize("check", [check_gradient, check_gradient_complex_step])
def test_a_number_is_an_array_without_axes(check):
    assert check(np.sin, math.cos(0.3), 0.3).passed
    report = check(np.sin, 2 * math.cos(0.3), 0.3)
    assert not report.passed
    assert report.worst_coordinate == ()


def test_the_same_seed_gives_the_same_report():
    x = np.linspace(-1, 1, 5)
    first, again, other = (
        check_gradient(lambda x: np.sin(x).sum(), 1.5 * np.cos(x), x, rng=k).to_dict() for k in (0, 0, 1)
    )
    assert first == again
    assert first["slope"] != other["slope"]


def test_chosen_steps_are_used():
    seen = []

    def function(x):
        seen.append(float(x[0]))
        return math.exp(x[0])

    report = check_gradient(function, [1.0], [0.0], steps=[1e-2, 1e-4, 1e-3], directions=0, rng=0)
    assert report.passed
    assert [h for h in seen if h > 5e-6][:3] == [1e-2, 1e-3, 1e-4]
    assert not check_gradient(function, [1.001], [0.0], steps=[1e-4, 1e-5, 1e-6], rng=0).passed
    # steps that are all too long to see the error decide nothing
    assert check_gradient(function, [1.001], [0.0], steps=[0.5, 0.25, 0.125], rng=0).status is Status.FAILED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gradient": [1.0, 1.0]}, r"`gradient` must have shape \(3,\)"),
        ({"x": [np.nan, 0.0, 0.0]}, "`x` must be finite"),
        ({"x": [], "gradient": []}, "`x` must not be empty"),
        ({"steps": [1e-3, 1e-4]}, "`steps` must be at least three lengths; got 2"),
        ({"steps": [1e-3, 1e-4, 0.0]}, "`steps` must be finite and > 0"),
        ({"directions": -1}, "`directions` must be at least 0"),
        ({"coordinates": 0}, "`coordinates` must be at least 1"),
        ({"rng": "seed"}, "`rng` must be an int"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        check_gradient(**{"function": np.sum, "gradient": np.ones(3), "x": np.zeros(3), **arguments})
    if "gradient" in arguments and "x" not in arguments:
        with pytest.raises(InputError, match=message):
            check_gradient_complex_step(np.sum, arguments["gradient"], np.zeros(3))
