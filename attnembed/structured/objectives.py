"""Objectives on chains: value and gradient with respect to the potentials, averaged over sequences.

For labels Y and F(Y) = sum_i U[i, y_i] + sum_i W[y_i, y_{i+1}]:

| name             | value                                        | gradient in U                       |
|------------------|----------------------------------------------|-------------------------------------|
| nll              | log Z - F(Y)                                 | mu_i - onehot(y_i)                  |
| ssvm             | max_Y' [Delta(Y, Y') + F(Y')] - F(Y)         | onehot(Y') - onehot(Y)              |
| pseudolikelihood | -sum_i log q_i(y_i)                          | q_i - onehot(y_i)                   |
| marginal         | -sum_i log mu_i(y_i)                         | see docs/derivations/marginal-objective.md |
| unary            | -sum_i log softmax(U_i)[y_i]                 | softmax(U_i) - onehot(y_i)          |

mu are the marginals, q_i the conditional of y_i given its neighbours' labels, Delta the share of wrong labels. The
objectives of grids, on the same names, are in `grid`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from attnembed._validation import as_array, check_choice, check_positive
from attnembed.structured.chain import ChainBatch, decode, posterior, score
from attnembed.structured.packing import Packing

__all__ = ["CHAIN_OBJECTIVES", "ObjectiveValue", "chain_objective", "loss_augmented"]

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


class ObjectiveValue(NamedTuple):
    """An objective and its gradient in the potentials, of the shapes of the potentials."""

    value: float
    unary: Floats
    pairwise: Floats


def nll(unary: Floats, pairwise: Floats, labels: Ints, packing: Packing) -> ObjectiveValue:
    """Negative log-likelihood, log Z - F(Y) >= 0."""
    p = posterior(unary, pairwise, packing)
    value = np.mean(p.log_partition - score(unary, pairwise, labels, packing))
    n = len(packing)
    d_unary = np.multiply(p.node, 1 / n, out=p.node).T.astype(unary.dtype, copy=False)
    d_unary[np.arange(len(labels)), labels] -= 1 / n
    d_pairwise = (p.pair_counts() - _pair_counts(labels, len(pairwise), packing)) / n
    return ObjectiveValue(float(value), d_unary, d_pairwise)


def ssvm(unary: Floats, pairwise: Floats, labels: Ints, packing: Packing) -> ObjectiveValue:
    """Margin-rescaled structured hinge loss (Tsochantaridis et al. 2005) with the Hamming distance over L."""
    n, k = len(packing), len(pairwise)
    weight = (1 / packing.lengths)[packing.sequence]
    augmented = _augment(unary, labels, weight)
    rival = decode(augmented, pairwise, packing)
    value = np.mean(score(augmented, pairwise, rival, packing) - score(unary, pairwise, labels, packing))
    d_unary = np.zeros_like(unary)
    rows = np.arange(len(labels))
    d_unary[rows, rival] += 1 / n
    d_unary[rows, labels] -= 1 / n
    d_pairwise = (_pair_counts(rival, k, packing) - _pair_counts(labels, k, packing)) / n
    return ObjectiveValue(float(value), d_unary, d_pairwise)


def pseudolikelihood(unary: Floats, pairwise: Floats, labels: Ints, packing: Packing) -> ObjectiveValue:
    """Minus the log of the product of conditionals given the neighbours' labels (Besag 1975)."""
    left, right, n = packing.left, packing.right, len(packing)
    logits = np.array(unary, order="C")
    logits[right] += pairwise[labels[left]]
    logits[left] += pairwise.T[labels[right]]
    value, residual = _cross_entropy(logits, labels, n)
    d_pairwise = _gather_rows(labels[left], residual[right], len(pairwise))
    d_pairwise += _gather_rows(labels[right], residual[left], len(pairwise)).T
    return ObjectiveValue(value, residual, d_pairwise)


def marginal(unary: Floats, pairwise: Floats, labels: Ints, packing: Packing) -> ObjectiveValue:
    """Minus the sum of the log-marginals of the labels (Kakade et al. 2002), for the Hamming loss.

    The gradient is sum_i (E[stat] - E[stat | y_i]). The posterior is a Markov chain, so that the sum over i of the
    conditional distributions of y_t obeys one recursion in each direction: ahead_t = P_t^T ahead_{t-1} + onehot(y_t)
    collects the conditions at or before t, behind_t those at or after t. P_t are conditionals edge / node, in [0, 1].
    """
    p, n, rows = posterior(unary, pairwise, packing), len(packing), np.arange(len(labels))
    # A marginal that underflows needs logarithms; other labels' may, since P(y_t = k | y_i) <= mu_t(k) / mu_i(y_i).
    if p.log_node is None and p.node[labels, rows].min() < np.sqrt(np.finfo(p.node.dtype).tiny):
        p = posterior(unary, pairwise, packing, log_domain=True)
    log_marginal = np.log(p.node[labels, rows]) if p.log_node is None else p.log_node[labels, rows]
    onehot = np.zeros_like(p.node)
    onehot[labels, rows] = 1
    length = packing.lengths[packing.sequence].astype(p.node.dtype)
    # Every condition lies at or before the left end of an edge, or at or after the right end.
    ahead, pairs_ahead = p.carry("left", onehot)
    behind, pairs_behind = p.carry("right", onehot)
    d_pairwise = p.pair_counts(length) - pairs_ahead - pairs_behind
    d_unary = (length * p.node - (ahead + behind - onehot)) / n
    return ObjectiveValue(-float(log_marginal.sum()) / n, d_unary.T.astype(unary.dtype, copy=False), d_pairwise / n)


