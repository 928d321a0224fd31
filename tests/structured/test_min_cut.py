"""The best binary labeling, compared exactly (`fractions.Fraction`) with a search over all labelings."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise as pairwise_of
from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.sparse.csgraph import maximum_flow

from attnembed.errors import InputError
from attnembed.structured import min_cut
from attnembed.structured.grid import grid_decode, grid_icm, grid_map
from attnembed.structured.grid_objectives import grid_objective


def integers(values):
    """The numbers of an array times their common denominator, as nested lists of Python integers, and that number."""
    values = np.asarray(values, dtype=np.float64)
    ratios = [x.as_integer_ratio() for x in values.ravel().tolist()]
    common = max((d for _, d in ratios), default=1)
    return np.array([n * (common // d) for n, d in ratios], dtype=object).reshape(values.shape), common


class Exact:
    """Scores of one image (H, W, 2) in rational numbers; the best one by rows, over all labelings of a row."""

    def __init__(self, unary, pairwise, weights=None):
        height, width = unary.shape[:2]
        unary, of_unary = integers(unary)
        self.scale, self.edges, parts = of_unary, [], []
        for d, shape in enumerate(((height, width - 1), (height - 1, width))):
            weight, of_weight = integers(np.ones(shape) if weights is None else weights[d])
            w, of_w = integers(np.broadcast_to(pairwise, (2, 2, 2))[d])
            parts.append((weight, w, of_weight * of_w))
        self.scale = max(of_unary, *(scale for *_, scale in parts))
        self.unary = (unary * (self.scale // of_unary)).tolist()
        self.edges = [
            (np.multiply.outer(weight, w) * (self.scale // scale)).reshape(*weight.shape, 2, 2).tolist()
            for weight, w, scale in parts
        ]

    def row(self, i, labels):
        total = sum(pixel[a] for pixel, a in zip(self.unary[i], labels))
        return total + sum(edge[a][b] for edge, (a, b) in zip(self.edges[0][i], pairwise_of(labels)))

    def between(self, i, upper, lower):
        return sum(edge[a][b] for edge, a, b in zip(self.edges[1][i], upper, lower))

    def score(self, labels):
        rows = labels.tolist()
        total = sum(self.row(i, row) for i, row in enumerate(rows))
        return Fraction(total + sum(self.between(i, *pair) for i, pair in enumerate(pairwise_of(rows))), self.scale)

    def best(self):
        states = list(product((0, 1), repeat=len(self.unary[0])))
        value = {s: self.row(0, s) for s in states}
        for i in range(1, len(self.unary)):
            value = {s: self.row(i, s) + max(value[t] + self.between(i - 1, t, s) for t in states) for s in states}
        return Fraction(max(value.values()), self.scale)


def shortfall(unary, pairwise, weights=None):
    """How much the decoded labeling of one image misses by, exactly."""
    one = None if weights is None else [w[0] for w in weights]
    exact = Exact(unary[0], pairwise, one)
    return exact.best() - exact.score(grid_decode(unary, pairwise, weights)[0])


def spread(rng, shape, low=-9, high=12):
    """Numbers of both signs whose sizes are spread over many powers of ten."""
    return rng.normal(size=shape) * 10.0 ** rng.uniform(low, high, size=shape)


def edge_weights(rng, height, width, low=-9, high=12):
    return tuple(np.abs(spread(rng, (1, *s), low, high)) for s in ((height, width - 1), (height - 1, width)))


def test_one_large_number_does_not_erase_the_others():
    unary = np.array([[[[1e10, 0.0], [1.0, 0.0], [4.0, 0.0]]]])
    assert_array_equal(grid_decode(unary, np.zeros((2, 2))), [[[0, 0, 0]]])
    assert_array_equal(grid_decode(unary.astype(np.float32), np.zeros((2, 2))), [[[0, 0, 0]]])


def test_images_with_overwhelming_seeds():
    for seed in range(40):
        unary = np.random.default_rng(seed).normal(size=(1, 3, 4, 2))
        unary[0, 0, 0, 0] += 1e9
        unary[0, 2, 3, 1] += 1e9
        assert shortfall(unary, 0.7 * np.eye(2)) == 0


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("sizes", [(-9, 12), (-30, 30), (-290, 290)])
def test_capacities_of_very_different_size(sizes, dtype):
    if dtype == np.float32 and sizes[1] > 100:
        sizes = (-40, 30)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        unary, pairwise = spread(rng, (1, 3, 4, 2), *sizes).astype(dtype), spread(rng, (2, 2, 2), *sizes).astype(dtype)
        assert shortfall(unary, pairwise) == 0
        weights = [w.astype(dtype) for w in edge_weights(rng, 3, 4, -9, 7)]
        assert shortfall(unary, rng.normal(size=(2, 2, 2)).astype(dtype), weights) == 0


def test_two_large_numbers_that_differ_by_little_leave_the_decision_to_the_small_ones():
    """Across a strong edge 1e12 + 1e-3 pulls one way and 1e12 the other: 1e-3 beside the seeds decides."""
    for sign in (1, -1):
        unary = np.zeros((1, 1, 3, 2))
        unary[0, 0, 0, 0], unary[0, 0, 1, 1] = 1e12 + sign * 2.0**-10, 1e12
        assert shortfall(unary, 1e15 * np.eye(2)) == 0
        assert_array_equal(grid_decode(unary, 1e15 * np.eye(2)), np.full((1, 1, 3), (1 - sign) // 2))


@pytest.mark.parametrize("size", [1e8, 1e15, 1e18])
@pytest.mark.parametrize("smaller", [0.0, 1.0])
def test_large_parts_that_cancel_leave_the_decision_to_what_rounding_swallows(size, smaller):
    """W prefers label 1 at the first end of an edge by ``size``, U label 0 by as much: the sum rounds, F does not."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        unary, pairwise = rng.normal(size=(1, 2, 3, 2)), smaller * rng.normal(size=(2, 2, 2))
        for d, w in enumerate(pairwise):
            w[1] += (d + 1) * size / 3
        unary[0, :, :-1, 0] += size / 3
        unary[0, :-1, :, 0] += 2 * size / 3
        assert shortfall(unary, pairwise) == 0


