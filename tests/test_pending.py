"""Adam with pending rows is Adam: the same numbers as steps on all rows, one by one."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnembed as ae
from attnembed import pending
from attnembed.errors import InputError
from attnembed.pending import PendingRows, distinct, gauss_rules
from attnembed.structured import layers as nn
from attnembed.structured.stepping import Stepper


@dataclass(frozen=True, kw_only=True)
class EveryRow(ae.Adam):
    """Adam, of a type for which training leaves no row pending."""


def follow(adam, dtype, n_steps, *, n_rows=40, dim=3, schedule=lambda k: 1.0, sizes=(-6, 3), seed=0):
    """Parameter, mean and square after steps on random rows, all rows at every step and with pending rows."""
    rng = np.random.default_rng(seed)
    plain = rng.normal(size=(n_rows, dim)).astype(dtype)
    table = plain.copy()
    state, own = adam.init({"E": plain}), adam.init({"E": table})
    held = PendingRows(adam, own, "E", table)
    for k in range(n_steps):
        ids = rng.integers(0, n_rows, size=int(rng.integers(1, 12)))
        rows, rate = distinct(ids, n_rows), adam.step_size * schedule(k)
        gradient = np.zeros_like(plain)
        size = 10.0 ** rng.integers(*sizes, size=(len(rows), 1))
        gradient[rows] = (rng.normal(size=(len(rows), dim)) * size).astype(dtype)
        adam.update({"E": plain}, {"E": gradient}, state, rate)
        taken = held.take(rows, rate)
        if taken is None:
            adam.update({"E": table}, {"E": gradient}, own, rate)
            continue
        assert np.array_equal(np.sort(held.places(rows)), np.arange(len(rows)))
        arrays, view = held.instead({"E": table}, taken)
        adam.update(arrays, {"E": gradient[held.rows]}, view, rate)
        held.put(taken, view.step, rate)
    held.settle()
    assert own.step == state.step == n_steps
    slots = [(state.slots[slot]["E"], own.slots[slot]["E"]) for slot in ("mean", "square")]
    return [(plain, table), *slots]


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_steps=st.integers(1, 50),
    beta1=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    beta2=st.sampled_from([0.0, 0.5, 0.9, 0.999]),
    epsilon=st.sampled_from([1e-12, 1e-8, 1e-2]),
    weight_decay=st.sampled_from([0.0, 0.5, 150.0]),
    period=st.integers(2, 5),
)
def test_pending_steps_are_those_taken_one_by_one(seed, n_steps, beta1, beta2, epsilon, weight_decay, period):
    adam = ae.Adam(step_size=0.01, beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay)
    found = follow(adam, np.float64, n_steps, schedule=lambda k: float(k % period > 0), seed=seed)
    for plain, other in found:
        assert np.abs(plain - other).max() <= 1e-12 * max(1.0, np.abs(plain).max())
        assert np.allclose(plain, other, rtol=1e-11, atol=1e-13)


def test_single_precision_differs_by_rounding():
    for plain, other in follow(ae.Adam(step_size=0.01), np.float32, 200):
        assert other.dtype == np.float32
        assert np.abs(plain - other).max() <= 2e-5 * max(1.0, np.abs(plain).max())


def test_squares_beyond_the_range_are_taken_row_by_row():
    for plain, other in follow(ae.Adam(step_size=0.01), np.float32, 40, sizes=(20, 30)):
        assert np.isfinite(other).all()
        assert np.allclose(plain, other, rtol=2e-4)


@pytest.mark.parametrize(
    ("options", "n_taken", "left"),
    [
        ({}, 20, True),
        ({}, 21, False),
        ({"epsilon": 1e-160}, 1, False),
        ({"beta2": 0.4}, 1, False),
        ({"weight_decay": 1.0}, 1, True),
        ({"weight_decay": 1.5}, 1, False),
    ],
)
def test_rows_are_left_pending_where_it_is_exact_and_pays(options, n_taken, left):
    adam = ae.Adam(step_size=1.0, **options)
    table = np.ones((40, 3))
    held = PendingRows(adam, adam.init({"E": table}), "E", table)
    assert (held.take(np.arange(n_taken), 1.0) is not None) == left


@pytest.mark.parametrize("eps", [1e-7, 2e-16])
def test_a_rule_gives_the_sum_for_every_root(eps):
    weights = 0.9 ** np.arange(30) * np.tri(30)[::-1]
    nodes = 1e-8 * np.sqrt(1 - 0.999 ** np.arange(1, 31)) * np.ones((30, 1))
    w, x = gauss_rules(weights, nodes, weights > 0, eps)
    assert w.shape[1] < 30
    for root in (0.0, 1e-10, 1e-9, 1e-8, 1.0):
        exact = np.array([np.sum(a / (root + b)) for a, b in zip(weights, nodes)])
        assert np.allclose((w / (root + x)).sum(axis=1), exact, rtol=max(eps, 2e-14))


def _tagging(rng, network=None):
    features = [rng.integers(0, 60, size=(length, 4)) for length in rng.integers(1, 6, size=30)]
    data = ae.ChainDataset(features, [rng.integers(0, 3, size=len(x)) for x in features])
    layers = network or [nn.EmbeddingSum(200, 5, scale=0.3), nn.Tanh(), nn.Dense(5, 3)]
    model = ae.ChainCRF(ae.Network.create(layers, rng=rng), rng.normal(size=(3, 3)))
    return model, data


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "stage", "stage_epochs": (1, 1, 1)},
        {"scaling": ae.OnlineScaling(subset=10), "rates": {"network": 0.5}},
        {"schedule": ae.optim.Cosine(30, warmup=5)},
    ],
)
@pytest.mark.parametrize("layers", [None, [nn.Embedding(200, 2), nn.Dense(8, 3)]])
def test_training_is_the_same(options, layers, monkeypatch):
    taken = []
    monkeypatch.setattr(Stepper, "_pending", _seen(Stepper._pending, taken))
    monkeypatch.setattr(pending, "_LONGEST", 4)
    model, data = _tagging(np.random.default_rng(3), layers)
    results = [
        ae.train_structured(model, data, optimizer=kind(step_size=0.05), n_epochs=3, batch_size=3, rng=0, **options)
        for kind in (ae.Adam, EveryRow)
    ]
    assert any(one is not None for one in taken)
    assert taken[-1] is None
    assert np.allclose(results[0].history.loss, results[1].history.loss, rtol=1e-11)
    for name, value in results[0].last_model.parameters().items():
        assert np.allclose(value, results[1].last_model.parameters()[name], rtol=0, atol=1e-12)


def _seen(method, out):
    def call(self, stage):
        out.append(method(self, stage))
        return out[-1]

    return call


def test_ids_that_are_not_in_the_table_are_named():
    model, _ = _tagging(np.random.default_rng(3))
    wrong = ae.ChainDataset([np.array([[1, 2, 3, 200]])], [[0]])
    for bad in (wrong, ae.ChainDataset([np.array([[1, 2, 3, -1]])], [[0]])):
        with pytest.raises(InputError, match=r"must be ids in 0..199"):
            ae.train_structured(model, bad, n_epochs=1, rng=0)
