"""Gradient flow dx/dt = F(x) on scipy.integrate.solve_ivp, in three clocks.

    time        dx/dt = F                     t from 0
    log_time    dx/ds = e^s F                 s = log(1 + t)
    arclength   dx/dr = F / ||F||             the same path, parametrised by its length

A flow whose solution runs to infinity like log t needs e^100 units of time before its direction shows; in log time it
takes a few hundred steps. Forces are passed as (array, log_scale), so that neither clock underflows.

The state carries one more coordinate than x: the arc length in the first two clocks, s in the third.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from attnembed._progress import Progress
from attnembed.results import Status

__all__ = ["CLOCKS", "Clock", "FlowField", "FlowPoint", "Trajectory", "integrate"]

Vector = NDArray[np.float64]
Clock = Literal["time", "log_time", "arclength"]
CLOCKS: tuple[Clock, ...] = ("time", "log_time", "arclength")


class FlowField(Protocol):
    """A force and its Jacobian, each as (array, log_scale): the value is array * exp(log_scale)."""

    def force(self, x: Vector) -> tuple[Vector, float]: ...
    def jacobian(self, x: Vector) -> tuple[Vector, float]: ...


@dataclass(frozen=True, eq=False)
class FlowPoint:
    """One accepted step: the state, log t (-inf at the start), the arc length and the evaluations so far."""

    x: Vector
    log_time: float
    arclength: float
    nfev: int


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The accepted steps of an integration: ``x`` (k, r), ``log_time`` (k,), ``arclength`` (k,)."""

    x: Vector
    log_time: Vector
    arclength: Vector
    status: Status
    message: str
    nfev: int
    njev: int


def integrate(
    field: FlowField,
    x0: Vector,
    *,
    clock: Clock,
    until: float,
    rtol: float,
    atol: float,
    stops: Mapping[str, Callable[[Vector], float]] | None = None,
    callback: Callable[[FlowPoint], bool | None] | None = None,
    max_nfev: int = 100_000,
    title: str = "flow",
) -> Trajectory:
    """Follow the flow from t = 0 until the clock shows ``until`` (t, log t or arc length).

    It ends earlier where one of the functions ``stops`` of x crosses zero (the crossing is located; the key says in
    the message what happened), or when the callback, called once per accepted step, returns True. Uses LSODA, which
    changes between Adams and BDF methods, with the analytic Jacobian.

    >>> class Decay:
    ...     def force(self, x): return -x, 0.0
    ...     def jacobian(self, x): return -np.eye(x.size), 0.0
    >>> end = integrate(Decay(), np.ones(1), clock="time", until=1.0, rtol=1e-9, atol=1e-12)
    >>> bool(abs(end.x[-1, 0] - np.exp(-1)) < 1e-8), end.status.value
    (True, 'reached_end')
    """
    system = {"time": _TimeSystem, "log_time": _LogTimeSystem, "arclength": _ArclengthSystem}[clock](field)
    # log t = until means log(1 + t) = log(1 + e^until).
    end = float(np.logaddexp(0.0, until)) if clock == "log_time" else until
    watch = _Watch(system, callback, max_nfev, Progress(title, total=end))

    events = [_terminal(watch), *(_terminal(lambda _, y, stop=stop: stop(y[:-1])) for stop in (stops or {}).values())]
    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"), watch.progress:
        # LSODA reports trouble by a warning; the status and the message of the result say it instead.
        warnings.simplefilter("ignore", UserWarning)
        solution = solve_ivp(
            system.rate,
            (0.0, end),
            np.append(x0, 0.0),
            method="LSODA",
            jac=system.jacobian,
            events=events,
            rtol=rtol,
            atol=atol,
        )
    times, states = solution.t, solution.y.T
    finite = np.isfinite(states).all(axis=1)
    if not finite.all():
        first_bad = int(np.argmin(finite))
        times, states = times[:first_bad], states[:first_bad]
        status = Status.NOT_FINITE
        message = f"the state is not finite after {clock} = {times[-1]:.6g}: lower rtol or rescale E, p and v"
    elif fired := [name for name, found in zip(stops or {}, solution.t_events[1:]) if found.size]:
        status, message = Status.STOPPED, f"stopped where {fired[0]}, at {clock} = {times[-1]:.6g}"
    elif watch.stop_at is not None:
        status = Status.STOPPED if watch.asked else Status.MAX_ITERATIONS
        message = f"stopped by the callback at {clock} = {times[-1]:.6g}"
        if not watch.asked:
            message = f"{max_nfev} evaluations used at {clock} = {times[-1]:.6g}: raise rtol, or use clock='log_time'"
    elif solution.status == 0:
        status, message = Status.REACHED_END, f"reached {clock} = {until:.6g}"
    else:
        status = Status.FAILED
        message = (
            f"the integrator gave up at {clock} = {times[-1]:.6g} of {end:.6g}: try another clock or a larger rtol"
        )
    s, arclength = system.observe(times, states[:, -1])
    return Trajectory(
        states[:, :-1], log_time_of(s), arclength, status, message, int(solution.nfev), int(solution.njev)
    )


