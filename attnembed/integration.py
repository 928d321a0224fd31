"""Gradient flow dx/dt = F(x) by scipy.integrate.LSODA, in three clocks (`clocks`).

A flow that diverges like log t needs e^100 units of time before its direction shows; in log time it takes a few
hundred steps.

The state has one coordinate more than x: the arc length in the first two clocks, log time in the third. The steps of
LSODA, the class used by solve_ivp, are taken one by one: inside solve_ivp a NaN passes for success, and a step that
never ends or a stop that holds at the start goes unnoticed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import LSODA
from scipy.optimize import brentq

from attnembed._deprecation import moved
from attnembed._notebook import CLOCK_LABELS, Curve
from attnembed._progress import Progress
from attnembed._typing import Doubles
from attnembed._validation import (
    as_real_array,
    check_function,
    check_integer,
    check_positive,
    freeze,
)
from attnembed.clocks import SYSTEMS, Clock, FlowField, check_clock
from attnembed.errors import InputError, InputTypeError
from attnembed.results import Record, Result, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FlowPath", "FlowPoint", "FlowState", "Trajectory", "follow", "integrate"]

Stops = Mapping[str, Callable[[Doubles], float]]

_EPS = float(np.finfo(float).eps)
_SHORT = 1e-30

_ADVICE = {
    Status.MAX_ITERATIONS: ": raise rtol or max_nfev, or use clock='log_time'",
    Status.NOT_FINITE: ": the force or its Jacobian is not finite there; rescale the problem",
    Status.FAILED: ": try another clock, or larger tolerances",
}


@dataclass(frozen=True, eq=False, repr=False)
class FlowPoint(Record):
    """One accepted step: the state, log t (-inf at the start), the arc length and the evaluations so far."""

    x: Doubles
    log_time: float
    arclength: float
    nfev: int


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory(Record):
    """The accepted steps of an integration: ``x`` (k, r), ``log_time`` (k,), ``arclength`` (k,)."""

    x: Doubles
    log_time: Doubles
    arclength: Doubles
    status: Status
    message: str
    nfev: int
    njev: int


def follow(
    field: FlowField,
    x0: Doubles,
    *,
    clock: Clock,
    until: float,
    rtol: float,
    atol: float,
    stops: Stops | None = None,
    callback: Callable[[FlowPoint], bool | None] | None = None,
    max_nfev: int = 100_000,
    title: str = "flow",
) -> Trajectory:
    """Follow the flow from t = 0 until the clock shows ``until`` (t, log t or arc length).

    It ends earlier at the first point where one of the functions ``stops`` of x is no longer negative (the point is
    located within the step; the key appears in the message), or when the callback, called at the start and after each
    accepted step, returns True. Uses LSODA, which switches between Adams and BDF methods, with the analytic Jacobian.

    >>> class Decay:
    ...     def force(self, x): return -x, 0.0
    ...     def jacobian(self, x): return -np.eye(x.size), 0.0
    >>> end = follow(Decay(), np.ones(1), clock="time", until=1.0, rtol=1e-9, atol=1e-12)
    >>> bool(abs(end.x[-1, 0] - np.exp(-1)) < 1e-8), end.status.value
    (True, 'reached_end')
    """
    run = _Run(field, x0, clock=clock, until=until, rtol=rtol, atol=atol, max_nfev=max_nfev)
    # Entering the context costs as much as a step of a small flow; only a callback must not run within it.
    quiet_run = _quiet if callback is None else nullcontext
    step = run.solver.step if callback is None else _quiet()(run.solver.step)
    with Progress(title, total=run.end) as progress, quiet_run():
        status, what = run.steps(stops or {}, callback, step, progress)
    return run.trajectory(status, what)


class _Run:
    """One integration: the solver and its steps."""

    def __init__(
        self, field: FlowField, x0: Doubles, *, clock: Clock, until: float, rtol: float, atol: float, max_nfev: int
    ) -> None:
        self.clock = clock
        self.counted = counted = _Counted(field, max_nfev)
        self.system = system = SYSTEMS[clock](counted, x0)
        # log t = until means log(1 + t) = log(1 + e^until).
        self.end = end = float(np.logaddexp(0.0, until)) if clock == "log_time" else until
        self.times, self.states = [0.0], [np.append(x0, 0.0)]
        # LSODA cannot step near the smallest floats: a short clock runs in units of its end.
        self.unit = unit = end if 0 < end < _SHORT else 1.0
        rate, jacobian = system.rate, system.jacobian
        if unit < 1.0:
            rate = lambda time, y: unit * system.rate(unit * time, y)  # noqa: E731
            jacobian = lambda time, y: unit * system.jacobian(unit * time, y)  # noqa: E731
        jac = jacobian if getattr(field, "has_jacobian", True) else None
        self.solver = LSODA(rate, 0.0, self.states[0], end / unit, rtol=max(rtol, 100 * _EPS), atol=atol, jac=jac)

    def steps(
        self,
        stops: Stops,
        callback: Callable[[FlowPoint], bool | None] | None,
        step: Callable[[], object],
        progress: Progress,
    ) -> tuple[Status, str]:
        """Take steps until the flow ends, and return the reason."""
        solver, times, states = self.solver, self.times, self.states
        reached = next((name for name, stop in stops.items() if stop(states[0][:-1]) >= 0), None)
        while True:
            progress.update(self.unit * times[-1])
            if callback is not None and callback(self._point()):
                return Status.STOPPED, "stopped by the callback at"
            if reached is not None:
                beyond = stops[reached](states[-1][:-1]) if len(times) == 1 else 0.0
                where = f"at the start, which is beyond {reached} by {beyond:.3g}" if beyond else f"where {reached}"
                return Status.STOPPED, f"stopped {where}, at"
            if solver.status == "finished":
                return Status.REACHED_END, "reached"
            try:
                step()
            except _EvaluationsUsedError:
                return Status.MAX_ITERATIONS, f"{self.counted.max_nfev} evaluations used at"
            if not (math.isfinite(solver.y @ solver.y) or np.isfinite(solver.y).all()):
                return Status.NOT_FINITE, "the state is not finite after"
            if solver.status == "failed" or solver.t == solver.t_old:
                return Status.FAILED, "the integrator gave up at"
            reached, time, y = _first_stop(stops, solver, states[-1]) if stops else (None, solver.t, solver.y)
            times.append(time)
            states.append(y)

    def _point(self) -> FlowPoint:
        """The last step, for a callback."""
        x, z = self.states[-1][:-1].copy(), self.states[-1][-1:]
        log_time, arclength = self.system.observe(self.unit * np.array(self.times[-1:]), z)
        return FlowPoint(x, float(log_time[0]), float(arclength[0]), self.counted.nfev)

    def trajectory(self, status: Status, what: str) -> Trajectory:
        """All steps; ``what`` describes the end."""
        path, clocked = np.array(self.states), self.unit * np.array(self.times)
        log_time, arclength = self.system.observe(clocked, path[:, -1])
        readings: dict[Clock, Doubles] = {"time": clocked, "log_time": log_time, "arclength": arclength}
        reading = readings[self.clock][-1]
        return Trajectory(
            x=path[:, :-1],
            log_time=log_time,
            arclength=arclength,
            status=status,
            message=f"{what} {self.clock} = {reading:.6g}{_ADVICE.get(status, '')}",
            nfev=self.counted.nfev,
            njev=self.counted.njev,
        )


@dataclass(frozen=True, eq=False, repr=False)
class FlowState(Record):
    """Argument of a callback at the start and after each step: p (d,), log t, arc length and evaluations so far."""

    p: Doubles
    log_time: float
    arclength: float
    nfev: int


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FlowPath(Result):
    """A path; all arrays run over the k accepted steps, including the start.

    Attributes
    ----------
    p : (d,) the last point
    path : (k, d) the points
    log_time : (k,) log t; -inf at the start, t = 0
    arclength : (k,) length of the path so far
    clock : "log_time", "time" or "arclength", the variable of the integration
    nfev, njev : evaluations of the force and of its Jacobian
    """

    p: Doubles
    path: Doubles
    log_time: Doubles
    arclength: Doubles
    clock: str
    nfev: int
    njev: int

    @property
    def reading(self) -> Doubles:
        """The reading of the clock at each point, (k,)."""
        if self.clock == "arclength":
            return self.arclength
        return np.exp(self.log_time) if self.clock == "time" else self.log_time

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the coordinates of p against the clock, on new axes where none are given; returns the axes."""
        from attnembed import figures

        return figures.plot_path(self.reading, self.path, clock=self.clock, ax=ax)

    def _curves(self) -> list[Curve]:
        return [Curve(self.reading, np.linalg.norm(self.path, axis=1), CLOCK_LABELS[self.clock], "||p||")]


