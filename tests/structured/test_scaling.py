"""Scaling: the search over the relative scale, folding with the optimiser's state, the fixed ratio."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from attnembed.errors import InputError, InputTypeError
from attnembed.optim import SGD, Adam
from attnembed.structured.chain import chain_sample
from attnembed.structured.data import ChainDataset, make_chain_dataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import identity, mlp
from attnembed.structured.scaling import (
    OfflineScaling,
    OnlineScaling,
    best_pairwise_factor,
    bigram_potentials,
    fold,
    normalised,
    normalised_gradient,
    scale_diagnosis,
    suggest_ratio,
)
from attnembed.structured.theory import component_norms, effective_step_size
from attnembed.structured.training import train_structured
from tests.gradients import quick_check

DATA = make_chain_dataset(60, 6, 4, 5, rng=0)


def model(scale=1.0, seed=0):
    noise = np.random.default_rng(seed).normal(size=(4, 4))
    return ChainCRF(mlp(5, (), 4, rng=seed), bigram_potentials(DATA, 4) + 0.5 * noise, pairwise_scale=scale)


@pytest.mark.parametrize("objective", ["nll", "ssvm", "pseudolikelihood", "marginal"])
def test_search_never_raises_the_objective(objective):
    for scale in (0.03, 1.0, 30.0):
        start = replace(model(scale), unary_scale=0.4)
        found = best_pairwise_factor(start, DATA, objective)
        assert_allclose(found.before, start.loss(DATA, objective), rtol=1e-14)
        scaled = replace(start, pairwise_scale=scale * found.factor)
        assert_allclose(found.after, scaled.loss(DATA, objective), rtol=1e-12)
        assert found.after <= found.before


def test_search_finds_the_best_of_a_fine_grid():
    found = best_pairwise_factor(model(3.0), DATA, low=-6, high=3, tolerance=1e-6)
    fine = 2.0 ** np.linspace(-6, 3, 400)
    losses = [model(3.0 * factor).loss(DATA) for factor in fine]
    assert found.after <= min(losses)
    assert abs(np.log2(found.factor / fine[int(np.argmin(losses))])) < 0.03


def test_diagnosis_does_not_depend_on_the_present_scale():
    best = [scale_diagnosis(model(scale), DATA).best_pairwise_scale for scale in (0.1, 1.0, 10.0)]
    assert_allclose(best, best[0], rtol=0.01)
    diagnosis = scale_diagnosis(model(10.0), DATA)
    assert_allclose(diagnosis.ratio, diagnosis.unary_norm / diagnosis.pairwise_norm, rtol=1e-15)
    assert diagnosis.factor < 0.2
    assert diagnosis.gain > 1
    assert f"ratio {diagnosis.ratio:.3g}" in str(diagnosis)
    assert scale_diagnosis(ChainCRF(model().network, np.zeros((4, 4))), DATA).ratio == np.inf


@pytest.mark.parametrize("optimizer", [Adam(step_size=0.1, epsilon=1e-300), SGD(step_size=0.1, momentum=0.9)])
def test_folding_is_training_the_folded_parameters(optimizer):
    """Gradients g of W, then folding by a, is the state of an optimiser that saw the gradients g / a of a W."""
    rng, factor = np.random.default_rng(0), 3.7
    a, b = {"pairwise": np.ones((2, 2))}, {"pairwise": factor * np.ones((2, 2))}
    left, right = optimizer.init(a), optimizer.init(b)
    for _ in range(5):
        gradient = rng.normal(size=(2, 2))
        optimizer.update(a, {"pairwise": gradient}, left)
        optimizer.update(b, {"pairwise": gradient / factor}, right)
    fold(a, ("pairwise",), factor, optimizer, left)
    for slot in optimizer.slots:
        assert_allclose(left.slots[slot]["pairwise"], right.slots[slot]["pairwise"], rtol=1e-13)
    wrong = optimizer.init(a)
    assert any((left.slots[s]["pairwise"] != wrong.slots[s]["pairwise"]).any() for s in optimizer.slots)


def test_folding_realises_the_scales():
    scaled = ChainCRF(model().network, model().pairwise, unary_scale=0.3, pairwise_scale=5.0)
    params = model().parameters()
    fold(params, tuple("network." + name for name in model().network.output), 0.3)
    fold(params, ("pairwise",), 5.0)
    folded = model().with_parameters(params)
    assert_allclose(folded.loss(DATA), scaled.loss(DATA), rtol=1e-13)
    assert_array_equal(folded.predict_rows(DATA), scaled.predict_rows(DATA))


@pytest.mark.parametrize("c", [0.01, 0.5, 20.0])
def test_effective_steps(c):
    """One step on W~ moves W = c W~ by c^2 eta times the gradient (SGD), or by c eta in every entry (Adam)."""
    eta, plain = 1e-3, model(1.0).loss_and_grads(DATA)[1].pairwise
    start = ChainCRF(model().network, model().pairwise / c, pairwise_scale=c)
    for method, optimizer in (("sgd", SGD(step_size=eta)), ("adam", Adam(step_size=eta, epsilon=1e-300))):
        params = start.parameters()
        optimizer.update(params, start.loss_and_grads(DATA)[1].to_dict(), optimizer.init(params))
        moved = c * params["pairwise"] - model().pairwise
        step = effective_step_size(method, c, eta)
        expected = -step * (plain if method == "sgd" else np.sign(plain))
        assert_allclose(moved, expected, rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3)])
def test_normalised_parametrisation(shape):
    rng = np.random.default_rng(0)
    raw, upstream = rng.normal(size=shape), rng.normal(size=shape)
    unit, n = normalised(raw)
    assert_allclose(component_norms(np.zeros(1), unit)[1], 1.0, rtol=1e-14)
    assert_allclose(unit.mean(axis=(-2, -1)), 0, atol=1e-15)
    assert_allclose(normalised(7 * raw + 3)[0], unit, rtol=1e-12)
    gradient = normalised_gradient(upstream, unit, n)
    report = quick_check(lambda x: np.vdot(normalised(x)[0], upstream), gradient, raw)
    assert report.passed, report.message
    naive = quick_check(lambda x: np.vdot(normalised(x)[0], upstream), upstream / n, raw)
    assert not naive.passed
    # The length of W~ cannot change W^: the gradient is orthogonal to it.
    assert abs(np.vdot(gradient, raw)) < 1e-14 * np.linalg.norm(gradient) * np.linalg.norm(raw)


def test_bigrams_are_the_best_pairwise_part_of_a_uniform_network():
    """With U = log P(y) at every inner position, the bigram potentials make the chain the empirical Markov chain."""
    data = make_chain_dataset(400, 30, 3, 1, transition=1.0, rng=1)
    w = bigram_potentials(data, 3)
    marginal = np.log(np.bincount(data.labels) / len(data.labels))
    uniform = ChainDataset([np.tile(marginal, (30, 1))] * 400, list(data.labels.reshape(30, 400).T))
    crf = ChainCRF(identity(), w)
    assert abs(best_pairwise_factor(crf, uniform).factor - 1) < 0.05


def test_suggested_ratio():
    """Labels drawn from scores with known scales: the ratio is that of their norms."""
    rng = np.random.default_rng(0)
    unary, w = rng.normal(size=(300, 8, 3)), 1.2 * rng.normal(size=(3, 3))
    # Bigram potentials have no part that depends on one label only.
    w -= w.mean(axis=0)
    w -= w.mean(axis=1, keepdims=True)
    labels = chain_sample(2 * unary, w, rng=rng)
    data = ChainDataset(list(unary), list(labels))
    ratio, fit = suggest_ratio(ChainCRF(identity(), np.zeros((3, 3))), data)
    norms = component_norms(2 * unary, w)
    assert_allclose(ratio, norms[0] / norms[1], rtol=0.15)
    assert_allclose(fit.unary_scale, 2.0, rtol=0.2)
    separable = ChainDataset([np.array([[1.0, 0.0]])] * 3, [[0]] * 3)
    with pytest.raises(InputError, match="`data` must give finite scales"):
        suggest_ratio(ChainCRF(identity(), np.zeros((2, 2))), separable)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnlineScaling(period=0), "`period` must be at least 1"),
        (lambda: OnlineScaling(low=0.0), "`low` and `high` must enclose 0"),
        (lambda: OfflineScaling(ratio=1.0, multiplier=1.0), "`ratio` and `multiplier` exclude"),
        (lambda: OfflineScaling(ratio=-1.0), "`ratio` must be finite and > 0"),
        (lambda: OfflineScaling(multiplier=0.0), "`multiplier` must be finite and > 0"),
        (lambda: OfflineScaling(decay=1.0), r"`decay` must be in \[0, 1\)"),
        (lambda: normalised(np.zeros((2, 2))), "`pairwise` must not be constant"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_default_ratio():
    assert OfflineScaling().ratio == 2.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": "wide"}, "`low` must be a real number"),
        ({"low": 0.5}, "`low` must lie between -100 and 0; got 0.5"),
        ({"high": np.inf}, "`high` must lie between 0 and 100"),
        ({"high": np.nan}, "`high` must lie between 0 and 100"),
    ],
)
def test_bad_intervals_are_named(options, message):
    with pytest.raises(InputError, match=message):
        OnlineScaling(**options)


def test_unknown_objectives_are_named():
    with pytest.raises(InputError, match="`objective` must be one of 'nll'"):
        scale_diagnosis(model(), DATA, "likelihood")


# --- the population that a scale is fitted on ---------------------------------------------------------------------


OTHER = make_chain_dataset(50, 6, 4, 5, transition=0.0, rng=1)


def test_online_scaling_is_fitted_on_the_population_that_is_given():
    """After the last fit no other factor is better on it; on the training data one is."""
    result = train_structured(model(), DATA, scaling=OnlineScaling(subset=OTHER), n_epochs=2, rng=0)
    on_other, on_training = (best_pairwise_factor(result.last_model, data).factor for data in (OTHER, DATA))
    assert abs(np.log2(on_other)) < 0.01
    assert on_training > 1.5
    n_u, n_w = result.last_model.component_norms(result.last_model.unary(OTHER))
    assert_allclose(result.history.ratio[-1], n_u / n_w, rtol=1e-12)


def test_a_number_of_sequences_means_what_it_did():
    runs = [
        train_structured(model(), DATA, scaling=OnlineScaling(subset=size), n_epochs=2, rng=0) for size in (60, 500)
    ]
    whole = train_structured(model(), DATA, scaling=OnlineScaling(subset=DATA), n_epochs=2, rng=0)
    for run in runs:
        assert_array_equal(run.last_model.pairwise, whole.last_model.pairwise)


def test_a_population_must_fit_the_model():
    for subset, message in (
        (
            None,
            "must be a number of training sequences, or the labelled data set that the scale is fitted on; got None",
        ),
        ("new", "got 'new'"),
    ):
        with pytest.raises(InputTypeError, match=message):
            OnlineScaling(subset=subset)
    with pytest.raises(InputError, match="`subset` must be at least 1"):
        OnlineScaling(subset=0)
    unlabelled = ChainDataset([np.zeros((2, 5))])
    with pytest.raises(InputError, match="`subset` must have labels"):
        train_structured(model(), DATA, scaling=OnlineScaling(subset=unlabelled), n_epochs=1)
    with pytest.raises(InputTypeError, match="`data` must be a ChainDataset; got NoneType"):
        scale_diagnosis(model(), None)
    with pytest.raises(InputTypeError, match="`training` must be a ChainDataset"):
        OfflineScaling.fitted(model(), DATA, [1])


def test_a_ratio_of_another_population_trusts_the_bigrams_less():
    """U from the network, W from the bigrams of training: where the pairs are of another law, W counts less."""
    trained = train_structured(model(), DATA, objective="unary", n_epochs=5, rng=0).model
    same, other = (OfflineScaling.fitted(trained, data, DATA).ratio for data in (DATA, OTHER))
    assert other > 2 * same
    assert OfflineScaling.fitted(trained, DATA).ratio == same == suggest_ratio(trained, DATA)[0]


def test_a_search_far_out_in_single_precision_stays_silent():
    single = model().with_parameters({k: v.astype(np.float32) for k, v in model(1e30).parameters().items()})
    found = best_pairwise_factor(single, DATA, low=-10, high=100)
    assert np.isfinite(found.after)
    assert found.after <= found.before
