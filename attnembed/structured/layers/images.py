"""Layers for images (n, H, W, C)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from attnembed._validation import check_choice, check_integer
from attnembed.errors import InputError
from attnembed.structured.convolution import correlation
from attnembed.structured.layers.core import Array, Params, check_sizes, expect_inputs
from attnembed.structured.packing import Packing

__all__ = ["PADDINGS", "Conv2D", "Coordinates", "MaxPool2D", "Upsample2D", "check_odd"]

PADDINGS = ("same", "valid")


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
        check_sizes(self, "n_in", "n_out")
        check_odd(self.size)
        check_choice("padding", self.padding, PADDINGS)

    def init(self, rng: np.random.Generator) -> Params:
        shape = (self.n_in, self.size, self.size, self.n_out)
        scale = np.sqrt(2 / (self.n_in * self.size**2))
        return {"W": scale * rng.normal(size=shape), "b": np.zeros(self.n_out)}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        expect_inputs(x.ndim == 4 and x.shape[3] == self.n_in, f"must be (n, H, W, {self.n_in}) for Conv2D", x)
        pad = self.size // 2 if self.padding == "same" else 0
        large_enough = min(x.shape[1:3]) + 2 * pad >= self.size
        expect_inputs(large_enough, f"must be at least {self.size} high and wide for Conv2D", x)
        linear = correlation(params["W"], pad, x.shape[2], len(x))
        out = linear.apply(x)
        out += params["b"]
        return out, (linear, x)

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        linear, x = cache
        grads = {"W": linear.kernel_gradient(x, upstream), "b": _channel_sums(upstream)}
        return grads, linear.apply_adjoint(upstream, x.shape) if inputs else None


def _channel_sums(x: Array) -> Array:
    """Sums over images and pixels, (C,), as products: a tenth to a half of the time of a reduction."""
    last = np.moveaxis(x, 0, -1)
    if last.flags.c_contiguous:  # as `convolution.Bands` stores images
        pixels = last.reshape(x.shape[1] * x.shape[2], -1)
        sums = np.ones(len(pixels), dtype=x.dtype) @ pixels
        return np.asarray(sums.reshape(x.shape[3], -1).sum(axis=1))
    rows = x.reshape(-1, x.shape[3])
    return np.asarray(np.ones(len(rows), dtype=x.dtype) @ rows)


@dataclass(frozen=True)
class MaxPool2D:
    """Maximum over blocks of 2 x 2; (n, H, W, C) -> (n, H // 2, W // 2, C), an odd last row or column dropped.

    Among equal entries the first receives the gradient.
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
        whole = x.shape[1] % 2 == x.shape[2] % 2 == 0  # nothing is dropped: every entry is written below
        out = np.empty_like(x, dtype=upstream.dtype) if whole else np.zeros_like(x, dtype=upstream.dtype)
        *others, last = zip(self._corners(x), self._corners(out))
        given = np.zeros_like(y, dtype=bool)  # blocks whose gradient has its corner
        for corner, gradient in others:
            chosen = corner == y
            np.greater(chosen, given, out=chosen)
            np.multiply(upstream, chosen, out=gradient)
            given |= chosen
        np.multiply(upstream, ~given, out=last[1])
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
        # The blocks are those of pooling; adding their entries one by one takes a quarter of the time of a reduction.
        first, second, third, fourth = MaxPool2D._corners(upstream)
        total = first + second
        total += third
        total += fourth
        return {}, total


@dataclass(frozen=True)
class Coordinates:
    """Two more channels, row and column from -1 to 1; (n, H, W, C) -> (n, H, W, C + 2).

    A convolution acts the same everywhere; with these channels it can learn where in the image things tend to be. H and
    W must be multiples of ``multiple``, for later layers that halve and double them.
    """

    multiple: int = 1

    def __post_init__(self) -> None:
        check_sizes(self, "multiple")

    def init(self, rng: np.random.Generator) -> Params:
        return {}

    def forward(self, params: Params, x: Array, packing: Packing | None = None) -> tuple[Array, Any]:
        expect_inputs(x.ndim == 4, "must be (n, H, W, C)", x)
        fits = x.shape[1] % self.multiple == x.shape[2] % self.multiple == 0
        expect_inputs(fits, f"must have a height and a width that are multiples of {self.multiple}", x)
        out = np.empty((*x.shape[:3], x.shape[3] + 2), dtype=x.dtype)
        out[..., :-2] = x
        out[..., -2] = np.linspace(-1, 1, x.shape[1])[:, None]
        out[..., -1] = np.linspace(-1, 1, x.shape[2])
        return out, None

    def backward(self, cache: Any, upstream: Array, *, inputs: bool = True) -> tuple[Params, Array | None]:
        return {}, upstream[..., :-2]


def check_odd(size: Any) -> None:
    if check_integer("size", size, minimum=1) % 2 == 0:
        raise InputError("size", "must be odd", got=size)
