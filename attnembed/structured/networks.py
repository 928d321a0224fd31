"""Networks: a layer with its parameters, and the architectures of the experiments.

`layers.core` defines the protocol of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from attnembed._deprecation import moved
from attnembed._files import PathLike
from attnembed._validation import (
    RNGLike,
    as_float_dtype,
    as_rng,
    check_choice,
    check_integer,
    check_integers,
    check_mapping,
    shown,
)
from attnembed.errors import InputError
from attnembed.structured import layers as nn
from attnembed.structured.layers.core import Array, Layer, Params, check_layers
from attnembed.structured.layers.images import PADDINGS, check_odd
from attnembed.structured.packing import Packing
from attnembed.structured.storage import is_describable, read_model, write_model

__all__ = ["Network", "birnn", "conv_net", "identity", "lenet", "mlp", "two_scale_net"]


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
        check_layers("layer", (self.layer,))
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
        layers, dtype = check_layers("layers", layers), as_float_dtype("dtype", dtype)
        layer = nn.Sequential(layers)
        params = {name: value.astype(dtype) for name, value in layer.init(as_rng(rng)).items()}
        last = len(layers) - 1
        linear = bool(layers) and isinstance(layers[-1], (nn.Dense, nn.Conv2D, nn.LayerNorm))
        return cls(layer, params, tuple(n for n in params if linear and n.startswith(f"{last}.")))

    def __call__(self, x: Array, packing: Packing | None = None) -> Array:
        """The output, without the cache."""
        return self.layer.forward(self.params, x, packing)[0]

    def with_params(self, params: Params) -> Network:
        """The same layer with other parameters."""
        return replace(self, params=params)

    def save(self, path: PathLike) -> None:
        """Write layers and parameters as npz (no pickle), atomically.

        Raises
        ------
        InputError
            for a layer from outside this package, which `load` could not rebuild.
        """
        if not is_describable(self.layer):
            raise InputError("layer", "must be made of the layers of attnembed to be saved", got=shown(self.layer))
        write_model(path, "Network", self.layer, self.params, {}, output=list(self.output))

    @classmethod
    def load(cls, path: PathLike) -> Network:
        """Read a network written by `save`; anything malformed raises DataFileError."""

        def build(layer: Layer, params: Params, arrays: Params, fields: dict[str, Any]) -> Network:
            return cls(layer, params, tuple(fields["output"]))

        return read_model(path, "Network", build)


def table_of(layer: Layer) -> str | None:
    """The parameter of which integer inputs name the rows, if the first layer is an embedding; else None.

    >>> table_of(birnn(10, 2, 3, dim=4, hidden=5, rng=0).layer)
    '0.E'
    """
    if isinstance(layer, nn.Sequential):
        inner = table_of(layer.layers[0]) if layer.layers else None
        return None if inner is None else f"0.{inner}"
    return layer.table if isinstance(layer, (nn.Embedding, nn.EmbeddingSum)) else None


def identity() -> Network:
    """The network that returns its input, for potentials computed elsewhere."""
    return Network(nn.Sequential(()), {})


def mlp(
    n_inputs: int,
    hidden: Sequence[int],
    n_labels: int,
    *,
    dtype: DTypeLike = np.float64,
    rng: RNGLike = None,
) -> Network:
    """Dense layers with ReLU in between; (N, n_inputs) -> (N, n_labels). Without hidden layers, a linear model.

    >>> sorted(mlp(3, (4,), 2, rng=0).params)
    ['0.W', '0.b', '2.W', '2.b']
    """
    first, last = check_integer("n_inputs", n_inputs, minimum=1), check_integer("n_labels", n_labels, minimum=1)
    sizes = (first, *check_integers("hidden", hidden), last)
    layers: list[Layer] = []
    for a, b in pairwise(sizes):
        layers += [nn.Dense(a, b), nn.ReLU()]
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

    ``padding`` is that of `Conv2D`; "valid" with 32 x 32 images is the network of 1998.

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
        nn.Reshape((height, width, 1)),
        nn.Conv2D(1, channels[0], padding=padding),
        nn.MaxPool2D(),  # before ReLU: the same function on a quarter of the entries
        nn.ReLU(),
        nn.Conv2D(channels[0], channels[1], padding=padding),
        nn.MaxPool2D(),
        nn.ReLU(),
        nn.Reshape((flat,)),
        nn.Dense(flat, hidden),
        nn.ReLU(),
        nn.Dense(hidden, n_labels),
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
    layers: list[Layer] = [
        nn.Embedding(vocab_size, dim),
        nn.BiRecurrent(n_ids * dim, hidden),
        nn.Dense(2 * hidden, n_labels),
    ]
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
    """Size-preserving convolutions with ReLU in between; (n, H, W, n_channels) -> (n, H, W, n_labels).

    >>> conv_net(3, (4,), 2, rng=0)(np.zeros((1, 6, 7, 3))).shape
    (1, 6, 7, 2)
    """
    check_odd(size)
    first, last = check_integer("n_channels", n_channels, minimum=1), check_integer("n_labels", n_labels, minimum=1)
    widths = (first, *check_integers("hidden", hidden), last)
    layers: list[Layer] = []
    for a, b in pairwise(widths):
        layers += [nn.Conv2D(a, b, size), nn.ReLU()]
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
    """A fine and a coarse branch on an image; (n, H, W, n_channels) -> (n, H, W, n_labels), H and W multiples of 4.

    `Coordinates`, then in parallel ``fine`` kernels 3 x 3, and three convolutions 5 x 5 with ``coarse`` kernels, at a
    half, a quarter and a quarter of the resolution, which see about 40 pixels in each direction; each is followed by
    ReLU. A `Dense` layer joins both pixel by pixel. The fine branch supplies the detail that the coarse one loses.

    >>> two_scale_net(3, rng=0)(np.zeros((1, 8, 12, 3))).shape
    (1, 8, 12, 2)
    """
    check_integer("n_labels", n_labels, minimum=1)
    check_integer("fine", fine, minimum=1)
    n = check_integer("n_channels", n_channels, minimum=1) + 2
    a, b, c = check_integers("coarse", coarse, n=3)
    down: list[Layer] = [
        *(nn.MaxPool2D(), nn.Conv2D(n, a), nn.ReLU()),
        *(nn.MaxPool2D(), nn.Conv2D(a, b), nn.ReLU()),
        *(nn.Conv2D(b, c), nn.ReLU()),
    ]
    branches = nn.Branches(
        (nn.Sequential((nn.Conv2D(n, fine, 3), nn.ReLU())), nn.Sequential((*down, nn.Upsample2D(), nn.Upsample2D()))),
    )
    layers: list[Layer] = [nn.Coordinates(multiple=4), branches, nn.Dense(fine + c, n_labels)]
    return Network.create(layers, dtype=dtype, rng=rng)


# The layers were formerly in this module.
__getattr__ = moved(__name__, dict.fromkeys(nn.__all__, nn.__name__))
