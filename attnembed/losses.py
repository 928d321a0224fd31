"""Losses with their derivatives, accurate to a few roundings over the whole range of float64.

The logistic loss of a margin z is l(z) = log(1 + e^{-z}); its derivative is -sigma(-z), sigma the logistic sigmoid
(for K labels: `gibbs.cross_entropy`). The theory only requires a loss to be decreasing, convex and smooth: a `Loss` is
any such function with its derivatives, and every function with a ``loss`` argument takes one, or its name.

>>> float(exponential(0.0)), exponential.derivative(0.0).item(), check_loss("softplus").name
(1.0, -1.0, 'softplus')
>>> squared = Loss(lambda z: np.exp(-2 * z), lambda z: -2 * np.exp(-2 * z), lambda z: 4 * np.exp(-2 * z))
>>> float(squared(0.0)), squared.inverse is None
(1.0, True)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit

from attnembed._deprecation import moved
from attnembed._typing import Floats
from attnembed.errors import InputError, InputTypeError

__all__ = [
    "Loss",
    "check_loss",
    "exponential",
    "logistic",
    "logistic_derivative",
    "logistic_inverse",
    "logistic_second_derivative",
    "smoothed_squared_hinge",
    "softplus",
]

Function = Callable[[Any], Any]

# For a loss without its own `increase`, the plain difference is used from this share of the larger value on, and below
# it the integral of the derivative, with this many nodes.
_PLAIN_SHARE = 0.1
_NODES = 32


@dataclass(frozen=True)
class Loss:
    """A loss l of the margin z = y f: decreasing, convex and smooth; calling it gives its value.

    Parameters
    ----------
    value, derivative, second_derivative : l, l' <= 0 and l'' >= 0, functions of an array that return one of its shape
    inverse : l^{-1}, the margin with a given loss; None if there is no formula. The constant of the basin needs it
    name : name of the loss in messages
    increase : (z, drop) -> l(z - drop) - l(z) for drop >= 0, without cancellation. By default the plain difference
        where it is at least a tenth of l(z - drop), and otherwise the integral of -l' over the drop by Gauss's formula,
        which sums terms of one sign: accurate up to rounding if l' is smooth where l changes by a tenth
    log_slope : z -> log(-l'(z)), even where l' underflows; -inf where l' = 0. By default the logarithm of -l'
    relative_curvature : z -> l''(z) / -l'(z), even where both underflow; 0 where l' = 0. By default the quotient

    Raises
    ------
    InputTypeError
        for anything but a function, or a function that does not return numbers.
    InputError
        for a function that returns the wrong shape or NaN, increases, or is not convex at the margins -2, 0, 1/2 or 2.

    Source: the theorems are stated for the logistic loss in [WSOM25], and for losses like these in [TLTO23]; the
    requirements of each on l are in docs/derivations/losses.md.

    >>> square = Loss(lambda z: np.exp(-z) ** 2, lambda z: -2 * np.exp(-2 * z), lambda z: 4 * np.exp(-2 * z))
    >>> bool(abs(square.rise(20.0, 1e-12) / (2e-12 * np.exp(-40)) - 1) < 2e-12)
    True
    """

    value: Function
    derivative: Function
    second_derivative: Function
    inverse: Function | None = None
    _: KW_ONLY
    name: str = "custom"
    increase: Callable[[Any, Any], Any] | None = None
    log_slope: Function | None = None
    relative_curvature: Function | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise InputTypeError("name", "must be text", got=type(self.name).__name__)
        z, found = np.array([-2.0, 0.0, 0.5, 2.0]), {}
        for part in ("value", "derivative", "second_derivative", "inverse", "increase", *_EXTRAS):
            function, needed = getattr(self, part), part in ("value", "derivative", "second_derivative")
            if not callable(function) and (needed or function is not None):
                raise InputTypeError(part, "must be a function", got=type(function).__name__)
            if needed:
                found[part] = _sampled(part, function, z)
        if (found["derivative"] > 0).any() or (np.diff(found["value"]) > 0).any():
            raise InputError("value", "must decrease in the margin", got="a rise", hint="a loss is l(y f)")
        if (found["second_derivative"] < 0).any() or (np.diff(found["derivative"]) < 0).any():
            raise InputError("second_derivative", "must be >= 0, that of a convex loss", got="a falling derivative")

    def __call__(self, z: ArrayLike) -> Any:
        """l(z), any shape."""
        return self.value(z)

    def __repr__(self) -> str:
        return f"Loss({self.name!r})"

    def rise(self, z: ArrayLike, drop: ArrayLike) -> Floats:
        """l(z - drop) - l(z) >= 0 for drop >= 0, without cancellation; with any broadcastable shapes."""
        z, drop = np.asarray(z, dtype=np.float64), np.asarray(drop, dtype=np.float64)
        with np.errstate(over="ignore", under="ignore"):
            if self.increase is not None:
                return np.asarray(self.increase(z, drop))
            after = np.asarray(self.value(z - drop), dtype=np.float64)
            plain = after - np.asarray(self.value(z), dtype=np.float64)
            near = np.abs(plain) < _PLAIN_SHARE * np.abs(after)
            nodes, weights = _gauss()
            inside = z - np.where(near, drop, 0.0) * nodes.reshape((-1,) + (1,) * plain.ndim)
            integral = drop * np.tensordot(weights, -np.asarray(self.derivative(inside), dtype=np.float64), 1)
            return np.where(near, integral, plain)

    def log_pull(self, z: ArrayLike) -> Floats:
        """log(-l'(z)), -inf where l' = 0; any shape."""
        if self.log_slope is not None:
            return np.asarray(self.log_slope(z))
        with np.errstate(divide="ignore", over="ignore", under="ignore"):
            return np.log(-np.asarray(self.derivative(z), dtype=np.float64))

    def curvature(self, z: ArrayLike) -> Floats:
        """l''(z) / -l'(z), 0 where l' = 0; any shape."""
        if self.relative_curvature is not None:
            return np.asarray(self.relative_curvature(z))
        with np.errstate(over="ignore", under="ignore"):
            slope = -np.asarray(self.derivative(z), dtype=np.float64)
            second = np.asarray(self.second_derivative(z), dtype=np.float64)
        return np.divide(second, slope, out=np.zeros(slope.shape), where=slope > 0)

    def margin(self, loss: ArrayLike) -> Floats:
        """l^{-1}, the margin with a given loss.

        Raises
        ------
        InputError
            if the loss has no inverse.
        """
        if self.inverse is None:
            raise InputError("loss", "must have an inverse here", got=repr(self), hint="pass `inverse=` to Loss")
        return np.asarray(self.inverse(loss))


_EXTRAS = ("log_slope", "relative_curvature")


@functools.cache
def _gauss() -> tuple[Floats, Floats]:
    """Nodes and weights of Gauss's formula on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return (nodes + 1) / 2, weights / 2


def _sampled(name: str, function: Function, z: Floats) -> Floats:
    """The values of a part of a loss at some margins."""
    try:
        with np.errstate(all="ignore"):
            found = np.asarray(function(z.copy()), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputTypeError(name, "must be a function of an array of margins", got=f"{error}"[:60]) from error
    if found.shape != z.shape or not np.isfinite(found).all():
        got = f"shape {found.shape} for {z.shape}" if found.shape != z.shape else "NaN or infinity"
        raise InputError(name, "must give one finite number for each margin", got=got)
    return found


def check_loss(loss: Any) -> Loss:
    """Return a `Loss`, given as one or by name: "logistic", "exponential", "softplus" or "smoothed_squared_hinge".

    >>> check_loss("exponential") is exponential
    True
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str):
        hint = "build it with attnembed.losses.Loss"
        raise InputTypeError("loss", "must be a Loss or a name", got=type(loss).__name__, hint=hint)
    if loss not in _NAMED:
        raise InputError("loss", f"must be a Loss or one of {', '.join(map(repr, _NAMED))}", got=repr(loss))
    return _NAMED[loss]()


# --- the logistic loss -------------------------------------------------------------------------------------------


def _logistic(z: ArrayLike) -> Floats:
    value: Floats = -log_expit(np.asarray(z))
    return value


def logistic_derivative(z: ArrayLike) -> NDArray[np.floating[Any]]:
    """l'(z) = -sigma(-z), any shape, values in (-1, 0).

    >>> float(logistic_derivative(0.0))
    -0.5
    """
    value: NDArray[np.floating[Any]] = -expit(-np.asarray(z))
    return value


def logistic_second_derivative(z: ArrayLike) -> NDArray[np.floating[Any]]:
    """l''(z) = sigma(z) sigma(-z), any shape, values in (0, 1/4].

    >>> float(logistic_second_derivative(0.0))
    0.25
    """
    z = np.asarray(z)
    value: NDArray[np.floating[Any]] = expit(z) * expit(-z)
    return value


def logistic_inverse(loss: ArrayLike) -> NDArray[np.floating[Any]]:
    """The margin with a given loss: l^{-1}(x) = -log(e^x - 1) for x > 0.

    Written as -x - log(1 - e^{-x}), so that it neither overflows for large x nor cancels for small x.

    >>> float(np.round(logistic_inverse(logistic(3.0)), 12))
    3.0
    """
    x = np.asarray(loss, dtype=float)
    value: NDArray[np.floating[Any]] = -(x + np.log(-np.expm1(-x)))
    return value


def _logistic_increase(z: Floats, drop: Floats) -> Floats:
    """log1p(expm1(drop) sigma(-z)), accurate for the smallest drops."""
    near = np.log1p(np.expm1(np.minimum(drop, 1.0)) * -logistic_derivative(z))
    # Far from z nothing cancels, and expm1 could overflow.
    return np.where(drop <= 1.0, near, _logistic(z - drop) - _logistic(z))


def _logistic_log_slope(z: ArrayLike) -> Floats:
    return np.asarray(log_expit(-np.asarray(z)))


def _logistic_curvature(z: ArrayLike) -> Floats:
    """1 - sigma(-z) = sigma(z)."""
    return np.asarray(expit(np.asarray(z)))


# The loss of [WSOM25], and the default everywhere: l(z) = log(1 + e^{-z}), values in (0, inf).
logistic = Loss(
    _logistic,
    logistic_derivative,
    logistic_second_derivative,
    logistic_inverse,
    name="logistic",
    increase=_logistic_increase,
    log_slope=_logistic_log_slope,
    relative_curvature=_logistic_curvature,
)


# --- other losses ------------------------------------------------------------------------------------------------


def _exp(z: ArrayLike) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(-np.asarray(z)))


def _exp_derivative(z: ArrayLike) -> Floats:
    return -_exp(z)


def _exp_inverse(loss: ArrayLike) -> Floats:
    return np.asarray(-np.log(np.asarray(loss, dtype=float)))


def _exp_increase(z: Floats, drop: Floats) -> Floats:
    near = _exp(z) * np.expm1(np.minimum(drop, 1.0))
    return np.where(drop <= 1.0, near, _exp(z - drop) - _exp(z))


def _minus(z: ArrayLike) -> Floats:
    return -np.asarray(z, dtype=float)


def _one(z: ArrayLike) -> Floats:
    return np.ones(np.shape(z))


# e^{-z}: the limit of the logistic loss at large margins. Below z = -709 it overflows.
exponential = Loss(
    _exp,
    _exp_derivative,
    _exp,
    _exp_inverse,
    name="exponential",
    increase=_exp_increase,
    log_slope=_minus,
    relative_curvature=_one,
)


@functools.cache
def softplus(temperature: float = 1.0) -> Loss:
    """T log(1 + e^{-z/T}), the logistic loss on another scale; as T -> 0 the hinge max(0, -z).

    >>> float(softplus(0.5)(0.0)) == 0.5 * float(np.log(2.0)), softplus(1.0).derivative(0.0).item()
    (True, -0.5)
    """
    T = _positive("temperature", temperature)
    make = functools.partial
    return Loss(
        make(_scaled, logistic.value, T, T),
        make(_scaled, logistic.derivative, T, 1.0),
        make(_scaled, logistic.second_derivative, T, 1 / T),
        make(_softplus_inverse, T),
        name="softplus" if T == 1 else f"softplus({T:g})",
        increase=make(_softplus_increase, T),
        log_slope=make(_scaled, _logistic_log_slope, T, 1.0),
        relative_curvature=make(_scaled, _logistic_curvature, T, 1 / T),
    )


def _scaled(function: Function, T: float, factor: float, z: ArrayLike) -> Any:
    return factor * function(np.asarray(z) / T)


def _softplus_inverse(T: float, loss: ArrayLike) -> Floats:
    return T * logistic_inverse(np.asarray(loss) / T)


def _softplus_increase(T: float, z: Floats, drop: Floats) -> Floats:
    return T * _logistic_increase(z / T, drop / T)


@functools.cache
def smoothed_squared_hinge(width: float = 0.5) -> Loss:
    """The squared hinge max(0, 1 - z)^2 / 2 with l'' rising from 0 to 1 linearly over 1 - width < z < 1; 0 from z = 1.

    With x = 1 - z: x^3 / (6 w) up to x = w, and x^2/2 - w x/2 + w^2/6 beyond, twice continuously differentiable. Its
    derivative vanishes for z >= 1: a sequence that has reached this margin no longer pulls, and selection can stop
    short (docs/derivations/losses.md).

    >>> loss = smoothed_squared_hinge(0.5)
    >>> loss([2.0, 1.0, 0.5]).round(6).tolist(), float(loss.inverse(loss(-3.0)))
    ([0.0, 0.0, 0.041667], -3.0)
    """
    w = _positive("width", width)
    make = functools.partial
    return Loss(
        make(_hinge, w),
        make(_hinge_derivative, w),
        make(_hinge_second, w),
        make(_hinge_inverse, w),
        name="smoothed_squared_hinge" if w == 0.5 else f"smoothed_squared_hinge({w:g})",
        increase=make(_hinge_increase, w),
    )


def _hinge(w: float, z: ArrayLike) -> Floats:
    x = np.maximum(1 - np.asarray(z, dtype=float), 0.0)
    far = np.maximum(x, w)
    value: Floats = np.where(x <= w, np.minimum(x, w) ** 3 / (6 * w), far * (far - w) / 2 + w * w / 6)
    return value


def _hinge_derivative(w: float, z: ArrayLike) -> Floats:
    x = np.maximum(1 - np.asarray(z, dtype=float), 0.0)
    value: Floats = -np.where(x <= w, np.minimum(x, w) ** 2 / (2 * w), x - w / 2)
    return value


def _hinge_second(w: float, z: ArrayLike) -> Floats:
    return np.clip((1 - np.asarray(z, dtype=float)) / w, 0.0, 1.0)


def _hinge_inverse(w: float, loss: ArrayLike) -> Floats:
    """The inverse; 1 at l = 0, the smallest margin with that loss."""
    value = np.asarray(loss, dtype=float)
    near = np.cbrt(6 * w * np.minimum(value, w * w))
    far = w / 2 + np.sqrt(np.maximum(2 * value - w * w / 12, 0.0))
    return 1 - np.where(value <= w * w / 6, near, far)


def _hinge_increase(w: float, z: Floats, drop: Floats) -> Floats:
    """The increase over the cubic and the quadratic part, each by its own expansion."""
    a = 1 - z
    start = np.clip(a, 0.0, w)
    # The parts of the drop before, in and beyond the cubic part; `drop` itself if it stays in one part.
    left = np.maximum(drop - np.maximum(-a, 0.0), 0.0)
    inside = np.where(a >= w, 0.0, np.minimum(left, w - start))
    beyond = left - inside
    cubic = inside * (3 * start * (start + inside) + inside**2) / (6 * w)
    edge = np.maximum(a, w)
    value: Floats = cubic + beyond * (edge - w / 2) + beyond**2 / 2
    return value


def _positive(name: str, value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputTypeError(name, "must be a real number", got=type(value).__name__)
    if not 0 < float(value) < np.inf:
        raise InputError(name, "must be finite and > 0", got=float(value))
    return float(value)


_NAMED: dict[str, Callable[[], Loss]] = {
    "logistic": lambda: logistic,
    "exponential": lambda: exponential,
    "softplus": softplus,
    "smoothed_squared_hinge": smoothed_squared_hinge,
}


# The cross-entropy of K labels was formerly in this module.
__getattr__ = moved(__name__, {"cross_entropy": "attnembed.gibbs"})
