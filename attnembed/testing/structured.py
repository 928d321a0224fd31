"""Strategies for structured models: potentials, networks, and chain and grid models with their data."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from attnembed._typing import Doubles
from attnembed.structured.data import ChainDataset, GridDataset
from attnembed.structured.layers import Conv2D, Dense, Layer, ReLU, Tanh
from attnembed.structured.model import ChainCRF, GridCRF
from attnembed.structured.networks import Network
from attnembed.testing.numbers import BOOLEANS, check_range, digits, draw_matrix, integers
from attnembed.testing.problem import Problem

__all__ = ["chains", "grid_potentials", "grids", "networks", "potentials"]


@st.composite
def potentials(
    draw: st.DrawFn,
    *,
    length: tuple[int, int] = (1, 5),
    n_labels: tuple[int, int] = (2, 4),
    scale: float = 3.0,
    forbidden: bool = False,
    generic: bool | None = None,
) -> tuple[Doubles, Doubles]:
    """Log-potentials (L, K) and (K, K) of one chain; with ``forbidden`` some are -inf, never a whole unary row.

    Half of the examples are generic; with ``generic`` True all are, with False none (then ties abound).

    >>> from hypothesis import find
    >>> [array.shape for array in find(potentials(length=(2, 2)), lambda pair: True)]
    [(2, 2), (2, 2)]
    """
    L, K = draw(integers(*check_range("length", length))), draw(integers(*check_range("n_labels", n_labels)))
    unary, pairwise = (draw_matrix(draw, shape, scale, generic=generic) for shape in ((L, K), (K, K)))
    if forbidden and draw(BOOLEANS):
        pairwise[draw(integers(0, K - 1)), draw(integers(1, K - 1))] = -np.inf
        unary[draw(integers(0, L - 1)), draw(integers(1, K - 1))] = -np.inf
        pairwise[:, 0] = np.where(np.isfinite(pairwise[:, 0]), pairwise[:, 0], 0.0)
    return unary, pairwise


@st.composite
def grid_potentials(
    draw: st.DrawFn,
    *,
    height: tuple[int, int] = (1, 3),
    width: tuple[int, int] = (1, 3),
    n_labels: tuple[int, int] = (2, 2),
    scale: float = 3.0,
    generic: bool | None = None,
) -> tuple[Doubles, Doubles, Doubles]:
    """Log-potentials (H, W, K) of one grid, and (K, K) of its horizontal and of its vertical edges.

    >>> from hypothesis import find
    >>> [array.shape for array in find(grid_potentials(height=(2, 2)), lambda found: True)]
    [(2, 1, 2), (2, 2), (2, 2)]
    """
    H, W = (draw(integers(*check_range(*pair))) for pair in (("height", height), ("width", width)))
    K = draw(integers(*check_range("n_labels", n_labels)))
    unary, across, down = (draw_matrix(draw, shape, scale, generic=generic) for shape in ((H, W, K), (K, K), (K, K)))
    return unary, across, down


@st.composite
def networks(draw: st.DrawFn, n_inputs: int, n_outputs: int, *, hidden: tuple[int, int] = (0, 3)) -> Network:
    """A network on vectors: one dense layer, or two with Tanh or ReLU in between; (N, n_inputs) -> (N, n_outputs)."""
    width = draw(integers(*check_range("hidden", hidden, least=0)))
    layers: list[Layer] = [Dense(n_inputs, n_outputs)]
    if width:
        between: Layer = Tanh() if draw(BOOLEANS) else ReLU()
        layers = [Dense(n_inputs, width), between, Dense(width, n_outputs)]
    network = Network.create(layers, rng=0)
    return network.with_params({name: draw_matrix(draw, value.shape) for name, value in network.params.items()})


@st.composite
def chains(
    draw: st.DrawFn,
    *,
    n_samples: tuple[int, int] = (1, 3),
    length: tuple[int, int] = (1, 4),
    n_labels: tuple[int, int] = (2, 3),
    n_inputs: tuple[int, int] = (1, 2),
    hidden: tuple[int, int] = (0, 0),
) -> Problem:
    """A `ChainCRF` with labelled sequences."""
    K, F = draw(integers(*check_range("n_labels", n_labels))), draw(integers(*check_range("n_inputs", n_inputs)))
    lengths = [
        draw(integers(*check_range("length", length)))
        for _ in range(draw(integers(*check_range("n_samples", n_samples))))
    ]
    inputs = [draw_matrix(draw, (L, F)) for L in lengths]
    labels = [draw(digits(K, L)) for L in lengths]
    scale = st.sampled_from([1.0, 0.1, 10.0])
    model = ChainCRF(
        draw(networks(F, K, hidden=hidden)), draw_matrix(draw, (K, K)), unary_scale=1.0, pairwise_scale=draw(scale)
    )
    return Problem(model, ChainDataset(inputs, labels))


@st.composite
def grids(
    draw: st.DrawFn,
    *,
    n_samples: tuple[int, int] = (1, 2),
    height: tuple[int, int] = (1, 3),
    width: tuple[int, int] = (1, 3),
    n_labels: tuple[int, int] = (2, 3),
    n_channels: tuple[int, int] = (1, 2),
) -> Problem:
    """A `GridCRF` on one convolution of size 1, with labelled images; one matrix for all edges, or two."""
    n, H, W = (
        draw(integers(*check_range(*b))) for b in (("n_samples", n_samples), ("height", height), ("width", width))
    )
    K, C = draw(integers(*check_range("n_labels", n_labels))), draw(integers(*check_range("n_channels", n_channels)))
    network = Network.create([Conv2D(C, K, 1)], rng=0)
    network = network.with_params({name: draw_matrix(draw, value.shape) for name, value in network.params.items()})
    shape = (2, K, K) if draw(BOOLEANS) else (K, K)
    model = GridCRF(network, draw_matrix(draw, shape), pairwise_scale=draw(st.sampled_from([1.0, 0.1, 10.0])))
    labels = draw(digits(K, n * H * W))
    return Problem(model, GridDataset(draw_matrix(draw, (n, H, W, C)), labels.reshape(n, H, W)))
