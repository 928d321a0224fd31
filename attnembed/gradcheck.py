"""Gradient checks: by the slope of the Taylor remainder, and by complex steps.

A correct gradient leaves a remainder f(x + h u) - f(x) - h <grad, u> that falls like h^2, a wrong one like h. The slope
is fitted at the smallest steps whose remainder is clear of rounding, where any linear part is strongest.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from attnembed._typing import Doubles
from attnembed._validation import (
    RNGLike,
    as_array,
    as_real_array,
    as_rng,
    check_callable,
    check_integer,
    check_items,
    check_positive,
    check_shape,
    freeze,
    shown,
)
from attnembed.errors import InputError, InputTypeError
from attnembed.results import Result, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GradientReport", "check_gradient", "check_gradient_complex_step"]

Gradient = ArrayLike | Callable[[Doubles], ArrayLike]

EPS = float(np.finfo(float).eps)
SMALLEST_SLOPE = 1.8  # a wrong gradient has slope 1, a correct one 2, or 3 where the curvature along u vanishes
NOISE_FACTOR = 100.0  # a remainder counts from this multiple of the rounding error of the function
RESOLUTION = math.sqrt(EPS)  # accuracy required of a gradient, relative to its norm
HIDDEN = 1e-4  # a check that could miss an error of this share of the gradient is undecided


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GradientReport(Result):
    """The outcome of a gradient check.

    ``slope``: the smallest fitted slope of the Taylor remainder, inf where no remainder was seen, NaN for complex
    steps. ``relative_error``: the error of the directional derivatives, the largest one (Taylor) or the norm over all
    coordinates (complex step), relative to the norm of the gradient. ``worst_direction``: unit array of the shape of
    x; ``worst_coordinate`` is its index where it is a coordinate direction, else None. ``steps`` and ``remainder``
    (k,): R(h) along it, in the order tried (Taylor). ``coordinate_error`` (size of x,): the error in every coordinate
    relative to the norm of the gradient (complex steps). Empty in the other check.
    """

    slope: float
    relative_error: float
    worst_direction: Doubles
    worst_coordinate: tuple[int, ...] | None
    steps: Doubles = dataclasses.field(default_factory=lambda: np.zeros(0))
    remainder: Doubles = dataclasses.field(default_factory=lambda: np.zeros(0))
    coordinate_error: Doubles = dataclasses.field(default_factory=lambda: np.zeros(0))

    @property
    def passed(self) -> bool:
        """True if no error was found and no relevant one could have been missed (``success``)."""
        return self.success

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the remainder R(h) beside lines of slope 1 and 2, or the errors by coordinate.

        Draws on new axes if none are given; returns the axes.
        """
        from attnembed import figures

        if not self.steps.size:
            errors = {"error / norm of the gradient": self.coordinate_error}
            places = np.arange(self.coordinate_error.size)
            return figures.plot_lines(places, errors, ax=ax, marker="o", xlabel="coordinate", ylabel="error")
        end = int(self.steps.argmax())
        lines: dict[str, ArrayLike] = {"remainder": self.remainder}
        for power in (1, 2):
            lines[f"slope {power}"] = self.remainder[end] * (self.steps / self.steps[end]) ** power
        return figures.plot_lines(
            self.steps, lines, ax=ax, xscale="log", yscale="log", xlabel="length $h$ of the step", ylabel="$R(h)$"
        )


