"""Networks from hand-written parts: every layer has a forward and a backward pass, and no more.

The protocol of a layer (parameters are dicts of arrays, held by the caller):

    init(rng) -> params
    forward(params, x, packing) -> output, cache
    backward(cache, upstream, inputs=True) -> grads, gradient with respect to x (or None if ``inputs`` is false)

``x`` has one row per position or image; ``packing`` says which rows form sequences and is read by recurrent layers
only (None: the rows are one sequence). ``upstream`` is the gradient of the loss in the output. A layer of your own
needs these three methods, and can be checked with `attnembed.gradcheck`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike, NDArray

from attnembed._validation import (
    RNGLike,
    as_float_dtype,
    as_rng,
    check_choice,
    check_integer,
    check_integers,
    check_items,
    check_mapping,
    check_positive,
    shown,
)
from attnembed.errors import InputError, InputTypeError
from attnembed.structured.convolution import correlation
from attnembed.structured.packing import Packing

__all__ = [
    "BiRecurrent",
    "Branches",
    "Conv2D",
    "Coordinates",
    "Dense",
    "Embedding",
    "EmbeddingSum",
    "Layer",
    "LayerNorm",
    "MaxPool2D",
    "Network",
    "ReLU",
    "Reshape",
    "Sequential",
    "Tanh",
    "Upsample2D",
    "birnn",
    "conv_net",
    "identity",
    "lenet",
    "mlp",
    "two_scale_net",
]

Array = NDArray[Any]
Params = dict[str, Array]

PADDINGS = ("same", "valid")
PASSES = ("init", "forward", "backward")


class Layer(Protocol):
    """The parts that `Sequential` and `Network` are built from."""

    def init(self, rng: np.random.Generator) -> Params:
        """Random initial parameters."""

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        """Output and whatever the backward pass needs."""

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
        _check_sizes(self, "n_in", "n_out")

    def init(self, rng: np.random.Generator) -> Params:
        scale = np.sqrt(2 / self.n_in)
        return {"W": scale * rng.normal(size=(self.n_in, self.n_out)), "b": np.zeros(self.n_out)}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        _expect(x.shape[-1] == self.n_in, f"must have {self.n_in} features for Dense", x)
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
        _expect(x[:1].size == np.prod(self.shape), f"must have rows of shape {self.shape}, or of that size,", x)
        return x.reshape(len(x), *self.shape), x.shape

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        return {}, upstream.reshape(cache)


@dataclass(frozen=True)
class Conv2D:
    """Correlation with ``n_out`` kernels of odd ``size``; (n, H, W, n_in) -> (n, H', W', n_out).

    y[h, w, o] = b[o] + sum_{c,i,j} W[c, i, j, o] x[h+i-r, w+j-r, c], r = size // 2 and zeros beyond the edge for
    padding "same" (H' = H, W' = W); r = 0 for "valid" (H' = H - size + 1, W' = W - size + 1). The products are in
    `convolution`.
    """

    n_in: int
    n_out: int
    size: int = 5
    padding: Literal["same", "valid"] = "same"

    def __post_init__(self) -> None:
        _check_sizes(self, "n_in", "n_out")
        _check_odd(self.size)
        check_choice("padding", self.padding, PADDINGS)

    def init(self, rng: np.random.Generator) -> Params:
        shape = (self.n_in, self.size, self.size, self.n_out)
        scale = np.sqrt(2 / (self.n_in * self.size**2))
        return {"W": scale * rng.normal(size=shape), "b": np.zeros(self.n_out)}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        _expect(x.ndim == 4 and x.shape[3] == self.n_in, f"must be (n, H, W, {self.n_in}) for Conv2D", x)
        pad = self.size // 2 if self.padding == "same" else 0
        _expect(min(x.shape[1:3]) + 2 * pad >= self.size, f"must be at least {self.size} high and wide for Conv2D", x)
        linear = correlation(params["W"], pad, x.shape[2])
        out = linear.apply(x)
        out += params["b"]
        return out, (linear, x)

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        linear, x = cache
        grads = {"W": linear.kernel_gradient(x, upstream), "b": upstream.sum(axis=(0, 1, 2))}
        return grads, linear.apply_adjoint(upstream, x.shape) if inputs else None


@dataclass(frozen=True)
class MaxPool2D:
    """Maximum over blocks of 2 x 2; (n, H, W, C) -> (n, H // 2, W // 2, C), an odd last row or column dropped.

    Of equal entries the first takes the gradient.
    """

    def init(self, rng: np.random.Generator) -> Params:
        return {}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        first, *others = self._corners(x)
        y = first.copy(order="K")  # as the image lies in memory
        for corner in others:
            np.maximum(y, corner, out=y)
        return y, (x, y)

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        x, y = cache
        out = np.zeros_like(x, dtype=upstream.dtype)
        *others, last = zip(self._corners(x), self._corners(out))
        rest = upstream  # what no corner has taken yet
        for corner, gradient in others:
            np.multiply(rest, corner == y, out=gradient)
            rest = rest - gradient
        last[1][...] = rest
        return {}, out

    @staticmethod
    def _corners(x: Array) -> list[Array]:
        """The four entries of every block, as views."""
        height, width = (side // 2 * 2 for side in x.shape[1:3])
        return [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]


@dataclass(frozen=True)
class Upsample2D:
    """Every entry becomes a block of 2 x 2; (n, H, W, C) -> (n, 2 H, 2 W, C); the gradient sums over the block."""

    def init(self, rng: np.random.Generator) -> Params:
        return {}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        n, height, width, channels = x.shape
        out = np.empty((n, height, 2, width, 2, channels), dtype=x.dtype)
        out[:] = x[:, :, None, :, None]
        return out.reshape(n, 2 * height, 2 * width, channels), x.shape

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        n, height, width, channels = cache
        return {}, upstream.reshape(n, height, 2, width, 2, channels).sum(axis=(2, 4))


@dataclass(frozen=True)
class Coordinates:
    """Two more channels, row and column from -1 to 1; (n, H, W, C) -> (n, H, W, C + 2).

    A convolution does the same everywhere; with these it can learn where in the image things tend to be. H and W must
    be multiples of ``multiple``, for layers behind that halve them and double them again.
    """

    multiple: int = 1

    def __post_init__(self) -> None:
        _check_sizes(self, "multiple")

    def init(self, rng: np.random.Generator) -> Params:
        return {}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        _expect(x.ndim == 4, "must be (n, H, W, C)", x)
        fits = x.shape[1] % self.multiple == x.shape[2] % self.multiple == 0
        _expect(fits, f"must have a height and a width that are multiples of {self.multiple}", x)
        out = np.empty((*x.shape[:3], x.shape[3] + 2), dtype=x.dtype)
        out[..., :-2] = x
        out[..., -2] = np.linspace(-1, 1, x.shape[1])[:, None]
        out[..., -1] = np.linspace(-1, 1, x.shape[2])
        return out, None

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        return {}, upstream[..., :-2]


@dataclass(frozen=True)
class LayerNorm:
    """y = gain * (x - mean) / sqrt(var + 1e-5) + bias over the last axis (Ba et al. 2016); gain 1, bias 0 at first."""

    size: int

    def __post_init__(self) -> None:
        _check_sizes(self, "size")

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
class Embedding:
    """Rows of a table, laid side by side; int (N, m) -> (N, m * dim). Several vocabularies share it by offset ids."""

    vocab_size: int
    dim: int

    def __post_init__(self) -> None:
        _check_sizes(self, "vocab_size", "dim")

    def init(self, rng: np.random.Generator) -> Params:
        return {"E": rng.normal(size=(self.vocab_size, self.dim)) / np.sqrt(self.dim)}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        _check_ids(x, self.vocab_size)
        return params["E"][x].reshape(len(x), -1), x

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        pick = _indicators(cache.reshape(-1, 1), self.vocab_size, upstream.dtype)
        # Ids have no gradient; zeros keep the protocol.
        return {"E": pick.T @ upstream.reshape(-1, self.dim)}, np.zeros(cache.shape)


@dataclass(frozen=True)
class EmbeddingSum:
    """y = b + sum_j E[x_j], the first layer of a network on m indicator features; int (N, m) -> (N, dim).

    E ~ N(0, scale^2), b = 0. Most features are rare, and what they are not trained for stays as noise: a small scale,
    or 0 before a layer whose derivative at 0 is not 0, such as `Tanh`.
    """

    vocab_size: int
    dim: int
    scale: float = 0.0

    def __post_init__(self) -> None:
        _check_sizes(self, "vocab_size", "dim")
        check_positive("scale", self.scale, zero_ok=True)

    def init(self, rng: np.random.Generator) -> Params:
        return {
            "E": self.scale * rng.normal(size=(self.vocab_size, self.dim)),
            "b": np.zeros(self.dim),
        }

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        indicators = _indicators(x, self.vocab_size, params["E"].dtype)
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
        _check_sizes(self, "n_in", "n_hidden")

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
        _expect(x.ndim == 2 and x.shape[1] == self.n_in, f"must be (N, {self.n_in}) for BiRecurrent", x)
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
        g = upstream.astype(h.dtype)  # a copy: the gradient in h_t collects what comes back from h_{t+1}
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
        """Per step: rows to compute, the rows that they follow, and the rows that start a sequence."""
        o, steps = packing.offsets, packing.steps()
        nothing = slice(0, 0)
        if way == "forward":
            return [(nothing, nothing, slice(0, o[1])), *((here, left, nothing) for here, left in steps)]
        # Backwards, a sequence starts at its last row: the rows of time t beyond those that go on at t + 1.
        last = slice(o[-2], o[-1])
        return [
            (nothing, nothing, last),
            *((left, here, slice(left.stop, here.start)) for here, left in reversed(steps)),
        ]


def _check_sizes(layer: Any, *names: str) -> None:
    for name in names:
        check_integer(name, getattr(layer, name), minimum=1)


def _check_odd(size: Any) -> None:
    if check_integer("size", size, minimum=1) % 2 == 0:
        raise InputError("size", "must be odd", got=size)


def _check_layers(name: str, value: Any) -> tuple[Any, ...]:
    layers = tuple(check_items(name, value, "layers"))
    for layer in layers:
        if isinstance(layer, type) or not all(callable(getattr(layer, part, None)) for part in PASSES):
            expected = f"must be {'a layer' if name == 'layer' else 'layers'}, with {', '.join(PASSES)}"
            raise InputTypeError(name, expected, got=shown(layer))
    return layers


def _check_ids(x: Array, vocab_size: int) -> None:
    _expect(x.dtype.kind in "iu" and x.ndim == 2, "must be integers (N, m) for an embedding", x)
    if x.size and (x.min() < 0 or x.max() >= vocab_size):
        bad = x[(x < 0) | (x >= vocab_size)][0]
        raise InputError("inputs", f"must be ids in 0..{vocab_size - 1}", got=bad)


def _indicators(x: Array, vocab_size: int, dtype: DTypeLike) -> sp.csr_array:
    """One row per row of ids (N, m), with a one for every id, (N, vocab_size)."""
    _check_ids(x, vocab_size)
    starts = np.arange(0, x.size + 1, max(x.shape[1], 1))
    return sp.csr_array((np.ones(x.size, dtype), x.ravel(), starts), shape=(len(x), vocab_size))


def _expect(fits: bool, expected: str, x: Array) -> None:
    if not fits:
        raise InputError("inputs", expected, got=f"shape {x.shape}, dtype {x.dtype}")


@dataclass(frozen=True)
class Sequential:
    """Layers one after another; the parameters of layer i are named "i.name"."""

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        _check_layers("layers", self.layers)

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
    """Layers next to each other: all read the same input, and their outputs are concatenated over the last axis.

    The parameters of branch i are named "i.name". Outputs must agree in all other axes.
    """

    branches: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not _check_layers("branches", self.branches):
            raise InputError("branches", "must hold at least one layer", got="none")

    def init(self, rng: np.random.Generator) -> Params:
        return _init_all(self.branches, rng)

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        results = [layer.forward(_part(params, i), x, packing) for i, layer in enumerate(self.branches)]
        outputs, caches = [out for out, _ in results], [cache for _, cache in results]
        shapes = {out.shape[:-1] for out in outputs}
        _expect(len(shapes) == 1, f"must leave all branches with outputs of one size, not {sorted(shapes)}", x)
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


@dataclass(frozen=True, eq=False)
class Network:
    """A layer with its parameters.

    ``output`` names the parameters in which the output is linear and homogeneous (those of the last layer):
    multiplying them by a multiplies the output by a.

    >>> network = mlp(3, (4,), 2, rng=0)
    >>> network(np.ones((5, 3))).shape
    (5, 2)
    """

    layer: Layer
    params: Params
    output: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_layers("layer", (self.layer,))
        check_mapping("params", self.params, "names to arrays")
        if not isinstance(self.output, tuple) or any(name not in self.params for name in self.output):
            raise InputError("output", "must be a tuple of names of parameters", got=shown(self.output))

    @classmethod
    def create(
        cls,
        layers: Sequence[Layer],
        *,
        dtype: DTypeLike = np.float64,
        rng: RNGLike = None,
    ) -> Network:
        """Initialise a `Sequential`; the last layer with parameters must be Dense, Conv2D or LayerNorm, and last."""
        layers, dtype = _check_layers("layers", layers), as_float_dtype("dtype", dtype)
        layer = Sequential(layers)
        params = {name: value.astype(dtype) for name, value in layer.init(as_rng(rng)).items()}
        last = len(layers) - 1
        linear = bool(layers) and isinstance(layers[-1], (Dense, Conv2D, LayerNorm))
        return cls(layer, params, tuple(n for n in params if linear and n.startswith(f"{last}.")))

    def __call__(self, x: Array, packing: Packing | None = None) -> Array:
        """The output alone."""
        return self.layer.forward(self.params, x, packing)[0]

    def with_params(self, params: Params) -> Network:
        """The same layer with other parameters."""
        return replace(self, params=params)


def identity() -> Network:
    """The network that returns its input: for potentials computed elsewhere."""
    return Network(Sequential(()), {})


def mlp(
    n_inputs: int,
    hidden: Sequence[int],
    n_labels: int,
    *,
    dtype: DTypeLike = np.float64,
    rng: RNGLike = None,
) -> Network:
    """Dense layers with ReLU between them; (N, n_inputs) -> (N, n_labels). No hidden layer: a linear model.

    >>> sorted(mlp(3, (4,), 2, rng=0).params)
    ['0.W', '0.b', '2.W', '2.b']
    """
    first, last = check_integer("n_inputs", n_inputs, minimum=1), check_integer("n_labels", n_labels, minimum=1)
    sizes = (first, *check_integers("hidden", hidden), last)
    layers: list[Layer] = []
    for a, b in pairwise(sizes):
        layers += [Dense(a, b), ReLU()]
    return Network.create(layers[:-1], dtype=dtype, rng=rng)


def lenet(
    n_labels: int = 26,
    *,
    height: int = 16,
    width: int = 8,
    channels: tuple[int, int] = (10, 20),
    hidden: int = 140,
    padding: Literal["same", "valid"] = "same",
    dtype: DTypeLike = np.float64,
    rng: RNGLike = None,
) -> Network:
    """(conv 5 x 5, max-pool, ReLU) twice, dense, ReLU, dense (LeCun et al. 1998); (N, height * width) -> (N, n_labels).

    ``padding`` is that of `Conv2D`; "valid", with 32 x 32 images, is the network of 1998.

    >>> lenet(rng=0)(np.zeros((2, 128))).shape
    (2, 26)
    """
    lost = 0 if check_choice("padding", padding, PADDINGS) == "same" else 4
    for name, number in (("n_labels", n_labels), ("height", height), ("width", width), ("hidden", hidden)):
        check_integer(name, number, minimum=1)
    channels = check_integers("channels", channels, n=2)  # type: ignore[assignment]
    rows, columns = (((side - lost) // 2 - lost) // 2 for side in (height, width))
    if min(rows, columns) < 1:
        raise InputError("height", f"and `width` must be at least {4 if lost == 0 else 16}", got=(height, width))
    flat = rows * columns * channels[1]
    layers: list[Layer] = [
        Reshape((height, width, 1)),
        Conv2D(1, channels[0], padding=padding),
        MaxPool2D(),  # before ReLU: the same function, and a quarter of the entries
        ReLU(),
        Conv2D(channels[0], channels[1], padding=padding),
        MaxPool2D(),
        ReLU(),
        Reshape((flat,)),
        Dense(flat, hidden),
        ReLU(),
        Dense(hidden, n_labels),
    ]
    return Network.create(layers, dtype=dtype, rng=rng)


def birnn(
    vocab_size: int,
    n_ids: int,
    n_labels: int,
    *,
    dim: int = 50,
    hidden: int = 100,
    dtype: DTypeLike = np.float64,
    rng: RNGLike = None,
) -> Network:
    """Embedding, bidirectional recurrence, dense; int (N, n_ids) -> (N, n_labels).

    >>> birnn(10, 2, 3, dim=4, hidden=5, rng=0)(np.zeros((6, 2), dtype=int)).shape
    (6, 3)
    """
    sizes = {"vocab_size": vocab_size, "n_ids": n_ids, "n_labels": n_labels, "dim": dim, "hidden": hidden}
    for name, number in sizes.items():
        check_integer(name, number, minimum=1)
    layers: list[Layer] = [Embedding(vocab_size, dim), BiRecurrent(n_ids * dim, hidden), Dense(2 * hidden, n_labels)]
    return Network.create(layers, dtype=dtype, rng=rng)


def conv_net(
    n_channels: int,
    hidden: Sequence[int],
    n_labels: int = 2,
    *,
    size: int = 5,
    dtype: DTypeLike = np.float64,
    rng: RNGLike = None,
) -> Network:
    """Convolutions with ReLU between them, the size of the image kept; (n, H, W, n_channels) -> (n, H, W, n_labels).

    >>> conv_net(3, (4,), 2, rng=0)(np.zeros((1, 6, 7, 3))).shape
    (1, 6, 7, 2)
    """
    _check_odd(size)
    first, last = check_integer("n_channels", n_channels, minimum=1), check_integer("n_labels", n_labels, minimum=1)
    widths = (first, *check_integers("hidden", hidden), last)
    layers: list[Layer] = []
    for a, b in pairwise(widths):
        layers += [Conv2D(a, b, size), ReLU()]
    return Network.create(layers[:-1], dtype=dtype, rng=rng)


def two_scale_net(
    n_channels: int,
    n_labels: int = 2,
    *,
    fine: int = 8,
    coarse: tuple[int, int, int] = (12, 16, 16),
    dtype: DTypeLike = np.float64,
    rng: RNGLike = None,
) -> Network:
    """A fine and a coarse look at an image; (n, H, W, n_channels) -> (n, H, W, n_labels), H and W multiples of 4.

    `Coordinates`, then next to each other ``fine`` kernels 3 x 3, and three convolutions 5 x 5 with ``coarse`` kernels,
    at a half, a quarter and a quarter of the resolution, which see about 40 pixels in each direction; ReLU behind each.
    Both are joined pixel by pixel by a `Dense` layer. The detail that the coarse branch lost is left to the fine one.

    >>> two_scale_net(3, rng=0)(np.zeros((1, 8, 12, 3))).shape
    (1, 8, 12, 2)
    """
    check_integer("n_labels", n_labels, minimum=1)
    check_integer("fine", fine, minimum=1)
    n = check_integer("n_channels", n_channels, minimum=1) + 2
    a, b, c = check_integers("coarse", coarse, n=3)
    down: list[Layer] = [MaxPool2D(), Conv2D(n, a), ReLU(), MaxPool2D(), Conv2D(a, b), ReLU(), Conv2D(b, c), ReLU()]
    branches = Branches(
        (Sequential((Conv2D(n, fine, 3), ReLU())), Sequential((*down, Upsample2D(), Upsample2D()))),
    )
    layers: list[Layer] = [Coordinates(multiple=4), branches, Dense(fine + c, n_labels)]
    return Network.create(layers, dtype=dtype, rng=rng)
