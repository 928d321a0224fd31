"""Steepest descent on p in the norms linf and l1, and mirror descent, as flows in their arc length.

    dp/dr = argmax_{||x|| <= 1} <-grad_p L, x>          linf: the signs of the gradient; l1: its largest coordinate
    d/dt |p|^{q-1} sign(p) = -grad_p L                   mirror descent with the potential |p|_q^q / q

The right side of the first is discontinuous: where an entry of the gradient vanishes (linf), or two share the largest
size (l1), the flow slides along the surface on which they do. A step of length h is therefore the minimum of the
quadratic model of L over the ball of radius h about p: in the limit h -> 0 that is the flow, sliding included, and for
finite h it lowers the model by no less than the flow would, because a piece of the flow of length h ends in that ball.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from attnembed._progress import Progress
from attnembed._typing import Doubles
from attnembed._validation import check_between, shown
from attnembed.errors import InputError
from attnembed.integration import FlowPoint, Trajectory
from attnembed.margin_norms import dual_norm
from attnembed.results import Status

__all__ = ["GEOMETRIES", "Geometry", "check_geometry", "follow_geometry"]

Geometry = str | tuple[str, float]
GEOMETRIES = ("l2", "linf", "l1")

# Projected gradient iterations on the model of one step, and the change of the last iterate, as a share of the step,
# at which they may end.
_INNER, _SETTLED = 60, 1e-4
# A step as short as this share of its radius is at a minimum of its model, and p rests.
_RESTS = 1e-9
_SMALLEST_Q, _LARGEST_Q = 1.01, 100.0


class Field(Protocol):
    """The vector field of a flow: -grad and its Jacobian, each (array, log_scale), and the embeddings."""

    embeddings: Doubles

    def force(self, x: Doubles) -> tuple[Doubles, float]: ...
    def jacobian(self, x: Doubles) -> tuple[Any, float]: ...


def check_geometry(geometry: Any) -> tuple[str, float]:
    """The name of a geometry and the exponent of its norm: ("l2", 2), ("linf", inf), ("l1", 1) or ("mirror", q).

    >>> check_geometry("linf"), check_geometry(("mirror", 3))
    (('linf', inf), ('mirror', 3.0))
    """
    if isinstance(geometry, str) and geometry in GEOMETRIES:
        return geometry, {"l2": 2.0, "linf": np.inf, "l1": 1.0}[geometry]
    if isinstance(geometry, (tuple, list)) and len(geometry) == 2 and str(geometry[0]) == "mirror":
        hint = "q -> 1 and q -> inf are the geometries 'l1' and 'linf'"
        return "mirror", check_between("geometry[1]", geometry[1], _SMALLEST_Q, _LARGEST_Q, hint=hint)
    raise InputError(
        "geometry", "must be 'l2', 'linf', 'l1' or ('mirror', q)", got=shown(geometry), hint="q > 1, as in 1.5"
    )


def follow_geometry(
    field: Field,
    p0: Doubles,
    geometry: tuple[str, float],
    *,
    until: float,
    score_step: float,
    stops: Mapping[str, Callable[[Doubles], float]],
    callback: Callable[[FlowPoint], bool | None] | None,
    max_nfev: int,
) -> Trajectory:
    """Follow the flow until its path has the length ``until`` in the norm of the geometry.

    No step changes a difference of two scores by more than ``score_step``. ``log_time`` is the log time of the
    unnormalised flow, dp/dt = ||grad||_* x or mirror descent itself; it begins at -inf.
    """
    name, q = geometry
    stepper = _Mirror(field, p0, q) if name == "mirror" else _Steepest(field, p0, name)
    radius = score_step / _reach(field.embeddings, q)
    points, lengths, log_times = [p0.copy()], [0.0], [-np.inf]
    status, message = Status.REACHED_END, "reached"
    reached = next((stop for stop, value in stops.items() if value(p0) >= 0), None)
    with Progress("flow", total=until) as progress:
        while True:
            progress.update(lengths[-1])
            if callback is not None and callback(
                FlowPoint(points[-1].copy(), log_times[-1], lengths[-1], stepper.nfev)
            ):
                status, message = Status.STOPPED, "stopped by the callback at"
                break
            if reached is not None:
                status, message = Status.STOPPED, f"stopped where {reached}, at"
                break
            left = until - lengths[-1]
            if left <= 1e-12 * until:
                break
            if stepper.nfev >= max_nfev:
                status, message = Status.MAX_ITERATIONS, f"{max_nfev} evaluations used at"
                break
            h = min(radius, left)
            x, log_speed = stepper.step(h)
            if not np.isfinite(x).all():
                status, message = Status.NOT_FINITE, "the step is not finite after"
                break
            norm = float(np.linalg.norm(x, q))
            if norm <= _RESTS * h:
                status, message = Status.CONVERGED, "p rests at a stationary point, at"
                break
            share, reached = _first_stop(stops, points[-1], x)
            points.append(stepper.take(x, share))
            lengths.append(until if share == 1 and norm >= left * (1 - 1e-9) else lengths[-1] + share * norm)
            log_times.append(float(np.logaddexp(log_times[-1], np.log(share * norm) - log_speed)))
    advice = ": raise score_step or max_nfev" if status is Status.MAX_ITERATIONS else ""
    return Trajectory(
        x=np.array(points),
        log_time=np.array(log_times),
        arclength=np.array(lengths),
        status=status,
        message=f"{message} arclength = {lengths[-1]:.6g}{advice}",
        nfev=stepper.nfev,
        njev=stepper.njev,
    )


def _reach(embeddings: Doubles, q: float) -> float:
    """A bound on the change of any difference of scores per unit of length in the q-norm of p."""
    dual = 1.0 if q == np.inf else np.inf if q == 1 else q / (q - 1)
    centred = embeddings - (embeddings.max(axis=0) + embeddings.min(axis=0)) / 2
    largest = float(np.abs(centred).max())
    return 2 * largest * float(np.linalg.norm(centred / largest, dual, axis=1).max()) if largest > 0 else 1.0


def _first_stop(stops: Mapping[str, Callable[[Doubles], float]], p: Doubles, x: Doubles) -> tuple[float, str | None]:
    """Share of the step p + s x, s in (0, 1], at which the first stop is reached, and its name."""
    share, name = 1.0, None
    for stop, value in stops.items():
        if value(p + share * x) < 0:
            continue
        low, high = 0.0, share
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if value(p + middle * x) >= 0 else (middle, high)
        share, name = high, stop
    return share, name


class _Steepest:
    """Steps of steepest descent: the quadratic model of L, minimised over a small ball of the norm."""

    def __init__(self, field: Field, p0: Doubles, name: str) -> None:
        self.field, self.name = field, name
        self.p, self.nfev, self.njev = p0.copy(), 0, 0
        self.last: Doubles | None = None

    def step(self, h: float) -> tuple[Doubles, float]:
        """The step of length at most h, and the log of ||grad||_* over it."""
        force, log_scale = self.field.force(self.p)
        self.nfev += 1
        size = dual_norm(force, self.name)
        if size == 0 or not np.isfinite(size):
            return np.full(force.shape, 0.0 if size == 0 else np.nan), log_scale
        jacobian, other_scale = self.field.jacobian(self.p)
        self.njev += 1
        # Both in units of ||grad||_*, and x in units of h: minimise -f.x + x.K x / 2 over the unit ball.
        f = force / size
        K = -h * np.asarray(jacobian) * np.exp(other_scale - log_scale) / size
        self.last = self._minimum(f, K)
        # The mean of 1/||grad||_* over the step, by the trapezoidal rule with the model's gradient at the end.
        after = dual_norm(f - K @ self.last, self.name)
        slowness = (1 + 1 / after) / 2 if after > 0 else 1.0
        return h * self.last, float(np.log(size) - np.log(slowness)) + log_scale

    def take(self, x: Doubles, share: float) -> Doubles:
        """Go that share of the step; the new point."""
        self.p = self.p + share * x
        return self.p.copy()

    def _minimum(self, f: Doubles, K: Doubles) -> Doubles:
        project = _into_cube if self.name == "linf" else _into_cross_polytope
        bend = float(np.abs(K).sum(axis=1).max())  # no eigenvalue is larger
        # Start from the last step, which is close: the flow stays on a surface for long.
        x = project(f / bend if bend > 0 else f * np.inf) if self.last is None else self.last
        y, momentum = x, 1.0
        for _ in range(_INNER if bend > 0 else 0):
            new = project(y + (f - K @ y) / bend)
            move = new - x
            if (f - K @ y) @ move < 0:  # uphill: forget the momentum
                momentum, y = 1.0, new
            else:
                following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
                y, momentum = new + (momentum - 1) / following * move, following
            x = new
            if np.abs(move).max() < _SETTLED:
                break
        return x


def _into_cube(x: Doubles) -> Doubles:
    return np.minimum(np.maximum(x, -1.0), 1.0)


def _into_cross_polytope(x: Doubles) -> Doubles:
    """The point of the unit ball of the l1 norm nearest to x, by sorting."""
    sizes = np.abs(x)
    if sizes.sum() <= 1:
        return x
    falling = np.sort(sizes)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, x.size + 1)
    threshold = excess[np.flatnonzero(falling > excess)[-1]]
    value: Doubles = np.sign(x) * np.maximum(sizes - threshold, 0.0)
    return value


class _Mirror:
    """Steps of mirror descent in the dual variable z = |p|^{q-1} sign(p), by the midpoint rule.

    A step follows the force until p has moved by h in the q-norm; the distance grows along the force.
    """

    def __init__(self, field: Field, p0: Doubles, q: float) -> None:
        self.field, self.q = field, q
        self.p, self.nfev, self.njev = p0.copy(), 0, 0

    def step(self, h: float) -> tuple[Doubles, float]:
        """The step of length h, and the log of the speed ||dp/dt||_q over it."""
        force, log_scale = self.field.force(self.p)
        self.nfev += 1
        size = float(np.abs(force).max())
        if size == 0 or not np.isfinite(size):
            return np.full(force.shape, 0.0 if size == 0 else np.nan), log_scale
        z = np.sign(self.p) * np.abs(self.p) ** (self.q - 1)
        half, _ = self._along(z, force / size, h / 2)
        middle, log_middle = self.field.force(self.p + half)
        self.nfev += 1
        largest = float(np.abs(middle).max())
        if largest == 0 or not np.isfinite(largest):
            return np.full(force.shape, 0.0 if largest == 0 else np.nan), log_scale
        x, tau = self._along(z, middle / largest, h)
        return x, float(np.log(h) - np.log(tau) + np.log(largest)) + log_middle

    def take(self, x: Doubles, share: float) -> Doubles:
        """Go that share of the step; the new point."""
        self.p = self.p + share * x
        return self.p.copy()

    def _along(self, z: Doubles, direction: Doubles, h: float) -> tuple[Doubles, float]:
        """The move of p for z + tau direction with q-norm h, and tau."""

        def move(tau: float) -> Doubles:
            w = z + tau * direction
            return np.sign(w) * np.abs(w) ** (1 / (self.q - 1)) - self.p

        def beyond(log_tau: float) -> bool:
            return float(np.linalg.norm(move(np.exp(log_tau)), self.q)) > h

        low = high = float((self.q - 1) * np.log(h))
        while beyond(low):
            low -= 2.0
        while not beyond(high):
            high += 2.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if beyond(middle) else (middle, high)
        tau = float(np.exp((low + high) / 2))
        return move(tau), tau