def check_gradient(
    function: Callable[[Doubles], Any],
    gradient: Gradient,
    x: ArrayLike,
    *,
    directions: int = 8,
    coordinates: int = 64,
    steps: Sequence[float] | None = None,
    rng: RNGLike = None,
) -> GradientReport:
    """Check a gradient by the slope of the Taylor remainder, along coordinates, random directions and the gradient.

    With e(h) = f(x + h u) - f(x) - h <grad, u>, the two-sided remainder R(h)^2 = (e(h)^2 + e(-h)^2) / 2 adds its
    even and odd parts in quadrature, so that they cannot cancel. R falls like h where the gradient is wrong, like
    h^2 or faster where it is correct; the slope over the three smallest steps with R above 100 times the measured
    rounding of f must be at least 1.8. In addition, rounding must not hide an error above 1e-4 of the gradient's
    norm: near stationary points, and where attention saturates, the check reports that it cannot decide. Kinks farther
    from x than about 1e-7 max(1, max|x|) do no harm; choose ``steps`` for a function that varies over lengths shorter
    than 1e-5 max(1, max|x|). Derived here.

    ``gradient`` is an array of the shape of x (any shape), or a function of x that returns it. The check uses
    ``directions`` random directions and at most ``coordinates`` coordinates. ``steps`` are lengths h > 0, by default
    max(1, max|x|) 4^-k, k = 2..18. Raises InputError unless x is finite and the shapes agree.

    >>> x = np.array([0.3, -0.7])
    >>> report = check_gradient(lambda x: np.sin(x).sum(), np.cos, x, rng=0)
    >>> report.passed, round(report.slope, 2)
    (True, 2.0)
    >>> check_gradient(lambda x: np.sin(x).sum(), 1.001 * np.cos(x), x, rng=0).passed
    False
    """
    check_callable("function", function)
    x, grad = _point_and_gradient(gradient, x)
    rng = as_rng(rng)
    size = max(1.0, float(np.abs(x).max()))
    if steps is None:
        lengths = [size * 4.0**-k for k in range(2, 19)]
    else:
        lengths = sorted((check_positive("steps", h) for h in check_items("steps", steps, "lengths")), reverse=True)
        if len(lengths) < 3:
            raise InputError("steps", "must be at least three lengths", got=len(lengths))
    check_integer("directions", directions, minimum=0)
    check_integer("coordinates", coordinates, minimum=1)
    start, norm = _value(function, x), _norm(grad)
    if not math.isfinite(start):
        return _not_finite("function", np.zeros(x.shape))
    if not math.isfinite(norm):
        return _not_finite("gradient", grad)

    def remainder(displacement: Doubles) -> float:
        return _value(function, x + displacement) - start - float(np.vdot(grad, displacement))

    noise = _noise(remainder, lengths[0] * 2.0**-18 * _unit(rng.standard_normal(x.shape)), EPS * abs(start))
    lines = [_Line.follow(remainder, u, lengths, noise, norm) for u in _directions(grad, directions, coordinates, rng)]
    # A zero gradient has no scale: the changes of f nearby, which are all remainder, are used instead.
    reference = norm or max(line.change for line in lines) or math.inf
    wrong = [line for line in lines if line.slope < SMALLEST_SLOPE]
    worst = max(wrong or lines, key=lambda line: line.error)
    relative_error = worst.error / reference
    hidden = relative_error > HIDDEN
    coordinate = _coordinate(worst.direction)
    where = "a direction" if coordinate is None else f"coordinate {coordinate}"
    slope = min(line.slope for line in lines)
    if wrong:
        message = f"wrong by {relative_error:.1e} of its norm along {where}: the remainder falls like h^{slope:.2f}"
    elif hidden:
        message = (
            f"not decided along {where}: rounding of the function could hide an error of {relative_error:.1e} of "
            f"the gradient's norm; check where the gradient is larger, or by complex steps"
        )
    else:
        message = f"correct along {len(lines)} directions: the remainder falls like h^{slope:.2f} or faster"
    return GradientReport(
        status=Status.FAILED if wrong or hidden else Status.CONVERGED,
        message=message,
        slope=slope,
        relative_error=relative_error,
        worst_direction=freeze(worst.direction),
        worst_coordinate=coordinate,
        steps=freeze(np.array(worst.steps)),
        remainder=freeze(np.array(worst.sizes)),
    )


