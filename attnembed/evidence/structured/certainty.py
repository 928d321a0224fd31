"""Claims about nearly certain labels, for which 1 - P has no digits left."""

from __future__ import annotations

from decimal import Decimal, localcontext
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Doubles
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.evidence.structured.inference import labelings
from attnembed.structured.chain import chain_viterbi
from attnembed.structured.objectives import chain_objective

_DIGITS = 60  # plus as many as the potentials differ by


@claim(
    "structured/certain-labels",
    statement="losses and gradients of the likelihoods keep their relative accuracy down to e^{-600}",
    tex=r"\log(1 + \textstyle\sum_{Y'\ne Y}e^{F(Y')-F(Y)}),\quad \nabla\log Z - \nabla F(Y)",
    reference="derived here; compared with decimals of 60 to 360 digits over all labelings",
    control="log Z - F(Y) as a difference of floats",
    derivation="derivations/chain-marginals.md",
)
def certain_labels(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for k, spread in ((2, 1.0), (2, 30.0), (3, 6.0), (3, 60.0), (2, 250.0)):
        for kind in (np.float64, np.float32) if spread < 50 else (np.float64,):
            unary = (spread * rng.standard_normal((3, k))).astype(kind)
            pairwise = (spread * rng.standard_normal((k, k))).astype(kind)
            labels = chain_viterbi(unary, pairwise)
            # Each term of an exponent carries a rounding error of its own size.
            unit = 64 * float(np.finfo(kind).eps) * max(1.0, 4 * spread)
            for name in ("nll", "marginal", "pseudolikelihood"):
                value, slopes, plain = _exact(name, unary, pairwise, labels)
                if value < Decimal(float(np.finfo(kind).tiny)) * 10**8:
                    continue  # single-precision gradients have no digits there
                out = chain_objective(name, unary, pairwise, labels)
                worst = largest(worst, float(abs(Decimal(out.value) / value - 1)) / unit)
                # Relative to both: labelings with the same pairs leave next to nothing in W.
                size = max(abs(x) for exact in slopes for x in exact.ravel())
                for found, exact in zip((out.unary, out.pairwise), slopes):
                    off = max(abs(Decimal(float(a)) - b) for a, b in zip(found.ravel(), exact.ravel()))
                    worst = largest(worst, float(off / size) / unit)
                control = max(control, float(abs(Decimal(plain) / value - 1)) / unit)
    return Evidence(measured=worst, tolerance=1.0, control=control)


def _exact(
    name: str, unary: Any, pair: Any, labels: NDArray[np.integer[Any]]
) -> tuple[Decimal, tuple[NDArray[Any], NDArray[Any]], float]:
    """The value of an objective, its gradients in U and W, and log Z - F(Y) as a difference of floats."""
    length, k = unary.shape
    every = labelings(length, k)
    with localcontext() as context:
        context.prec = _DIGITS + int(1.2 * max(float(np.ptp(unary)), float(np.ptp(pair))))
        u, w = (np.array([Decimal(float(x)) for x in part.ravel()]).reshape(part.shape) for part in (unary, pair))
        stats = [_statistics(y, k) for y in every]
        F = [sum(u[np.arange(length), y]) + sum(w[y[:-1], y[1:]]) for y in every]
        own = _statistics(labels, k)
        mine = sum(u[np.arange(length), labels]) + sum(w[labels[:-1], labels[1:]])
        weights = [(x - mine).exp() for x in F]
        value, slopes = Decimal(0), [0 * own[0], 0 * own[1]]
        if name == "nll":
            groups = [(list(range(len(every))), [bool((y == labels).all()) for y in every])]
        elif name == "marginal":
            groups = [(list(range(len(every))), [bool(y[i] == labels[i]) for y in every]) for i in range(length)]
        else:
            near = [[m for m, y in enumerate(every) if (np.delete(y != labels, i) == 0).all()] for i in range(length)]
            groups = [(some, [bool((y == labels).all()) for y in every]) for some in near]
        for members, kept in groups:
            # -log P(kept); its gradient is E - E[. | kept] = P(not kept) (E[. | not kept] - E[. | kept]).
            inside = sum((weights[m] for m in members if kept[m]), Decimal(0))
            outside = sum((weights[m] for m in members if not kept[m]), Decimal(0))
            value += (1 + outside / inside).ln()
            for part in (0, 1):
                means = [
                    sum((weights[m] * stats[m][part] for m in members if kept[m] == wanted), 0 * own[part]) / total
                    for wanted, total in ((True, inside), (False, outside))
                ]
                slopes[part] = slopes[part] + (means[1] - means[0]) * (outside / (inside + outside))
        floats: Doubles = np.array([float(x) for x in F])
        return value, (slopes[0], slopes[1]), float(np.logaddexp.reduce(floats) - float(mine))


def _statistics(y: NDArray[np.integer[Any]], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Indicators of the labels and counts of the pairs of a labeling, as decimals."""
    node, pair = np.full((len(y), k), Decimal(0)), np.full((k, k), Decimal(0))
    for t, label in enumerate(y):
        node[t, label] += 1
    for a, b in pairwise(y.tolist()):
        pair[a, b] += 1
    return node, pair
