"""Functions for sweeps; in a module of their own, which new processes import quickly."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np


def draw(x: float, y: float = 0.0, *, rng: np.random.Generator) -> dict[str, float]:
    """A number that depends on the cell and on its generator."""
    return {"sum": x + y, "noise": float(rng.standard_normal())}


def scaled(x: float, factor: float, *, rng: np.random.Generator) -> float:
    return factor * x


def scaled_sum(x: float, factors: Any, *, rng: np.random.Generator) -> float:
    return float(np.sum(factors) * x)


def environment(x: int, *, rng: np.random.Generator) -> dict[str, Any]:
    return {"pid": os.getpid(), "blas": os.environ.get("OPENBLAS_NUM_THREADS")}


def die_unless(x: int, file: str, *, rng: np.random.Generator) -> int:
    """Ends its process for x = 3 as long as the file is not there."""
    if x == 3 and not Path(file).exists():
        os._exit(9)
    return x


def slow(x: int, seconds: float, *, rng: np.random.Generator) -> float:
    time.sleep(seconds)
    return x + float(rng.standard_normal())