class _PlainField:
    """Functions of p as a `FlowField`."""

    def __init__(self, force: Callable[[Doubles], Any], jacobian: Callable[[Doubles], Any] | None, size: int) -> None:
        self._force, self._size = force, size
        self.has_jacobian = jacobian is not None
        self._of_jacobian = jacobian

    def force(self, x: Doubles) -> tuple[Doubles, float]:
        return self._scaled("force", self._force(x.copy()), (self._size,))

    def jacobian(self, x: Doubles) -> tuple[Doubles, float]:
        assert self._of_jacobian is not None
        return self._scaled("jacobian", self._of_jacobian(x.copy()), (self._size, self._size))

    @staticmethod
    def _scaled(name: str, found: Any, shape: tuple[int, ...]) -> tuple[Doubles, float]:
        """An array, or (array, log_scale)."""
        log_scale = 0.0
        if isinstance(found, tuple) and len(found) == 2 and np.ndim(found[1]) == 0:
            found, log_scale = found[0], float(found[1])
        try:
            array = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputTypeError(name, "must return an array of numbers", got=type(found).__name__) from error
        if array.shape != shape:
            raise InputError(name, f"must return an array of shape {shape}", got=f"shape {array.shape}")
        return array, log_scale


def integrate(
    force: Callable[[Doubles], Any],
    p0: ArrayLike,
    *,
    clock: Clock = "log_time",
    until: float = 40.0,
    jacobian: Callable[[Doubles], Any] | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    stops: Mapping[str, Callable[[Doubles], float]] | None = None,
    callback: Callable[[FlowState], bool | None] | None = None,
    max_nfev: int = 100_000,
) -> FlowPath:
    """Follow dp/dt = force(p) from p0 until the clock shows ``until``.

    In log time a flow that diverges like log t reaches t = e^60 in a few hundred steps; in arc length, dp/dr = F/||F||,
    the size of the force does not matter.

    Parameters
    ----------
    force : p (d,) -> F (d,); or -> (array, log_scale), F = array * e^log_scale, where F itself would underflow
    p0 : (d,) the start
    clock : "log_time" (log t), "time" (t) or "arclength" (length of the path)
    until : final value of the clock
    jacobian : p -> dF/dp (d, d), in either form; without one the integrator uses differences
    rtol, atol : tolerances per coordinate
    stops : functions of p by name; the flow ends, at a point located within the step, where one is no longer negative
    callback : called with a `FlowState` at the start and after each step; stops the flow by returning True
    max_nfev : give up after this many evaluations of the force

    Raises
    ------
    InputError, InputTypeError
        for an option out of range, a start that is not finite, or a force of the wrong shape. A force that becomes NaN
        during the flow ends it with `Status.NOT_FINITE`.

    >>> flow = integrate(lambda p: np.exp(-p), [0.0], until=50.0)
    >>> flow.success, bool(abs(flow.p[0] - 50.0) < 1e-6)
    (True, True)
    """
    start = np.array(as_real_array("p0", p0, ndim=1), dtype=np.float64)
    if start.size == 0:
        raise InputError("p0", "must have at least one coordinate", got="none")
    check_function("force", force, optional=False)
    check_function("jacobian", jacobian)
    check_function("callback", callback)
    clock, until = check_clock(clock, until)
    for name, stop in (stops or {}).items():
        check_function(f"stops[{name!r}]", stop, optional=False)
    field = _PlainField(force, jacobian, start.size)
    array, log_scale = field.force(start)
    if not np.isfinite(array).all() or np.isnan(log_scale) or log_scale == np.inf:
        raise InputError("force", "must be finite at the start", got=f"{array.tolist()}"[:60])
    if clock == "arclength" and (not array.any() or log_scale == -np.inf):
        raise InputError("force", "must not be zero at p0 for clock='arclength'", got="zero")
    report = None
    if callback is not None:
        listener = callback

        def report(point: FlowPoint) -> bool | None:
            return listener(FlowState(point.x, point.log_time, point.arclength, point.nfev))

    run = follow(
        field, start, clock=clock, until=until,
        rtol=check_positive("rtol", rtol), atol=check_positive("atol", atol), stops=stops,
        callback=report, max_nfev=check_integer("max_nfev", max_nfev, minimum=1),
    )  # fmt: skip
    return FlowPath(
        status=run.status,
        message=run.message,
        p=freeze(run.x[-1].copy()),
        path=freeze(run.x),
        log_time=freeze(run.log_time),
        arclength=freeze(run.arclength),
        clock=clock,
        nfev=run.nfev,
        njev=run.njev,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of LSODA; the status and the message of the result replace them."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", UserWarning)
        yield


