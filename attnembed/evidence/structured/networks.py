"""Claims about networks: the values and gradients of their layers, and the gradients of whole models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.signal import correlate

from attnembed._typing import Doubles
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.evidence.structured.chains import slope_error
from attnembed.structured import layers as nn
from attnembed.structured.chain import chain_viterbi
from attnembed.structured.data import make_chain_dataset, make_grid_dataset
from attnembed.structured.model import ChainCRF, GridCRF
from attnembed.structured.networks import Network
from attnembed.structured.packing import Packing

_PAGE = "derivations/gradients.md"
_LENGTHS = np.array([2, 4, 1])


def _layers(rng: np.random.Generator) -> list[tuple[Any, Any, Callable[[nn.Params, Any], Any]]]:
    """Layers, each with an input and its definition."""
    # All entries differ by a tenth, and none is near 0, so that the kinks of maxima are far.
    rows, image = ((rng.permutation(n) - n // 2 + 0.5) / 10 for n in (7 * 4, 2 * 5 * 6 * 3))
    rows, image = rows.reshape(7, 4), image.reshape(2, 5, 6, 3)
    ids = rng.integers(0, 6, size=(7, 2))
    return [
        (nn.Dense(4, 3), rows, lambda p, x: np.einsum("ni,io->no", x, p["W"]) + p["b"]),
        (nn.ReLU(), rows, lambda p, x: np.where(x > 0, x, 0.0)),
        (nn.Tanh(), rows, lambda p, x: np.sinh(x) / np.cosh(x)),
        (nn.LayerNorm(4), rows, _layer_norm),
        (nn.Conv2D(3, 2, 3), image, lambda p, x: _correlation(p, x, "same")),
        (nn.Conv2D(3, 2, 3, padding="valid"), image, lambda p, x: _correlation(p, x, "valid")),
        (nn.MaxPool2D(), image, lambda p, x: x[:, :4].reshape(2, 2, 2, 3, 2, 3).max(axis=(2, 4))),
        (nn.Upsample2D(), image, lambda p, x: np.kron(x, np.ones((1, 2, 2, 1)))),
        (nn.Coordinates(), image, _coordinates),
        (nn.Embedding(6, 3), ids, lambda p, x: np.concatenate([p["E"][x[:, 0]], p["E"][x[:, 1]]], axis=1)),
        (nn.EmbeddingSum(6, 3, 0.5), ids, lambda p, x: p["b"] + p["E"][x[:, 0]] + p["E"][x[:, 1]]),
        (nn.BiRecurrent(4, 3), rows, _recurrence),
    ]


@claim(
    "structured/layers",
    statement="each layer agrees with its definition, and its backward pass gives the correct gradients",
    tex=r"\langle g, y(\theta + h) - y(\theta)\rangle = \langle\nabla_\theta\langle g, y\rangle, h\rangle + O(h^2)",
    reference="derived here",
    control="gradients wrong by one part in a thousand",
    derivation=_PAGE,
)
def layers(rng: np.random.Generator) -> Evidence:
    worst, control, packing = 0.0, np.inf, Packing(_LENGTHS)
    for layer, x, definition in _layers(rng):
        params = {name: value + 0.3 * rng.standard_normal(value.shape) for name, value in layer.init(rng).items()}
        y, cache = layer.forward(params, x, packing)
        worst = largest(worst, float(np.abs(y - definition(params, x)).max()) / 1e-12)
        upstream = rng.standard_normal(y.shape)
        grads, gradient = layer.backward(cache, upstream)

        def value(of: Any, name: str, at: tuple[Any, ...] = (layer, params, x, packing, upstream)) -> float:
            layer, params, x, packing, upstream = at
            out = layer.forward({**params, name: of} if name else params, x if name else of, packing)[0]
            return float(np.vdot(upstream, out))

        every = dict(grads) if x.dtype.kind == "i" else {**grads, "": gradient}
        worst = worst if gradient is not None and gradient.shape == x.shape else np.inf
        for name, found in every.items():
            point = params[name] if name else x

            of = partial(value, name=name)
            errors = [
                slope_error(of, point, factor * found, np.random.default_rng(0), step=1e-5) / 1e-7
                for factor in (1.0, 1.001)
            ]
            worst, control = largest(worst, errors[0]), min(control, errors[1])
    return Evidence(measured=worst, tolerance=1.0, control=control)


def _layer_norm(params: nn.Params, x: Doubles) -> Doubles:
    out = [(row - row.mean()) / np.sqrt(row.var() + 1e-5) * params["gain"] + params["bias"] for row in x]
    return np.array(out)


def _correlation(params: nn.Params, x: Doubles, padding: str) -> Doubles:
    out = [
        [sum(correlate(image[..., c], params["W"][c, :, :, o], padding) for c in range(3)) for o in range(2)]
        for image in x
    ]
    return np.moveaxis(np.array(out), 1, -1) + params["b"]


def _coordinates(params: nn.Params, x: Doubles) -> Doubles:
    row = [[-1 + 2 * h / 4] * 6 for h in range(5)]
    column = [[-1 + 2 * w / 5 for w in range(6)]] * 5
    extra = np.broadcast_to(np.stack([row, column], axis=-1), (2, 5, 6, 2))
    return np.concatenate([x, extra], axis=-1)


def _recurrence(params: nn.Params, x: Doubles) -> Doubles:
    packing, out = Packing(_LENGTHS), np.zeros((7, 6))
    for sequence in range(3):
        rows = np.flatnonzero(packing.sequence == sequence)  # in the order of time
        for way, order, part in (("forward", rows, slice(0, 3)), ("backward", rows[::-1], slice(3, 6))):
            h = np.zeros(3)
            for t in order:
                h = np.tanh(x[t] @ params[f"{way}_Wx"] + h @ params[f"{way}_Wh"] + params[f"{way}_b"])
                out[t, part] = h
    return out


@claim(
    "structured/model-gradients",
    statement="the gradients of a model in its network, its pairwise part and both scales are correct",
    tex=r"\partial_a f = \langle U, \nabla_{aU} f\rangle,\quad \partial_b f = \langle W, \nabla_{bW} f\rangle",
    reference="derived here",
    control="gradients wrong by one part in a thousand",
    derivation=_PAGE,
)
def model_gradients(rng: np.random.Generator) -> Evidence:
    chains = make_chain_dataset(6, 4, 3, 4, rng=rng)
    start, end = rng.normal(size=(2, 3))
    dense = Network.create((nn.Dense(4, 5), nn.Tanh(), nn.Dense(5, 3)), rng=rng)
    chain = ChainCRF(dense, rng.normal(size=(3, 3)), 0.7, -1.3, start=start, end=end)
    grids = make_grid_dataset(3, 4, 5, rng=rng)
    images = Network.create((nn.Conv2D(3, 3, 3), nn.Tanh(), nn.Conv2D(3, 2, 3)), rng=rng)
    grid = GridCRF(images, rng.normal(size=(2, 2, 2)), 0.7, 0.4)
    worst, control = 0.0, np.inf
    cases: list[tuple[Any, Any, str]] = [(chain, chains, "nll"), (grid, grids, "pseudolikelihood")]
    for model, data, objective in cases:
        params = model.parameters()
        found = model.loss_and_grads(data, objective)[1].to_dict()
        worst = worst if set(found) == set(params) else np.inf
        for name, gradient in found.items():

            def value(z: Any, name: str = name, at: tuple[Any, ...] = (model, data, objective, params)) -> float:
                model, data, objective, params = at
                return float(model.with_parameters({**params, name: z}).loss(data, objective))

            def off(factor: float, name: str = name, g: Any = gradient, at: Any = params, of: Any = value) -> float:
                fixed = np.random.default_rng(0)
                return slope_error(of, np.asarray(at[name]), factor * np.asarray(g), fixed, step=1e-5) / 1e-6

            worst, control = largest(worst, off(1.0)), min(control, off(1.001))
    # What a model forbids, by -inf or by a mask, is forbidden at every scale.
    allowed, forbidding = np.ones((3, 3), dtype=bool), chain.pairwise.copy()
    allowed[0, 1], forbidding[1, 2] = False, -np.inf
    masked = np.where(allowed, forbidding, -np.inf)
    for scale in (-1.3, 0.0, 20.0):
        bound = ChainCRF(dense, forbidding, 0.7, scale, allowed=allowed)
        times = np.where(masked > -np.inf, scale * np.where(masked > -np.inf, masked, 0.0), -np.inf)
        for i in range(len(chains)):
            one = chains.subset([i])
            best = chain_viterbi(0.7 * bound.unary(one), times)
            worst = worst if np.array_equal(bound.predict(one)[0], best) else np.inf
    return Evidence(measured=worst, tolerance=1.0, control=control)
