"""Claims about chains, checked by enumeration: objectives, samples, constraints and single precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import chi2

from attnembed._typing import Doubles
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.reference import enumerate_chain
from attnembed.structured.chain import (
    chain_log_partition,
    chain_marginals,
    chain_sample,
    chain_score,
    chain_viterbi,
)
from attnembed.structured.constraints import bio_constraints
from attnembed.structured.objectives import chain_objective

_OBJECTIVES = ("nll", "ssvm", "pseudolikelihood", "marginal", "unary")
_FALSE_ALARM = 1e-9


def labelings(length: int, k: int) -> NDArray[np.intp]:
    """All K^L labelings in lexicographic order, (K^L, L)."""
    return np.indices((k,) * length).reshape(length, -1).T


def scores(unary: Doubles, pairwise: Doubles, every: NDArray[np.intp]) -> Doubles:
    """F of each labeling of one chain."""
    own = unary[np.arange(every.shape[1]), every].sum(axis=1)
    return np.asarray(own + pairwise[every[:, :-1], every[:, 1:]].sum(axis=1))


@claim(
    "structured/objective-values",
    statement="each objective of a chain agrees with its definition, summed over all labelings",
    tex=r"\log Z - F(Y),\ \max_{Y'}[\Delta + F(Y')] - F(Y),\ -\sum_i\log P(y_i\mid y_{-i}),\ -\sum_i\log P(y_i)",
    reference="derived here",
    control="W ten percent larger",
    derivation="derivations/marginal-objective.md",
)
def objective_values(rng: np.random.Generator) -> Evidence:
    worst, control = 0.0, np.inf
    for spread in (0.1, 1.0, 20.0, 1000.0):
        unary, pairwise = spread * rng.normal(size=(4, 3)), spread * rng.normal(size=(3, 3))
        labels = rng.integers(0, 3, size=4)
        moved = 0.0
        for name in _OBJECTIVES:
            truth = _defined(name, unary, pairwise, labels)
            size = max(1.0, abs(truth))
            worst = largest(worst, abs(chain_objective(name, unary, pairwise, labels).value - truth) / size)
            moved = largest(moved, abs(chain_objective(name, unary, 1.1 * pairwise, labels).value - truth) / size)
        control = min(control, moved)
    return Evidence(measured=worst, tolerance=1e-12, control=control)


def _defined(name: str, unary: Doubles, pairwise: Doubles, labels: NDArray[np.intp]) -> float:
    """An objective of one chain by its definition."""
    length, k = unary.shape
    every = labelings(length, k)
    F = scores(unary, pairwise, every)
    own = float(scores(unary, pairwise, labels[None])[0])
    if name == "nll":
        return float(logsumexp(F)) - own
    if name == "ssvm":
        return float(((every != labels).mean(axis=1) + F).max()) - own
    total = 0.0
    for i in range(length):
        if name == "unary":
            total += float(logsumexp(unary[i])) - unary[i, labels[i]]
        elif name == "marginal":
            total += float(logsumexp(F) - logsumexp(F[every[:, i] == labels[i]]))
        else:
            others = np.delete(every != labels, i, axis=1).any(axis=1)
            total += float(logsumexp(F[~others])) - own
    return total


@claim(
    "structured/sampling",
    statement="samples follow P(Y): Pearson's statistic over all labelings stays below its quantile",
    tex=r"\sum_Y (N_Y - N P(Y))^2 / (N P(Y)) \le \chi^2_{1-10^{-9}}",
    reference="Pearson 1900; a true statement fails on one instance in 10^9, in the limit of many samples",
    control="comparison with P for all potentials ten percent larger",
    derivation="derivations/chain-marginals.md",
)
def sampling(rng: np.random.Generator) -> Evidence:
    n, every = 40_000, labelings(3, 3)
    unary, pairwise = 1.5 * rng.normal(size=(3, 3)), 1.5 * rng.normal(size=(3, 3))
    found = chain_sample(np.broadcast_to(unary, (n, 3, 3)), pairwise, rng=rng)
    counts = np.bincount(found @ [9, 3, 1], minlength=27)

    def statistic(factor: float) -> float:
        F = factor * scores(unary, pairwise, every)
        expected = n * np.exp(F - logsumexp(F))
        # Cells with few expected samples are merged, because the statistic would not be chi-square otherwise.
        few = expected < 20
        seen, due = (np.append(x[~few], x[few].sum()) for x in (counts, expected))
        value = float(np.sum((seen - due) ** 2 / np.maximum(due, 20)))
        return value / float(chi2.isf(_FALSE_ALARM, max(1, len(due) - 1)))

    return Evidence(measured=statistic(1.0), tolerance=1.0, control=statistic(1.1))


@claim(
    "structured/constraints",
    statement="forbidden labelings have probability 0 and are never drawn or decoded; P is renormalised on the rest",
    tex=r"P(Y) \propto e^{F(Y)}\,[Y \text{ allowed}],\quad F(Y) = s_{y_1} + \sum_i U + \sum_i W + e_{y_L}",
    reference="derived here",
    control="a forbidden pair that costs 10 instead",
    derivation="derivations/chain-marginals.md",
)
def constraints(rng: np.random.Generator) -> Evidence:
    tags = ["O", "B-X", "I-X", "B-Y", "I-Y"]
    allowed, first = bio_constraints(tags)
    free, k, length = rng.normal(size=(5, 5)), 5, 4
    unary, start, end = rng.normal(size=(length, k)), rng.normal(size=k), rng.normal(size=k)
    start[~first] = -np.inf
    # By the rule in words: I-Z only after B-Z and I-Z, and never first.
    every = [y for y in labelings(length, k) if _follows_bio([tags[label] for label in y])]
    legal = np.array(every)
    F = scores(unary, free, legal) + start[legal[:, 0]] + end[legal[:, -1]]
    P = np.exp(F - logsumexp(F))

    def error(pairwise: Doubles) -> float:
        ends: dict[str, Any] = {"start": start, "end": end}
        found = chain_marginals(unary, pairwise, **ends)
        node, edge = np.zeros((length, k)), np.zeros((length - 1, k, k))
        for y, p in zip(legal, P):
            node[np.arange(length), y] += p
            edge[np.arange(length - 1), y[:-1], y[1:]] += p
        drawn = [chain_sample(unary, pairwise, rng=rng, **ends) for _ in range(5)]
        drawn.append(chain_viterbi(unary, pairwise, **ends))
        broken = not np.array_equal(drawn[-1], legal[F.argmax()])
        broken |= any(not _follows_bio([tags[label] for label in y]) for y in drawn)
        outside = float(found.edge[:, ~allowed].max())  # exactly zero, not just small
        log_Z = float(chain_log_partition(unary, pairwise, **ends)) - float(logsumexp(F))
        score = float(chain_score(unary, pairwise, legal[0], **ends)) - F[0]
        gaps = [np.abs(found.node - node).max(), np.abs(found.edge - edge).max(), abs(log_Z), abs(score)]
        return largest(*map(float, gaps), np.inf if broken else 0.0, 1e3 * outside)

    return Evidence(
        measured=error(np.where(allowed, free, -np.inf)),
        tolerance=1e-13,
        control=error(np.where(allowed, free, -10.0)),
    )


def _follows_bio(names: list[str]) -> bool:
    before = ["O", *names]
    return all(not b.startswith("I") or a[1:] == b[1:] for a, b in zip(before, names))


@claim(
    "structured/single-precision",
    statement="in float32, log Z, marginals, best labelings and objectives agree with float64 on the same numbers",
    tex=r"|x_{32} - x_{64}| \le 10^{-5} \max(1, |x_{64}|)",
    reference="derived here",
    control="potentials rounded to float16",
    derivation="derivations/chain-marginals.md",
)
def single_precision(rng: np.random.Generator) -> Evidence:
    worst, control = 0.0, np.inf
    for spread in (0.1, 1.0, 30.0):
        unary = (spread * rng.normal(size=(6, 3))).astype(np.float32)
        pairwise = (spread * rng.normal(size=(3, 3))).astype(np.float32)
        labels = rng.integers(0, 3, size=6)

        def off(u: Any, w: Any, exact: tuple[Any, Any] = (unary, pairwise), y: Any = labels) -> float:
            U, W = (np.asarray(x, dtype=np.float64) for x in exact)
            truth, found = enumerate_chain(U, W), chain_marginals(u, w)
            size = max(1.0, abs(truth.log_partition))
            gaps = [
                abs(float(found.log_partition) - truth.log_partition) / size,
                float(np.abs(found.node - truth.node).max()),
                float(np.abs(found.edge - truth.edge).max()),
                (truth.score - float(chain_score(U, W, chain_viterbi(u, w)))) / size,
            ]
            for name in _OBJECTIVES:
                one, other = chain_objective(name, u, w, y), chain_objective(name, U, W, y)
                gaps.append(abs(one.value - other.value) / max(1.0, other.value))
                gaps.append(float(np.abs(one.unary - other.unary).max()))
                gaps.append(float(np.abs(one.pairwise - other.pairwise).max()))
            return largest(gaps)

        worst = largest(worst, off(unary, pairwise))
        half = [x.astype(np.float16).astype(np.float32) for x in (unary, pairwise)]
        control = min(control, off(half[0], half[1]))
    return Evidence(measured=worst, tolerance=1e-5, control=control)
