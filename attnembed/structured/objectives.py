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
objectives of grids are in `grid_objectives`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from attnembed._typing import Floats, Ints
from attnembed._validation import as_array, check_choice, check_positive
from attnembed.errors import InputError
from attnembed.gibbs import cross_entropy
from attnembed.structured.chain import ChainBatch, decode, largest, max_sum_dtype
from attnembed.structured.forward_backward import Posterior, posterior
from attnembed.structured.packing import Packing

__all__ = ["CHAIN_OBJECTIVES", "ObjectiveValue", "chain_objective", "loss_augmented"]


_WIDEST_IN_SINGLE = 16.0
_FEW = 2**16


class ObjectiveValue(NamedTuple):
    """An objective and its gradient in the potentials, in their shapes."""

    value: float
    unary: Floats
    pairwise: Floats


def nll(unary: Floats, pairwise: Floats, labels: Ints, packing: Packing) -> ObjectiveValue:
    """Negative log-likelihood, log Z - F(Y) >= 0, as the sum of -log P(y_1) and -log P(y_t | y_{t-1})."""
    if not min(unary.min(), pairwise.min()) > -np.inf:
        _true_potentials(unary, pairwise, labels, packing)  # for its errors
    n, p = len(packing), posterior(unary, pairwise, packing)
    while True:
        terms = _nll_terms if p.log_node is None else _nll_terms_in_logarithms
        losses, d_unary, d_pairwise, least = terms(p, labels)
        values = packing.sum(losses)
        # Both the smallest loss and the least likely label must be well above what underflow hides.
        needed = float(np.finfo(p.node.dtype).eps) * min(float(values.min()), float(np.exp(-losses.max())), least)
        if p.resolution <= needed or p.log_node is not None:  # no form is more precise
            break
        p = posterior(unary, pairwise, packing, resolution=needed)
    d_unary *= 1 / n
    return ObjectiveValue(float(values.mean()), d_unary.T.astype(unary.dtype, copy=False), d_pairwise / n)


def _nll_terms(p: Posterior, labels: Ints) -> tuple[Floats, Floats, Floats, float]:
    """In the exp domain: losses (N,), gradients (K, N) and (K, K), not averaged, and the least probability of a label.

    Overwrites the arrays of ``p``.
    """
    packing, n, k = p.packing, len(p.packing), len(p.transition)
    left, y, z = packing.left, labels[packing.left], labels[n:]
    own = labels * len(labels) + np.arange(len(labels))  # in arrays (K, N)
    node = p.node.ravel()[own].astype(np.float64)
    others = _others(p.node, own)
    after, pairs = p.after.ravel()[own[n:]].astype(np.float64), y * k + z
    pair = p.transition.ravel()[pairs] * after
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a label too unlikely for this domain
        likely = node.copy()
        likely[n:] = p.before.ravel()[own[left]] / node[left] * pair
        losses = -np.log(likely)
    certain = _certain(packing.sum(losses), p)
    edges, uncertain = labels[:0], pairs
    if certain.any():
        first = np.flatnonzero(certain[:n])
        losses[first] = np.log1p(others[first] / node[first])
        edges, uncertain = np.flatnonzero(certain[n:]), pairs[~certain[n:]]
    d_pairwise, rivals = _pair_gradient(p, labels, [(p.before, p.after)], others, edges)
    if edges.size:
        losses[edges + n] = np.log1p(rivals / pair[edges])
    d_pairwise -= np.bincount(uncertain, minlength=k * k).reshape(k, k)
    return losses, p.node, d_pairwise, float(node.min())


def _certain(values: Floats, p: Posterior) -> NDArray[np.bool_]:
    """The packed rows of sequences whose loss is so small that 1 minus a probability would lose its digits."""
    per_position = 1e-2 if p.node.dtype == np.float32 else 1e-3
    return (values < per_position * p.packing.lengths)[p.packing.sequence]


def _nll_terms_in_logarithms(p: Posterior, labels: Ints) -> tuple[Floats, Floats, Floats, float]:
    assert p.log_node is not None
    n, left = len(p.packing), p.packing.left
    losses = np.empty(len(labels))
    losses[:n], _ = cross_entropy(p.log_node[:, :n].T, labels[:n])
    losses[n:], _ = cross_entropy(p.transition[labels[left]] + p.after[:, n:].T, labels[n:])
    d_pairwise = np.zeros_like(p.transition)
    for here, before, edge in p.edges():
        _add_off_pairs(d_pairwise, edge, labels[before], labels[here])
    _others(p.node, labels * len(labels) + np.arange(len(labels)))
    return losses, p.node, d_pairwise, 0.0


def _others(gradient: Floats, own: Ints) -> Floats:
    """Sum of each column of (K, N) without the entry of its label, which is replaced by minus that sum."""
    flat = gradient.reshape(-1)
    flat[own] = 0
    total: Floats = np.ones(len(gradient), gradient.dtype) @ gradient  # in half the time of a sum along the first axis
    flat[own] = -total
    return total


