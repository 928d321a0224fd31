"""Laws of chain inference and its objectives in both precisions, at any length, width and level of the potentials.

The right values come from sums in many decimal digits, which need no scaling: over all labelings of small chains, and
by the textbook recursion on long ones.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from attnembed.errors import InputError
from attnembed.structured.chain import (
    chain_log_partition,
    chain_marginals,
    chain_sample,
    chain_score,
    chain_viterbi,
    posterior,
)
from attnembed.structured.objectives import CHAIN_OBJECTIVES, chain_objective, loss_augmented
from attnembed.structured.packing import Packing
from attnembed.structured.theory import scale_objective

ZERO, ONE = Decimal(0), Decimal(1)
# A float32 answer is right to this, whatever the length.
SINGLE = 1e-6


def decimals(digits: int):
    return localcontext(Context(prec=digits, Emax=MAX_EMAX, Emin=MIN_EMIN))


def weights(potentials: np.ndarray) -> list[list[Decimal]]:
    """e^potential."""
    return [[Decimal(float(x)).exp() if x > -np.inf else ZERO for x in row] for row in potentials]


def recursion(unary, pairwise, digits: int = 60):
    """log Z, node (L, K) and edge (L-1, K, K) by forward-backward in decimals."""
    with decimals(digits):
        e, m = weights(unary), weights(pairwise)
        labels = range(len(m))
        forward = [e[0]]
        for row in e[1:]:
            forward.append([sum(forward[-1][k] * m[k][j] for k in labels) * row[j] for j in labels])
        backward = [[ONE] * len(m)]
        for row in reversed(e[1:]):
            backward.append([sum(m[k][j] * row[j] * backward[-1][j] for j in labels) for k in labels])
        backward.reverse()
        z = sum(forward[-1])
        node = np.array([[float(a * b / z) for a, b in zip(f, g)] for f, g in zip(forward, backward)])
        edge = [
            [[float(forward[t - 1][k] * m[k][j] * e[t][j] * backward[t][j] / z) for j in labels] for k in labels]
            for t in range(1, len(e))
        ]
        return float(z.ln()), node, np.array(edge).reshape(-1, len(m), len(m))


@dataclass
class Exact:
    """Value and gradients of an objective, from all labelings, in so many digits that nothing cancels."""

    value: float
    unary: np.ndarray
    pairwise: np.ndarray


def enumerated(name: str, unary, pairwise, labels, digits: int = 400) -> Exact:
    length, k = unary.shape
    with decimals(digits):
        e, m = weights(unary), weights(pairwise)
        mass = {}
        for y in itertools.product(range(k), repeat=length):
            p = ONE
            for t in range(length):
                p *= e[t][y[t]] * (m[y[t - 1]][y[t]] if t else ONE)
            mass[y] = p
        # Each term of the loss is -log of the share that some labelings have among others.
        true = tuple(labels)
        if name == "nll":
            terms = [(lambda y: y == true, lambda y: True)]
        elif name == "marginal":
            terms = [(lambda y, t=t: y[t] == true[t], lambda y: True) for t in range(length)]
        else:
            rest = lambda y, t: y[:t] == true[:t] and y[t + 1 :] == true[t + 1 :]  # noqa: E731
            terms = [(lambda y: y == true, lambda y, t=t: rest(y, t)) for t in range(length)]
        value, d_unary, d_pairwise = ZERO, [[ZERO] * k for _ in range(length)], [[ZERO] * k for _ in range(k)]
        for part, whole in terms:
            shares = []
            for chosen, sign in ((part, -1), (whole, 1)):
                total = sum(p for y, p in mass.items() if chosen(y))
                shares.append(total)
                for y, p in mass.items():
                    if not chosen(y) or not p:
                        continue
                    for t in range(length):
                        d_unary[t][y[t]] += sign * p / total
                        if t:
                            d_pairwise[y[t - 1]][y[t]] += sign * p / total
            value += (shares[1] / shares[0]).ln()
        return Exact(float(value), *(np.array([[float(x) for x in row] for row in d]) for d in (d_unary, d_pairwise)))


def cross_entropies(unary, labels) -> float:
    """Sum of -log softmax(U_i)[y_i], in decimals."""
    total = ZERO
    with decimals(60):
        for row, y in zip(weights(unary), labels):
            total += (sum(row) / row[y]).ln()
        return float(total)


# --- single precision, long and wide chains ---------------------------------------------------------------------


def test_integers_of_a_hundred_thousand_in_single_precision():
    rng = np.random.default_rng(113)
    unary = rng.integers(-99999, 99999, (4, 2)).astype(np.float32) + np.float32(0.3)
    pairwise = rng.integers(-99999, 99999, (2, 2)).astype(np.float32)
    _, node, edge = recursion(unary, pairwise)
    found = chain_marginals(unary, pairwise)
    assert_allclose(found.node, node, rtol=0, atol=SINGLE)
    assert_allclose(found.edge, edge, rtol=0, atol=SINGLE)
    assert chain_objective("nll", unary, pairwise, chain_viterbi(unary, pairwise)).value >= 0


def begin_inside_outside(length: int, seed: int, dtype):
    """Tags O, B, I, of which I cannot follow O; scores of a usual size, at a level of -20."""
    unary = 3 * np.random.default_rng(seed).normal(size=(length, 3)) - 20
    pairwise = np.zeros((3, 3))
    pairwise[0, 2] = -np.inf
    return unary.astype(dtype), pairwise.astype(dtype)


@pytest.mark.parametrize("length", [20, 200, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forbidden_pairs_on_long_chains(length, dtype):
    unary, pairwise = begin_inside_outside(length, 0, dtype)
    log_partition, node, edge = recursion(unary, pairwise, digits=40)
    found = chain_marginals(unary, pairwise)
    tolerance = SINGLE if dtype == np.float32 else 1e-12
    assert_allclose(found.node, node, rtol=0, atol=tolerance)
    assert_allclose(found.edge, edge, rtol=0, atol=tolerance)
    assert_allclose(found.log_partition, log_partition, rtol=tolerance)
    assert not found.edge[:, 0, 2].any()
    # The exp domain serves: logarithms would cost ten times as much.
    assert posterior(unary, pairwise, Packing(np.array([length]))).log_node is None


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
def test_viterbi_loses_nothing_over_the_length(offset):
    """The chain repeats a short one, and a first label that is the same at every joint cuts it into them."""
    rng = np.random.default_rng(4)
    n, short, pairwise = 150, rng.normal(size=(7, 3)), rng.normal(size=(3, 3))
    short[0, 1:] = -np.inf
    for dtype in (np.float32, np.float64):
        block, w = (short + offset).astype(dtype), pairwise.astype(dtype)
        paths = np.array([(0, *y) for y in itertools.product(range(3), repeat=6)])
        repeated = np.broadcast_to(block.astype(float), (len(paths), *block.shape))
        scores = chain_score(repeated, w.astype(float), paths) + w[paths[:, -1], 0]
        unary = np.concatenate([*[block] * n, block[:1]])
        found = chain_score(unary.astype(float), w.astype(float), chain_viterbi(unary, w))
        best = n * float(scores.max()) + float(block[0, 0])
        assert_allclose(found, best, rtol=1e-12, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("length", "spread"),
    [
        *((300, spread) for spread in (1.0, 30.0, 1e3, 1e5)),
        *(pytest.param(n, s, marks=pytest.mark.slow) for n, s in ((2000, 30.0), (2000, 1e5), (100_000, 1.0))),
        pytest.param(100_000, 1e5, marks=pytest.mark.slow),
    ],
)
def test_probabilities_on_long_chains(dtype, length, spread):
    rng = np.random.default_rng(1)
    unary = (spread * rng.normal(size=(length, 3)) + 5 * spread).astype(dtype)
    pairwise = (spread * rng.normal(size=(3, 3))).astype(dtype)
    found = chain_marginals(unary, pairwise)
    tolerance = SINGLE if dtype == np.float32 else 1e-12
    for p in (found.node, found.edge):
        assert p.dtype == dtype
        assert p.min() >= 0
        assert p.max() <= 1 + tolerance * (dtype == np.float64)
    node, edge = found.node.astype(float), found.edge.astype(float)
    assert_allclose(node.sum(axis=1), 1, rtol=0, atol=tolerance)
    assert_allclose(edge.sum(axis=(1, 2)), 1, rtol=0, atol=tolerance)
    # Nodes and edges agree as well as the potentials are known.
    known = max(tolerance, 8 * spread * np.finfo(float).eps)
    assert_allclose(edge.sum(axis=2), node[:-1], rtol=0, atol=3 * known)
    assert_allclose(edge.sum(axis=1), node[1:], rtol=0, atol=3 * known)
    best = chain_viterbi(unary, pairwise)
    value = chain_objective("nll", unary, pairwise, best).value
    assert 0 <= value <= length * np.log(3)
    assert chain_score(unary, pairwise, best) <= found.log_partition * (1 + 1e-12)


@pytest.mark.parametrize("resolution", [np.inf, 0])
def test_what_the_last_position_decides_reaches_the_first(resolution):
    """Labels that stay as they are, on a level that changes by 1e5, told apart by 1e-3 at the last position alone."""
    rng = np.random.default_rng(2)
    length, spread = 2000, 1e5
    level = spread * rng.normal(size=(length, 1)) + 1 / 3
    unary = level + np.zeros((1, 2))
    unary[-1, 1] += 1e-3
    pairwise = np.array([[0.1, -spread], [-spread, 0.1]])
    right = 1 / (1 + np.exp(unary[-1, 1] - unary[-1, 0]))
    p = posterior(unary, pairwise, Packing(np.array([length])), resolution=resolution)
    assert (p.log_node is not None) == (resolution == 0)
    assert_allclose(p.node[0], right, rtol=1e-12)


def test_a_path_that_underflows_at_both_ends_and_leads_in_between():
    """No message of the likely path is large enough to be seen from either end in the exp domain."""
    unary = np.zeros((12, 2))
    unary[[0, -1], 1] = -800.0
    unary[1:-1, 0] = -300.0
    pairwise = np.array([[0.0, -2000.0], [-2000.0, 0.0]])
    _, node, _ = recursion(unary, pairwise)
    assert node[5, 1] == 1
    for dtype in (np.float64, np.float32):
        assert_allclose(chain_marginals(unary.astype(dtype), pairwise.astype(dtype)).node, node, rtol=0, atol=1e-12)
    # The same with forbidden pairs and with numbers that single precision holds.
    pairwise = np.array([[0.0, -np.inf], [-np.inf, 0.0]], dtype=np.float32)
    _, node, _ = recursion(unary / 10, pairwise)
    assert_allclose(chain_marginals((unary / 10).astype(np.float32), pairwise).node, node, rtol=0, atol=SINGLE)


@pytest.mark.parametrize("length", [8, 32, 33, 150])
def test_single_precision_where_errors_add_up(length):
    """Two labels that hardly ever change, on potentials that are the same everywhere: all roundings have one sign."""
    rng = np.random.default_rng(length)
    for _ in range(10):
        row = rng.normal(size=2)
        unary = np.tile(row - row.mean() * (rng.random() < 0.5), (length, 1)).astype(np.float32)
        stay = rng.uniform(0, 1, size=2)
        pairwise = np.array([[stay[0], -12], [-12, stay[1]]], dtype=np.float32)
        # As likely as each other at the end, so that an error in their ratio shows.
        unary[-1, 1] += np.float32(np.diff(-(length * unary[0].astype(float) + (length - 1) * np.diag(pairwise)))[0])
        _, node, edge = recursion(unary, pairwise, digits=30)
        found = chain_marginals(unary, pairwise)
        assert_allclose(found.node, node, rtol=0, atol=SINGLE)
        assert_allclose(found.edge, edge, rtol=0, atol=SINGLE)


def test_samples_obey_constraints_in_single_precision():
    unary, pairwise = begin_inside_outside(200, 3, np.float32)
    unary[0, 2] = unary[-1, 1] = -np.inf
    batch = np.broadcast_to(unary, (500, *unary.shape))
    samples = chain_sample(batch, pairwise, rng=0)
    assert np.isfinite(chain_score(batch, pairwise, samples)).all()
    _, node, _ = recursion(unary, pairwise, digits=40)
    share = np.stack([(samples == k).mean(axis=0) for k in range(3)], axis=1)
    assert np.abs(share - node).max() < 5 * 0.5 / np.sqrt(500)


@pytest.mark.parametrize("length", [8, 50])
def test_loss_augmented_decoding_on_a_high_level(length):
    """The margin of 1/L is far below what single precision resolves at the level of the scores."""
    unary = np.full((length, 2), 1e7, dtype=np.float32)
    labels = np.zeros(length, dtype=int)
    out = chain_objective("ssvm", unary, np.zeros((2, 2), np.float32), labels)
    assert_allclose(out.value, 1.0, rtol=1e-12)
    assert_allclose(out.unary, [[-1.0, 1.0]] * length)
    augmented = loss_augmented(unary.astype(float), labels)
    assert_array_equal(chain_viterbi(augmented, np.zeros((2, 2))), np.ones(length))


def test_a_hinge_is_never_negative():
    """Among scores that are equal but for rounding the rival may be the worse one: then the labels are their own."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        unary, pairwise = (rng.choice([0.1, 0.2, 0.3, 0.7], size=size).astype(np.float32) for size in ((9, 3), (3, 3)))
        labels = chain_viterbi(unary, pairwise)
        unary[np.arange(9), labels] += np.float32(1 / 9)
        assert chain_objective("ssvm", unary, pairwise, labels).value >= 0