def log_time_of(s: Vector) -> Vector:
    """log t from s = log(1 + t): s + log(1 - e^{-s}), -inf at s = 0.

    >>> log_time_of(np.array([0.0, np.log(2.0), 60.0]))
    array([-inf,   0.,  60.])
    """
    with np.errstate(divide="ignore"):
        return s + np.log(-np.expm1(-s))


def _terminal(function: Callable[[float, Vector], float]) -> Callable[[float, Vector], float]:
    """Mark a function as an event that ends the integration, as solve_ivp wants it."""

    def event(time: float, y: Vector) -> float:
        return function(time, y)

    event.terminal = True  # type: ignore[attr-defined]
    return event


class _System:
    """The extended system (x, z) in one clock; z is the last coordinate."""

    def __init__(self, field: FlowField) -> None:
        self.field = field

    def _unit(self, x: Vector) -> tuple[Vector, float]:
        """F/||F|| and log ||F||; the norm is taken after scaling, so that it cannot underflow."""
        force, log_scale = self.field.force(x)
        largest = float(np.abs(force).max())
        if largest == 0:
            return np.zeros_like(force), -np.inf
        scaled = force / largest
        norm = float(np.linalg.norm(scaled))
        return scaled / norm, log_scale + np.log(largest) + np.log(norm)

    def rate(self, time: float, y: Vector) -> Vector:
        raise NotImplementedError

    def jacobian(self, time: float, y: Vector) -> Vector:
        raise NotImplementedError

    def observe(self, times: Vector, z: Vector) -> tuple[Vector, Vector]:
        """(s = log(1 + t), arc length) from the clock and the extra coordinate."""
        raise NotImplementedError


class _TimeSystem(_System):
    """dx/dt = F, dz/dt = ||F||."""

    def log_speed(self, time: float) -> float:
        return 0.0

    def rate(self, time: float, y: Vector) -> Vector:
        unit, log_norm = self._unit(y[:-1])
        return np.exp(log_norm + self.log_speed(time)) * np.append(unit, 1.0)

    def jacobian(self, time: float, y: Vector) -> Vector:
        unit, _ = self._unit(y[:-1])
        jacobian, log_scale = self.field.jacobian(y[:-1])
        out = np.zeros((y.size, y.size))
        out[:-1, :-1] = np.exp(log_scale + self.log_speed(time)) * jacobian
        out[-1, :-1] = unit @ out[:-1, :-1]
        return out

    def observe(self, times: Vector, z: Vector) -> tuple[Vector, Vector]:
        return np.log1p(times), z


class _LogTimeSystem(_TimeSystem):
    """dx/ds = e^s F, dz/ds = e^s ||F||."""

    def log_speed(self, time: float) -> float:
        return time

    def observe(self, times: Vector, z: Vector) -> tuple[Vector, Vector]:
        return times, z


class _ArclengthSystem(_System):
    """dx/dr = F / ||F||, dz/dr = e^{-z} / ||F|| with z = log(1 + t)."""

    def rate(self, time: float, y: Vector) -> Vector:
        unit, log_norm = self._unit(y[:-1])
        return np.append(unit, np.exp(-y[-1] - log_norm))

    def jacobian(self, time: float, y: Vector) -> Vector:
        unit, log_norm = self._unit(y[:-1])
        jacobian, log_scale = self.field.jacobian(y[:-1])
        relative = np.exp(log_scale - log_norm) * jacobian
        along, slowness = unit @ relative, np.exp(-y[-1] - log_norm)
        out = np.empty((y.size, y.size))
        out[:-1, :-1] = relative - np.outer(unit, along)
        out[:-1, -1] = 0.0
        out[-1, :-1] = -slowness * along
        out[-1, -1] = -slowness
        return out

    def observe(self, times: Vector, z: Vector) -> tuple[Vector, Vector]:
        return z, times


class _Watch:
    """A terminal event of solve_ivp that is called once per accepted step and lets a callback stop the run."""

    def __init__(
        self,
        system: _System,
        callback: Callable[[FlowPoint], bool | None] | None,
        max_nfev: int,
        progress: Progress,
    ) -> None:
        self.system, self.callback, self.max_nfev, self.progress = system, callback, max_nfev, progress
        self.evaluations = 0
        self.stop_at: float | None = None
        self.asked = False
        self._latest = -1.0
        inner = system.field.force

        def counted(x: Vector) -> tuple[Vector, float]:
            self.evaluations += 1
            return inner(x)

        system.field = _Counted(counted, system.field.jacobian)

    def __call__(self, time: float, y: Vector) -> float:
        """Positive before the stop, zero at it; so the root that solve_ivp looks for is the accepted step itself."""
        if self.stop_at is None and time > self._latest:
            self._latest = time
            self.progress.update(time)
            if self.callback is not None:
                s, arclength = self.system.observe(np.array([time]), y[-1:])
                point = FlowPoint(y[:-1].copy(), float(log_time_of(s)[0]), float(arclength[0]), self.evaluations)
                self.asked = bool(self.callback(point))
            if self.asked or self.evaluations > self.max_nfev:
                self.stop_at = time
        return 1.0 if self.stop_at is None else self.stop_at - time


@dataclass(frozen=True)
class _Counted:
    """A field whose force evaluations are counted."""

    force: Callable[[Vector], tuple[Vector, float]]
    jacobian: Callable[[Vector], Any]