def _add_off_pairs(total: Floats, edge: Floats, y: Ints, z: Ints) -> None:
    """Add (K, K, b) to the pairs (K, K), the entry of the true pair (y, z) replaced by minus the sum of the others."""
    places = np.arange(len(y))
    edge[y, z, places] = 0
    total += edge.sum(axis=2)
    np.subtract.at(total, (y, z), edge.sum(axis=(0, 1)))


def _pair_gradient(
    p: Posterior, labels: Ints, terms: list[tuple[Floats, Floats]], others: Floats, edges: Ints
) -> tuple[Floats, Floats]:
    """Sum over all edges and ``terms`` of before[k] * transition[k, l] * after[l], (K, K), in the exp domain.

    On the given ``edges`` the entry of the true pair (y, z) becomes minus the sum of the others, without being used:
    the others are those with another label at the left end, of sum ``others`` (N,), and those that leave the true
    labeling on this edge, (y, l) with l != z. Overwrites the arrays ``before``.

    Also returns, for each of ``edges``, the sum over l of transition[y, l] * after[l] of the first term.
    """
    k, n = len(p.transition), len(p.packing)
    if not edges.size:
        return sum((p.pair_sums(*term) for term in terms), start=np.zeros((k, k))), others[:0]
    left, right = p.packing.left[edges], edges + n
    y, z, places = labels[left], labels[right], np.arange(len(edges))
    rows = np.take(np.ascontiguousarray(p.transition.T), y, axis=1)
    rows[z, places] = 0
    out, total, first = np.zeros((k, k)), others[left], None
    for before, after in terms:
        weights = np.zeros_like(rows)
        weights[y, places] = own = before[y, left]
        before[y, left] = 0
        leaving = rows * (after[:, n:] if len(edges) == len(labels) - n else np.take(after, right, axis=1))
        rivals = leaving.sum(axis=0)
        total = total + own * rivals
        first = rivals if first is None else first
        out += weights @ leaving.T
        out += p.pair_sums(before, after)
    out -= np.bincount(y * k + z, weights=total, minlength=k * k).reshape(k, k)
    return out, total if first is None else first


def ssvm(unary: Floats, pairwise: Floats, labels: Ints, packing: Packing) -> ObjectiveValue:
    """Margin-rescaled structured hinge loss (Tsochantaridis et al. 2005) with the Hamming distance over L."""
    own, pairs = _true_potentials(unary, pairwise, labels, packing)
    n, k, rows = len(packing), len(pairwise), np.arange(len(labels))
    weight = (1 / packing.lengths)[packing.sequence]
    precise = unary.astype(max_sum_dtype(unary, pairwise, packing), copy=False)
    rival = decode(_augment(precise, labels, weight), pairwise, packing)
    # From the differences, so that they are not lost beside large scores.
    wrong = np.where(rival != labels, weight, 0.0)
    excess = packing.sum(wrong + (unary[rows, rival].astype(np.float64) - own))
    gain = pairwise[rival[packing.left], rival[packing.right]].astype(np.float64) - pairs
    excess += np.bincount(packing.sequence[packing.right], weights=gain, minlength=n)
    if excess.min() < 0:  # through rounding: the true labeling is among its rivals
        rival = np.where((excess < 0)[packing.sequence], labels, rival)
        excess = np.maximum(excess, 0.0)
    d_unary = np.zeros_like(unary)
    d_unary[rows, rival] += 1 / n
    d_unary[rows, labels] -= 1 / n
    d_pairwise = (_pair_counts(rival, k, packing) - _pair_counts(labels, k, packing)) / n
    return ObjectiveValue(float(excess.mean()), d_unary, d_pairwise)


def pseudolikelihood(unary: Floats, pairwise: Floats, labels: Ints, packing: Packing) -> ObjectiveValue:
    """Minus the log of the product of conditionals given the neighbours' labels (Besag 1975)."""
    if not min(unary.min(), pairwise.min()) > -np.inf:
        _true_potentials(unary, pairwise, labels, packing)  # for its errors
    left, right, n = packing.left, packing.right, len(packing)
    # The level of a position is subtracted first: in single precision it would swamp the pairwise part. Labels far
    # below it matter only where an equally wide pairwise part compensates.
    narrow = unary.dtype == np.float32 and largest(pairwise) <= _WIDEST_IN_SINGLE
    logits: Floats = np.array(unary, dtype=np.float32 if narrow else np.float64, order="C")
    logits -= logits.max(axis=1, keepdims=True)
    logits[right] += pairwise[labels[left]]
    logits[left] += pairwise.T[labels[right]]
    losses, residual = cross_entropy(logits, labels)
    residual = residual.astype(unary.dtype, copy=False)
    residual /= n
    d_pairwise = _gather_rows(labels[left], residual[right], len(pairwise))
    d_pairwise += _gather_rows(labels[right], residual[left], len(pairwise)).T
    return ObjectiveValue(float(losses.sum(dtype=np.float64)) / n, residual, d_pairwise)


