"""Schedules: multipliers of the step size as functions of the number of steps taken; also available in `optim`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from attnembed._validation import check_callable, check_integer, check_positive, check_share

__all__ = ["Constant", "Cosine", "InverseTime", "Schedule", "StepDecay", "check_schedule"]

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Constant:
    """Multiplier 1 after a linear warm-up over the first ``warmup`` steps.

    A schedule maps the number of steps already taken, k >= 0, to a multiplier of the step size in [0, 1]; all of them
    warm up as (k + 1) / (warmup + 1).

    >>> [Constant(warmup=3)(k) for k in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    warmup: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        check_integer("warmup", self.warmup, minimum=0)

    def __call__(self, k: int) -> float:
        if k < self.warmup:
            return (k + 1) / (self.warmup + 1)
        return self._decay(k - self.warmup)

    def _decay(self, k: int) -> float:
        """The multiplier ``k`` steps after the warm-up."""
        return 1.0


@dataclass(frozen=True)
class Cosine(Constant):
    """Half a cosine from 1 to ``final`` over ``total`` steps (warm-up included), then ``final``.

    >>> [round(Cosine(4)(k), 3) for k in (0, 2, 4, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """

    total: int
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("total", self.total, minimum=self.warmup + 1)
        check_share("final", self.final)

    def _decay(self, k: int) -> float:
        share = min(k / (self.total - self.warmup), 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class StepDecay(Constant):
    """Multiplication by ``factor`` after every ``every`` steps.

    >>> [StepDecay(2, 0.5)(k) for k in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("every", self.every, minimum=1)
        check_share("factor", self.factor)

    def _decay(self, k: int) -> float:
        return float(self.factor ** (k // self.every))


@dataclass(frozen=True)
class InverseTime(Constant):
    """1 / (1 + k / scale): half after ``scale`` steps, the classical rate of stochastic approximation.

    >>> [InverseTime(2.0)(k) for k in (0, 2, 6)]
    [1.0, 0.5, 0.25]
    """

    scale: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("scale", self.scale)

    def _decay(self, k: int) -> float:
        return 1 / (1 + k / self.scale)


def check_schedule(name: str, value: Any) -> Schedule | None:
    """A function from the number of steps taken to a multiplier of the step size, or None."""
    hint = "pass one of `attnembed.optim`, such as Cosine(total), or a function of the number of steps taken"
    return None if value is None else check_callable(name, value, hint=hint)
