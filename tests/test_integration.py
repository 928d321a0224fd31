"""The integrator on flows with known solutions, in every clock, and every way in which it can end."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import attnembed as ae
from attnembed import integration
from attnembed.clocks import CLOCKS, SYSTEMS, Clock, log_time_of
from attnembed.errors import InputError
from attnembed.integration import FlowPoint, Trajectory, follow
from attnembed.results import Status

Array = np.ndarray[Any, Any]


class Escape:
    """dx_k/dt = w_k e^{-x_k}: x_k = log(e^{x_k(0)} + w_k t), to infinity like log t; exp(-x) is passed as a scale."""

    def __init__(self, weights: Any = (1.0,)) -> None:
        self.weights = np.asarray(weights, dtype=float)

    def force(self, x: Array) -> tuple[Array, float]:
        return self.weights * np.exp(x.min() - x), -float(x.min())

    def jacobian(self, x: Array) -> tuple[Array, float]:
        return -np.diag(self.weights * np.exp(x.min() - x)), -float(x.min())

    def solution(self, x0: Array, log_t: float) -> Array:
        return np.logaddexp(x0, np.log(self.weights) + log_t)


class Rotation:
    """dx/dt = (-x_2, x_1): a circle, run through at speed ||x_0||."""

    def force(self, x: Array) -> tuple[Array, float]:
        return np.array([-x[1], x[0]]), 0.0

    def jacobian(self, x: Array) -> tuple[Array, float]:
        return np.array([[0.0, -1.0], [1.0, 0.0]]), 0.0


class Broken(Escape):
    """Not a number from ``limit`` on."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def force(self, x: Array) -> tuple[Array, float]:
        return super().force(x) if x[0] < self.limit else (np.full(1, np.nan), 0.0)


def run(field: Any, x0: Any = (0.0,), *, clock: Clock = "log_time", until: float = 20.0, **options: Any) -> Trajectory:
    return follow(
        field, np.asarray(x0, dtype=float), clock=clock, until=until, **{"rtol": 1e-10, "atol": 1e-12, **options}
    )


@pytest.mark.parametrize("log_t", [-3.0, 0.0, 5.0, 60.0, 700.0])
@pytest.mark.parametrize("clock", ["log_time", "arclength"])
def test_escape_to_infinity_in_closed_form(clock: Clock, log_t: float) -> None:
    field, x0 = Escape([1.0, 0.2]), np.array([0.5, -1.0])
    ahead = run(field, x0, until=log_t)
    until = log_t if clock == "log_time" else ahead.arclength[-1]
    path = run(field, x0, clock=clock, until=until)
    assert path.status is Status.REACHED_END
    assert_allclose(path.log_time[-1], log_t, rtol=1e-7, atol=1e-7)
    assert_allclose(path.x[-1], field.solution(x0, log_t), rtol=1e-8, atol=1e-8)
    # every accepted step lies on the solution, not only the last
    assert_allclose(path.x, [field.solution(x0, s) for s in path.log_time], rtol=1e-7, atol=1e-7)
    assert_array_equal(path.x[0], x0)
    assert (path.log_time[0], path.arclength[0]) == (-np.inf, 0.0)
    lengths = np.linalg.norm(np.diff(path.x, axis=0), axis=1)
    assert (np.diff(path.arclength) >= lengths * (1 - 1e-9)).all()
    assert path.nfev < 1500


@pytest.mark.parametrize("clock", CLOCKS)
def test_the_clock_shows_the_final_value(clock: Clock) -> None:
    path = run(Rotation(), (2.0, 0.0), clock=clock, until=3.0)
    t = {"time": 3.0, "log_time": math.exp(3), "arclength": 1.5}[clock]
    assert_allclose(path.x[-1], [2 * math.cos(t), 2 * math.sin(t)], rtol=0, atol=1e-7)
    assert_allclose(path.log_time[-1], math.log(t), rtol=1e-9)
    assert_allclose(path.arclength, 2 * np.exp(path.log_time), rtol=1e-8, atol=1e-12)
    assert path.message == f"reached {clock} = 3"
    assert path.njev <= path.nfev


def test_tolerances_are_used() -> None:
    field, x0 = Escape([1.0, 0.2]), np.array([0.5, -1.0])
    errors, evaluations = [], []
    for rtol in (1e-3, 1e-6, 1e-9, 1e-30):  # the last is below what floats can do, and is raised
        path = run(field, x0, until=10.0, rtol=rtol, atol=max(rtol * 1e-2, 1e-15))
        errors.append(np.abs(path.x[-1] - field.solution(x0, 10.0)).max())
        evaluations.append(path.nfev)
    assert errors[0] > 1e-5 > errors[1] > 1e-8 > errors[2] > errors[3]
    assert evaluations == sorted(evaluations)
    assert run(field, x0, until=10.0, rtol=1e-12, atol=1e-300).status is Status.FAILED


