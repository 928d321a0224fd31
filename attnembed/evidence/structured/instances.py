"""Random potentials for the claims about chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Doubles
from attnembed.results import Record

__all__ = ["Batch", "random_batch"]


@dataclass(frozen=True, eq=False, repr=False)
class Batch(Record):
    """Random potentials for chains of different lengths, with random labels."""

    unary: Doubles
    pairwise: Doubles
    labels: NDArray[np.integer[Any]]
    lengths: NDArray[np.integer[Any]]

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.unary, self.pairwise, self.labels, self.lengths


def random_batch(rng: np.random.Generator, *, n: int = 4, length: int = 4, k: int = 3, spread: float = 1.0) -> Batch:
    return Batch(
        spread * rng.normal(size=(n, length, k)),
        spread * rng.normal(size=(k, k)),
        rng.integers(0, k, size=(n, length)),
        rng.integers(1, length + 1, size=n),
    )
