"""The correlation of images with small kernels and its two adjoints, each in two forms.

    y[h, w, o] = sum_{c,i,j} K[c, i, j, o] x[h+i-pad, w+j-pad, c],

with zeros beyond the edge; (n, H, W, c) -> (n, H', W', o). Both forms have three methods: `apply` (y from x),
`apply_adjoint` (the gradient in x from that in y) and `kernel_gradient` (the gradient in K from x and the gradient in
y). `correlation` chooses the form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["Bands", "Windows", "correlation"]

Array = NDArray[Any]

# Up to this width the zeros in a band cost less than forming the windows, if at least so many images share a product.
_NARROW, _MANY = 16, 32

# Number of entries of the windows formed at a time, and of those that are kept for the gradient.
_CACHED, _KEPT = 2**18, 2**19


def correlation(kernel: Array, pad: int, width: int, n_images: int = _MANY) -> Bands | Windows:
    """The form for so many images of this width; ``kernel`` (c, size, size, o)."""
    return Bands(kernel, pad, width) if width <= _NARROW and n_images >= _MANY else Windows(kernel, pad)


@dataclass(frozen=True, eq=False)
class Bands:
    """Form for narrow images: output row h is one product of a banded matrix with input rows h-pad .. h-pad+size-1.

    Arrays are stored as (H, W, c, n), the image last, and exposed as (n, H, W, c) views. The rows that contribute to an
    output row are then contiguous: nothing is copied, and rows beyond the edge are left out.
    """

    kernel: Array
    pad: int
    width: int

    @cached_property
    def band(self) -> Array:
        """The correlation along a row as a matrix, (W' o, size W c)."""
        n_in, size, _, n_out = self.kernel.shape
        out = np.zeros((self._out_width, n_out, size, self.width, n_in), dtype=self.kernel.dtype)
        for column, inside, taps in self._taps():
            out[column, :, :, inside] = self.kernel[:, :, taps].transpose(3, 1, 2, 0)
        return out.reshape(self._out_width * n_out, -1)

    def apply(self, x: Array) -> Array:
        _, size, _, n_out = self.kernel.shape
        rows = image_last(x)
        height = x.shape[1] + 2 * self.pad - size + 1
        out = np.empty((height, self._out_width, n_out, len(x)), dtype=np.result_type(x, self.kernel))
        for h, met, columns in self._rows(x.shape[1]):
            np.matmul(self.band[:, columns], _flat(rows[met]), out=_flat(out[h]))
        return np.moveaxis(out, -1, 0)

    def apply_adjoint(self, upstream: Array, shape: tuple[int, ...]) -> Array:
        rows = image_last(upstream)
        out = np.zeros((*shape[1:], shape[0]), dtype=upstream.dtype)
        for h, met, columns in self._rows(shape[1]):
            gradient = _flat(out[met])
            gradient += self.band[:, columns].T @ _flat(rows[h])
        return np.moveaxis(out, -1, 0)

    def kernel_gradient(self, x: Array, upstream: Array) -> Array:
        rows, up = image_last(x), image_last(upstream)
        total = np.zeros_like(self.band, dtype=upstream.dtype)
        for h, met, columns in self._rows(x.shape[1]):
            total[:, columns] += _flat(up[h]) @ _flat(rows[met]).T
        # A weight occurs in the band once per output column.
        n_in, size, _, n_out = self.kernel.shape
        banded = total.reshape(self._out_width, n_out, size, self.width, n_in)
        out = np.zeros(self.kernel.shape, dtype=total.dtype)
        for column, inside, taps in self._taps():
            out[:, :, taps] += banded[column, :, :, inside].transpose(3, 1, 2, 0)
        return out

    @property
    def _out_width(self) -> int:
        return int(self.width + 2 * self.pad - self.kernel.shape[1] + 1)

    def _rows(self, height: int) -> Iterator[tuple[int, slice, slice]]:
        """For each output row, its input rows and the columns of the band that multiply them."""
        per_row = self.width * self.kernel.shape[0]
        for h, inside, taps in _overlaps(height, self.kernel.shape[1], self.pad):
            yield h, inside, slice(taps.start * per_row, taps.stop * per_row)

    def _taps(self) -> Iterator[tuple[int, slice, slice]]:
        """For each output column, its input columns and the columns of the kernel that multiply them."""
        return _overlaps(self.width, self.kernel.shape[1], self.pad)


def _overlaps(length: int, size: int, pad: int) -> Iterator[tuple[int, slice, slice]]:
    """For each position of a kernel along an axis: the entries under it, and the part of the kernel above them."""
    for place in range(length + 2 * pad - size + 1):
        first = place - pad
        inside = slice(max(first, 0), min(first + size, length))
        yield place, inside, slice(inside.start - first, inside.stop - first)


def image_last(x: Array) -> Array:
    """(n, ...) as a contiguous (..., n): a view if the array is stored that way already."""
    return np.ascontiguousarray(np.moveaxis(x, 0, -1))


def _flat(rows: Array) -> Array:
    """(..., n) -> (-1, n)."""
    return rows.reshape(-1, rows.shape[-1])


class Windows:
    """Form for wide or few images: one matrix product over all windows of size x size pixels, a few images at a time.

    The windows that `apply` formed are kept for the gradient if they are few: many are several times as large as x, and
    reading them back would cost more than forming them.
    """

    def __init__(self, kernel: Array, pad: int) -> None:
        self.kernel, self.pad = kernel, pad
        self._kept: tuple[Array, Array] | None = None  # images and their windows

    def apply(self, x: Array) -> Array:
        n_out = self.kernel.shape[3]
        matrix = self.kernel.transpose(1, 2, 0, 3).reshape(-1, n_out)
        sides = [side + 2 * self.pad - self.kernel.shape[1] + 1 for side in x.shape[1:3]]
        if len(x) * math.prod(sides) * len(matrix) <= _KEPT:
            windows = self._windows(x, slice(None))
            self._kept = x, windows
            value: Array = (windows @ matrix).reshape(-1, *sides, n_out)
            return value
        out = np.empty((len(x), *sides, n_out), dtype=np.result_type(x, self.kernel))
        for images in self._parts(x):
            out[images] = (self._windows(x, images) @ matrix).reshape(-1, *sides, n_out)
        return out

    def apply_adjoint(self, upstream: Array, shape: tuple[int, ...]) -> Array:
        # Again a correlation, with the kernel rotated by 180 degrees.
        flipped = self.kernel[:, ::-1, ::-1].transpose(3, 1, 2, 0)
        return Windows(flipped, self.kernel.shape[1] - 1 - self.pad).apply(upstream)

    def kernel_gradient(self, x: Array, upstream: Array) -> Array:
        n_in, size, _, n_out = self.kernel.shape
        if self._kept is not None and self._kept[0] is x:
            total = self._kept[1].T @ upstream.reshape(-1, n_out)
        else:
            parts = (self._windows(x, part).T @ upstream[part].reshape(-1, n_out) for part in self._parts(x))
            total = sum(parts, start=np.zeros((), dtype=upstream.dtype))
        value: Array = total.reshape(size, size, n_in, n_out).transpose(2, 0, 1, 3)
        return value

    def _parts(self, x: Array) -> Iterator[slice]:
        """A few images at a time."""
        n_in, size = self.kernel.shape[:2]
        height, width = (side + 2 * self.pad for side in x.shape[1:3])
        per_image = (height - size + 1) * (width - size + 1) * size * size * n_in
        step = max(1, _CACHED // per_image)
        return (slice(start, start + step) for start in range(0, len(x), step))

    def _windows(self, x: Array, images: slice) -> Array:
        """The windows of some images as the rows of a matrix (windows, size size c)."""
        x, (n_in, size) = x[images], self.kernel.shape[:2]
        height, width = (side + 2 * self.pad for side in x.shape[1:3])
        padded = np.zeros((len(x), height, width, n_in), dtype=x.dtype)
        padded[:, self.pad : height - self.pad, self.pad : width - self.pad] = x
        # Channels last, so that a row of a window is contiguous.
        view = sliding_window_view(padded, (size, size), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
        return view.reshape(-1, size * size * n_in)
