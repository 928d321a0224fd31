"""Linear networks from the weights of a model trained elsewhere, for `ChainCRF.from_arrays`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from attnembed._typing import Floats
from attnembed._validation import as_array, as_real_array, check_flag, check_shape
from attnembed.errors import InputError, InputTypeError
from attnembed.structured.layers import Dense, EmbeddingSum, Sequential
from attnembed.structured.networks import Network, identity

__all__ = ["as_given", "as_transitions", "linear_network"]


def linear_network(weights: ArrayLike | None, bias: ArrayLike | None, n_labels: int, *, indicators: bool) -> Network:
    """The network x W + b, W (F, K), b (K,); with ``indicators``, b plus the sum of the rows of W given by ids (L, m).

    Without weights the inputs are the potentials. InputError for shapes that do not match.

    >>> linear_network([[1.0, 2.0]], None, 2, indicators=False)(np.array([[3.0]]))
    array([[3., 6.]])
    """
    check_flag("indicators", indicators)
    if weights is None:
        for name, given in (("bias", bias is not None), ("indicators", indicators)):
            if given:
                raise InputError(name, "belongs to `weights`", got="no weights", hint="pass `weights` (F, K) as well")
        return identity()
    W = as_real_array("weights", as_given("weights", weights), ndim=2)
    if W.shape[1] != n_labels or not len(W):
        hint = "pass its transpose, `weights.T`" if len(W) == n_labels else "one row per feature, one column per label"
        raise InputError("weights", f"must have shape (F, {n_labels})", got=f"shape {W.shape}", hint=hint)
    b = np.zeros(n_labels, W.dtype) if bias is None else as_real_array("bias", as_given("bias", bias), ndim=1)
    check_shape("bias", b, (n_labels,), "one per label")
    if indicators:
        return Network(Sequential((EmbeddingSum(len(W), n_labels),)), {"0.E": W.copy(), "0.b": b.copy()})
    return Network(Sequential((Dense(len(W), n_labels),)), {"0.W": W.copy(), "0.b": b.copy()}, ("0.W", "0.b"))


def as_transitions(transitions: ArrayLike) -> Floats:
    """A square matrix (K, K) of numbers or -inf; InputError for anything else."""
    array = as_given("transitions", transitions)
    if array.dtype.kind not in "biuf":
        raise InputTypeError("transitions", "must be a real numeric array", got=f"dtype {array.dtype}")
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        raise InputError("transitions", "must be a square matrix (K, K)", got=f"shape {array.shape}")
    bad = np.argwhere(np.isnan(array) | (array == np.inf))
    if len(bad):
        where = tuple(bad[0].tolist())
        raise InputError("transitions", "must be finite or -inf", got=f"{array[where]} at index {where}")
    return array


def as_given(name: str, value: ArrayLike) -> Floats:
    """The array; InputTypeError, with advice, for a tensor that NumPy may not read."""
    try:
        return as_array(name, value)
    except RuntimeError as error:  # torch, where a gradient is asked for
        hint = "for a torch tensor pass `tensor.detach().cpu().numpy()`"
        raise InputTypeError(name, "must be an array", got=type(value).__name__, hint=hint) from error