def unary_only(unary: Floats, pairwise: Floats, labels: Ints, packing: Packing) -> ObjectiveValue:
    """Cross-entropy of each position on its own: the objective of the first training stage."""
    value, residual = _cross_entropy(unary, labels, len(packing))
    return ObjectiveValue(value, residual, np.zeros_like(pairwise))


CHAIN_OBJECTIVES: dict[str, Callable[[Floats, Floats, Ints, Packing], ObjectiveValue]] = {
    "nll": nll,
    "ssvm": ssvm,
    "pseudolikelihood": pseudolikelihood,
    "marginal": marginal,
    "unary": unary_only,
}


def chain_objective(
    objective: str,
    unary: ArrayLike,
    pairwise: ArrayLike,
    labels: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> ObjectiveValue:
    """Value and gradient of an objective; potentials and ``lengths`` as in `chain.chain_log_partition`.

    The gradient in ``start`` is that in the unary potentials of the first positions, summed over the sequences, and
    that in ``end`` the one of the last positions.

    Parameters
    ----------
    objective : "nll", "ssvm", "pseudolikelihood", "marginal" or "unary"
    labels : (L,) or (B, L) int

    Returns
    -------
    ObjectiveValue, gradients zero in the padding

    >>> out = chain_objective("nll", np.zeros((2, 2)), np.zeros((2, 2)), [0, 1])
    >>> round(out.value, 6), out.unary
    (1.386294, array([[-0.5,  0.5],
           [ 0.5, -0.5]]))
    """
    name = check_choice("objective", objective, CHAIN_OBJECTIVES)
    batch = ChainBatch(unary, pairwise, lengths, start, end)
    out = CHAIN_OBJECTIVES[name](batch.unary, batch.pairwise, batch.pack_labels(labels), batch.packing)
    return out._replace(unary=batch.pad(out.unary))


def loss_augmented(
    unary: ArrayLike, labels: ArrayLike, lengths: ArrayLike | None = None, *, weight: float = 1.0
) -> Floats:
    """U[i, k] + (weight / L) [k != y_i], so that Viterbi maximises F(Y') + weight * Delta(Y, Y').

    Shapes as in `chain_objective`; padded entries are returned as zero.

    >>> loss_augmented(np.zeros((2, 2)), [0, 1])
    array([[0. , 0.5],
           [0.5, 0. ]])
    """
    check_positive("weight", weight, zero_ok=True)
    k = as_array("unary", unary).shape[-1:] or (1,)
    batch = ChainBatch(unary, np.zeros(2 * k), lengths)
    row_weight = (weight / batch.packing.lengths)[batch.packing.sequence]
    return batch.pad(_augment(batch.unary, batch.pack_labels(labels), row_weight))


def _augment(unary: Floats, labels: Ints, weight: Floats) -> Floats:
    out = unary + weight[:, None].astype(unary.dtype)
    rows = np.arange(len(labels))
    out[rows, labels] = unary[rows, labels]
    return out


def _pair_counts(labels: Ints, k: int, packing: Packing) -> Floats:
    pairs = labels[packing.left] * k + labels[packing.right]
    return np.bincount(pairs, minlength=k * k).reshape(k, k).astype(np.float64)


def _cross_entropy(logits: Floats, labels: Ints, n: int) -> tuple[float, Floats]:
    """-sum_i log softmax(logits_i)[y_i] / n and its gradient."""
    log_q = log_softmax(logits, axis=-1)
    rows = np.arange(len(labels))
    residual = np.exp(log_q)
    residual[rows, labels] -= 1
    return -float(log_q[rows, labels].sum()) / n, residual / n


def _gather_rows(index: Ints, rows: Floats, k: int) -> Floats:
    """out[j] = sum of the rows whose index is j, (k, ...)."""
    pick = sp.csr_array((np.ones(len(index), rows.dtype), index, np.arange(len(index) + 1)), shape=(len(index), k))
    return pick.T @ rows
