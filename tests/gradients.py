"""Gradients of models with many parameters, checked at four lengths of step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed.gradcheck import GradientReport, check_gradient


def quick_check(
    function: Callable[[NDArray[np.float64]], Any],
    gradient: ArrayLike,
    x: ArrayLike,
    *,
    coordinates: int = 2,
    directions: int = 1,
    steps: Sequence[float] | None = None,
) -> GradientReport:
    """`check_gradient` at a third of its cost: it sees errors of 1e-4 of the gradient's norm instead of 1e-7."""
    size = max(1.0, float(np.abs(x).max()))
    lengths = steps or [size * 4.0**-k for k in (3, 5, 7, 9)]
    return check_gradient(function, gradient, x, coordinates=coordinates, directions=directions, steps=lengths, rng=0)