def test_a_force_below_the_smallest_float() -> None:
    # exp(-2000) underflows; in log time nothing would move before log t = 2000, in arc length the path is the same
    path = run(Escape(), (2000.0,), clock="arclength", until=3.0)
    assert_allclose(path.x[-1], 2003.0, rtol=1e-12)
    assert_allclose(path.log_time[-1], 2000 + math.log(math.expm1(3.0)), rtol=1e-9)


def test_stops_are_located() -> None:
    stops = {"x = 7": lambda x: x[0] - 7, "x = 5": lambda x: x[0] - 5, "x = 9": lambda x: x[0] - 9}
    path = run(Escape(), until=50.0, stops=stops)
    assert path.status is Status.STOPPED
    assert_allclose(path.x[-1, 0], 5, rtol=1e-14)
    assert_allclose(path.log_time[-1], math.log(math.expm1(5)), rtol=1e-8)
    assert path.message == f"stopped where x = 5, at log_time = {math.log(math.expm1(5)):.6g}"
    assert (path.x[:-1, 0] < 5).all()
    # both of two stops within one step: the earlier one
    close = {"second": lambda x: x[0] - 5.001, "first": lambda x: x[0] - 5}
    assert "first" in run(Escape(), until=50.0, stops=close, rtol=1e-3).message


def test_a_stop_at_the_very_start_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    # The interpolant differs from the accepted points by rounding; here by more, so that it is past the stop at once.
    class Rounded(integration.LSODA):
        def dense_output(self) -> Any:
            inside = super().dense_output()
            return lambda time: inside(time) + 1e-9

    points = run(Escape(), until=50.0).x[:, 0]
    monkeypatch.setattr(integration, "LSODA", Rounded)
    path = run(Escape(), until=50.0, stops={"near": lambda x: x[0] - np.nextafter(points[5], np.inf)})
    assert path.status is Status.STOPPED
    assert_allclose(path.x[-1, 0], points[5], rtol=1e-8)


def test_stops_beyond_the_end_do_nothing() -> None:
    path = run(Escape(), until=2.0, stops={"x = 5": lambda x: x[0] - 5})
    assert path.status is Status.REACHED_END


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("limit", [0.0, -1.0])
def test_a_stop_that_holds_at_the_start(clock: Clock, limit: float) -> None:
    path = run(Escape(), clock=clock, stops={"x is large": lambda x: x[0] - limit})
    assert path.status is Status.STOPPED
    assert (path.x.tolist(), path.log_time.tolist(), path.arclength.tolist()) == ([[0.0]], [-math.inf], [0.0])


@pytest.mark.parametrize("clock", CLOCKS)
def test_the_callback_sees_every_point_of_the_path(clock: Clock) -> None:
    points: list[FlowPoint] = []
    path = run(Escape(), clock=clock, until=4.0, callback=points.append)
    assert_array_equal([point.x for point in points], path.x)
    assert_array_equal([point.log_time for point in points], path.log_time)
    assert_array_equal([point.arclength for point in points], path.arclength)
    assert all(type(value) is float for point in points for value in (point.log_time, point.arclength))
    evaluations = [point.nfev for point in points]
    assert evaluations == sorted(evaluations)
    assert evaluations[-1] == path.nfev


@pytest.mark.parametrize("calls", [1, 2, 7])
def test_the_callback_stops_the_flow(calls: int) -> None:
    seen: list[float] = []

    def enough(point: FlowPoint) -> bool:
        seen.append(point.log_time)
        return len(seen) == calls

    path = run(Escape(), callback=enough)
    assert path.status is Status.STOPPED
    assert path.message.startswith("stopped by the callback at log_time = ")
    assert_array_equal(path.log_time, seen)
    assert len(seen) == calls


def test_the_callback_cannot_move_the_flow() -> None:
    def meddle(point: FlowPoint) -> None:
        point.x[:] = 1e6

    assert_array_equal(run(Escape(), callback=meddle).x, run(Escape()).x)


def test_an_error_of_the_callback_is_not_hidden() -> None:
    def fail(point: FlowPoint) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(Escape(), callback=fail)
    with pytest.warns(UserWarning, match="mine"):
        run(Escape(), callback=lambda point: __import__("warnings").warn("mine", UserWarning, stacklevel=1))


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("budget", [1, 2, 3, 10, 50])
def test_the_budget_of_evaluations(clock: Clock, budget: int) -> None:
    path = run(Escape([1.0, 0.2]), (0.5, -1.0), clock=clock, until=20.0, max_nfev=budget)
    assert path.status is Status.MAX_ITERATIONS
    assert not path.status.ok
    assert path.nfev == budget
    assert path.message.startswith(f"{budget} evaluations used at {clock} = ")
    assert "raise rtol" in path.message
    assert np.isfinite(path.x).all()


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("limit", [0.0, 1.0, 3.0])
def test_not_a_number_is_not_success(clock: Clock, limit: float) -> None:
    path = run(Broken(limit), clock=clock, until=20.0)
    assert path.status is Status.NOT_FINITE
    assert not path.status.ok
    assert "not finite" in path.message
    assert np.isfinite(path.x).all()
    assert (path.x[:, 0] <= max(limit, 1e-3)).all()
    assert path.log_time[0] == -np.inf
    assert run(Broken(30.0), clock=clock, until=20.0).status is Status.REACHED_END  # the same field, never broken


