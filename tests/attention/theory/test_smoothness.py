"""The smoothness bound: an exact diameter, never below the Hessian's norm, and not vacuous."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.attention.theory import smoothness_bound
from attnembed.attention.theory.smoothness import _eccentricities
from tests.attention.theory.instances import as_model
from tests.plain import AttentionProblem, attention_problems


def rows_of(data: TokenDataset) -> list[np.ndarray]:
    return np.split(data.counts.indices, data.counts.indptr[1:-1])


@given(attention_problems(vocab=(2, 12), n=(2, 8)), st.sampled_from([1e-3, 1.0, 1e3]), st.sampled_from([0.0, 1e4]))
def test_range_and_diameter_are_exact(problem: AttentionProblem, scale: float, shift: float) -> None:
    model, data = as_model(problem)
    model = model.replace(E=scale * (model.E + shift))
    bound = smoothness_bound(model, data)
    diameter = max(pdist(model.E[row]).max(initial=0.0) for row in rows_of(data))
    value_range = max(float(np.ptp(model.token_values[row])) for row in rows_of(data))
    np.testing.assert_allclose(bound.diameter, diameter, rtol=1e-12, atol=1e-12 * scale * (1 + shift))
    assert bound.value_range == value_range
    assert bound.beta == bound.value_range**2 * bound.diameter**2 / 64 + bound.value_range * bound.diameter**2 / 4


def test_pruning_never_loses_the_farthest_pair() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        E = rng.standard_t(3, size=(40, 3))
        data = TokenDataset.from_tokens([rng.integers(0, 40, size=12) for _ in range(8)], [1, -1] * 4, vocab_size=40)
        diameter = max(pdist(E[row]).max() for row in rows_of(data))
        model = AttentionModel(E, np.zeros(3), np.ones(3))
        np.testing.assert_allclose(smoothness_bound(model, data).diameter, diameter, rtol=1e-14)


@pytest.mark.parametrize("apart", [0.0, 1e7])
def test_dropping_tokens_by_their_farthest_partner_loses_nothing(apart: float) -> None:
    """Many sequences over few tokens: after some of them most tokens are dropped."""
    rng = np.random.default_rng(2)
    for length in (2, 2, 2, 2, 3, 8):  # in short ones few of the pairs are together
        E = rng.standard_t(3, size=(24, 3)) + apart * (np.arange(24) % 2)[:, None]
        lists = [2 * rng.choice(12, size=length, replace=False) + k % 2 for k in range(200)]
        data = TokenDataset.from_tokens(lists, [1, -1] * 100, vocab_size=24)
        diameter = max(pdist(E[row]).max() for row in rows_of(data))
        found = smoothness_bound(AttentionModel(E, np.zeros(3), np.ones(3)), data).diameter
        np.testing.assert_allclose(found, diameter, rtol=1e-13, atol=1e-15 * apart)


@given(attention_problems(), st.sampled_from([0.1, 1.0, 10.0]))
def test_beta_bounds_the_hessian(problem: AttentionProblem, norm: float) -> None:
    model, data = as_model(problem.scaled(norm))
    assert np.linalg.norm(model.hessian_p(data), 2) <= smoothness_bound(model, data).beta * (1 + 1e-12)


def test_the_bound_is_within_a_factor_of_five() -> None:
    # Two tokens of value -G at +-R/2 and one of value 0 between them, with half of the mass each, label +1 and
    # outputs so low that sigma(-y f) = 1: K = G R^2 / 16 is a quarter of the term G R^2 / 4.
    G, R = 0.01, 3.0
    E = np.array([[R / 2, -60 - G], [-R / 2, -60 - G], [0.0, -60.0], [0.0, 60.0]])
    data = TokenDataset.from_tokens([[0, 1, 2, 2], [3]], [1, -1])
    model = AttentionModel(E, [0.0, 0.0], [0.0, 1.0])
    # The second sequence has one token type and contributes only to n.
    norm = data.n_samples * np.linalg.norm(model.hessian_p(data), 2)
    assert 0.2 < norm / smoothness_bound(model, data).beta < 0.26


def test_small_clusters_far_apart() -> None:
    # Squared distances from the common centre are 1e16 and have no digits left for distances near 1.
    rng = np.random.default_rng(0)
    for _ in range(20):
        E = np.concatenate([1e8 + rng.integers(0, 8, size=(6, 2)), -1e8 + rng.integers(0, 8, size=(6, 2))])
        data = TokenDataset.from_tokens([list(range(6)), list(range(6, 12))], [1, -1])
        diameter = max(pdist(E[:6]).max(), pdist(E[6:]).max())
        assert smoothness_bound(AttentionModel(E, [0.0, 0.0], [1.0, 0.0]), data).diameter == diameter


def test_tokens_that_never_meet_do_not_count() -> None:
    model = AttentionModel([[0.0], [1.0], [1000.0]], [0.0], [1.0])
    apart = TokenDataset.from_tokens([[0, 1], [2]], [1, -1])
    together = TokenDataset.from_tokens([[0, 1], [1, 2]], [1, -1])
    assert smoothness_bound(model, apart).diameter == 1.0
    assert smoothness_bound(model, together).diameter == 999.0


def test_no_token_is_dropped_that_has_a_farther_partner() -> None:
    X = np.random.default_rng(3).normal(size=(70, 4))
    farthest = cdist(X, X).max(axis=1)
    found = _eccentricities(X, np.linalg.norm(X, axis=1), block=16)
    assert (found >= farthest).all()
    np.testing.assert_allclose(found, farthest, rtol=1e-12)


@pytest.mark.thorough
def test_exact_at_the_size_of_reviews() -> None:
    rng = np.random.default_rng(0)
    vocab_size, weights = 20_000, 1 / np.arange(1, 20_001)
    lengths = np.clip(rng.lognormal(5.2, 0.5, size=5_000), 20, 1000).astype(int)
    drawn = rng.choice(vocab_size, size=lengths.sum(), p=weights / weights.sum())
    data = TokenDataset.from_tokens(np.split(drawn, np.cumsum(lengths)[:-1]), np.tile([1, -1], 2_500), vocab_size)
    model = AttentionModel.random(vocab_size, 64, rng=rng)
    bound = smoothness_bound(model, data)
    sample = rng.choice(5_000, size=300, replace=False)
    assert bound.diameter >= max(pdist(model.E[rows_of(data)[i]]).max() for i in sample)
