"""The three clocks of a flow dx/dt = F(x), each a system in x and one more coordinate z.

    time        dx/dt = F,           dz/dt = ||F||                   z is the arc length
    log_time    dx/ds = e^s F        dz/ds = e^s ||F||               s = log(1 + t), z is the arc length
    arclength   dx/dr = F / ||F||    dz/dr = e^{-z} / (t_0 ||F||)    z = log(1 + t / t_0)

Forces are passed as (array, log_scale), so that no clock underflows.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

import numpy as np

from attnembed._typing import Doubles
from attnembed._validation import check_between, check_choice, check_positive

__all__ = ["CLOCKS", "SYSTEMS", "Clock", "FlowField", "System", "check_clock", "direction", "log_time_of"]

Clock = Literal["time", "log_time", "arclength"]
CLOCKS: tuple[Clock, ...] = ("time", "log_time", "arclength")

# Squared norms and exponents between which nothing under- or overflows.
_TINY, _POWER = 1e-200, 300.0


class FlowField(Protocol):
    """A force and its Jacobian, each as (array, log_scale): the value is array * exp(log_scale).

    A field without a Jacobian has an attribute ``has_jacobian = False``; LSODA then uses differences.
    """

    def force(self, x: Doubles) -> tuple[Doubles, float]: ...
    def jacobian(self, x: Doubles) -> tuple[Doubles, float]: ...


def check_clock(clock: Any, until: Any) -> tuple[Clock, float]:
    """One of the three clocks, and a final value in its range."""
    check_choice("clock", clock, CLOCKS)
    if clock == "log_time":
        return clock, check_between("until", until, -700, 700, hint="for this clock it is log t, not t")
    return clock, check_positive("until", until)


def log_time_of(s: Doubles) -> Doubles:
    """log t from s = log(1 + t): s + log(1 - e^{-s}), -inf at s = 0.

    >>> log_time_of(np.array([0.0, np.log(2.0), 60.0]))
    array([-inf,   0.,  60.])
    """
    with np.errstate(divide="ignore"):
        return s + np.log(-np.expm1(-s))


def direction(force: Doubles, log_scale: float) -> tuple[Doubles, float]:
    """F/||F|| and log ||F||; the norm is taken after scaling, so that it cannot underflow."""
    largest = float(np.abs(force).max())
    if largest == 0:
        return np.zeros_like(force), -np.inf
    scaled = force / largest
    norm = float(np.linalg.norm(scaled))
    return scaled / norm, log_scale + np.log(largest) + np.log(norm)


class System:
    """The extended system (x, z) in one clock; z is the last coordinate."""

    def __init__(self, field: FlowField, x0: Doubles) -> None:
        self.field = field

    def _unit(self, x: Doubles) -> tuple[Doubles, float]:
        """F/||F|| and log ||F||."""
        return direction(*self.field.force(x))

    def rate(self, time: float, y: Doubles) -> Doubles:
        raise NotImplementedError

    def jacobian(self, time: float, y: Doubles) -> Doubles:
        raise NotImplementedError

    def observe(self, times: Doubles, z: Doubles) -> tuple[Doubles, Doubles]:
        """(log t, arc length) from the clock and the extra coordinate."""
        raise NotImplementedError


class _TimeSystem(System):
    """dx/dt = F, dz/dt = ||F||."""

    def log_speed(self, time: float) -> float:
        return 0.0

    def rate(self, time: float, y: Doubles) -> Doubles:
        force, log_scale = self.field.force(y[:-1])
        square, power = float(force.dot(force)), log_scale + self.log_speed(time)
        out = np.empty(y.size)
        if _TINY < square < 1.0 / _TINY and abs(power) < _POWER:  # the common case
            speed = math.exp(power)
            np.multiply(force, speed, out=out[:-1])
            out[-1] = math.sqrt(square) * speed
        else:
            unit, log_norm = direction(force, log_scale)
            np.multiply(np.append(unit, 1.0), np.exp(log_norm + self.log_speed(time)), out=out)
        return out

    def jacobian(self, time: float, y: Doubles) -> Doubles:
        unit, _ = self._unit(y[:-1])
        jacobian, log_scale = self.field.jacobian(y[:-1])
        out = np.zeros((y.size, y.size))
        out[:-1, :-1] = np.exp(log_scale + self.log_speed(time)) * jacobian
        out[-1, :-1] = unit @ out[:-1, :-1]
        return out

    def observe(self, times: Doubles, z: Doubles) -> tuple[Doubles, Doubles]:
        with np.errstate(divide="ignore"):
            return np.log(times), z


class _LogTimeSystem(_TimeSystem):
    """dx/ds = e^s F, dz/ds = e^s ||F||."""

    def log_speed(self, time: float) -> float:
        return time

    def observe(self, times: Doubles, z: Doubles) -> tuple[Doubles, Doubles]:
        return log_time_of(times), z


class _ArclengthSystem(System):
    """dx/dr = F / ||F||, dz/dr = e^{-z} / (t_0 ||F||) with z = log(1 + t / t_0).

    The unit of time is t_0 = 1 / ||F(x_0)||, so that dz/dr is 1 at the start however small the force is there.
    """

    def __init__(self, field: FlowField, x0: Doubles) -> None:
        super().__init__(field, x0)
        self.log_unit = -self._unit(x0)[1]

    def _log_slowness(self, z: float, log_norm: float) -> float:
        return -z - log_norm - self.log_unit

    def rate(self, time: float, y: Doubles) -> Doubles:
        unit, log_norm = self._unit(y[:-1])
        return np.append(unit, np.exp(self._log_slowness(y[-1], log_norm)))

    def jacobian(self, time: float, y: Doubles) -> Doubles:
        unit, log_norm = self._unit(y[:-1])
        jacobian, log_scale = self.field.jacobian(y[:-1])
        relative = np.exp(log_scale - log_norm) * jacobian
        along, slowness = unit @ relative, np.exp(self._log_slowness(y[-1], log_norm))
        out = np.empty((y.size, y.size))
        out[:-1, :-1] = relative - np.outer(unit, along)
        out[:-1, -1] = 0.0
        out[-1, :-1] = -slowness * along
        out[-1, -1] = -slowness
        return out

    def observe(self, times: Doubles, z: Doubles) -> tuple[Doubles, Doubles]:
        return np.where(z > 0, log_time_of(z) + self.log_unit, -np.inf), times


SYSTEMS: dict[Clock, type[System]] = {
    "time": _TimeSystem,
    "log_time": _LogTimeSystem,
    "arclength": _ArclengthSystem,
}