@pytest.mark.parametrize("value", [np.inf, 1e300])
def test_a_force_too_large_to_follow(value: float) -> None:
    class Huge(Escape):
        def force(self, x: Array) -> tuple[Array, float]:
            return np.full(1, value), 0.0

    class Wall(Huge):
        def force(self, x: Array) -> tuple[Array, float]:
            return super().force(x) if x[0] > 1 else (np.ones(1), 0.0)

    for field in (Huge(), Wall()):
        path = run(field)
        assert not path.status.ok
        assert np.isfinite(path.x).all()


def test_a_force_that_is_no_function_is_given_up_without_a_warning() -> None:
    class Jumping(Escape):
        calls = 0

        def force(self, x: Array) -> tuple[Array, float]:
            self.calls += 1
            return super().force(x) if self.calls <= 20 else (np.full(2, 1e6 * (-1) ** self.calls), 0.0)

    path = run(Jumping([1.0, 0.2]), (0.5, -1.0))
    assert path.status is Status.FAILED
    assert path.message.endswith("try another clock, or larger tolerances")


def test_a_jacobian_that_is_not_finite() -> None:
    class NoJacobian(Escape):
        def jacobian(self, x: Array) -> tuple[Array, float]:
            return np.full((1, 1), np.nan), 0.0

    class Stiff(NoJacobian):
        """x follows a slow target fast: BDF is needed, and with it the Jacobian."""

        def force(self, x: Array) -> tuple[Array, float]:
            return -1e6 * (x - 1), 0.0

    assert run(Stiff(), clock="time", until=10.0).status is Status.NOT_FINITE


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("t", [1e-305, 1e-300, 1e-200, 1e-30, 1e-16])
def test_the_nearest_end_is_reached(clock: Clock, t: float) -> None:
    # LSODA itself loops for ever on an interval of 1e-300; the circle has speed and length 1
    until = math.log(t) if clock == "log_time" else t
    path = run(Rotation(), (1.0, 0.0), clock=clock, until=until, max_nfev=500)
    assert path.status is Status.REACHED_END
    assert_allclose(path.x[-1], [1.0, t], rtol=1e-9, atol=0)
    assert_allclose(path.log_time[-1], math.log(t), rtol=1e-9)
    assert_allclose(path.arclength[-1], t, rtol=1e-9, atol=0)


def test_an_end_that_underflows_returns() -> None:
    path = run(Rotation(), (1.0, 0.0), clock="log_time", until=-800.0, max_nfev=500)
    assert path.status in (Status.FAILED, Status.MAX_ITERATIONS, Status.REACHED_END)
    assert_array_equal(path.x[-1], [1.0, 0.0])


def test_a_stop_passed_at_the_start_is_told_from_one_reached() -> None:
    stops = {"x = 1": lambda x: float(x[0] - 1)}
    beyond, at = (run(Escape(), (x0,), stops=stops) for x0 in (5.5, 1.0))
    assert beyond.message == "stopped at the start, which is beyond x = 1 by 4.5, at log_time = -inf"
    assert at.message == "stopped where x = 1, at log_time = -inf"
    assert len(beyond.x) == len(at.x) == 1


def test_arc_length_at_a_stationary_point_gives_up() -> None:
    class Decay:
        def force(self, x: Array) -> tuple[Array, float]:
            return -x, 0.0

        def jacobian(self, x: Array) -> tuple[Array, float]:
            return -np.eye(1), 0.0

    path = run(Decay(), (1.0,), clock="arclength", until=2.0, max_nfev=5000)
    assert not path.status.ok
    assert_allclose(path.arclength[-1], 1.0, rtol=1e-6)
    resting = run(Decay(), (0.0,), until=5.0)
    assert resting.status is Status.REACHED_END
    assert (resting.x == 0).all()


def test_log_time_of_small_and_large_values() -> None:
    s = np.array([0.0, 1e-300, 1e-8, 1.0, 50.0, 1e4])
    expected = [-math.inf, math.log(1e-300), math.log(math.expm1(1e-8)), math.log(math.expm1(1.0)), 50.0, 1e4]
    assert_allclose(log_time_of(s), expected, rtol=1e-15)