@pytest.mark.parametrize("sticky", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("length", [32, 128, 129])
def test_viterbi_in_single_precision_is_the_maximum_to_the_rounding_of_a_step(length, sticky):
    rng = np.random.default_rng(length)
    for _ in range(20):
        unary = rng.normal(size=(length, 5)) + rng.choice([0, 10, -50])
        pairwise = (rng.normal(size=(5, 5)) / 10 + sticky * np.eye(5)).astype(np.float32)
        unary = (unary / rng.choice([1, 1, 20]) + rng.random()).astype(np.float32)
        wide = unary.astype(float), pairwise.astype(float)
        found, best = (chain_score(*wide, chain_viterbi(*x)) for x in ((unary, pairwise), wide))
        assert found >= best - 2 * np.finfo(np.float32).eps * (np.abs(unary).max() + np.abs(pairwise).max())


def test_viterbi_where_every_step_costs():
    """Each position has two labels that differ by 2e-7 only, and each step costs a million."""
    length, twin = 4000, 2.0**-22
    wins = np.random.default_rng(0).integers(0, 2, size=length)
    unary = np.full((length, 4), -3e6)
    even = 2 * (np.arange(length) % 2)
    unary[np.arange(length), even], unary[np.arange(length), even + 1] = 0.0, 0.0
    unary[np.arange(length), even + wins] += twin
    pairwise = np.full((4, 4), -1e6)
    pairwise[0, 0] = 0.0
    assert_array_equal(chain_viterbi(unary, pairwise), even + wins)


def test_the_level_does_not_swallow_the_pairwise_part():
    rng = np.random.default_rng(3)
    unary, pairwise = rng.integers(-3, 4, size=(6, 3)), rng.normal(size=(3, 3)).astype(np.float32)
    labels = rng.integers(0, 3, size=6)
    for name in ("nll", "marginal", "pseudolikelihood"):
        high, low = (chain_objective(name, (unary + x).astype(np.float32), pairwise, labels) for x in (10_000, 0))
        assert_allclose(high.value, low.value, rtol=1e-6)
        assert_allclose(high.unary, low.unary, rtol=0, atol=1e-6)


def test_deep_labels_that_the_neighbours_make_up_for():
    """Potentials 34 below the best, which single precision rounds by 2e-6 after the best is taken away."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        length = 32
        unary = np.stack([rng.random(length), rng.random(length) - 34], axis=1).astype(np.float32)
        pairwise = np.array([[0, 0], [0, 34]], dtype=np.float32)
        unary[-1, 1] += np.float32(np.diff(-unary.sum(axis=0, dtype=float))[0] - 34 * (length - 1))
        _, node, _ = recursion(unary, pairwise, digits=30)
        assert 0.02 < node[3, 0] < 0.98
        assert_allclose(chain_marginals(unary, pairwise).node, node, rtol=0, atol=SINGLE)


def test_sums_over_many_labels_in_single_precision():
    rng = np.random.default_rng(0)
    k, labels = 1500, np.zeros(4, dtype=int)
    unary, pairwise = 6 * rng.normal(size=(4, k)), rng.normal(size=(k, k))
    single = [x.astype(np.float32) for x in (unary, pairwise)]
    found, right = (chain_objective("nll", *x, labels) for x in (single, [x.astype(float) for x in single]))
    assert_allclose(found.unary, right.unary, rtol=0, atol=0.5 * SINGLE)


def test_a_labeling_whose_parts_are_likely_and_the_whole_is_not():
    """In single precision the marginal of a label in the middle has few digits left, and no conditional is unusual."""
    unary = np.tile(np.array([0, -28], dtype=np.float32), (6, 1))
    pairwise = np.array([[0, -36], [-36, 0]], dtype=np.float32)
    labels = np.ones(6, dtype=int)
    single, double = (chain_objective("nll", *(x.astype(d) for x in (unary, pairwise)), labels).value for d in "fd")
    assert_allclose(double, enumerated("nll", unary, pairwise, labels).value, rtol=1e-13)
    assert_allclose(single, double, rtol=1e-6)


# --- saturation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lead", "value"), [(30.0, 9.357622968839299e-14), (40.0, 4.248354255291589e-18)])
@pytest.mark.parametrize("name", ["unary", "nll", "pseudolikelihood", "marginal"])
def test_one_certain_label(name, lead, value):
    out = chain_objective(name, np.array([[lead, 0.0]]), np.zeros((2, 2)), [0])
    assert_allclose(out.value, value, rtol=1e-12)
    assert_allclose(out.unary, [[-value, value]], rtol=1e-12)


@pytest.mark.parametrize("lead", [700.0, 40.0, 12.0, 1.0, -30.0])
@pytest.mark.parametrize("name", ["nll", "pseudolikelihood", "marginal"])
def test_certain_labels_keep_their_digits(name, lead):
    rng = np.random.default_rng(int(abs(lead)))
    for length, k in ((1, 3), (2, 2), (3, 3)):
        unary, pairwise = rng.normal(size=(length, k)), rng.normal(size=(k, k))
        labels = rng.integers(0, k, size=length)
        unary[np.arange(length), labels] += lead
        found, right = chain_objective(name, unary, pairwise, labels), enumerated(name, unary, pairwise, labels)
        assert_allclose(found.value, right.value, rtol=1e-12)
        assert_allclose(found.unary, right.unary, rtol=1e-12, atol=1e-300)
        # Entries that are sums of both signs are as good as the larger of them.
        size = np.abs(right.pairwise).max(initial=0)
        assert_allclose(found.pairwise, right.pairwise, rtol=1e-11, atol=1e-13 * size + 1e-300)


@pytest.mark.parametrize("name", ["nll", "marginal"])
@pytest.mark.parametrize(("lead", "forbid"), [(20.0, True), (300.0, True), (700.0, True), (400.0, False)])
def test_certain_labels_among_forbidden_pairs_and_wide_potentials(name, lead, forbid):
    rng = np.random.default_rng(9)
    unary, pairwise, labels = rng.normal(size=(4, 3)), 3 * rng.normal(size=(3, 3)), np.array([0, 1, 2, 0])
    if forbid:
        pairwise[0, 2] = pairwise[2, 2] = -np.inf
    else:
        pairwise *= 50
    unary[np.arange(4), labels] += lead
    found, right = chain_objective(name, unary, pairwise, labels), enumerated(name, unary, pairwise, labels)
    assert_allclose(found.value, right.value, rtol=1e-12, atol=1e-300)
    # Of potentials wider than what exp takes, entries far below the largest are not resolved.
    assert_allclose(found.unary, right.unary, rtol=2e-12, atol=1e-300 if forbid else 1e-100 * right.value)


def test_one_certain_sequence_beside_uncertain_ones():
    rng = np.random.default_rng(0)
    unary, pairwise, labels = rng.normal(size=(3, 3, 3)), rng.normal(size=(3, 3)), rng.integers(0, 3, size=(3, 3))
    unary[1, np.arange(3), labels[1]] += 60
    for name in ("nll", "marginal"):
        together, alone = (chain_objective(name, u, pairwise, y) for u, y in ((unary, labels), (unary[1], labels[1])))
        right = enumerated(name, unary[1], pairwise, labels[1])
        assert_allclose(alone.unary, right.unary, rtol=1e-12)
        assert_allclose(together.unary[1], right.unary / 3, rtol=1e-12)
        parts = [enumerated(name, u, pairwise, y) for u, y in zip(unary, labels)]
        assert_allclose(together.value, np.mean([p.value for p in parts]), rtol=1e-13)
        assert_allclose(together.pairwise, np.mean([p.pairwise for p in parts], axis=0), rtol=0, atol=1e-14)


@pytest.mark.parametrize("lead", [1.0, 15.0, 40.0, 100.0, 250.0])
@pytest.mark.parametrize("name", ["nll", "pseudolikelihood", "marginal", "unary"])
def test_certain_labels_in_single_precision(name, lead):
    rng = np.random.default_rng(5)
    unary, labels = rng.normal(size=(6, 4)).astype(np.float32), rng.integers(0, 4, size=6)
    unary[np.arange(6), labels] += np.float32(lead)
    pairwise = rng.normal(size=(4, 4)).astype(np.float32)
    single, double = (chain_objective(name, *(x.astype(d) for x in (unary, pairwise)), labels) for d in "fd")
    assert single.unary.dtype == np.float32
    assert_allclose(single.value, double.value, rtol=1e-4)
    assert_allclose(single.unary, double.unary, rtol=1e-4, atol=1e-37)
    assert_allclose(single.unary.sum(axis=1), 0, atol=1e-6 * np.abs(double.unary).max() + 1e-44)


@pytest.mark.parametrize("lead", [2.0, 20.0, 60.0])
def test_the_scales_of_a_certain_labeling(lead):
    """The gradient in the scales is that in the potentials along them, which keeps its digits."""
    rng = np.random.default_rng(6)
    unary, pairwise, labels = rng.normal(size=(4, 3)), rng.normal(size=(3, 3)), np.array([0, 1, 2, 0])
    unary[np.arange(4), labels] += lead
    found, right = scale_objective(unary, pairwise, labels), enumerated("nll", unary, pairwise, labels)
    assert_allclose(found.value, right.value, rtol=1e-12)
    assert_allclose(found.gradient[0], np.sum(right.unary * unary), rtol=1e-11)
    assert_allclose(found.gradient[1], np.sum(right.pairwise * pairwise), rtol=1e-10)


@pytest.mark.parametrize("length", [100, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("lead", [0.0, 5.0, 50.0])
def test_without_pairwise_part_a_long_chain_is_a_product(length, lead):
    rng = np.random.default_rng(7)
    unary, labels = rng.normal(size=(length, 3)), rng.integers(0, 3, size=length)
    unary[np.arange(length), labels] += lead
    right = cross_entropies(unary, labels)
    for name in ("nll", "pseudolikelihood", "marginal", "unary"):
        assert_allclose(chain_objective(name, unary, np.zeros((3, 3)), labels).value, right, rtol=1e-12)


# --- impossible labels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHAIN_OBJECTIVES)
def test_labels_of_probability_zero_are_named(name):
    unary, pairwise = np.zeros((2, 3, 2)), np.zeros((2, 2))
    unary[1, 0, 0] = -np.inf
    with pytest.raises(InputError, match="`labels` must be allowed by the potentials; those of sequence 1 have prob"):
        chain_objective(name, unary, pairwise, [[0, 0, 0], [0, 0, 0]])
    if name in ("nll", "pseudolikelihood", "ssvm"):
        pairwise[0, 1] = -np.inf
        with pytest.raises(InputError, match=r"`labels` .* sequence 0"):
            chain_objective(name, np.zeros((2, 3, 2)), pairwise, [[1, 0, 1], [1, 0, 0]])


def test_constraints_at_both_ends_and_between_work_everywhere():
    unary, pairwise = begin_inside_outside(6, 1, np.float64)
    unary[0, 2] = unary[-1, 1] = -np.inf
    labels = np.array([0, 1, 2, 2, 0, 0])
    _, node, edge = recursion(unary, pairwise)
    found = chain_marginals(unary, pairwise)
    assert_allclose(found.node, node, rtol=1e-12)
    assert_allclose(found.edge, edge, rtol=1e-12)
    assert found.node[0, 2] == found.node[-1, 1] == 0
    for name in ("nll", "marginal", "pseudolikelihood"):
        out, right = chain_objective(name, unary, pairwise, labels), enumerated(name, unary, pairwise, labels)
        assert_allclose(out.value, right.value, rtol=1e-12)
        assert_allclose(out.unary, right.unary, rtol=1e-11, atol=1e-14)
        assert_allclose(out.pairwise, right.pairwise, rtol=1e-11, atol=1e-14)
        assert out.pairwise[0, 2] == out.unary[0, 2] == 0


# --- laws -------------------------------------------------------------------------------------------------------


@st.composite
def problems(draw):
    """Potentials and labels; half of the instances come from a generator, since Hypothesis likes repeated numbers."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    n, length, k = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 5))
    spread = draw(st.sampled_from([1e-3, 1.0, 5.0, 30.0, 100.0, 1e3, 1e5]))
    offset = draw(st.sampled_from([0.0, 0.0, 7.3, -1e4]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        unary, pairwise = rng.normal(size=(n, length, k)), rng.normal(size=(k, k))
    else:
        levels = draw(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.3, 1.0]), min_size=1, max_size=3))
        unary, pairwise = rng.choice(levels, size=(n, length, k)), rng.choice(levels, size=(k, k))
    unary, pairwise = spread * unary + offset, draw(st.sampled_from([0.0, 0.1, 1.0])) * spread * pairwise
    labels = rng.integers(0, k, size=(n, length))
    certain = draw(st.sampled_from([0.0, 0.0, 3.0, 10.0]))
    np.put_along_axis(unary, labels[..., None], unary.max(axis=-1, keepdims=True) + certain * spread, axis=-1)
    if draw(st.booleans()):
        pairwise[rng.random((k, k)) < 0.2] = -np.inf
        unary[rng.random((n, length, k)) < 0.1] = -np.inf
        pairwise[labels[:, :-1], labels[:, 1:]] = 0.0
        np.put_along_axis(unary, labels[..., None], offset, axis=-1)
    lengths = rng.integers(1, length + 1, size=n)
    return unary.astype(dtype), pairwise.astype(dtype), labels, lengths


