"""Labelled sequences and images, and generators with known emission and transition strength."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from attnembed._typing import Ints
from attnembed._validation import (
    RNGLike,
    as_array,
    as_integer_array,
    as_rng,
    check_integer,
    check_items,
    check_positive,
    freeze,
    refuse_mask,
)
from attnembed.errors import InputError, InputTypeError
from attnembed.results import Record
from attnembed.structured.chain import chain_sample
from attnembed.structured.packing import Packing

__all__ = ["ChainDataset", "GridDataset", "make_chain_dataset", "make_grid_dataset"]


@dataclass(frozen=True, eq=False, init=False, repr=False)
class ChainDataset(Record):
    """n sequences of any length >= 1, in the packed order of `packing.Packing`, with or without labels.

    Parameters
    ----------
    inputs : n arrays (L, F), or (L, ...) for other networks; integers for an embedding
    labels : n int arrays (L,), values >= 0; None if they are to be predicted

    Attributes
    ----------
    inputs : (N, ...) all positions, packed
    labels : (N,) packed, or None
    packing : the layout

    >>> data = ChainDataset([np.zeros((3, 2)), np.ones((1, 2))], [[0, 1, 0], [1]])
    >>> len(data), data.packing.lengths, data.inputs.shape
    (2, array([3, 1]), (4, 2))
    """

    inputs: NDArray[Any]
    labels: Ints | None
    packing: Packing

    def __init__(self, inputs: Iterable[ArrayLike], labels: Iterable[ArrayLike] | None = None) -> None:
        xs = [_part("inputs", x, i) for i, x in enumerate(_items("inputs", inputs))]
        if not xs:
            raise InputError("inputs", "must hold at least one sequence", got="none")
        for i, x in enumerate(xs):
            if x.ndim < 1 or len(x) == 0:
                raise InputError(
                    "inputs",
                    "must have at least one position in every sequence",
                    got=f"shape {x.shape} in sequence {i}",
                )
            if x.dtype.kind not in "biuf":
                raise InputTypeError("inputs", "must be numeric", got=f"dtype {x.dtype} in sequence {i}")
            if x.shape[1:] != xs[0].shape[1:]:
                raise InputError(
                    "inputs",
                    f"must have the same shape {xs[0].shape[1:]} at every position",
                    got=f"{x.shape[1:]} in sequence {i}",
                )
            if x.dtype.kind == "f" and not np.isfinite(x).all():
                raise InputError("inputs", "must be finite", got=f"NaN or inf in sequence {i}")
        packing = Packing(np.array([len(x) for x in xs]))
        rows = packing.rows
        packed = None if labels is None else np.concatenate(_chain_labels(labels, xs))[rows].astype(np.intp)
        self._set(np.concatenate(xs)[rows], packed, packing)

    def _set(self, inputs: NDArray[Any], labels: Ints | None, packing: Packing) -> None:
        frozen = None if labels is None else freeze(labels)
        for name, value in (("inputs", freeze(inputs)), ("labels", frozen), ("packing", packing)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.packing)

    @property
    def n_samples(self) -> int:
        """n, the number of sequences."""
        return len(self)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """The shape that labels have, (N,)."""
        return (len(self.inputs),)

    @property
    def known_labels(self) -> Ints:
        """The labels; InputError if there are none."""
        return _known(self.labels)

    def subset(self, indices: ArrayLike) -> ChainDataset:
        """The sequences with the given indices, in that order."""
        chosen = _indices(indices, len(self))
        packing = Packing(self.packing.lengths[chosen])
        rows = self._rows(chosen, packing)
        out = object.__new__(ChainDataset)
        out._set(self.inputs[rows], None if self.labels is None else self.labels[rows], packing)
        return out

    def with_inputs(self, inputs: NDArray[Any]) -> ChainDataset:
        """The same sequences and labels with other packed inputs, one per position."""
        out = object.__new__(ChainDataset)
        out._set(inputs, self.labels, self.packing)
        return out

    def rows(self, indices: ArrayLike) -> Ints:
        """The packed rows of this data set that form those of `subset`."""
        chosen = _indices(indices, len(self))
        return self._rows(chosen, Packing(self.packing.lengths[chosen]))

    def _rows(self, chosen: Ints, packing: Packing) -> Ints:
        return self.packing.offsets[packing.time] + self.packing.rank_of[chosen[packing.sequence]]

    def split(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        """Packed rows (N, ...) as one array (L, ...) per sequence."""
        rows = as_array("rows", rows)
        if rows.shape[:1] != self.label_shape or rows.dtype == object:
            expected = f"must be an array with one row per position ({len(self.inputs)})"
            raise InputError("rows", expected, got=f"dtype {rows.dtype}, shape {rows.shape}")
        flat = np.empty_like(rows)
        flat[self.packing.rows] = rows
        return np.split(flat, np.cumsum(self.packing.lengths)[:-1])


@dataclass(frozen=True, eq=False, init=False, repr=False)
class GridDataset(Record):
    """n images of one size, with or without labels.

    Parameters
    ----------
    images : (n, H, W, C) real, or n arrays (H, W, C); copied
    labels : (n, H, W) int in 0..K-1, or bool for two labels; None if they are to be predicted

    Attributes
    ----------
    images : (n, H, W, C)
    labels : (n, H, W) int, or None

    >>> len(GridDataset(np.zeros((2, 3, 4, 1)), np.zeros((2, 3, 4), dtype=int)))
    2
    """

    images: NDArray[Any]
    labels: Ints | None

    def __init__(self, images: ArrayLike | Iterable[ArrayLike], labels: Any = None) -> None:
        array = _stack("images", images)
        if array.dtype.kind not in "biuf" or array.ndim != 4 or 0 in array.shape:
            raise InputError(
                "images",
                "must be a real array (n, H, W, C)",
                got=f"{array.dtype} {array.shape}",
                hint="give grey images an axis of one channel, `images[..., None]`" if array.ndim == 3 else "",
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0]
            raise InputError("images", "must be finite", got=f"NaN or inf in image {where[0]}")
        self._set(array, None if labels is None else _grid_labels(labels, array.shape[:3]))

    def _set(self, images: NDArray[Any], labels: Ints | None) -> None:
        object.__setattr__(self, "images", freeze(images))
        object.__setattr__(self, "labels", None if labels is None else freeze(labels))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_samples(self) -> int:
        """n, the number of images."""
        return len(self)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """The shape that labels have, (n, H, W)."""
        return self.images.shape[:3]

    @property
    def known_labels(self) -> Ints:
        """The labels; InputError if there are none."""
        return _known(self.labels)

    @property
    def inputs(self) -> NDArray[Any]:
        """The input of the network: the images."""
        return self.images

    def rows(self, indices: ArrayLike) -> Ints:
        """The images of this data set that form `subset`."""
        return _indices(indices, len(self))

    def subset(self, indices: ArrayLike) -> GridDataset:
        """The images with the given indices, in that order."""
        chosen = _indices(indices, len(self))
        out = object.__new__(GridDataset)
        out._set(self.images[chosen], None if self.labels is None else self.labels[chosen])
        return out


# --- input checks -------------------------------------------------------------------------------------------------


def _items(name: str, values: Iterable[Any]) -> list[Any]:
    """The arrays of a list, a generator or an array with one more axis."""
    return check_items(name, values, "arrays")


def _part(name: str, value: ArrayLike, i: int) -> NDArray[Any]:
    """One entry of a data set as an array."""
    refuse_mask(name, value)
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(name, "must have rows of one length", got=f"ragged rows in entry {i}") from error


def _stack(name: str, values: Any) -> NDArray[Any]:
    """A fresh array with one more axis than its entries, which must have one shape."""
    if isinstance(values, np.ndarray):
        refuse_mask(name, values)
        return np.array(values)
    parts = [_part(name, value, i) for i, value in enumerate(_items(name, values))]
    for i, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise InputError(
                name,
                "must all have one shape",
                got=f"{parts[0].shape} and, in entry {i}, {part.shape}",
                hint="crop or resize them, or make one data set per size",
            )
    return np.array(parts)


def _label_dtype(array: NDArray[Any], where: str = "") -> NDArray[Any]:
    if array.dtype.kind not in "biu":
        raise InputTypeError("labels", "must be integers", got=f"dtype {array.dtype}{where}")
    if array.size and array.min() < 0:
        raise InputError("labels", "must be >= 0", got=f"{array.min()}{where}")
    return array


def _chain_labels(labels: Iterable[ArrayLike], inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
    ys = [_part("labels", y, i) for i, y in enumerate(_items("labels", labels))]
    if len(ys) != len(inputs):
        raise InputError("labels", f"must have one entry per sequence ({len(inputs)})", got=len(ys))
    for i, (x, y) in enumerate(zip(inputs, ys)):
        if y.ndim != 1 or len(x) != len(y):
            raise InputError(
                "labels",
                "must have one label per position",
                got=f"inputs {x.shape} and labels {y.shape} in sequence {i}",
            )
        _label_dtype(y, f" in sequence {i}")
    return ys


def _grid_labels(labels: Any, shape: tuple[int, ...]) -> Ints:
    array = _label_dtype(_stack("labels", labels))
    if array.shape != shape:
        raise InputError("labels", f"must have shape {shape}", got=f"shape {array.shape}")
    # The value 255 in image files means the foreground of a mask, or pixels without a label: never label 255.
    if array.max() == 255 and not (array == 254).any():
        values = np.unique(array)
        shown = ", ".join(map(str, values[:4])) + (", ..., 255" if values.size > 5 else ", 255" * (values.size == 5))
        mask = values.size <= 2
        raise InputError(
            "labels",
            "must number the labels from 0",
            got=f"values {{{shown}}}",
            hint="for a mask, use `labels > 0`" if mask else "255 marks pixels without a label: give them one, or crop",
        )
    return array.astype(np.intp)


def _known(labels: Ints | None) -> Ints:
    if labels is None:
        raise InputError("data", "must have labels", got="a data set without", hint="pass `labels` when it is created")
    return labels


def _indices(indices: ArrayLike, n: int) -> Ints:
    """Checked indices into a data set of ``n``, in any order, possibly repeated."""
    if np.size(indices) == 0:
        raise InputError("indices", "must hold at least one")
    array = as_integer_array("indices", indices, ndim=1)
    bad = array[(array < 0) | (array >= n)]
    if bad.size:
        raise InputError("indices", f"must be in 0..{n - 1}", got=bad[0])
    return array


def make_chain_dataset(
    n_sequences: int = 200,
    length: int = 8,
    n_labels: int = 5,
    n_features: int = 6,
    *,
    emission: float = 1.0,
    transition: float = 2.0,
    noise: float = 1.0,
    rng: RNGLike = None,
) -> ChainDataset:
    """Generate sequences whose labels follow a random Markov chain and whose inputs show them through noise.

    Labels are sampled from the chain with potentials W = ``transition`` * G, G (K, K) standard normal. The input at
    a position is ``emission`` * c_y + ``noise`` * e with fixed prototypes c_y of unit variance per feature and e
    standard normal. With small emission and large transition the neighbours decide, in the opposite case the inputs.
    Prototypes and G come from the first draws of ``rng``: split one data set into training and test data instead of
    generating two.

    >>> data = make_chain_dataset(3, 4, rng=0)
    >>> data.packing.lengths, data.inputs.shape
    (array([4, 4, 4]), (12, 6))
    """
    n = check_integer("n_sequences", n_sequences, minimum=1)
    steps = check_integer("length", length, minimum=1)
    k = check_integer("n_labels", n_labels, minimum=1)
    f = check_integer("n_features", n_features, minimum=1)
    strengths = [
        check_positive(name, value, zero_ok=True)
        for name, value in (("emission", emission), ("transition", transition), ("noise", noise))
    ]
    generator = as_rng(rng)
    prototypes = generator.normal(size=(k, f))
    w = strengths[1] * generator.normal(size=(k, k))
    labels = chain_sample(np.zeros((n, steps, k)), w, rng=generator)
    inputs = strengths[0] * prototypes[labels] + strengths[2] * generator.normal(size=(n, steps, f))
    return ChainDataset(list(inputs), list(labels))


def make_grid_dataset(
    n_images: int = 40,
    height: int = 12,
    width: int = 12,
    n_channels: int = 3,
    *,
    emission: float = 0.5,
    transition: float = 1.0,
    noise: float = 1.0,
    sweeps: int = 50,
    rng: RNGLike = None,
) -> GridDataset:
    """Generate binary label images from an Ising model, seen through noise.

    Labels are drawn by ``sweeps`` checkerboard Gibbs sweeps with W[k, l] = ``transition`` [k = l] on every edge; the
    image is ``emission`` * c_y + ``noise`` * e, as in `make_chain_dataset`.

    >>> make_grid_dataset(2, 4, 5, rng=0).labels.shape
    (2, 4, 5)
    """
    n = check_integer("n_images", n_images, minimum=1)
    shape = (n, check_integer("height", height, minimum=1), check_integer("width", width, minimum=1))
    channels = check_integer("n_channels", n_channels, minimum=1)
    emission, transition, noise = (
        check_positive(name, value, zero_ok=True)
        for name, value in (("emission", emission), ("transition", transition), ("noise", noise))
    )
    generator = as_rng(rng)
    prototypes = generator.normal(size=(2, channels))
    spins = generator.choice([-1.0, 1.0], size=shape)
    odd = np.add.outer(np.arange(shape[1]), np.arange(shape[2])) % 2 == 1
    for _ in range(check_integer("sweeps", sweeps, minimum=0)):
        for colour in (odd, ~odd):
            field = np.zeros(shape)
            field[:, 1:] += spins[:, :-1]
            field[:, :-1] += spins[:, 1:]
            field[:, :, 1:] += spins[:, :, :-1]
            field[:, :, :-1] += spins[:, :, 1:]
            # log odds of +1 against -1: transition * (agreeing neighbours - disagreeing ones) = transition * field
            up = generator.random(shape) < expit(transition * field)
            spins = np.where(colour, np.where(up, 1.0, -1.0), spins)
    labels = (spins > 0).astype(np.intp)
    images = emission * prototypes[labels] + noise * generator.normal(size=(*shape, channels))
    return GridDataset(images, labels)
