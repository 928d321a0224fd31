"""The arrays of annotations: what is in them, not how many axes they have (docstrings give the shapes)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Doubles", "Floats", "Ints"]

Floats = NDArray[np.floating[Any]]
"""Single or double precision."""

Doubles = NDArray[np.float64]
"""Double precision, whatever came in."""

Ints = NDArray[np.integer[Any]]
"""Token ids, labels, positions."""
