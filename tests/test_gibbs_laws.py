"""One suite of laws over every Gibbs distribution of the package: P(Y) = e^{theta . s(Y)} / Z.

Each implementation gives log Z, its gradient (the expected statistics) and the largest score as functions of a flat
vector of log-potentials theta, and the number of its configurations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_allclose

from attnembed import gibbs
from attnembed.structured.chain import chain_log_partition, chain_marginals, chain_score, chain_viterbi
from attnembed.structured.grid import grid_map, grid_mean_field
from tests.gradients import quick_check

K = 3


@dataclass(frozen=True)
class Gibbs:
    """log Z, expected statistics and largest score of theta, each summed over a batch; log of the configurations."""

    size: int
    log_partition: Callable
    expectation: Callable
    best: Callable
    log_count: float


def tokens() -> Gibbs:
    """The softmax over the tokens of sequences, with multiplicities."""
    segments = gibbs.Segments(np.array([0, 2, 7, 8]))
    multiplicity = np.array([1.0, 2.0, 1.0, 1.0, 3.0, 1.0, 2.0, 1.0])
    return Gibbs(
        8,
        lambda u: gibbs.log_partition(u, segments, multiplicity).sum(),
        lambda u: gibbs.probabilities(u, segments, multiplicity),
        lambda u: u[gibbs.mode(u, segments)].sum(),
        float(np.log([3, 8, 1]).sum()),
    )


def chain(lengths, *, pairwise: bool) -> Gibbs:
    """Chains of the given lengths in one padded batch; without a pairwise part W = 0 is no parameter."""
    lengths = np.array(lengths)
    shape = (len(lengths), int(lengths.max()), K)
    mask = np.arange(shape[1]) < lengths[:, None]
    n_unary = int(lengths.sum()) * K

    def parts(theta):
        unary = np.full(shape, np.nan)
        unary[mask] = theta[:n_unary].reshape(-1, K)
        return unary, theta[n_unary:].reshape(K, K) if pairwise else np.zeros((K, K))

    def expectation(theta):
        found = chain_marginals(*parts(theta), lengths)
        edges = found.edge.sum(axis=(0, 1)).ravel() if pairwise else []
        return np.concatenate([found.node[mask].ravel(), edges])

    def best(theta):
        unary, w = parts(theta)
        labels = chain_viterbi(unary, w, lengths)
        return chain_score(unary, w, np.where(mask, labels, 0), lengths).sum()

    return Gibbs(
        n_unary + pairwise * K * K,
        lambda theta: chain_log_partition(*parts(theta), lengths).sum(),
        expectation,
        best,
        float(lengths.sum() * np.log(K)),
    )


def independent_grid() -> Gibbs:
    """A grid without edges' potentials, where mean field is exact."""
    shape, w = (1, 2, 3, 2), np.zeros((2, 2))
    return Gibbs(
        12,
        lambda theta: grid_mean_field(theta.reshape(shape), w).bound.sum(),
        lambda theta: grid_mean_field(theta.reshape(shape), w).node.ravel(),
        lambda theta: grid_map(theta.reshape(shape), w).score.sum(),
        6 * np.log(2),
    )


ALL = {
    "tokens": tokens(),
    "chains of length one": chain([1, 1, 1], pairwise=False),
    "chains without pairwise part": chain([3, 1, 4], pairwise=False),
    "chains": chain([3, 1, 4], pairwise=True),
    "grid without edges": independent_grid(),
}


@pytest.fixture(params=ALL)
def law(request) -> Gibbs:
    return ALL[request.param]


@pytest.fixture(params=[0.1, 1.0, 30.0, 1000.0])
def theta(request, law) -> np.ndarray:
    return request.param * np.random.default_rng(0).normal(size=law.size)


def test_gradient_of_log_partition_is_the_expectation(law, theta):
    report = quick_check(law.log_partition, law.expectation(theta), theta)
    assert report.passed, report.message


def test_expectations_are_probabilities(law, theta):
    p = law.expectation(theta)
    assert p.min() >= 0
    # Expected counts of pairs may exceed one; all of them together are the number of positions and edges.
    total = law.expectation(0 * theta).sum()
    assert_allclose(p.sum(), total, rtol=1e-13)


def test_log_partition_is_convex(law, theta):
    other = np.random.default_rng(1).permutation(theta)
    middle = law.log_partition((theta + other) / 2)
    mean = (law.log_partition(theta) + law.log_partition(other)) / 2
    assert middle <= mean + 1e-13 * max(1.0, abs(mean))


def test_log_partition_lies_above_every_tangent(law, theta):
    other = np.random.default_rng(1).permutation(theta)
    tangent = law.log_partition(theta) + law.expectation(theta) @ (other - theta)
    assert law.log_partition(other) >= tangent - 1e-13 * max(1.0, np.abs(theta).sum())


def test_log_partition_is_near_the_largest_score(law, theta):
    """max <= log Z <= max + log count: the zero-temperature limit, with its rate."""
    best, value = law.best(theta), law.log_partition(theta)
    slack = 1e-13 * max(1.0, abs(best))
    assert best - slack <= value <= best + law.log_count + slack


def test_common_factor_is_temperature(law, theta):
    """The best configuration does not change, its score scales, and log Z(c theta) / c falls to it as c grows."""
    values = []
    for c in (1.0, 10.0, 100.0):
        assert_allclose(law.best(c * theta), c * law.best(theta), rtol=1e-12, atol=1e-12)
        values.append((law.log_partition(c * theta) - law.best(c * theta)) / c)
    slack = 1e-12 * max(1.0, np.abs(theta).sum())
    assert values[0] + slack >= values[1]
    assert values[1] + slack >= values[2] >= -slack
    assert values[2] <= law.log_count / 100 + slack


def test_zero_scores_count_the_configurations(law):
    assert_allclose(law.log_partition(np.zeros(law.size)), law.log_count, rtol=1e-14)


@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0, 1000.0])
def test_a_chain_of_length_one_is_a_token_softmax(spread):
    theta = spread * np.random.default_rng(0).normal(size=9)
    segments, one, law = gibbs.Segments(np.array([0, 3, 6, 9])), np.ones(9), ALL["chains of length one"]
    assert_allclose(law.log_partition(theta), gibbs.log_partition(theta, segments, one).sum(), rtol=1e-14)
    assert_allclose(law.expectation(theta), gibbs.probabilities(theta, segments, one), rtol=1e-12, atol=1e-300)


def test_a_chain_without_pairwise_part_is_a_product_of_softmaxes():
    theta = np.random.default_rng(2).normal(size=24)
    segments, law = gibbs.Segments(np.arange(0, 25, 3)), ALL["chains without pairwise part"]
    assert_allclose(law.log_partition(theta), gibbs.log_partition(theta, segments, np.ones(24)).sum(), rtol=1e-14)
    assert_allclose(law.expectation(theta), gibbs.probabilities(theta, segments, np.ones(24)), rtol=1e-13)
    coupled = ALL["chains"].expectation(np.concatenate([theta, np.arange(9.0)]))[:24]
    assert np.abs(coupled - law.expectation(theta)).max() > 0.1
