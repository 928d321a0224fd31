"""Layers with hand-written forward and backward passes.

The protocol of a layer (parameters are dicts of arrays, held by the caller):

    init(rng) -> params
    forward(params, x, packing) -> output, cache
    backward(cache, upstream, inputs=True) -> grads, gradient with respect to x (or None if ``inputs`` is false)

``x`` has one row per position or image; ``packing`` tells which rows form sequences and is read only by recurrent
layers (None: the rows are one sequence). ``upstream`` is the gradient of the loss in the output. A custom layer needs
these three methods, and can be checked with `attnembed.gradcheck`.

This module has the layers for rows of any kind, and those composed of other layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attnembed._validation import check_integer, check_integers, check_items, shown
from attnembed.errors import InputError, InputTypeError
from attnembed.structured.packing import Packing

__all__ = [
    "Array",
    "Branches",
    "Dense",
    "Layer",
    "LayerNorm",
    "Params",
    "ReLU",
    "Reshape",
    "Sequential",
    "Tanh",
    "check_layers",
    "check_sizes",
    "expect_inputs",
]

Array = NDArray[Any]
Params = dict[str, Array]

PASSES = ("init", "forward", "backward")


class Layer(Protocol):
    """The building block of `Sequential` and `Network`."""

    def init(self, rng: np.random.Generator) -> Params:
        """Random initial parameters."""

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        """The output, and a cache for the backward pass."""

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        """Gradients in the parameters and, if ``inputs``, in the input."""


@dataclass(frozen=True)
class Dense:
    """y = x W + b over the last axis; (..., n_in) -> (..., n_out). W ~ N(0, 2/n_in) (He et al. 2015), b = 0.

    Outputs are stored label by label (Fortran order), as the chain recursions read them.
    """

    n_in: int
    n_out: int

    def __post_init__(self) -> None:
        check_sizes(self, "n_in", "n_out")

    def init(self, rng: np.random.Generator) -> Params:
        scale = np.sqrt(2 / self.n_in)
        return {"W": scale * rng.normal(size=(self.n_in, self.n_out)), "b": np.zeros(self.n_out)}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        expect_inputs(x.shape[-1] == self.n_in, f"must have {self.n_in} features for Dense", x)
        rows = x.reshape(-1, self.n_in)
        out = params["W"].T @ rows.T
        out += params["b"][:, None]
        return out.T.reshape(*x.shape[:-1], self.n_out), (params["W"], x)

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        w, x = cache
        up = upstream.reshape(-1, self.n_out).T
        grads = {"W": x.reshape(-1, self.n_in).T @ up.T, "b": up.sum(axis=1)}
        return grads, (w @ up).T.reshape(x.shape) if inputs else None


@dataclass(frozen=True)
class ReLU:
    """y = max(x, 0); the derivative at 0 is taken as 0."""

    def init(self, rng: np.random.Generator) -> Params:
        return {}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        y = np.maximum(x, 0)
        return y, y

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        return {}, upstream * (cache > 0)


@dataclass(frozen=True)
class Tanh:
    """y = tanh x, with derivative 1 - y^2."""

    def init(self, rng: np.random.Generator) -> Params:
        return {}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        y = np.tanh(x)
        return y, y

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        return {}, upstream * (1 - cache * cache)


@dataclass(frozen=True)
class Reshape:
    """Give every row the shape ``shape``; Reshape((n,)) flattens."""

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        check_integers("shape", self.shape)

    def init(self, rng: np.random.Generator) -> Params:
        return {}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        expect_inputs(x[:1].size == np.prod(self.shape), f"must have rows of shape {self.shape}, or of that size,", x)
        return x.reshape(len(x), *self.shape), x.shape

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        return {}, upstream.reshape(cache)


@dataclass(frozen=True)
class LayerNorm:
    """y = gain * (x - mean) / sqrt(var + 1e-5) + bias over the last axis (Ba et al. 2016); initial gain 1, bias 0."""

    size: int

    def __post_init__(self) -> None:
        check_sizes(self, "size")

    def init(self, rng: np.random.Generator) -> Params:
        return {"gain": np.ones(self.size), "bias": np.zeros(self.size)}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        centred = x - x.mean(axis=-1, keepdims=True)
        inverse = 1 / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
        unit = centred * inverse
        return params["gain"] * unit + params["bias"], (params["gain"], unit, inverse)

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        gain, unit, inverse = cache
        rows = tuple(range(upstream.ndim - 1))
        grads = {"gain": (upstream * unit).sum(axis=rows), "bias": upstream.sum(axis=rows)}
        g = upstream * gain
        g = g - g.mean(axis=-1, keepdims=True) - unit * np.mean(g * unit, axis=-1, keepdims=True)
        return grads, g * inverse


@dataclass(frozen=True)
class Sequential:
    """Layers one after another; the parameters of layer i are named "i.name"."""

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        check_layers("layers", self.layers)

    def init(self, rng: np.random.Generator) -> Params:
        return _init_all(self.layers, rng)

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        caches = []
        for i, layer in enumerate(self.layers):
            x, cache = layer.forward(_part(params, i), x, packing)
            caches.append(cache)
        return x, _Caches(caches, min((int(name.split(".")[0]) for name in params), default=0))

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        grads: Params = {}
        # Without a gradient in the input, the first layer with parameters is the last one to visit.
        end = 0 if inputs else cache.first
        gradient: Array | None = upstream
        for i in range(len(self.layers) - 1, end - 1, -1):
            assert gradient is not None
            part, gradient = self.layers[i].backward(cache.layers[i], gradient, inputs=inputs or i > end)
            grads |= {f"{i}.{name}": value for name, value in part.items()}
        return grads, gradient if inputs else None


@dataclass(frozen=True)
class _Caches:
    """The caches of the layers, and the first layer with parameters."""

    layers: list[Any]
    first: int


@dataclass(frozen=True)
class Branches:
    """Parallel layers: all read the same input, and their outputs are concatenated along the last axis.

    The parameters of branch i are named "i.name". Outputs must agree in all other axes.
    """

    branches: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not check_layers("branches", self.branches):
            raise InputError("branches", "must hold at least one layer", got="none")

    def init(self, rng: np.random.Generator) -> Params:
        return _init_all(self.branches, rng)

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        results = [layer.forward(_part(params, i), x, packing) for i, layer in enumerate(self.branches)]
        outputs, caches = [out for out, _ in results], [cache for _, cache in results]
        shapes = {out.shape[:-1] for out in outputs}
        expect_inputs(len(shapes) == 1, f"must leave all branches with outputs of one size, not {sorted(shapes)}", x)
        return np.concatenate(outputs, axis=-1), (caches, np.cumsum([out.shape[-1] for out in outputs])[:-1])

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        caches, bounds = cache
        grads: Params = {}
        total: Array | None = None
        for i, (layer, own, part) in enumerate(zip(self.branches, caches, np.split(upstream, bounds, axis=-1))):
            found, gradient = layer.backward(own, part, inputs=inputs)
            grads |= {f"{i}.{name}": value for name, value in found.items()}
            if inputs:
                assert gradient is not None
                total = gradient if total is None else total + gradient
        return grads, total


def _init_all(layers: Sequence[Layer], rng: np.random.Generator) -> Params:
    """The parameters of layer i under the names "i.name"."""
    return {f"{i}.{name}": value for i, layer in enumerate(layers) for name, value in layer.init(rng).items()}


def _part(params: Params, i: int) -> Params:
    prefix = f"{i}."
    return {name[len(prefix) :]: value for name, value in params.items() if name.startswith(prefix)}


# --- input checks -------------------------------------------------------------------------------------------------


def check_sizes(layer: Any, *names: str) -> None:
    for name in names:
        check_integer(name, getattr(layer, name), minimum=1)


def check_layers(name: str, value: Any) -> tuple[Any, ...]:
    layers = tuple(check_items(name, value, "layers"))
    for layer in layers:
        if isinstance(layer, type) or not all(callable(getattr(layer, part, None)) for part in PASSES):
            expected = f"must be {'a layer' if name == 'layer' else 'layers'}, with {', '.join(PASSES)}"
            raise InputTypeError(name, expected, got=shown(layer))
    return layers


def expect_inputs(fits: bool, expected: str, x: Array) -> None:
    if not fits:
        raise InputError("inputs", expected, got=f"shape {x.shape}, dtype {x.dtype}")