def marginal(unary: Floats, pairwise: Floats, labels: Ints, packing: Packing) -> ObjectiveValue:
    """Minus the sum of the log-marginals of the labels (Kakade et al. 2002), for the Hamming loss.

    The gradient is sum_i (E[stat] - E[stat | y_i]). The posterior is a Markov chain, so that the sum over i of the
    conditional distributions of y_t obeys one recursion in each direction: ahead_t = P_t^T ahead_{t-1} + onehot(y_t)
    collects the conditions at or before t, behind_t those at or after t. P_t are conditionals edge / node, in [0, 1].
    """
    p, n, rows = posterior(unary, pairwise, packing), len(packing), np.arange(len(labels))
    while True:
        own = p.node[labels, rows].astype(np.float64)
        others = p.node.copy()
        others[labels, rows] = 0
        others = others.sum(axis=0, dtype=np.float64)
        if p.log_node is not None:
            losses, _ = cross_entropy(p.log_node.T, labels)
            break
        # A marginal that underflows needs logarithms; other labels' may, since P(y_t = k | y_i) <= mu_t(k) / mu_i(y_i).
        likely = own.min() >= np.sqrt(np.finfo(p.node.dtype).tiny)
        needed = float(np.finfo(p.node.dtype).eps * packing.sum(others).min()) if likely else 0.0
        if p.resolution <= needed:
            losses = np.log1p(others / own)
            break
        p = posterior(unary, pairwise, packing, resolution=needed)
    if np.isinf(losses).any():
        raise _impossible(int(packing.sequence[np.flatnonzero(np.isinf(losses))[0]]))
    flat = labels * len(labels) + rows
    onehot = np.zeros_like(p.node)
    onehot.ravel()[flat] = 1
    length = packing.lengths[packing.sequence].astype(p.node.dtype)
    # Every condition lies at or before the left end of an edge, or at or after the right end.
    (ahead, moved_ahead), (behind, moved_behind) = p.carry("left", onehot), p.carry("right", onehot)
    d_unary = length * p.node
    d_unary -= ahead
    d_unary -= behind
    others = _others(d_unary, flat)
    if p.log_node is None:
        # On an edge: P(k, l) [L - ahead(k) / mu(k) - behind(l) / mu(l)].
        terms = [(length * p.before - moved_ahead, p.after), (-p.before, moved_behind)]
        edges = np.flatnonzero(_certain(packing.sum(losses), p)[n:])
        d_pairwise, _ = _pair_gradient(p, labels, terms, others, edges)
    else:
        d_pairwise = np.zeros_like(p.transition)
        for (here, left, joint), (*_, ahead_of), (*_, behind_of) in zip(p.edges(), p.edges("left"), p.edges("right")):
            edge = length[here] * joint - ahead_of * ahead[:, None, left] - behind_of * behind[None, :, here]
            _add_off_pairs(d_pairwise, edge, labels[left], labels[here])
    d_unary *= 1 / n
    value = float(losses.sum(dtype=np.float64)) / n
    return ObjectiveValue(value, d_unary.T.astype(unary.dtype, copy=False), d_pairwise / n)


def unary_only(unary: Floats, pairwise: Floats, labels: Ints, packing: Packing) -> ObjectiveValue:
    """Cross-entropy of each position separately: the objective of the first training stage."""
    n, rows = len(packing), np.arange(len(labels))
    forbidden = np.flatnonzero(unary[rows, labels] == -np.inf)
    if forbidden.size:
        raise _impossible(int(packing.sequence[forbidden[0]]))
    losses, residual = cross_entropy(unary, labels)
    residual /= n
    return ObjectiveValue(float(losses.sum(dtype=np.float64)) / n, residual, np.zeros_like(pairwise))


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

    The gradient in ``start`` is the gradient in the unary potentials of the first positions, summed over the sequences;
    likewise ``end`` with the last positions.

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
    """The potentials U[i, k] + (weight / L) [k != y_i], with which Viterbi maximises F(Y') + weight * Delta(Y, Y').

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


def _true_potentials(unary: Floats, pairwise: Floats, labels: Ints, packing: Packing) -> tuple[Floats, Floats]:
    """The potentials of the true labels (N,) and pairs (E,); raises where one of them is -inf."""
    own = unary[np.arange(len(labels)), labels]
    pairs = pairwise[labels[packing.left], labels[packing.right]]
    if not min(own.min(), pairs.min(initial=0)) > -np.inf:
        rows = np.concatenate([np.flatnonzero(own == -np.inf), packing.right[pairs == -np.inf]])
        if rows.size:
            raise _impossible(int(packing.sequence[rows].min()))
    return own, pairs


def _impossible(sequence: int) -> InputError:
    return InputError(
        "labels",
        f"must be allowed by the potentials; those of sequence {sequence} have probability 0",
        hint="a potential that they use is -inf: correct the labels or the constraints",
    )


def _gather_rows(index: Ints, rows: Floats, k: int) -> Floats:
    """out[j] = sum of the rows whose index is j, (k, ...)."""
    if k * len(index) <= _FEW:  # creating a sparse matrix would take most of the time
        which = np.zeros((k, len(index)), rows.dtype)
        which[index, np.arange(len(index))] = 1
        product: Floats = which @ rows
        return product
    pick = sp.csr_array((np.ones(len(index), rows.dtype), index, np.arange(len(index) + 1)), shape=(len(index), k))
    value: Floats = pick.T @ rows
    return value
