"""Layers for sequences: embeddings of ids, and recurrence along the positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike

from attnembed._validation import check_positive
from attnembed.errors import InputError
from attnembed.structured.layers.core import Array, Params, check_sizes, expect_inputs
from attnembed.structured.packing import Packing

__all__ = ["BiRecurrent", "Embedding", "EmbeddingSum"]


@dataclass(frozen=True)
class Embedding:
    """Rows of a table, side by side; int (N, m) -> (N, m * dim). Several vocabularies share it through offset ids."""

    vocab_size: int
    dim: int
    table: ClassVar[str] = "E"  # the parameter whose rows the inputs name: both passes work on any number of rows

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "dim")

    def init(self, rng: np.random.Generator) -> Params:
        return {"E": rng.normal(size=(self.vocab_size, self.dim)) / np.sqrt(self.dim)}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        _check_ids(x, len(params["E"]))
        return params["E"][x].reshape(len(x), -1), (x, len(params["E"]))

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        x, n_rows = cache
        pick = _indicators(x.reshape(-1, 1), n_rows, upstream.dtype)
        # Ids have no gradient; zeros keep the protocol.
        return {"E": pick.T @ upstream.reshape(-1, self.dim)}, np.zeros(x.shape) if inputs else None


@dataclass(frozen=True)
class EmbeddingSum:
    """y = b + sum_j E[x_j], the first layer of a network on m indicator features; int (N, m) -> (N, dim).

    E ~ N(0, scale^2), b = 0. Most features are rare, and their untrained weights remain as noise: use a small scale, or
    0 before a layer whose derivative at 0 is not 0, such as `Tanh`.
    """

    vocab_size: int
    dim: int
    scale: float = 0.0
    table: ClassVar[str] = "E"

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "dim")
        check_positive("scale", self.scale, zero_ok=True)

    def init(self, rng: np.random.Generator) -> Params:
        return {
            "E": self.scale * rng.normal(size=(self.vocab_size, self.dim)),
            "b": np.zeros(self.dim),
        }

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        indicators = _indicators(x, len(params["E"]), params["E"].dtype)
        return indicators @ params["E"] + params["b"], (indicators, x.shape)

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        indicators, shape = cache
        # Ids have no gradient; zeros keep the protocol.
        return {"E": indicators.T @ upstream, "b": upstream.sum(axis=0)}, np.zeros(shape) if inputs else None


@dataclass(frozen=True)
class BiRecurrent:
    """h_t = tanh(x_t W_x + h_{t-1} W_h + b), once in each direction (Elman 1990); (N, n_in) -> (N, 2 n_hidden).

    The first n_hidden outputs have read the sequence up to t, the others from its end down to t.
    """

    n_in: int
    n_hidden: int

    def __post_init__(self) -> None:
        check_sizes(self, "n_in", "n_hidden")

    def init(self, rng: np.random.Generator) -> Params:
        params = {}
        for way in ("forward", "backward"):
            params[f"{way}_Wx"] = rng.normal(size=(self.n_in, self.n_hidden)) / np.sqrt(self.n_in)
            # An orthogonal W_h keeps gradients alive over long sequences.
            params[f"{way}_Wh"] = np.linalg.qr(rng.normal(size=(self.n_hidden, self.n_hidden)))[0]
            params[f"{way}_b"] = np.zeros(self.n_hidden)
        return params

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        packing = Packing(np.array([len(x)])) if packing is None else packing
        expect_inputs(x.ndim == 2 and x.shape[1] == self.n_in, f"must be (N, {self.n_in}) for BiRecurrent", x)
        h = np.empty((len(x), 2 * self.n_hidden), dtype=np.result_type(x, params["forward_Wx"]))
        for way, out in self._ways(h):
            out[:] = x @ params[f"{way}_Wx"] + params[f"{way}_b"]
            for here, before, fresh in self._order(way, packing):
                np.tanh(out[fresh], out=out[fresh])
                out[here] = np.tanh(out[here] + out[before] @ params[f"{way}_Wh"])
        return h, (params, x, packing, h)

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        params, x, packing, h = cache
        grads: Params = {}
        dx = np.zeros(x.shape, dtype=h.dtype)
        g = upstream.astype(h.dtype)  # a copy: the gradient in h_t accumulates that from h_{t+1}
        for (way, out), (_, dh) in zip(self._ways(h), self._ways(g)):
            wh = params[f"{way}_Wh"]
            dwh = np.zeros_like(wh)
            for here, before, fresh in reversed(self._order(way, packing)):
                for rows in (here, fresh):
                    dh[rows] *= 1 - out[rows] ** 2
                dwh += out[before].T @ dh[here]
                dh[before] += dh[here] @ wh.T
            grads |= {f"{way}_Wx": x.T @ dh, f"{way}_Wh": dwh, f"{way}_b": dh.sum(axis=0)}
            dx += dh @ params[f"{way}_Wx"].T
        return grads, dx

    def _ways(self, h: Array) -> list[tuple[str, Array]]:
        return [("forward", h[:, : self.n_hidden]), ("backward", h[:, self.n_hidden :])]

    @staticmethod
    def _order(way: str, packing: Packing) -> list[tuple[slice, slice, slice]]:
        """Per step: the rows to compute, their predecessors, and the rows that start a sequence."""
        o, steps = packing.offsets, packing.steps()
        nothing = slice(0, 0)
        if way == "forward":
            return [(nothing, nothing, slice(0, o[1])), *((here, left, nothing) for here, left in steps)]
        # Backwards, a sequence starts at its last row: the rows of time t beyond those that continue at t + 1.
        last = slice(o[-2], o[-1])
        return [
            (nothing, nothing, last),
            *((left, here, slice(left.stop, here.start)) for here, left in reversed(steps)),
        ]


def _check_ids(x: Array, vocab_size: int) -> None:
    expect_inputs(x.dtype.kind in "iu" and x.ndim == 2, "must be integers (N, m) for an embedding", x)
    if x.size and (x.min() < 0 or x.max() >= vocab_size):
        bad = x[(x < 0) | (x >= vocab_size)][0]
        raise InputError("inputs", f"must be ids in 0..{vocab_size - 1}", got=bad)


def _indicators(x: Array, vocab_size: int, dtype: DTypeLike) -> sp.csr_array:
    """One row per row of ids (N, m), with a one for every id, (N, vocab_size)."""
    _check_ids(x, vocab_size)
    starts = np.arange(0, x.size + 1, max(x.shape[1], 1))
    return sp.csr_array((np.ones(x.size, dtype), x.ravel(), starts), shape=(len(x), vocab_size))
