"""Array types for annotations, by their entries; docstrings give the shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Doubles", "Floats", "Ints"]

Floats = NDArray[np.floating[Any]]
"""Single or double precision."""

Doubles = NDArray[np.float64]
"""Double precision, whatever the input."""

Ints = NDArray[np.integer[Any]]
"""Token ids, labels, positions."""
