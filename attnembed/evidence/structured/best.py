"""Claims about the k best labelings of a chain, the best labels one by one, and the enclosure of log Z."""

from __future__ import annotations

import itertools
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Doubles
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.evidence.structured.inference import labelings, scores
from attnembed.reference import enumerate_chain
from attnembed.structured.certified import chain_log_partition_enclosure
from attnembed.structured.chain import chain_log_partition, chain_viterbi
from attnembed.structured.decoding import chain_k_best, chain_posterior_decode

_PAGE = "derivations/chain-marginals.md"


@claim(
    "structured/k-best",
    statement="the k best labelings are the first k in the order of scores, with ties broken by the smaller label",
    tex=r"F(Y^{(1)}) \ge \dots \ge F(Y^{(k)}) \ge F(Y),\ Y\notin\{Y^{(1)},\dots,Y^{(k)}\}",
    reference="derived here; compared with all labelings",
    control="W transposed",
    derivation=_PAGE,
)
def k_best(rng: np.random.Generator) -> Evidence:
    worst, missed = 0.0, 0.0
    for number in (1, 2, 5, 40):
        # Small integers: scores are exact, and many are equal; a pair and a label are forbidden.
        unary = rng.integers(-3, 4, size=(3, 5, 3)).astype(np.float64)
        pairwise = rng.integers(-3, 4, size=(3, 3)).astype(np.float64)
        pairwise[0, 1] = unary[0, 2, 1] = -np.inf
        # So far below that the first label is decided by it alone.
        unary[1, 0, 0] -= 40.0
        lengths = np.array([5, 4, 1])
        found = chain_k_best(unary, pairwise, number, lengths)
        turned = chain_k_best(unary, pairwise.T, number, lengths)
        for row, length in enumerate(lengths.tolist()):
            labels, values = _ranked(unary[row, :length], pairwise, number)
            wanted = np.full((number, 5), -1)
            wanted[: len(labels), :length] = labels
            expected = np.full(number, -np.inf)
            expected[: len(labels)] = values
            worst += float((found.labels[row] != wanted).any() or (found.scores[row] != expected).any())
            missed += float((turned.scores[row] != expected).any())
    return Evidence(measured=worst, tolerance=0.0, control=missed)


def _ranked(unary: Doubles, pairwise: Doubles, number: int) -> tuple[NDArray[np.intp], Doubles]:
    """The first labelings of one chain, and their scores: equal ones by the last label, then the one before."""
    every = labelings(*unary.shape)
    every = every[np.isfinite(values := scores(unary, pairwise, every))]
    values = values[np.isfinite(values)]
    order = np.lexsort((*every.T, -values))[:number]
    return every[order], values[order]


@claim(
    "structured/posterior-decoding",
    statement="no labeling has fewer wrong labels on average than the most probable label at each position",
    tex=r"\hat y_i = \arg\max_k P(y_i = k)\ \Rightarrow\ E[\Delta(Y, \hat Y)] = \min_{Y'} E[\Delta(Y, Y')]",
    reference="derived here; compared with all labelings",
    control="the best labeling",
    derivation=_PAGE,
)
def posterior_decoding(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for _ in range(12):
        unary, pairwise = rng.normal(size=(5, 3)), 2 * rng.normal(size=(3, 3))
        node, every = enumerate_chain(unary, pairwise).node, labelings(5, 3)
        wrong = 5 - node[np.arange(5), every].sum(axis=1)

        def excess(labels: NDArray[np.integer], node: Doubles = node, least: float = float(wrong.min())) -> float:
            return 5 - float(node[np.arange(5), labels].sum()) - least

        worst = largest(worst, excess(chain_posterior_decode(unary, pairwise)))
        control = max(control, excess(chain_viterbi(unary, pairwise)))
    return Evidence(measured=worst, tolerance=1e-12, control=control)


@claim(
    "structured/log-partition-enclosure",
    statement="the enclosure of log Z contains the exact one, and is at most three floats wide",
    tex=r"\mathrm{low} \le \log Z \le \mathrm{high}",
    reference="derived here; compared with decimals of 80 digits over all labelings",
    control="the result of the recursion in floats as both ends",
    derivation="derivations/enclosures.md",
)
def log_partition_enclosure(rng: np.random.Generator) -> Evidence:
    worst = missed = 0.0
    for spread in (1e-3, 0.3, 1.0, 20.0, 700.0, 1e5):
        unary, pairwise = spread * rng.normal(size=(4, 3)), spread * rng.normal(size=(3, 3))
        pairwise[0, 2] = -np.inf
        with localcontext() as context:
            context.prec = 80
            context.Emin, context.Emax = -(10**9), 10**9
            total = Decimal(0)
            for y in labelings(4, 3).tolist():
                terms = [unary[i, k] for i, k in enumerate(y)] + [pairwise[a, b] for a, b in itertools.pairwise(y)]
                if np.isfinite(terms).all():
                    total += sum((Decimal(float(x)) for x in terms), Decimal(0)).exp()
            exact = total.ln()

            def outside(low: float, high: float, exact: Decimal = exact) -> bool:
                return not Decimal(low) <= exact <= Decimal(high)

            low, high = chain_log_partition_enclosure(unary, pairwise)
            worst += float(outside(low, high) or high - low > 3 * float(np.spacing(max(abs(low), abs(high)))))
            plain = float(chain_log_partition(unary, pairwise))
            missed += float(outside(plain, plain))
    return Evidence(measured=worst, tolerance=0.0, control=missed)