@given(problems())
def test_laws_of_inference(problem):
    unary, pairwise, _, lengths = problem
    single = unary.dtype == np.float32
    wide = (unary.astype(float), pairwise.astype(float))
    tolerance = SINGLE if single else 1e-12
    found, double = chain_marginals(unary, pairwise, lengths), chain_marginals(*wide, lengths)
    log_partition, best = chain_log_partition(unary, pairwise, lengths), chain_viterbi(unary, pairwise, lengths)
    finite = [np.abs(x[np.isfinite(x)]).max(initial=0) for x in wide]
    for i, n in enumerate(lengths):
        # What one more rounding of a step costs, and what the rounding of the potentials makes of the score.
        step = 4 * float(np.finfo(unary.dtype).eps) * sum(finite)
        total = 4 * n * np.finfo(float).eps * sum(finite)
        node, edge = found.node[i, :n].astype(float), found.edge[i, : n - 1].astype(float)
        for p in (node, edge):
            assert p.min(initial=0) >= 0
            assert p.max(initial=0) <= 1 + 1e-15
        assert_allclose(node.sum(axis=1), 1, rtol=0, atol=tolerance)
        assert_allclose(edge.sum(axis=(1, 2)), 1, rtol=0, atol=tolerance)
        assert_allclose(node, double.node[i, :n], rtol=0, atol=tolerance)
        assert_allclose(edge, double.edge[i, : n - 1], rtol=0, atol=tolerance)
        assert not node[np.isneginf(unary[i, :n])].any()
        assert not edge[:, np.isneginf(pairwise)].any()
        assert_allclose(log_partition[i], double.log_partition[i], rtol=tolerance, atol=tolerance)
        u = wide[0][i, :n]
        value, top = chain_score(u, wide[1], best[i, :n]), chain_score(u, wide[1], chain_viterbi(u, wide[1]))
        assert value >= top - step - total
        assert top <= double.log_partition[i] + total + 1e-12
        k = unary.shape[2]
        assert double.log_partition[i] <= top + n * np.log(k) + total + 1e-12