def check_gradient_complex_step(
    function: Callable[[NDArray[np.complex128]], Any],
    gradient: Gradient,
    x: ArrayLike,
    *,
    step: float = 1e-20,
    tolerance: float = 1e-10,
) -> GradientReport:
    """Check a gradient against the complex step Im f(x + i h e_j) / h in every coordinate.

    No difference is taken, so the step itself costs no digits; digits that f loses by cancellation stay lost.
    ``function`` must be analytic: built from +, *, /, exp, log and the like, without modulus, conjugate or real part.
    It is called once per entry of x (any shape). ``gradient`` is an array of the shape of x, or a function of x that
    returns it. Passes if ||error|| <= ``tolerance`` times the norm of the complex-step gradient. Raises InputTypeError
    for a function that returns a real number, and InputError as `check_gradient` does.

    >>> x = np.array([0.3, -0.7])
    >>> check_gradient_complex_step(lambda x: np.sin(x).sum(), np.cos, x).relative_error < 1e-15
    True
    >>> print(check_gradient_complex_step(lambda x: np.sin(x).sum(), 1.001 * np.cos(x), x).message)
    wrong by 1.0e-03 of its norm, most in coordinate (0,)
    """
    check_callable("function", function)
    x, grad = _point_and_gradient(gradient, x)
    step, tolerance = check_positive("step", step), check_positive("tolerance", tolerance)
    exact = np.empty_like(x)
    for index in np.ndindex(x.shape):
        point = x.astype(complex)
        point[index] += 1j * step
        value = function(point)
        if not np.iscomplexobj(value):
            raise InputTypeError(
                "function",
                "must be analytic and return a complex number for complex x",
                got=type(value).__name__,
                hint="avoid abs, real, conj and float inside it",
            )
        exact[index] = complex(value).imag / step
    for what, values in (("function's complex step", exact), ("gradient", grad)):
        if not np.isfinite(values).all():
            return _not_finite(what, values)
    error, norm = np.abs(exact - grad), _norm(exact)
    relative_error = _norm(error) / norm if norm else (math.inf if error.any() else 0.0)
    passed = relative_error <= tolerance
    worst = _coordinate_direction(int(error.argmax()), x.shape)
    coordinate = _coordinate(worst)
    return GradientReport(
        status=Status.CONVERGED if passed else Status.FAILED,
        message=f"accurate to {relative_error:.1e} of its norm in all {x.size} coordinates"
        if passed
        else f"wrong by {relative_error:.1e} of its norm, most in coordinate {coordinate}",
        slope=math.nan,
        relative_error=relative_error,
        worst_direction=freeze(worst),
        worst_coordinate=coordinate,
        coordinate_error=freeze(error.ravel() / (norm or 1.0)),
    )


@dataclasses.dataclass(frozen=True)
class _Line:
    """The Taylor remainder along one direction.

    ``slope`` is inf where fewer than three steps show a remainder, ``error`` bounds the error of the directional
    derivative, and ``change`` is the largest remainder over h, less the rounding. ``sizes`` are the remainders at the
    ``steps`` tried.
    """

    direction: Doubles
    slope: float
    error: float
    change: float
    steps: tuple[float, ...]
    sizes: tuple[float, ...]

    @classmethod
    def follow(
        cls,
        remainder: Callable[[Doubles], float],
        direction: Doubles,
        lengths: Sequence[float],
        noise: float,
        norm: float,
    ) -> _Line:
        """Shorten the step until the remainder is lost in rounding twice in a row."""
        visible: list[tuple[float, float]] = []
        tried: dict[float, float] = {}
        error, change, drop, drowned, longer = math.inf, 0.0, 0.0, 0, math.inf
        for h in lengths:
            forward, backward = remainder(h * direction), remainder(-h * direction)
            size = math.hypot(forward, backward) / math.sqrt(2)
            if not math.isfinite(size):
                continue  # a step outside the domain of the function
            tried[h] = size
            floor = NOISE_FACTOR * noise + RESOLUTION * h * norm
            odd = abs(forward - backward) / (2 * h)
            error = min(error, max(odd, longer) + noise / h)  # for one step alone, a h + c h^3 may vanish by chance
            longer = odd
            change = max(change, (size - NOISE_FACTOR * noise) / h)
            if size > floor:
                visible.append((math.log(h), math.log(size)))
                drowned = 0
                continue
            drowned += 1
            if drowned == 2:
                break
            if visible:
                # Beyond a kink the remainder falls to nothing at once, faster than any power of h.
                drop = (visible[-1][1] - math.log(floor)) / (visible[-1][0] - math.log(h))
        seen = (tuple(tried), tuple(tried.values()))
        if len(visible) < 3:
            return cls(direction, math.inf, error, change, *seen)
        log_h, log_size = np.array(visible[-3:]).T
        slope = max(float(np.polyfit(log_h, log_size, 1)[0]), drop if drowned else 0.0)
        if slope < SMALLEST_SLOPE:
            error = math.exp(log_size[-1] - log_h[-1])
        return cls(direction, slope, error, change, *seen)


