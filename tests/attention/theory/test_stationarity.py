"""Components of the gradient along the dual basis: predicted, positive, and monotone along the flow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from attnembed.attention.data import TokenDataset
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.theory import divergence
from attnembed.testing import generators
from tests.attention.theory.instances import random_instance, unit_model


@given(generators(), st.sampled_from([0.0, 0.1, 1.0, 10.0, 50.0, 500.0]))
def test_components_are_predicted(rng: np.random.Generator, norm: float) -> None:
    model, data = random_instance(rng, extra_dims=1)
    model = model.replace(p=norm * model.p / np.linalg.norm(model.p))
    growth = divergence(model, data)
    assume(growth.tokens.size)
    grads = model.loss_and_grads(data)[1]
    measured = -(growth.dual_basis @ grads.scaled_p)
    predicted = np.exp(growth.log_inner_products - grads.log_scale)
    scale = np.linalg.norm(grads.scaled_p) * np.linalg.norm(growth.dual_basis, axis=1)
    assert (np.abs(measured - predicted) <= 1e-10 * scale).all()
    assert np.isfinite(growth.log_inner_products).all()
    assert growth.holds


def test_dual_basis() -> None:
    model, data = random_instance(np.random.default_rng(0), extra_dims=3)
    growth = divergence(model, data)
    occurring = np.flatnonzero(data.frequency > 0)
    product = growth.dual_basis @ model.E[occurring].T
    expected = (growth.tokens[:, None] == occurring).astype(float)
    assert np.abs(product - expected).max() < 1e-12


def test_coefficients_grow_along_the_flow_and_their_sum_is_conserved() -> None:
    data = TokenDataset.from_tokens([[0, 2, 3], [1, 2, 3], [0, 3]], [1, -1, 1])
    rng = np.random.default_rng(1)
    model = AttentionModel(rng.standard_normal((4, 5)), -3 * rng.standard_normal(5), np.zeros(5))
    # Token 0 is top in the positive sequences, token 1 in the negative one.
    model = model.replace(v=np.linalg.pinv(model.E) @ np.array([2.0, -2.0, 0.1, -0.1]))
    growth = divergence(model, data)
    assert growth.tokens.tolist() == [0, 1]
    flow = gradient_flow(model, data, until=30.0)
    q = (flow.path - model.p) @ np.linalg.pinv(model.E)
    assert (np.diff(q[:, growth.tokens], axis=0) > 0).all()
    assert np.abs(q.sum(axis=1)).max() < 1e-8 * np.abs(q).max()
    # The irrelevant tokens pay for it: their coefficients fall.
    assert q[-1, 2] < 0
    assert q[-1, 3] < 0


def test_a_token_that_is_beaten_somewhere_is_not_listed() -> None:
    data = TokenDataset.from_tokens([[0, 2], [1, 2], [0, 3], [4, 4]], [1, -1, 1, -1])
    growth = divergence(unit_model([1.0, -1.0, 0.0, 2.0, -5.0]), data)
    # 0 loses to 3 in the third sequence; 4 is alone; 2 always loses.
    assert growth.tokens.tolist() == [1, 3]
    tied = divergence(unit_model([1.0, -1.0, 1.0, 0.0, 0.0]), data)
    assert 0 not in tied.tokens


def test_dependent_embeddings_are_reported() -> None:
    data = TokenDataset.from_tokens([[0, 1], [0, 1]], [1, -1])
    growth = divergence(AttentionModel([[1.0, 1.0], [2.0, 2.0]], [0.0, 0.0], [1.0, 0.0]), data)
    assert not growth.holds
    assert [h.name.split(":")[0] for h in growth.failures] == [
        "independent embeddings",
        "a token is strictly top wherever it occurs",
    ]


def test_more_tokens_than_dimensions_are_dependent() -> None:
    model = AttentionModel(np.random.default_rng(2).standard_normal((3, 2)), [0.0, 0.0], [1.0, -1.0])
    growth = divergence(model, TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1]))
    assert growth.hypotheses[0].measured == 0.0
    assert np.isnan(growth.dual_basis).all()


def test_without_a_strictly_top_token_there_can_be_a_stationary_point() -> None:
    # The same sequence with both labels: the losses balance at p = 0 by symmetry.
    data = TokenDataset.from_tokens([[0, 1], [0, 1]], [1, -1])
    model = unit_model([1.0, -1.0])
    assert np.linalg.norm(model.loss_and_grads(data)[1].p) == 0.0
    growth = divergence(model, data)
    assert growth.tokens.size == 0
    assert not growth.holds


@pytest.mark.parametrize("norm", [1e3, 1e5])
def test_logarithms_survive_where_the_components_underflow(norm: float) -> None:
    data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    growth = divergence(unit_model([1.0, -1.0, 0.0]).replace(p=norm * np.array([1.0, 1.0, -2.0])), data)
    # a_0 (gamma* - y f) sigma / n with 1 - a_0 = e^{-3 norm}
    np.testing.assert_allclose(growth.log_inner_products, np.log(1 / (1 + np.e) / 2) - 3 * norm, rtol=1e-14)
    assert (growth.inner_products == 0).all()
