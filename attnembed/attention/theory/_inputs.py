"""What every prediction reads from its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed.attention.data import TokenDataset
from attnembed.attention.selection import Parameters
from attnembed.errors import InputError, InputTypeError

Floats = NDArray[np.floating[Any]]


def parameters(model: Parameters, data: TokenDataset) -> tuple[Floats, Floats, Floats]:
    """E (V, d), p (d,), v (d,) in double precision, whatever the model trains in, checked against the data."""
    if not isinstance(data, TokenDataset):
        raise InputTypeError("data", "must be a TokenDataset", got=type(data).__name__)
    E, p, v = (np.asarray(array, dtype=np.float64) for array in (model.E, model.p, model.v))
    if E.shape[0] != data.vocab_size:
        raise InputError("data", f"must have the model's vocabulary of {E.shape[0]} tokens", got=data.vocab_size)
    return E, p, v