def _first_stop(stops: Stops, solver: LSODA, before: Doubles) -> tuple[str | None, float, Doubles]:
    """Name, time and state of the first stop within the step from ``before``; (None, the step's end) without one."""
    passed = {name: stop for name, stop in stops.items() if stop(solver.y[:-1]) >= 0}
    if not passed:
        return None, solver.t, solver.y
    ends, inside = {solver.t_old: before, solver.t: solver.y}, solver.dense_output()

    def state(time: float) -> Doubles:
        value: Doubles = ends[time] if time in ends else inside(time)
        return value

    def value(time: float, stop: Callable[[Doubles], float]) -> float:
        return stop(state(time)[:-1])

    found = {name: brentq(value, *ends, args=(stop,), xtol=4 * _EPS, rtol=4 * _EPS) for name, stop in passed.items()}
    first = min(found, key=found.__getitem__)
    return first, found[first], state(found[first])


class _EvaluationsUsedError(Exception):
    """Raised within a step, to end a step that would never end."""


class _Counted:
    """A field that counts its evaluations and allows no more than ``max_nfev`` of the force."""

    def __init__(self, field: FlowField, max_nfev: int) -> None:
        self.field, self.max_nfev = field, max_nfev
        self.nfev = self.njev = 0

    def force(self, x: Doubles) -> tuple[Doubles, float]:
        if self.nfev == self.max_nfev:
            raise _EvaluationsUsedError
        self.nfev += 1
        return self.field.force(x)

    def jacobian(self, x: Doubles) -> tuple[Doubles, float]:
        self.njev += 1
        return self.field.jacobian(x)


# Formerly in this module.
__getattr__ = moved(__name__, dict.fromkeys(("CLOCKS", "direction", "log_time_of"), "attnembed.clocks"))
