"""Optimisers on dicts of named arrays, with checkpointable state; shared by both subjects, as are the `schedules`.

An optimiser is a frozen collection of options. Its state is plain data; parameters and state are updated in place, so
the caller owns every array and a step allocates nothing of the size of the parameters.
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attnembed._typing import Floats
from attnembed._validation import check_integer, check_mapping, check_positive, check_shape, check_share, shown
from attnembed.errors import InputError, InputTypeError
from attnembed.schedules import Constant, Cosine, InverseTime, Schedule, StepDecay, check_schedule

__all__ = [
    "SGD",
    "Adam",
    "Constant",
    "Cosine",
    "InverseTime",
    "Optimizer",
    "OptimizerState",
    "Schedule",
    "StepDecay",
    "check_optimizer",
    "check_schedule",
    "scheduled_step_size",
    "state_arrays",
    "state_from_arrays",
]


# Blocks of this many entries keep parameter, gradient, moments and scratch (5 x 128 kB in single precision) in the
# cache: the elementwise chain then reads main memory once, and the scratch is small however large the parameters are.
_BLOCK = 32768

# By item size, the smallest and largest root whose square keeps all its digits, with room for addition.
_SQUARED = {
    np.dtype(kind).itemsize: (
        math.sqrt(np.finfo(kind).tiny) / float(np.finfo(kind).eps),
        math.sqrt(np.finfo(kind).max) / 2**16,
    )
    for kind in (np.float32, np.float64)
}


@dataclass
class OptimizerState:
    """The number of steps taken and, per slot (``velocity``; ``mean``, ``square``), one array per parameter.

    Where a mean square leaves the floating-point range, ``square`` holds minus its root; ``wide`` names the parameters
    with such entries, and follows from the slots.
    """

    step: int
    slots: dict[str, dict[str, Floats]]
    wide: set[str] = field(default_factory=set)
    overflowed: bool = field(default=False, repr=False, compare=False)  # since it was last set to False

    def note_overflow(self, kind: str, flag: int) -> None:
        """Called by NumPy (`numpy.seterrcall`) after an operation that overflowed."""
        self.overflowed = True


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """Base class of the optimisers. ``step_size`` eta > 0 is multiplied by ``multipliers`` per parameter (default 1).

    ``weight_decay`` lambda >= 0, one number or one per parameter (default 0), is decoupled from the gradient: each step
    begins with theta <- (1 - eta lambda) theta (Loshchilov, Hutter, arXiv 1711.05101).
    """

    step_size: float
    multipliers: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float | Mapping[str, float] = 0.0

    def __post_init__(self) -> None:
        check_positive("step_size", self.step_size)
        for name, factor in check_mapping("multipliers", self.multipliers, "names to factors").items():
            check_positive(f"multipliers[{name!r}]", factor, zero_ok=True)
        if isinstance(self.weight_decay, Mapping):
            for name, decay in self.weight_decay.items():
                check_positive(f"weight_decay[{name!r}]", decay, zero_ok=True)
        else:
            check_positive("weight_decay", self.weight_decay, zero_ok=True)

    @property
    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays in the state for each parameter."""

    def init(self, params: Mapping[str, Floats]) -> OptimizerState:
        """Create the state before the first step: zeros shaped like the parameters."""
        for name, array in check_mapping("params", params, "names to arrays").items():
            _check_parameter(name, array)
        return OptimizerState(0, {s: {k: np.zeros_like(a) for k, a in params.items()} for s in self.slots})

    def rates(self, name: str, step_size: float) -> tuple[float, float]:
        """(rate, keep) of one parameter: its step is theta <- keep theta - rate direction."""
        rate = step_size * self.multipliers.get(name, 1.0)
        decay = self.weight_decay.get(name, 0.0) if isinstance(self.weight_decay, Mapping) else self.weight_decay
        return rate, 1 - rate * decay

    def update(
        self,
        params: Mapping[str, Floats],
        grads: Mapping[str, Floats],
        state: OptimizerState,
        step_size: float | None = None,
    ) -> None:
        """Take one step on every parameter that has a gradient, changing ``params`` and ``state`` in place.

        Parameters
        ----------
        params : C-contiguous writable float arrays
        grads : arrays of the same shapes, left unchanged; parameters without a gradient do not change
        step_size : replaces the option for this step (a schedule's value); 0 is allowed
        """
        eta = self.step_size if step_size is None else check_positive("step_size", step_size, zero_ok=True)
        check_mapping("params", params, "names to arrays")
        check_mapping("grads", grads, "names to arrays")
        _check_state(state)
        unknown = [name for name in grads if name not in params or any(name not in state.slots[s] for s in self.slots)]
        if unknown:
            raise InputError("grads", "must name parameters of the state", got=unknown[0])
        for name, gradient in grads.items():
            _check_parameter(name, params[name])
            check_shape(f"grads[{name!r}]", gradient, params[name].shape, "the shape of its parameter")
        state.step += 1
        for name, gradient in grads.items():
            rate, keep = self.rates(name, eta)
            arrays = (params[name], gradient, *(state.slots[slot][name] for slot in self.slots))
            for parameter, *rest in _blocks(*arrays):
                if keep != 1:
                    parameter *= keep
                self._step(rate, state, name, parameter, *rest)

    def rescale(self, state: OptimizerState, name: str, factor: float) -> None:
        """Adjust the state to theta <- factor * theta with the function unchanged: gradients are divided by ``factor``.

        velocity / a, mean / a, square / a^2 (derived here). Adam's epsilon is not adjusted; it matters only where the
        gradients are as small.
        """
        if (
            isinstance(factor, bool)
            or not isinstance(factor, (int, float, np.number))
            or not math.isfinite(factor)
            or factor == 0
        ):
            raise InputError("factor", "must be finite and not 0", got=factor)
        _check_state(state)
        if not isinstance(name, str):
            raise InputTypeError("name", "must be a parameter of the state", got=shown(name))
        for slot in self.slots:
            if name not in state.slots[slot]:
                raise InputError("name", "must be a parameter of the state", got=repr(name))
            if slot == "square":
                _divide_square(state, name, abs(float(factor)))
            else:
                state.slots[slot][name] /= factor

    @abstractmethod
    def _step(
        self, rate: float, state: OptimizerState, name: str, parameter: Floats, gradient: Floats, *slots: Floats
    ) -> None:
        """Take step number ``state.step`` >= 1 on one flat block of the parameter ``name``."""


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Gradient descent with heavy-ball momentum: velocity <- momentum velocity + g, theta <- theta - eta velocity.

    Parameters
    ----------
    step_size : eta > 0
    momentum : in [0, 1)
    multipliers, weight_decay : see `Optimizer`

    >>> params = {"w": np.array([1.0, -1.0])}
    >>> sgd = SGD(step_size=0.5)
    >>> state = sgd.init(params)
    >>> sgd.update(params, {"w": np.array([1.0, 0.0])}, state)
    >>> params["w"], state.step
    (array([ 0.5, -1. ]), 1)
    """

    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("momentum", self.momentum, closed="left")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def _step(
        self, rate: float, state: OptimizerState, name: str, parameter: Floats, gradient: Floats, *slots: Floats
    ) -> None:
        for velocity in slots:
            velocity *= self.momentum
            velocity += gradient
            gradient = velocity
        parameter -= rate * gradient


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam (Kingma, Ba, arXiv 1412.6980), with decoupled weight decay.

    mean <- beta1 mean + (1 - beta1) g,  square <- beta2 square + (1 - beta2) g^2,
    theta <- theta - eta mean^ / (sqrt(square^) + epsilon),  mean^ = mean / (1 - beta1^k), square^ likewise.

    Parameters
    ----------
    step_size : eta > 0, about the size of the first step of every entry
    beta1, beta2 : in [0, 1)
    epsilon : > 0
    multipliers, weight_decay : see `Optimizer`

    >>> params = {"w": np.array([1.0, -1.0])}
    >>> adam = Adam(step_size=0.5, epsilon=1e-12)
    >>> adam.update(params, {"w": np.array([1e-3, 1e3])}, adam.init(params))
    >>> params["w"].round(6)
    array([ 0.5, -1.5])
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("beta1", self.beta1, closed="left")
        check_share("beta2", self.beta2, closed="left")
        check_positive("epsilon", self.epsilon)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("mean", "square")

    def update(
        self,
        params: Mapping[str, Floats],
        grads: Mapping[str, Floats],
        state: OptimizerState,
        step_size: float | None = None,
    ) -> None:
        """As `Optimizer.update`; handles gradients of any size, even those whose squares overflow."""
        _check_state(state)
        with np.errstate(over="call", call=state.note_overflow):  # a flag that the processor sets anyway
            super().update(params, grads, state, step_size)

    def _step(
        self, rate: float, state: OptimizerState, name: str, parameter: Floats, gradient: Floats, *slots: Floats
    ) -> None:
        mean, square = slots
        k = state.step
        # Both corrections as scalars: eta mean^ / (sqrt(square^) + eps) = rate' mean / (sqrt(square) + eps').
        root = math.sqrt(1 - self.beta2**k)
        epsilon = self.epsilon * root
        scratch = (1 - self.beta1) * gradient
        mean *= self.beta1
        mean += scratch
        # Squares too small for a float are lost beside epsilon, unless it is equally small.
        wide = epsilon < _SQUARED[square.itemsize][0] or name in state.wide
        if not wide:
            state.overflowed = False
            np.multiply(gradient, gradient, out=scratch)
            wide = state.overflowed
        if wide:
            scratch[...] = self._wide_root(gradient, square)
            if (square < 0).any():
                state.wide.add(name)
        else:
            scratch *= 1 - self.beta2
            square *= self.beta2
            square += scratch
            np.sqrt(square, out=scratch)
        scratch += epsilon
        np.divide(mean, scratch, out=scratch)
        scratch *= rate * root / (1 - self.beta1**k)
        parameter -= scratch

    def _wide_root(self, gradient: Floats, square: Floats) -> Floats:
        """Update ``square`` where squares may leave the floating-point range; returns its root."""
        low, high = _SQUARED[square.itemsize]
        with np.errstate(all="ignore"):
            plain = square * self.beta2 + gradient * gradient * (1 - self.beta2)
            root = np.hypot(math.sqrt(self.beta2) * _roots(square), math.sqrt(1 - self.beta2) * np.abs(gradient))
            usual = (square >= 0) & np.isfinite(plain) & ((low <= root) & (root <= high) | (root == 0))
            square[...] = np.where(usual, plain, _squares(root))
            return np.where(usual, np.sqrt(plain), root)


def _roots(square: Floats) -> Floats:
    """The roots of mean squares, where squares out of range are stored as minus their root."""
    return np.where(square < 0, -square, np.sqrt(np.abs(square)))


def _squares(root: Floats) -> Floats:
    """The inverse of `_roots`."""
    low, high = _SQUARED[root.itemsize]
    return np.where((low <= root) & (root <= high) | (root == 0), root * root, -root)


def _divide_square(state: OptimizerState, name: str, factor: float) -> None:
    """``square`` over ``factor`` > 0 squared."""
    square = state.slots["square"][name]
    low, high = _SQUARED[square.itemsize]
    with np.errstate(all="ignore"):
        largest = math.sqrt(square.max(initial=0)) / factor
    if name not in state.wide and low <= factor <= high and largest <= high:
        square /= factor**2
        return
    with np.errstate(all="ignore"):
        square[...] = _squares(_roots(square) / factor)
    if (square < 0).any():
        state.wide.add(name)


def state_arrays(state: OptimizerState) -> dict[str, np.ndarray[Any, Any]]:
    """The state as named arrays for an npz archive: ``optimizer.step`` and ``optimizer.<slot>.<parameter>``.

    >>> sorted(state_arrays(SGD(step_size=1.0, momentum=0.9).init({"w": np.zeros(2)})))
    ['optimizer.step', 'optimizer.velocity.w']
    """
    _check_state(state)
    out: dict[str, np.ndarray[Any, Any]] = {"optimizer.step": np.array(state.step)}
    for slot, arrays in state.slots.items():
        out |= {f"optimizer.{slot}.{name}": array for name, array in arrays.items()}
    return out


def state_from_arrays(arrays: Mapping[str, np.ndarray[Any, Any]], like: OptimizerState) -> OptimizerState:
    """Rebuild a state from `state_arrays`; ``like`` (from ``init``) gives the expected names, shapes and dtypes.

    Raises
    ------
    InputError
        if an array is missing, or has the wrong shape or dtype.
    """
    check_mapping("arrays", arrays, "names to arrays")
    _check_state(like, "like")
    for key, expected in state_arrays(like).items():
        found = arrays.get(key)
        if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
            got = "nothing" if found is None else f"shape {found.shape}, dtype {found.dtype}"
            raise InputError("arrays", f"must hold {key} of shape {expected.shape}, dtype {expected.dtype}", got=got)
    slots = {s: {k: arrays[f"optimizer.{s}.{k}"].copy() for k in names} for s, names in like.slots.items()}
    wide = {name for name, square in slots.get("square", {}).items() if (square < 0).any()}
    return OptimizerState(check_integer("optimizer.step", arrays["optimizer.step"].item(), minimum=0), slots, wide)


def _check_state(state: Any, name: str = "state") -> None:
    if not isinstance(state, OptimizerState):
        raise InputTypeError(name, "must be an OptimizerState, from `init`", got=type(state).__name__)


def check_optimizer(name: str, value: Any) -> Optimizer:
    """Check for an optimiser object, as opposed to its name or class."""
    if isinstance(value, Optimizer):
        return value
    if isinstance(value, type) and issubclass(value, Optimizer):
        hint = f"pass {value.__name__}(step_size=...)"
    else:
        hint = "the optimizers are attnembed.Adam(step_size=...) and attnembed.SGD(step_size=...)"
    got = repr(value) if isinstance(value, (str, type)) else f"an object of type {type(value).__name__}"
    raise InputTypeError(name, "must be an optimizer, an object with its options", got=got, hint=hint)


def scheduled_step_size(optimizer: Optimizer, schedule: Schedule | None, k: int) -> float:
    """The step size after ``k`` steps: that of the optimiser times the schedule."""
    if schedule is None:
        return optimizer.step_size
    value: Any = schedule(k)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    number = isinstance(value, (numbers.Real, np.bool_))
    with np.errstate(over="ignore"):  # from a schedule in single precision
        step_size = float(optimizer.step_size * value) if number else math.nan
    if not 0 <= step_size < math.inf:
        got = f"{value} after {k} steps" if number else f"{type(value).__name__} {value!r:.40} after {k} steps"
        error = InputError if number else InputTypeError
        raise error("schedule", "must return a finite factor of the step size, >= 0", got=got)
    return step_size


def _blocks(*arrays: Floats) -> Iterator[list[Floats]]:
    """Flat views of equal blocks of the arrays."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, _BLOCK):
        yield [array[start : start + _BLOCK] for array in flat]


def _check_parameter(name: str, array: Any) -> None:
    if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
        raise InputTypeError(f"params[{name!r}]", "must be a float32 or float64 array", got=type(array).__name__)
    if not (array.flags.writeable and array.flags.c_contiguous):
        raise InputError(f"params[{name!r}]", "must be writable and C-contiguous", hint="pass a copy")
