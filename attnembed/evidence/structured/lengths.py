"""Claims about long chains, which are cut into blocks, checked against a plain recursion over positions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from attnembed._typing import Doubles
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.structured.chain import (
    chain_log_partition,
    chain_marginals,
    chain_sample,
    chain_score,
    chain_viterbi,
)
from attnembed.structured.objectives import chain_objective


@claim(
    "structured/long-chains",
    statement="log Z, marginals, best labelings and gradients of chains of hundreds of positions are correct",
    tex=r"\alpha_{t+1}(l) = U_{t+1}(l) + \log\textstyle\sum_k e^{\alpha_t(k) + W(k, l)}",
    reference="derived here; compared with the plain recursion in logarithms",
    control="W ten percent larger",
    derivation="derivations/chain-marginals.md",
)
def long_chains(rng: np.random.Generator) -> Evidence:
    worst, control = 0.0, np.inf
    for k, spread, forbidden in ((2, 1.0, False), (3, 40.0, False), (3, 2.0, True), (4, 600.0, True)):
        lengths = np.array([180, int(rng.integers(130, 180))])
        unary, pairwise = spread * rng.standard_normal((2, 180, k)), spread * rng.standard_normal((k, k))
        if forbidden:
            # Anywhere, including the ends of the blocks.
            pairwise[0, 1] = -np.inf
            for row in unary:
                row[rng.choice(130, 40, replace=False), rng.integers(0, k)] = -np.inf
        truth = [_plain(u[:length], pairwise) for u, length in zip(unary, lengths)]
        worst = largest(worst, _off(unary, pairwise, lengths, truth))
        control = min(control, _off(unary, 1.1 * pairwise, lengths, truth))
    return Evidence(measured=worst, tolerance=1e-11, control=control)


_Truth = tuple[float, Doubles, Doubles, float]


def _off(unary: Doubles, used: Doubles, lengths: NDArray[np.integer[Any]], truth: list[_Truth]) -> float:
    """The largest error of the results with the pairwise potentials ``used``."""
    found = chain_marginals(unary, used, lengths)
    best, log_Z = chain_viterbi(unary, used, lengths), chain_log_partition(unary, used, lengths)
    gaps = []
    for i, (length, (exact_log_Z, node, edge, score)) in enumerate(zip(lengths, truth)):
        size = max(1.0, abs(exact_log_Z), abs(score))
        gaps += [abs(float(found.log_partition[i]) - exact_log_Z) / size, abs(float(log_Z[i]) - exact_log_Z) / size]
        gaps.append((score - float(chain_score(unary[i, :length], used, best[i, :length]))) / size)
        # Scores of this size carry proportional rounding errors, as do their exponentials.
        wide = max(1.0, float(np.abs(unary[np.isfinite(unary)]).max()) / 10)
        gaps.append(float(np.abs(found.node[i, :length] - node).max()) / wide)
        gaps.append(1e3 * float(np.abs(found.node[i, :length].sum(axis=1) - 1).max()))
        gaps.append(float(np.abs(found.edge[i, : length - 1] - edge).max()) / wide)
        # The gradient of log Z - F(Y) at the best labeling: node marginals less the labels.
        at = chain_objective("nll", unary[i, :length], used, best[i, :length])
        gaps.append(float(np.abs(at.unary - (node - np.eye(node.shape[1])[best[i, :length]])).max()) / wide)
    return largest(gaps)


def _plain(unary: Doubles, pairwise: Doubles) -> _Truth:
    """log Z, node and edge marginals and the best score, position by position in logarithms."""
    length = len(unary)
    forward, backward, best = unary.copy(), np.zeros_like(unary), unary[0]
    with np.errstate(divide="ignore"):
        for t in range(1, length):
            forward[t] += np.logaddexp.reduce(forward[t - 1][:, None] + pairwise, axis=0)
            best = unary[t] + (best[:, None] + pairwise).max(axis=0)
        for t in range(length - 2, -1, -1):
            backward[t] = np.logaddexp.reduce(pairwise + (unary[t + 1] + backward[t + 1]), axis=1)
    log_Z = float(logsumexp(forward[-1]))
    edge = forward[:-1, :, None] + pairwise + (unary[1:] + backward[1:])[:, None]
    # Normalised by their own sums, because log Z of a long chain has lost the last digits of each.
    node = np.exp(forward + backward - logsumexp(forward + backward, axis=1, keepdims=True))
    return log_Z, node, np.exp(edge - logsumexp(edge, axis=(1, 2), keepdims=True)), float(best.max())


@claim(
    "structured/long-samples",
    statement="samples of a long chain follow its distribution, and small differences decide even beside large scores",
    tex=r"P(y_t = y^*_t) \ge 1 - 10^{-12};\quad \hat Y = \arg\max_Y F(Y)",
    reference="derived here",
    control="the same labels one position later; and the scores summed from the start",
    derivation="derivations/chain-marginals.md",
)
def long_samples(rng: np.random.Generator) -> Evidence:
    # Nearly certain labels: each other label of a position costs e^{-60}, whatever its neighbours.
    k, length = 3, int(rng.integers(200, 300))
    path = rng.integers(0, k, length)
    unary, pairwise = 60.0 * np.eye(k)[path] + rng.uniform(-1, 1, (length, k)), rng.uniform(-1, 1, (k, k))
    wrong = int((chain_sample(unary, pairwise, rng=rng) != path).sum())
    wrong += int((chain_viterbi(unary, pairwise) != path).sum())
    # Labels 0 and 1 must alternate, at a cost of 10^9 per step; at the end 2 is as good as 1, up to 5e-6.
    steps, cost, lead = 101, 1e9, 5e-6
    tower = np.full((steps, 3), -3 * cost)
    tower[np.arange(steps), np.arange(steps) % 2] = 0
    tower[-1] = [-3 * cost, 0, -lead] if rng.random() < 0.5 else [-3 * cost, -lead, 0]
    # Once in 1, staying there costs as much as moving on to 2: nothing.
    switch = np.array([[0.0, -cost, -cost], [-cost, 0.0, 0.0], [-cost, -cost, 0.0]])
    wrong += int(chain_viterbi(tower, switch)[-1] != tower[-1].argmax())
    summed = 0.0 - cost * (steps - 1)
    lost = float(summed + lead == summed)  # in float64, added to the accumulated cost
    return Evidence(measured=float(wrong), tolerance=0.0, control=min(lost, float((np.roll(path, 1) != path).sum())))