def _noise(remainder: Callable[[Doubles], float], step: Doubles, least: float) -> float:
    """Rounding error of the function: three standard deviations by sixth differences, or ``least`` if that is more.

    Sixth differences remove a smooth function, and their median removes a kink. The steps must be long enough to leave
    the plateaus of a function that subtracts large terms or rounds its argument to single precision.
    """
    with np.errstate(invalid="ignore"):
        differences = np.diff([remainder(k * step) for k in range(20)], n=6)
    # sqrt(924) sigma is the standard deviation of a sixth difference, 0.67 of that the median of its modulus
    noise = 3 * float(np.median(np.abs(differences))) / (0.67 * math.sqrt(924))
    return max(noise, least, float(np.finfo(float).tiny))


def _directions(grad: Doubles, directions: int, coordinates: int, rng: np.random.Generator) -> Iterator[Doubles]:
    """Unit arrays: coordinates, random directions and the gradient itself."""
    chosen = np.arange(grad.size)
    if grad.size > coordinates:
        chosen = rng.choice(grad.size, coordinates, replace=False)
    for k in chosen:
        yield _coordinate_direction(int(k), grad.shape)
    for _ in range(directions):
        yield _unit(rng.standard_normal(grad.shape))
    if grad.any():
        yield _unit(grad)


def _point_and_gradient(gradient: Gradient, x: ArrayLike) -> tuple[Doubles, Doubles]:
    """x as a finite float64 array and the gradient there, not necessarily finite, of the same shape."""
    point: Doubles = np.array(as_real_array("x", x, ndim=np.ndim(x)), dtype=np.float64).reshape(np.shape(x))
    if not point.size:
        raise InputError("x", "must not be empty", got=f"shape {point.shape}")
    found = as_array("gradient", gradient(point.copy()) if callable(gradient) else gradient)
    if found.dtype.kind not in "biuf":
        raise InputTypeError("gradient", "must be a real array, or a function that returns one", got=shown(found))
    grad = np.array(found, dtype=np.float64)
    check_shape("gradient", grad, point.shape, "the gradient has the shape of x")
    return point, grad


def _value(function: Callable[[Doubles], Any], point: Doubles) -> float:
    with np.errstate(all="ignore"):  # long steps may leave the domain
        return float(function(point))


def _norm(x: Doubles) -> float:
    """Euclidean norm; BLAS scales by the largest entry, so tiny entries do not underflow."""
    return float(scipy.linalg.norm(x.ravel(), check_finite=False))


def _unit(x: Doubles) -> Doubles:
    return x / _norm(x)


def _coordinate_direction(k: int, shape: tuple[int, ...]) -> Doubles:
    direction = np.zeros(shape)
    direction.flat[k] = 1.0
    return direction


def _coordinate(direction: Doubles) -> tuple[int, ...] | None:
    """Index of the only non-zero entry, or None."""
    entries = np.argwhere(direction)
    return tuple(int(k) for k in entries[0]) if len(entries) == 1 else None


def _not_finite(what: str, values: Doubles) -> GradientReport:
    """A report that names the first entry that is not finite, if it is one of these values."""
    bad = ~np.isfinite(values)
    worst = _coordinate_direction(int(bad.argmax()), values.shape) if bad.any() else np.zeros(values.shape)
    coordinate = _coordinate(worst)
    return GradientReport(
        status=Status.NOT_FINITE,
        message=f"the {what} is not finite" + (f" in coordinate {coordinate}" if bad.any() else ""),
        slope=math.nan,
        relative_error=math.inf,
        worst_direction=freeze(worst),
        worst_coordinate=coordinate,
    )