@given(problems())
def test_laws_of_the_objectives(problem):
    unary, pairwise, labels, lengths = problem
    single = unary.dtype == np.float32
    finite = sum(float(np.abs(x[np.isfinite(x)]).max(initial=0)) for x in (unary, pairwise))
    # In double precision the potentials' sums are known to this, and all else with them.
    known = 64 * len(labels[0]) * np.finfo(float).eps * max(1.0, finite)
    for name in CHAIN_OBJECTIVES:
        found = chain_objective(name, unary, pairwise, labels, lengths)
        double = chain_objective(name, unary.astype(float), pairwise.astype(float), labels, lengths)
        assert found.value >= 0
        assert found.unary.dtype == unary.dtype
        assert np.isfinite(found.unary).all()
        assert np.isfinite(found.pairwise).all()
        rows = found.unary.astype(float)
        size = np.abs(rows).max(axis=2)
        assert (np.abs(rows.sum(axis=2)) <= (2e-6 if single else 1e-12) * size + 1e-44).all()
        if name != "ssvm" or not single:
            tolerance = SINGLE if single else known
            assert_allclose(found.value, double.value, rtol=10 * tolerance, atol=tolerance)
        if name not in ("ssvm", "pseudolikelihood"):
            assert_allclose(found.unary, double.unary, rtol=0, atol=lengths.max() * SINGLE)
    assume(lengths.max() > 1)
    # The labeling is as likely as the conditionals make it, and each factor at least as likely as all of it.
    nll, marginal = (chain_objective(x, unary, pairwise, labels, lengths).value for x in ("nll", "marginal"))
    assert marginal <= lengths.max() * nll * (1 + 1e-5) + 1e-300


