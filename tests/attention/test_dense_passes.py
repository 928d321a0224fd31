"""The dense form of the passes on small data, against the form that has its own anchor in every row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from attnembed.attention import dense_passes
from attnembed.attention.data import TokenDataset
from attnembed.attention.dense_passes import DenseField, DensePasses, is_small
from attnembed.attention.flow import _ClsField, gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.passes import AnchoredPass, loss_gap
from attnembed.gibbs import probabilities


def random_problem(seed: int) -> tuple[TokenDataset, AttentionModel]:
    """Few or one token in a sequence, repeated tokens, tied values and scores, saturated norms, V < d and V > d."""
    rng = np.random.default_rng(seed)
    n, V, d = rng.integers([2, 1, 1], [12, 9, 9])
    counts = rng.integers(0, 4, (n, V)) * (rng.random((n, V)) < rng.uniform(0.1, 1))
    counts[np.arange(n), rng.integers(0, V, n)] += 1
    E = rng.standard_normal((V, d)) * 10 ** rng.uniform(-2, 1)
    if rng.random() < 0.3:
        E[rng.integers(V)] = E[0]
    if rng.random() < 0.3:
        E = np.round(E)
    p = rng.standard_normal(d) * 10 ** rng.uniform(-2, 2)
    data = TokenDataset.from_counts(counts, np.where(np.arange(n) % 2, 1, -1))
    return data, AttentionModel(E, p, rng.standard_normal(d))


SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
@example(19918)  # one token, whose terms cancel
def test_sums_and_gradients_are_those_of_the_rows(seed: int) -> None:
    data, model = random_problem(seed)
    u, g = model.E @ model.p, model.E @ model.v
    rows = AnchoredPass(data, u, g)
    terms = np.abs(rows.slope).sum() * np.exp(rows.log_scale)
    found = DensePasses(data).sums(u, g)
    if found is None:
        assert np.ptp(u) + np.abs(g).max() > 600
        return
    loss, output, A, B = found
    size = 1 + np.abs(u).max()  # e^u has the rounding of u
    rounding = 1e-14 * size * np.ptp(g) + 1e-15 * np.abs(g).max()
    assert_allclose(output, rows.output, rtol=0, atol=rounding)
    assert_allclose(loss, rows.sums.loss, rtol=1e-12)
    # A_s is a sum over sequences of either sign, and may be far smaller than its terms.
    shares = expit(-data.labels * rows.output).mean()
    assert_allclose(A, rows.sums.A, rtol=0, atol=1e-14 * size * shares)
    assert np.abs(B - rows.scaled_B * np.exp(rows.log_scale)).sum() <= 1e-13 * size * terms
    value, grads = model.loss_and_grads(data)
    assert value == loss == model.loss(data)
    largest = np.linalg.norm(model.E, axis=1).max()
    assert np.linalg.norm(grads.p + model.E.T @ B) <= 1e-13 * terms * largest
    assert_allclose(grads.v, -model.E.T @ A, atol=1e-14 * largest * np.abs(A).sum())


@given(SEEDS, st.lists(st.floats(0, 60), min_size=1, max_size=5))
def test_the_field_is_that_of_the_rows_along_a_path(seed: int, lengths: list[float]) -> None:
    """The anchors are kept from point to point, and are right wherever the path goes."""
    data, model = random_problem(seed)
    field = _ClsField(model, data)
    dense = DenseField(data, field.embeddings, field.scores, field.values)
    rng = np.random.default_rng(seed)
    E = field.embeddings - field.embeddings.mean(axis=0)
    largest = np.linalg.norm(E, axis=1).max()
    path = [length * rng.standard_normal(field.rank) for length in lengths]
    for x in path:
        rows = AnchoredPass(data, field._scores(x), field.values)
        rounding = 1e-13 * (1 + np.abs(field._scores(x)).max()) * np.exp(rows.log_scale)
        terms = np.abs(rows.slope).sum()
        if (force := dense.force(x)) is not None:
            exact = E.T @ rows.scaled_B * np.exp(rows.log_scale)
            assert np.linalg.norm(force - exact) <= rounding * terms * largest
        if (jacobian := dense.jacobian(x)) is not None:
            exact = -rows.scaled_hessian(E) * np.exp(rows.log_scale)
            spread = 1 + np.ptp(field.values)
            assert np.abs(jacobian - exact).max() <= 10 * rounding * terms * largest**2 * spread
    seen = dense.observe(np.array(path), field.top, field.gamma)
    if seen is not None:
        for x, (gap, attention) in zip(path, seen.T):
            a = probabilities(field._scores(x)[data.counts.indices], data.segments, data.counts.data)
            expected = loss_gap(data, field.values, field.top, field.gamma, a)
            assert gap == pytest.approx(expected, rel=1e-11, abs=1e-13 * (1 + np.ptp(field.values)))
            assert attention == pytest.approx(a[field._is_top].min(), rel=1e-11)


@pytest.mark.parametrize("seed", range(2))
def test_flows_end_where_the_general_form_ends(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3, (8, 6))
    counts[np.arange(8), rng.integers(0, 6, 8)] += 1
    data = TokenDataset.from_counts(counts, np.where(np.arange(8) % 2, 1, -1))
    model = AttentionModel(rng.standard_normal((6, 4)), 0.1 * rng.standard_normal(4), rng.standard_normal(4))
    dense = gradient_flow(model, data, until=6.0)
    monkeypatch.setattr(dense_passes, "_ENTRIES", 0)
    assert not is_small(data)
    general = gradient_flow(model, data, until=6.0)
    assert_allclose(dense.p, general.p, rtol=0, atol=1e-7 * np.linalg.norm(general.p))
    assert_allclose(dense.loss_gap[-1], general.loss_gap[-1], rtol=1e-6)
    assert_allclose(dense.top_attention[-1], general.top_attention[-1], rtol=1e-6)


def test_rest_is_rest() -> None:
    """Where the terms cancel to rounding the force is zero, and stays zero late in the flow."""
    data = TokenDataset.from_tokens([[0, 1], [0, 1, 1]], [1, -1])
    model = AttentionModel([[1.0, 0.3], [-1.0, 0.5]], [0.3, 0.1], [1.0, 0.2])
    flow = gradient_flow(model, data, until=60.0)
    field = _ClsField(model, data)
    assert_array_equal(DenseField(data, field.embeddings, field.scores, field.values).force(flow.p - model.p), 0)


def test_large_data_have_the_general_form() -> None:
    data, model = random_problem(0)
    assert _ClsField(model, data)._dense is not None
    many = TokenDataset.from_tokens(np.arange(200)[:, None] % 50, np.where(np.arange(200) % 2, 1, -1))
    assert not is_small(many)
    assert _ClsField(AttentionModel.random(50, 3, rng=0), many)._dense is None
