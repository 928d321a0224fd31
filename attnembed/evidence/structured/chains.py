"""Claims about inference on chains and grids, and about the objectives and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed import gibbs
from attnembed._typing import Doubles, Floats
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.evidence.structured.instances import Batch, random_batch
from attnembed.reference import enumerate_chain, enumerate_grid
from attnembed.structured.chain import chain_log_partition, chain_marginals, chain_score, chain_viterbi
from attnembed.structured.grid import grid_icm, grid_map, grid_score
from attnembed.structured.objectives import chain_objective

# Exp domain, one shift per row or logarithms as needed, and wide potentials.
_SPREADS = (0.1, 1.0, 30.0, 2000.0)


@claim(
    "structured/log-partition-gradient",
    statement="the gradients of log Z in U and W are the node marginals and the expected pair counts",
    tex=r"\partial_{U_{ik}} \log Z = P(y_i=k),\quad \partial_{W_{kl}} \log Z = \sum_i P(y_i=k, y_{i+1}=l)",
    reference="derived here",
    control="the pair counts transposed",
    derivation="derivations/chain-marginals.md",
)
def log_partition_gradient(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for spread in _SPREADS[:3]:
        batch = random_batch(rng, spread=spread)
        found = chain_marginals(batch.unary, batch.pairwise, batch.lengths)
        counts = found.edge.sum(axis=(0, 1))

        def of_unary(u: Doubles, batch: Batch = batch) -> float:
            return float(chain_log_partition(u, batch.pairwise, batch.lengths).sum())

        def of_pairwise(w: Doubles, batch: Batch = batch) -> float:
            return float(chain_log_partition(batch.unary, w, batch.lengths).sum())

        worst = largest(worst, slope_error(of_unary, batch.unary, found.node, rng))
        worst = largest(worst, slope_error(of_pairwise, batch.pairwise, counts, rng))
        control = max(control, slope_error(of_pairwise, batch.pairwise, counts.T, rng))
    return Evidence(measured=worst, tolerance=1e-8, control=control)


def slope_error(
    function: Callable[[Doubles], float],
    x: Floats,
    gradient: Floats,
    rng: np.random.Generator,
    *,
    step: float = 1e-3,
    directions: int = 2,
    beside: float = 0.0,
) -> float:
    """The error of a gradient along random directions, by differences of fourth order.

    It is relative to its norm, or to that of another one ``beside`` it whose terms it shares, if that is larger.
    """
    worst, norm = 0.0, max(float(np.linalg.norm(gradient)), beside)
    for _ in range(directions):
        d = rng.standard_normal(x.shape)
        d /= np.linalg.norm(d)
        near, far = (function(x + h * d) - function(x - h * d) for h in (step, 2 * step))
        worst = largest(worst, abs((8 * near - far) / (12 * step) - float(np.vdot(gradient, d))))
    return worst / norm if norm else worst


@claim(
    "structured/chain-enumeration",
    statement="log Z and all marginals agree with enumeration of all labelings, for narrow and wide potentials",
    tex=r"Z = \sum_Y e^{F(Y)}",
    reference="derived here",
    control="the recursion with W transposed",
    derivation="derivations/chain-marginals.md",
)
def chain_enumeration(rng: np.random.Generator) -> Evidence:
    def error(unary: Doubles, pairwise: Doubles, used: Doubles) -> float:
        truth, found = enumerate_chain(unary, pairwise), chain_marginals(unary, used)
        size = max(1.0, abs(truth.log_partition))
        gaps = (found.log_partition - truth.log_partition, found.node - truth.node, found.edge - truth.edge)
        return largest(float(np.abs(gap).max(initial=0)) for gap in gaps) / size

    worst = control = 0.0
    for spread in _SPREADS:
        unary, pairwise = spread * rng.normal(size=(5, 3)), spread * rng.normal(size=(3, 3))
        pairwise[0, 1] = unary[2, 1] = -np.inf
        worst = largest(worst, error(unary, pairwise, pairwise))
        control = max(control, error(unary, pairwise, pairwise.T))
    return Evidence(measured=worst, tolerance=1e-13, control=control)


@claim(
    "structured/viterbi-enumeration",
    statement="Viterbi, plain and loss-augmented, finds the best score of the enumeration",
    tex=r"\hat Y = \arg\max_Y F(Y)",
    reference="derived here",
    control="the best label at each position, without the pairwise part",
    derivation="derivations/chain-marginals.md",
)
def viterbi_enumeration(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for spread in _SPREADS:
        for _ in range(5):
            unary, pairwise = spread * rng.normal(size=(5, 3)), spread * rng.normal(size=(3, 3))
            best = enumerate_chain(unary, pairwise).score
            for labels, greedy in ((chain_viterbi(unary, pairwise), False), (unary.argmax(axis=1), True)):
                gap = (best - float(chain_score(unary, pairwise, labels))) / max(1.0, abs(best))
                worst, control = (worst, max(control, gap)) if greedy else (largest(worst, gap), control)
    return Evidence(measured=worst, tolerance=1e-14, control=control)


@claim(
    "structured/padding",
    statement="padding beyond the length of a sequence, even NaN, changes no result of the batch",
    tex=r"P(Y \mid U_{1:L}, \text{padding}) = P(Y \mid U_{1:L})",
    reference="derived here",
    control="the padded positions read as data",
    derivation="derivations/chain-marginals.md",
)
def padding(rng: np.random.Generator) -> Evidence:
    batch = random_batch(rng, n=6, length=7)
    beyond = np.arange(7) >= batch.lengths[:, None]
    alone = np.array([chain_log_partition(u[:m], batch.pairwise) for u, m in zip(batch.unary, batch.lengths)])
    hidden = np.where(beyond[..., None], np.nan, batch.unary)
    together = chain_log_partition(hidden, batch.pairwise, batch.lengths)
    read = chain_log_partition(batch.unary, batch.pairwise)
    return Evidence(
        measured=float(np.abs(together - alone).max() / np.abs(alone).max()),
        tolerance=1e-15,
        control=float(np.abs(read - alone).max() / np.abs(alone).max()),
    )


@claim(
    "structured/length-one",
    statement="a chain of length one is the softmax over the tokens of a sequence",
    tex=r"L = 1:\quad P(y) = e^{U_y} / \sum_k e^{U_k}",
    reference="derived here",
    control="a chain of length two with the same potentials",
    derivation="derivations/temperature.md",
)
def length_one(rng: np.random.Generator) -> Evidence:
    unary, pairwise = 5 * rng.normal(size=(6, 1, 4)), rng.normal(size=(4, 4))
    softmax = gibbs.probabilities(unary.ravel(), gibbs.Segments(np.arange(0, 25, 4)), np.ones(24)).reshape(6, 4)
    twice = chain_marginals(np.repeat(unary, 2, axis=1), pairwise).node[:, 0]
    return Evidence(
        measured=float(np.abs(chain_marginals(unary, pairwise).node[:, 0] - softmax).max()),
        tolerance=1e-14,
        control=float(np.abs(twice - softmax).max()),
    )


@claim(
    "structured/zero-pairwise",
    statement="with W = 0 a chain is a product of softmaxes, and all probabilistic objectives are the cross-entropy",
    tex=r"W = 0:\quad P(Y) = \prod_i \operatorname{softmax}(U_i)_{y_i}",
    reference="derived here",
    control="the same with a nonzero W",
    derivation="derivations/temperature.md",
)
def zero_pairwise(rng: np.random.Generator) -> Evidence:
    batch = random_batch(rng)

    def spread_of(pairwise: Doubles) -> float:
        names = ("unary", "nll", "pseudolikelihood", "marginal")
        values = [chain_objective(n, batch.unary, pairwise, batch.labels, batch.lengths).value for n in names]
        return largest(abs(value / values[0] - 1) for value in values)

    return Evidence(measured=spread_of(0 * batch.pairwise), tolerance=1e-14, control=spread_of(batch.pairwise))


@claim(
    "structured/temperature",
    statement="a common factor c of all potentials is temperature 1/c, P_c(Y) ~ P(Y)^c, and keeps the best labeling",
    tex=r"\log Z_c = c \log Z + \log \sum_Y P(Y)^c,\quad \arg\max_Y cF(Y) = \arg\max_Y F(Y)",
    reference="derived here",
    control="the factor only on the pairwise part",
    derivation="derivations/temperature.md",
)
def temperature(rng: np.random.Generator) -> Evidence:
    unary, pairwise = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
    every = np.array(list(np.ndindex(3, 3, 3, 3)))
    p = np.exp([float(chain_score(unary, pairwise, y)) for y in every] - chain_log_partition(unary, pairwise))
    best = chain_viterbi(unary, pairwise)

    def error(a: float, b: float, c: float) -> float:
        moved = float(np.any(chain_viterbi(a * unary, b * pairwise) != best))
        z = c * chain_log_partition(unary, pairwise) + np.log(np.sum(p**c))
        return largest(moved, abs(float(chain_log_partition(a * unary, b * pairwise)) / float(z) - 1))

    factors = (0.1, 3.0, 20.0)
    return Evidence(
        measured=largest(error(c, c, c) for c in factors),
        tolerance=1e-12,
        control=min(error(1, c, c) for c in factors),
    )


@claim(
    "structured/objective-gradients",
    statement="the gradients of all objectives in U and W are correct for any number of labels and width of potentials",
    tex=r"f(\theta + hd) - f(\theta - hd) = 2h\langle\nabla f, d\rangle + O(h^3)",
    reference="derived here",
    control="each gradient in U off by one part in a thousand",
    derivation="derivations/marginal-objective.md",
)
def objective_gradients(rng: np.random.Generator) -> Evidence:
    worst, control = 0.0, np.inf
    for name in ("nll", "ssvm", "pseudolikelihood", "marginal", "unary"):
        for k, spread in ((2, 1.0), (3, 1.0), (3, 30.0)):
            batch = random_batch(rng, k=k, spread=spread)
            out = chain_objective(name, *batch.arguments)
            # A maximum has kinks, and is linear between them.
            step = 1e-6 if name == "ssvm" else 1e-3

            def of_unary(u: Doubles, name: str = name, batch: Batch = batch) -> float:
                return chain_objective(name, u, batch.pairwise, batch.labels, batch.lengths).value

            def of_pairwise(w: Doubles, name: str = name, batch: Batch = batch) -> float:
                return chain_objective(name, batch.unary, w, batch.labels, batch.lengths).value

            error = slope_error(of_unary, batch.unary, out.unary, rng, step=step)
            # Labelings with the same pairs leave next to nothing in W of terms that are as large as in U.
            terms = float(np.linalg.norm(out.unary))
            in_pairs = slope_error(of_pairwise, batch.pairwise, out.pairwise, rng, step=step, beside=terms)
            worst = largest(worst, error, in_pairs)
            if spread == 1:
                control = min(control, slope_error(of_unary, batch.unary, 1.001 * out.unary, rng, step=step))
    return Evidence(measured=worst, tolerance=1e-6, control=control)


@claim(
    "structured/hinge-bounds-hamming",
    statement="the ssvm loss is at least the share of wrong labels of the best labeling",
    tex=r"\Delta(Y, \hat Y) \le \max_{Y'} [\Delta(Y, Y') + F(Y')] - F(Y)",
    reference="Tsochantaridis et al. 2005",
    control="the perceptron loss, max F - F(Y), which has no margin",
    derivation="derivations/hinge.md",
)
def hinge_bounds_hamming(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for spread in (0.01, 0.1, 1.0):
        for _ in range(10):
            batch = random_batch(rng, n=1, spread=spread)
            unary, labels = batch.unary[0], batch.labels[0]
            best = chain_viterbi(unary, batch.pairwise)
            wrong = float(np.mean(best != labels))
            hinge = chain_objective("ssvm", unary, batch.pairwise, labels).value
            perceptron = float(chain_score(unary, batch.pairwise, best) - chain_score(unary, batch.pairwise, labels))
            if wrong > 0:
                worst, control = largest(worst, wrong / hinge), max(control, wrong / perceptron)
    return Evidence(measured=worst, bound=1.0, control=control)


@claim(
    "structured/min-cut",
    statement="minimum cuts find a best labeling of every binary grid, for any W and potentials of any size",
    tex=r"F(\hat Y) = \max_Y F(Y)",
    reference="Greig, Porteous, Seheult 1989; signs and digits derived here",
    control="one cut of 30 bits; iterated conditional modes",
    derivation="derivations/min-cut.md",
)
def min_cut(rng: np.random.Generator) -> Evidence:
    # Integers, with two pixels tied by 2^40: every score is exact in floating point, and one unit is a mistake.
    worst = rounded = local = 0.0
    for sign in 4 * (1, -1):
        unary = rng.integers(-9, 10, size=(1, 3, 3, 2)).astype(np.float64)
        unary[0, 0, 0, 0] += 2.0**40
        unary[0, 2, 2, 1] += 2.0**40
        pairwise = rng.integers(-2, 3, size=(2, 2, 2)) + sign * 5 * np.eye(2)
        truth = enumerate_grid(unary[0], *pairwise).score

        def shortfall(
            labels: NDArray[np.integer[Any]], u: Doubles = unary, w: Doubles = pairwise, t: float = truth
        ) -> float:
            return t - float(grid_score(u, w, labels)[0])

        worst = largest(worst, shortfall(grid_map(unary, pairwise).labels))
        step = 2.0**40 / 2**30
        coarse = grid_map(step * np.rint(unary / step), step * np.rint(pairwise / step))
        rounded = max(rounded, shortfall(coarse.labels))
        local = max(local, shortfall(grid_icm(unary, pairwise)))
    return Evidence(measured=worst, tolerance=0.0, control=min(rounded, local))
