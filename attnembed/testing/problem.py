"""A model and its data as one value, whose repr is the code that builds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.structured.data import ChainDataset, GridDataset
from attnembed.structured.layers import Sequential
from attnembed.structured.model import ChainCRF, GridCRF
from attnembed.structured.networks import Network

__all__ = ["Problem", "as_code"]


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """An instance for a statement: ``model`` and ``data`` of either subject.

    >>> import attnembed as ae
    >>> data = ae.TokenDataset.from_counts([[2, 1], [0, 1]], [1, -1])
    >>> Problem(ae.AttentionModel([[1, 0.5], [0, -1]], [0, 0], [1, 0]), data)
    Problem(
        ae.AttentionModel([[1.0, 0.5], [0.0, -1.0]], [0.0, 0.0], [1.0, 0.0]),
        ae.TokenDataset.from_counts([[2, 1], [0, 1]], [1, -1]),
    )
    """

    model: Any
    data: Any

    def __repr__(self) -> str:
        return f"Problem(\n    {as_code(self.model)},\n    {as_code(self.data)},\n)"


def as_code(value: Any) -> str:
    """An expression that rebuilds ``value``, with ``ae``, ``np`` and the layers of networks in scope."""
    if isinstance(value, Problem):
        return repr(value)
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, AttentionModel):
        return f"ae.AttentionModel({_list(value.E)}, {_list(value.p)}, {_list(value.v)})"
    if isinstance(value, TokenDataset):
        counts = value.counts.toarray().astype(np.int64)
        return f"ae.TokenDataset.from_counts({counts.tolist()}, {value.labels.astype(int).tolist()})"
    if isinstance(value, (ChainCRF, GridCRF)):
        scales = f"unary_scale={value.unary_scale!r}, pairwise_scale={value.pairwise_scale!r}"
        return f"ae.{type(value).__name__}({as_code(value.network)}, np.array({_list(value.pairwise)}), {scales})"
    if isinstance(value, Network):
        layers = value.layer.layers if isinstance(value.layer, Sequential) else (value.layer,)
        made = f"Network.create([{', '.join(map(repr, layers))}], rng=0)"
        if not value.params:
            return made
        params = ", ".join(f"{name!r}: {_array(array)}" for name, array in value.params.items())
        return f"{made}.with_params({{{params}}})"
    if isinstance(value, ChainDataset):
        inputs = ", ".join(_array(x) for x in value.split(value.inputs))
        labels = None if value.labels is None else [y.tolist() for y in value.split(value.labels)]
        return f"ae.ChainDataset([{inputs}], {labels})"
    if isinstance(value, GridDataset):
        masks = "None" if value.labels is None else f"np.array({value.labels.tolist()})"
        return f"ae.GridDataset({_array(value.images)}, {masks})"
    if isinstance(value, tuple):
        return "(" + "".join(f"{as_code(part)}, " for part in value).rstrip() + ")"
    return repr(value)


def _array(array: NDArray[Any]) -> str:
    kept = "" if array.dtype in (np.float64, np.int64) and array.size else f", dtype=np.{array.dtype}"
    return f"np.array({_list(array)}{kept})"


def _list(array: NDArray[Any]) -> str:
    """Nested lists with the shortest digits that reproduce the numbers."""
    text = repr((array + 0.0 if array.dtype.kind == "f" else array).tolist())  # no -0.0
    return text.replace("inf", "np.inf").replace("nan", "np.nan")
