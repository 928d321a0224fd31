"""Claims about the statistics behind the scales: norms, normalised potentials, bigrams and the diagnosis of a model."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from attnembed._typing import Doubles
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, by_construction, claim
from attnembed.evidence.structured.chains import slope_error
from attnembed.structured.data import make_chain_dataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import mlp
from attnembed.structured.scaling import (
    WIDEST,
    OfflineScaling,
    Parametrisation,
    bigram_potentials,
    normalised,
    normalised_gradient,
    scale_diagnosis,
)
from attnembed.structured.theory import component_norms, fit_scales


@claim(
    "structured/scale-statistics",
    statement="norms, normalised potentials and bigram potentials agree with their definitions, with forbidden pairs "
    "excluded from the means",
    tex=r"n_U^2 = \operatorname{mean}(U_i - \operatorname{mean}_yU_i)^2,\ n_W^2 = \operatorname{mean}"
    r"(W - \operatorname{mean}W)^2,\ \log\frac{P(l \mid k)}{P(l)}",
    reference="definitions",
    control="means that include forbidden pairs; and counts without smoothing",
    derivation="derivations/offline-scaling.md",
)
def scale_statistics(rng: np.random.Generator) -> Evidence:
    k = int(rng.integers(3, 6))
    U, W = 2 + 3 * rng.standard_normal((5, 2, k)), 1 + 2 * rng.standard_normal((k, k))
    allowed = rng.random((k, k)) < 0.7
    allowed[0, :2], allowed[1, 0] = True, False
    rows = U.reshape(-1, k)
    n_u = math.sqrt(math.fsum((x - math.fsum(row) / k) ** 2 for row in rows for x in row) / rows.size)
    kept = W[allowed]
    mean = math.fsum(kept) / kept.size
    n_w = math.sqrt(math.fsum((x - mean) ** 2 for x in kept) / kept.size)
    found = component_norms(U, W, allowed)
    unit, n = normalised(W, allowed)
    gaps = [abs(found[0] / n_u - 1), abs(found[1] / n_w - 1), abs(n / n_w - 1)]
    gaps.append(float(np.abs(unit - np.where(allowed, (W - mean) / n_w, 0)).max()))
    # All pairs: every mean is over the whole matrix.
    whole = normalised(W)
    gaps.append(float(np.abs(whole[0] - (W - W.mean()) / W.std()).max()))
    # Gradients of a linear function of the normalised potentials.
    g = rng.standard_normal((k, k))
    for mask in (allowed, None):

        def linear(x: Doubles, mask: Any = mask) -> float:
            return float(np.vdot(normalised(x, mask)[0], g))

        gradient = normalised_gradient(g, *normalised(W, mask), mask)
        gaps.append(slope_error(linear, W, gradient, rng) / 1e4)
    # As in training: the same function of the raw array, with the norms of the batch.
    data = make_chain_dataset(8, 5, k, 4, rng=rng)
    model = ChainCRF(mlp(4, (), k, rng=rng), W)
    gaps.append(_parametrised(model, data, rng) / 1e4)
    gaps.append(float(np.abs(bigram_potentials(data, k, smoothing=0.5) - _bigrams(data, k, Fraction(1, 2))).max()))
    other = float(np.abs(bigram_potentials(data, k, smoothing=0.5) - _bigrams(data, k, Fraction(11, 20))).max())
    everywhere = abs(found[1] / float(W.std()) - 1)
    return Evidence(measured=largest(gaps), tolerance=1e-12, control=min(other, everywhere))


def _parametrised(model: ChainCRF, data: Any, rng: np.random.Generator) -> float:
    """The error of the gradient of the loss in the raw pairwise array of a fixed ratio."""
    trained = Parametrisation(OfflineScaling(ratio=2.0))
    trained.observe(model.unary_scale * model.unary(data))

    def loss(raw: Doubles) -> float:
        return trained.apply(replace(model, pairwise=raw)).loss(data)

    raw = model.pairwise.copy()
    pulled = trained.apply(model)
    return slope_error(loss, raw, trained.pull_back(pulled.loss_and_grads(data)[1].pairwise), rng)


def _bigrams(data: Any, k: int, smoothing: Fraction) -> Doubles:
    counts = [[smoothing] * k for _ in range(k)]
    for row in data.split(data.known_labels):
        for a, b in pairwise(row.tolist()):
            counts[a][b] += 1
    total = sum(map(sum, counts), Fraction(0))
    left, right = [sum(row, Fraction(0)) for row in counts], [sum(column, Fraction(0)) for column in zip(*counts)]
    return np.array([[math.log(counts[a][b] * total / (left[a] * right[b])) for b in range(k)] for a in range(k)])


@claim(
    "structured/scale-diagnosis",
    statement="the diagnosis of a model gives its norms, its best pairwise scale and the gain from that scale",
    tex=r"\min_s L(U, sW),\quad n_U / n_W",
    reference="derived here",
    hypotheses=(
        by_construction("the best scale is inside the range that is searched", code="abs(np.log2(found.factor)) <"),
    ),
    control="the scale ten percent larger",
    derivation="derivations/two-scales.md",
)
def diagnosed(rng: np.random.Generator) -> Evidence:
    while True:  # until the best scale for the data is neither 0 nor infinite
        data = make_chain_dataset(20, 5, 3, 4, rng=rng)
        model = ChainCRF(mlp(4, (), 3, rng=rng), bigram_potentials(data, 3), 1.3, float(rng.uniform(0.1, 3.0)))
        found = scale_diagnosis(model, data)
        if abs(np.log2(found.factor)) < WIDEST - 0.1:
            break
    U, W = 1.3 * model.unary(data), model.pairwise_scale * model.pairwise
    n_u = float(np.sqrt(np.mean((U - U.mean(axis=-1, keepdims=True)) ** 2)))
    n_w = float(W.std())
    gaps = [abs(found.unary_norm / n_u - 1), abs(found.pairwise_norm / n_w - 1), abs(found.ratio * n_w / n_u - 1)]

    def loss(scale: float) -> float:
        return replace(model, pairwise_scale=scale).loss(data)

    best = found.best_pairwise_scale
    gaps += [abs(found.factor * model.pairwise_scale / best - 1)]
    gaps += [abs(loss(model.pairwise_scale) - loss(best) - found.gain) / loss(best)]
    # At the best scale the loss rises on either side: by the second order, which the tolerance of the search hides.
    low, high = (1e2 * largest(0.0, 1 - loss(factor * best) / loss(best)) for factor in (0.98, 1.02))
    off = min(loss(1.1 * best * factor) / loss(1.1 * best) - 1 for factor in (0.98, 1.02))
    return Evidence(measured=largest(*gaps, low, high), tolerance=1e-11, control=-off)


@claim(
    "structured/fitted-scales",
    statement="at the fitted scales the mean of the two totals under the model equals that of the labels",
    tex=r"E_P[(U, P)] = (U, P)(Y)",
    reference="derived here",
    control="scales ten percent larger",
    derivation="derivations/two-scales.md",
)
def fitted_scales(rng: np.random.Generator) -> Evidence:
    n, k = 40, 2
    U, W, labels = rng.normal(size=(n, 2, k)), rng.normal(size=(k, k)), rng.integers(0, k, (n, 2))
    fit = fit_scales(U, W, labels)

    def off(factor: float) -> float:
        """The distance between the two means, from all four labelings of each pair of positions."""
        a, b = factor * fit.unary_scale, factor * fit.pairwise_scale
        total_u = U[:, 0, :, None] + U[:, 1, None, :]
        p = np.exp(a * total_u + b * W)
        p /= p.sum(axis=(1, 2), keepdims=True)
        rows = np.arange(n)
        first = (p * total_u).sum() - total_u[rows, labels[:, 0], labels[:, 1]].sum()
        second = (p * W).sum() - W[labels[:, 0], labels[:, 1]].sum()
        return float(np.hypot(first, second)) / n

    value = float(np.mean(_losses(U, W, labels, fit.unary_scale, fit.pairwise_scale)))
    return Evidence(
        measured=largest(off(1.0), abs(fit.value / value - 1)) if fit.success else np.inf,
        tolerance=1e-7,
        control=off(1.1),
    )


def _losses(U: Doubles, W: Doubles, labels: Any, a: float, b: float) -> Doubles:
    F = a * (U[:, 0, :, None] + U[:, 1, None, :]) + b * W
    return np.asarray(np.log(np.exp(F).sum(axis=(1, 2))) - F[np.arange(len(F)), labels[:, 0], labels[:, 1]])