def test_progress_is_silent_off_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    run(Escape())
    assert capfd.readouterr() == ("", "")


# --- the door for plain functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("form", ["force", "force and jacobian", "with a scale"])
def test_plain_functions(clock: Clock, form: str) -> None:
    field, x0 = Escape([1.0, 0.2]), np.array([0.5, -1.0])
    until = {"time": 2.0, "log_time": 12.0, "arclength": 5.0}[clock]
    right = follow(field, x0, clock=clock, until=until, rtol=1e-11, atol=1e-13)
    force: Any = field.force if form == "with a scale" else lambda p: field.weights * np.exp(-p)
    jacobian = (lambda p: -np.diag(field.weights * np.exp(-p))) if "jacobian" in form else None
    path = ae.integrate(force, x0.tolist(), clock=clock, until=until, jacobian=jacobian, rtol=1e-9, atol=1e-11)
    assert path.success
    assert path.message == f"reached {clock} = {until:g}"
    assert_allclose(path.p, right.x[-1], rtol=1e-6, atol=1e-7)
    assert_allclose(path.reading[-1], until, rtol=1e-12)
    assert_allclose(path.arclength[-1], right.arclength[-1], rtol=1e-6)
    assert not path.path.flags.writeable


def test_a_stiff_force_uses_its_jacobian() -> None:
    rates = np.array([1e6, 1.0])
    options: Any = {"clock": "time", "until": 3.0}
    path = ae.integrate(lambda p: -rates * p, [1.0, 1.0], jacobian=lambda p: -np.diag(rates), **options)
    assert path.njev > 0
    assert_allclose(path.p, [0.0, np.exp(-3)], rtol=1e-5, atol=1e-9)
    without = ae.integrate(lambda p: -rates * p, [1.0, 1.0], **options)
    assert without.njev == 0
    assert_allclose(without.p, path.p, rtol=1e-5, atol=1e-9)


def test_stops_and_callbacks_of_plain_functions() -> None:
    path = ae.integrate(lambda p: np.exp(-p), [0.0], until=50.0, stops={"p = 3": lambda p: p[0] - 3})
    assert path.status is Status.STOPPED
    assert_allclose(path.p, 3, rtol=1e-12)
    seen: list[Any] = []
    path = ae.integrate(lambda p: np.exp(-p), [0.0], callback=lambda state: seen.append(state) or len(seen) == 2)
    assert path.status is Status.STOPPED
    assert seen[0].p.tolist() == [0.0]
    assert ae.integrate(lambda p: np.where(p < 3, np.exp(-p), np.nan), [0.0]).status is Status.NOT_FINITE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((lambda p: p[:1], [1.0, 2.0]), r"`force` must return an array of shape \(2,\); got shape \(1,\)"),
        ((lambda p: None, [1.0]), "`force` must"),
        ((lambda p: p * np.nan, [1.0]), "`force` must be finite at the start"),
        ((None, [1.0]), "`force` must be a function"),
        ((lambda p: p, []), "`p0` must have at least one coordinate"),
        ((lambda p: p, [[1.0]]), "`p0`"),
        ((lambda p: p, [np.nan]), "`p0`"),
    ],
)
def test_what_cannot_be_integrated(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ae.integrate(*arguments)


def test_bad_options_of_plain_functions() -> None:
    for options, message in (
        ({"clock": "days"}, "`clock`"),
        ({"until": 1e3}, "`until` must lie between"),
        ({"rtol": 0.0}, "`rtol`"),
        ({"stops": {"here": 3}}, "`stops\\['here'\\]` must be a function"),
    ):
        with pytest.raises(InputError, match=message):
            ae.integrate(lambda p: -p, [1.0], **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`force` must not be zero at p0"):
        ae.integrate(lambda p: 0 * p, [1.0], clock="arclength")


def test_the_old_module_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"attnembed.flow.integrate is deprecated"):
        from attnembed.flow import integrate
    assert integrate is follow
    with pytest.raises(ImportError):
        from attnembed.flow import nothing  # noqa: F401


@pytest.mark.parametrize("log_scale", [-1.0, 150.0, 300.0])
def test_the_rate_of_a_clock_does_not_overflow_where_its_value_does_not(log_scale: float) -> None:
    """e^s F with e^s beyond the floats, and F far below 1."""

    class Faint:
        def force(self, x):
            return 1e-90 * np.array([3.0, 4.0]), log_scale

        def jacobian(self, x):
            raise NotImplementedError

    system = SYSTEMS["log_time"](Faint(), np.zeros(2))
    for s in (0.0, 250.0, 400.0, 560.0):
        expected = np.exp(s + log_scale - 90 * np.log(10) + np.log([3.0, 4.0, 5.0]))
        assert_allclose(system.rate(s, np.zeros(3)), expected, rtol=1e-12)
