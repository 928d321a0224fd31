"""Labelled sequences and images, and generators with known emission and transition strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed._frozen import KeepsFrozen
from attnembed._validation import RNGLike, as_integer_array, as_rng, check_integer, check_positive, freeze
from attnembed.errors import InputError, InputTypeError
from attnembed.structured.chain import chain_sample
from attnembed.structured.packing import Packing

__all__ = ["ChainDataset", "GridDataset", "make_chain_dataset", "make_grid_dataset"]

Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False, init=False)
class ChainDataset(KeepsFrozen):
    """n labelled sequences of any length >= 1, held in the packed order of `packing.Packing`.

    Parameters
    ----------
    inputs : n arrays (L, F), or (L, ...) for other networks; integers for an embedding
    labels : n int arrays (L,), values >= 0

    Attributes
    ----------
    inputs : (N, ...) all positions, packed
    labels : (N,) packed
    packing : the layout

    >>> data = ChainDataset([np.zeros((3, 2)), np.ones((1, 2))], [[0, 1, 0], [1]])
    >>> len(data), data.packing.lengths, data.inputs.shape
    (2, array([3, 1]), (4, 2))
    """

    inputs: NDArray[Any]
    labels: Ints
    packing: Packing

    def __init__(self, inputs: Sequence[ArrayLike], labels: Sequence[ArrayLike]) -> None:
        if len(inputs) != len(labels):
            raise InputError("labels", f"must have one entry per sequence ({len(inputs)})", got=len(labels))
        if len(inputs) == 0:
            raise InputError("inputs", "must hold at least one sequence", got="none")
        xs, ys = [np.asarray(x) for x in inputs], [np.asarray(y) for y in labels]
        for i, (x, y) in enumerate(zip(xs, ys)):
            if y.ndim != 1 or x.ndim < 1 or len(x) != len(y) or len(y) == 0:
                raise InputError(
                    "labels",
                    "must have one label per position, at least one",
                    got=f"inputs {x.shape} and labels {y.shape} in sequence {i}",
                )
            if y.dtype.kind not in "iu":
                raise InputTypeError("labels", "must be integers", got=f"dtype {y.dtype} in sequence {i}")
            if y.min() < 0:
                raise InputError("labels", "must be >= 0", got=f"{y.min()} in sequence {i}")
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
        packing = Packing(np.array([len(y) for y in ys]))
        rows = packing.rows
        self._set(np.concatenate(xs)[rows], np.concatenate(ys)[rows].astype(np.intp), packing)

    def _set(self, inputs: NDArray[Any], labels: Ints, packing: Packing) -> None:
        for name, value in (("inputs", freeze(inputs)), ("labels", freeze(labels)), ("packing", packing)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.packing)

    def subset(self, indices: ArrayLike) -> ChainDataset:
        """The sequences with the given indices, in that order."""
        chosen = _indices(indices, len(self))
        packing = Packing(self.packing.lengths[chosen])
        rows = self._rows(chosen, packing)
        out = object.__new__(ChainDataset)
        out._set(self.inputs[rows], self.labels[rows], packing)
        return out

    def rows(self, indices: ArrayLike) -> Ints:
        """Where the packed rows of `subset` stand among those of this data set."""
        chosen = np.asarray(indices)
        return self._rows(chosen, Packing(self.packing.lengths[chosen]))

    def _rows(self, chosen: Ints, packing: Packing) -> Ints:
        return self.packing.offsets[packing.time] + self.packing.rank_of[chosen[packing.sequence]]

    def split(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        """Packed rows (N, ...) as one array (L, ...) per sequence."""
        flat = np.empty_like(rows)
        flat[self.packing.rows] = rows
        return np.split(flat, np.cumsum(self.packing.lengths)[:-1])


@dataclass(frozen=True, eq=False)
class GridDataset(KeepsFrozen):
    """n labelled images of one size.

    Attributes
    ----------
    images : (n, H, W, C) real
    labels : (n, H, W) int >= 0

    >>> len(GridDataset(np.zeros((2, 3, 4, 1)), np.zeros((2, 3, 4), dtype=int)))
    2
    """

    images: NDArray[Any]
    labels: Ints

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.dtype.kind not in "biuf" or images.ndim != 4 or 0 in images.shape:
            raise InputError("images", "must be a real array (n, H, W, C)", got=f"{images.dtype} {images.shape}")
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            where = np.argwhere(~np.isfinite(images))[0]
            raise InputError("images", "must be finite", got=f"NaN or inf in image {where[0]}")
        if labels.dtype.kind not in "iu":
            raise InputTypeError("labels", "must be integers", got=f"dtype {labels.dtype}")
        if labels.shape != images.shape[:3]:
            raise InputError("labels", f"must have shape {images.shape[:3]}", got=f"shape {labels.shape}")
        if labels.min() < 0:
            raise InputError("labels", "must be >= 0", got=labels.min())
        object.__setattr__(self, "images", freeze(images.view()))
        object.__setattr__(self, "labels", freeze(labels.astype(np.intp)))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def inputs(self) -> NDArray[Any]:
        """What the network reads: the images."""
        return self.images

    def rows(self, indices: ArrayLike) -> Ints:
        """Where the images of `subset` stand among those of this data set."""
        return np.asarray(indices)

    def subset(self, indices: ArrayLike) -> GridDataset:
        """The images with the given indices, in that order."""
        chosen = _indices(indices, len(self))
        return GridDataset(self.images[chosen], self.labels[chosen])


def _indices(indices: ArrayLike, n: int) -> Ints:
    """Places in a data set of ``n``, in any order, also repeated."""
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
    """Sequences whose labels follow a random Markov chain and whose inputs show them through noise.

    Labels are a sample of the chain with potentials W = ``transition`` * G, G (K, K) standard normal. The input of
    a position is ``emission`` * c_y + ``noise`` * e with fixed prototypes c_y of unit variance per feature and e
    standard normal. With emission small and transition large the neighbours decide; the other way round the inputs
    do. Prototypes and G come from the first draws of ``rng``: split one data set for training and test, do not make
    two.

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
    """Binary label images from an Ising model, seen through noise.

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
            up = generator.random(shape) < 1 / (1 + np.exp(-transition * field))
            spins = np.where(colour, np.where(up, 1.0, -1.0), spins)
    labels = (spins > 0).astype(np.intp)
    images = emission * prototypes[labels] + noise * generator.normal(size=(*shape, channels))
    return GridDataset(images, labels)