def test_ties_of_decimal_fractions_are_decided_by_their_binary_values():
    """0.4 - 0.1 is not 0.3: many labelings differ by the last bits alone."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        unary, pairwise = rng.integers(-6, 7, size=(150, 1, 3, 2)) / 10, rng.integers(-3, 4, size=(2, 2)) / 10
        unary[:, 0, 0, 0] += 9  # the ends are settled, and the one between them is in doubt
        unary[:, 0, 2, 1] += 9 * rng.choice([-1, 1], size=150)
        for image, labels in zip(unary, grid_decode(unary, pairwise)):
            exact = Exact(image, pairwise)
            assert exact.score(labels) == exact.best()


def test_every_pairwise_part_of_two_labels_is_solved():
    """Repulsive edges too: ICM, which was used there, misses many of the same images."""
    missed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        unary, pairwise = rng.normal(size=(1, 3, 3, 2)), 2 * rng.normal(size=(2, 2, 2))
        exact = Exact(unary[0], pairwise)
        best = exact.best()
        assert exact.score(grid_decode(unary, pairwise)[0]) == best
        assert exact.score(grid_map(unary, pairwise).labels[0]) == best
        missed += exact.score(grid_icm(unary, pairwise)[0]) < best
    assert missed > 20


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_ties_and_small_integers(seed, height, width, weighted):
    rng = np.random.default_rng(seed)
    unary, pairwise = rng.integers(-2, 3, size=(1, height, width, 2)), rng.integers(-2, 3, size=(2, 2, 2))
    weights = tuple(w.round() for w in edge_weights(rng, height, width, 0, 0)) if weighted else None
    assert shortfall(unary.astype(float), pairwise.astype(float), weights) == 0


def test_ties_go_to_label_one():
    assert_array_equal(grid_decode(np.zeros((1, 2, 3, 2)), np.eye(2)), np.ones((1, 2, 3)))
    unary = np.zeros((1, 1, 5, 2))
    unary[0, 0, 0, 0] = unary[0, 0, 4, 1] = 3
    assert_array_equal(grid_decode(unary, np.eye(2)), [[[0, 1, 1, 1, 1]]])


def by_one_integer_cut(unary, pairwise):
    """The largest score of an image with attractive integer potentials: one arc per edge, from 0 to 1."""
    height, width = unary.shape[:2]
    n = height * width
    constant, linear, arcs = 0, unary[..., 1].ravel() - unary[..., 0].ravel(), []
    constant += unary[..., 0].sum()
    for u, v, w in [(i, i + 1, pairwise[0]) for i in range(n) if i % width < width - 1] + [
        (i, i + width, pairwise[1]) for i in range(n - width)
    ]:
        constant += w[0, 0]
        linear[u] += w[1, 0] - w[0, 0]
        linear[v] += w[1, 1] - w[1, 0]
        arcs.append((u, v, w[0, 0] + w[1, 1] - w[0, 1] - w[1, 0]))
    constant += linear[linear > 0].sum()
    arcs += [(u, n + 1, x) for u, x in enumerate(linear) if x > 0] + [(n, u, -x) for u, x in enumerate(linear) if x < 0]
    # A pixel on the side of the source has label 0: it gives up what label 1 would gain.
    tails, heads, capacities = (np.array(part) for part in zip(*arcs))
    graph = sp.csr_array((capacities.astype(np.int32), (tails, heads)), shape=(n + 2, n + 2))
    return constant - maximum_flow(graph, n, n + 1).flow_value


@pytest.mark.parametrize("seed", range(4))
def test_larger_images_against_one_cut_of_integers(seed):
    rng = np.random.default_rng(seed)
    unary, pairwise = rng.integers(-9, 10, size=(5, 12, 14, 2)), rng.integers(-3, 4, size=(2, 2, 2))
    for w in pairwise:
        w[0, 0] += max(0, w[0, 1] + w[1, 0] - w[0, 0] - w[1, 1])
    found = grid_map(unary, pairwise)
    assert_array_equal(found.score, [by_one_integer_cut(image, pairwise) for image in unary])


@pytest.mark.parametrize("repulsive", [False, True])
def test_exact_integers_alone_give_the_same_labels(monkeypatch, repulsive):
    """Whatever the leading digits decide is what the exact stage decides; here it gets nothing from them."""
    rng = np.random.default_rng(0)
    unary, weights = rng.normal(size=(2, 12, 12, 2)), tuple(rng.random((2, *s)) for s in ((12, 11), (11, 12)))
    pairwise = rng.normal(size=(2, 2, 2)) - (3 if repulsive else -3) * np.eye(2)
    problems = [(unary, pairwise, weights), (unary.astype(np.float32), pairwise.astype(np.float32), None)]
    problems.append((np.where(rng.random(unary.shape) < 0.02, 1e11, 1.0) * unary, pairwise, weights))
    expected = [grid_decode(*problem) for problem in problems]
    monkeypatch.setattr(min_cut, "_leading_cut", lambda inside, *_: np.zeros(inside.shape, dtype=np.int8))
    for problem, labels in zip(problems, expected):
        assert_array_equal(grid_decode(*problem), labels)


@pytest.mark.parametrize("share", [0.1, 0.9], ids=["few at the sink", "few at the source"])
def test_the_flow_from_the_terminal_of_fewer_pixels_is_a_maximum_flow(share):
    """Within the capacities, antisymmetric, conserved at every pixel, and as large as the other one."""
    rng = np.random.default_rng(0)
    inside = rng.random((2, 7, 8)) < 0.9
    network = min_cut._FlowNetwork(inside, rng.random(inside.shape) < share)
    edges = [rng.integers(0, 9, size=(2, *sides)).astype(np.int32) for sides in ((7, 7), (6, 8))]
    capacities = network.capacities(rng.integers(0, 20, size=inside.shape).astype(np.int32), edges)
    flow, plain = network.flow_from_fewer(capacities), network.flow(capacities)
    assert (flow <= capacities).all()
    net = network._matrix(flow)
    assert abs(net + net.T).max() == 0
    out = net.sum(axis=1)
    assert not out[: network.size].any()
    assert out[network.size] == network._matrix(plain).sum(axis=1)[network.size] > 0


def test_the_leading_digits_settle_ordinary_images(monkeypatch):
    """The exact stage is for what is left: on ordinary images hardly ever anything."""
    calls = []
    exact = min_cut._exact_spins
    monkeypatch.setattr(min_cut, "_exact_spins", lambda *args: calls.append(1) or exact(*args))
    rng = np.random.default_rng(0)
    grid_decode(rng.normal(size=(60, 16, 16, 2)), 0.8 * np.eye(2))
    assert len(calls) <= 3
    grid_decode(np.zeros((1, 3, 3, 2)), np.eye(2))
    assert len(calls) >= 1


def test_the_loss_augmented_labeling_is_exact_for_repulsive_edges():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        unary, pairwise = rng.normal(size=(1, 3, 3, 2)), 2 * rng.normal(size=(2, 2, 2))
        labels = rng.integers(0, 2, size=(1, 3, 3))
        wrong = (np.arange(2) != labels[..., None]) / 9
        expected = Exact(unary[0] + wrong[0], pairwise).best() - Exact(unary[0], pairwise).score(labels[0])
        value = grid_objective("ssvm", unary, pairwise, labels).value
        assert value == pytest.approx(float(expected), rel=1e-13, abs=1e-13)


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 4), st.sampled_from((-20, 0, 20)))
def test_the_gap_covers_the_rounding_of_the_score(seed, height, width, power):
    rng = np.random.default_rng(seed)
    unary, pairwise = spread(rng, (1, height, width, 2), power - 5, power), spread(rng, (2, 2, 2), power - 5, power)
    weights = edge_weights(rng, height, width, -3, 0)
    found = grid_map(unary, pairwise, weights)
    best = Exact(unary[0], pairwise, [w[0] for w in weights]).best()
    assert abs(best - Fraction(float(found.score[0]))) <= Fraction(found.gap)
    assert found.gap <= 1e-14 * height * width * 3 * (np.abs(unary).sum() + 4 * height * width * np.abs(pairwise).max())


@pytest.mark.parametrize(
    ("unary", "pairwise"),
    [
        (np.full((1, 2, 2, 2), [1e308, -1e308]), np.zeros((2, 2))),
        (np.zeros((1, 2, 2, 2)), 1e308 * np.array([[1.0, -1.0], [-1.0, 1.0]])),
        (np.full((1, 40, 40, 2), [1e305, 0.0]), np.zeros((2, 2))),
    ],
)
def test_scores_beyond_the_largest_float_are_refused(unary, pairwise):
    with pytest.raises(InputError, match="`unary` and `pairwise` must leave the scores finite"):
        grid_decode(unary, pairwise)