@given(problems())
def test_without_pairwise_part_all_is_a_product_of_softmaxes(problem):
    unary, pairwise, labels, lengths = problem
    zero = np.zeros_like(pairwise)
    found = chain_marginals(unary, zero, lengths)
    u = unary.astype(float)
    weight = np.exp(u - u.max(axis=2, keepdims=True))
    product = weight / weight.sum(axis=2, keepdims=True)
    tolerance = SINGLE if unary.dtype == np.float32 else 1e-12
    values = [chain_objective(x, unary, zero, labels, lengths).value for x in ("unary", "nll", "pseudolikelihood")]
    # A loss as small as e^-x is relatively as far off as x is absolutely.
    rounding = float(np.finfo(unary.dtype).eps) * np.ptp(unary[np.isfinite(unary)], axis=None)
    for other in values[1:]:
        rtol = (10 * SINGLE if unary.dtype == np.float32 else 1e-11) + rounding
        assert_allclose(other, values[0], rtol=rtol, atol=1e-300)
    for i, n in enumerate(lengths):
        assert_allclose(found.node[i, :n], product[i, :n], rtol=0, atol=tolerance)
        joint = product[i, : n - 1, :, None] * product[i, 1:n, None]
        assert_allclose(found.edge[i, : n - 1], joint, rtol=0, atol=tolerance)
