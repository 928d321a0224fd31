"""Ends of chains and hard constraints, against enumeration of the labelings that are allowed."""

from __future__ import annotations

import itertools
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import attnembed as ae
from attnembed.errors import InputError, InputTypeError
from attnembed.optim import Adam
from attnembed.structured.chain import chain_score
from attnembed.structured.constraints import bio_constraints
from attnembed.structured.data import ChainDataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import identity, mlp
from attnembed.structured.objectives import chain_objective
from attnembed.structured.scaling import OfflineScaling, OnlineScaling, normalised, normalised_gradient
from attnembed.structured.theory import component_norms, scale_objective
from tests.gradients import quick_check

TAGS = ("O", "B-NP", "I-NP", "B-VP", "I-VP")


def enumerate_chain(unary, pairwise, start, end):
    """Every labeling with its score, summed in Python."""
    length, k = np.shape(unary)
    scores = {}
    for y in itertools.product(range(k), repeat=length):
        total = float(start[y[0]]) + float(end[y[-1]])
        total += sum(float(unary[i][y[i]]) for i in range(length))
        total += sum(float(pairwise[a][b]) for a, b in itertools.pairwise(y))
        scores[y] = total
    return scores


def potentials(seed, length, k, forbid=0.3):
    rng = np.random.default_rng(seed)
    unary, pairwise = rng.normal(size=(length, k)), rng.normal(size=(k, k))
    start, end = rng.normal(size=k), rng.normal(size=k)
    pairwise[rng.random((k, k)) < forbid] = -np.inf
    start[1], end[0] = -np.inf, -np.inf
    pairwise[0, 1] = pairwise[0, 0] = pairwise[1, 1] = 0.3  # so that some labeling is left
    return unary, pairwise, start, end


@pytest.mark.parametrize(("length", "k"), [(1, 3), (2, 3), (5, 3), (4, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_chain_functions_agree_with_enumeration(seed, length, k):
    unary, pairwise, start, end = potentials(seed, length, k)
    scores = enumerate_chain(unary, pairwise, start, end)
    log_z = math.log(math.fsum(math.exp(s) for s in scores.values()))
    ends = {"start": start, "end": end}
    assert_allclose(ae.chain_log_partition(unary, pairwise, **ends), log_z, rtol=1e-13)
    marginals = ae.chain_marginals(unary, pairwise, **ends)
    for i, label in itertools.product(range(length), range(k)):
        right = math.fsum(math.exp(s - log_z) for y, s in scores.items() if y[i] == label)
        assert_allclose(marginals.node[i, label], right, rtol=1e-12, atol=1e-300)
    best = max(scores, key=scores.get)
    assert tuple(ae.chain_viterbi(unary, pairwise, **ends)) == best
    assert_allclose(chain_score(unary, pairwise, best, **ends), scores[best], rtol=1e-13)
    drawn = ae.chain_sample(np.array([unary] * 200), pairwise, **ends, rng=seed)
    assert all(scores[tuple(y)] > -math.inf for y in drawn)
    loss = chain_objective("nll", unary, pairwise, best, **ends)
    assert_allclose(loss.value, log_z - scores[best], rtol=1e-11, atol=1e-14)


def test_ends_count_once_per_sequence_in_a_batch():
    unary, pairwise, start, end = potentials(7, 4, 3, forbid=0.0)
    lengths = [4, 1, 3]
    batch = np.array([unary] * 3)
    found = ae.chain_log_partition(batch, pairwise, lengths, start=start, end=end)
    for value, length in zip(found, lengths):
        scores = enumerate_chain(unary[:length], pairwise, start, end)
        assert_allclose(value, math.log(math.fsum(map(math.exp, scores.values()))), rtol=1e-13)
    without = ae.chain_log_partition(batch, pairwise, lengths)
    assert np.abs(found - without).min() > 1e-3  # the ends matter


def constrained_case(seed=0, ends=True, network=None):
    """Sentences whose tags obey the scheme, and a model that knows it."""
    rng = np.random.default_rng(seed)
    allowed, start_allowed = bio_constraints(TAGS)
    k = len(TAGS)
    labels = []
    for length in rng.integers(1, 8, size=60):
        tags = [int(rng.choice(np.flatnonzero(start_allowed)))]
        while len(tags) < length:
            tags.append(int(rng.choice(np.flatnonzero(allowed[tags[-1]]))))
        labels.append(np.array(tags))
    inputs = [0.7 * np.eye(k)[y] + rng.normal(size=(len(y), k)) for y in labels]
    potentials_of_ends = {"start": rng.normal(size=k), "end": rng.normal(size=k)} if ends else {}
    model = ChainCRF(
        mlp(k, (6,), k, rng=seed) if network is None else network,
        0.5 * rng.normal(size=(k, k)),
        0.8,
        1.3,
        allowed=allowed,
        start_allowed=start_allowed,
        **potentials_of_ends,
    )
    return model, ChainDataset(inputs, labels)


def forbidden(model, data):
    """How many of the predicted sequences break the constraints."""
    broken = 0
    for y in model.predict(data):
        starts = model.start_allowed is not None and not model.start_allowed[y[0]]
        broken += bool(starts or not all(model.allowed[a, b] for a, b in itertools.pairwise(y)))
    return broken


@pytest.mark.parametrize("objective", ChainCRF.objectives)
def test_gradients_of_a_constrained_model(objective):
    model, data = constrained_case()
    data = data.subset(np.arange(4))
    params, (loss, grads) = model.parameters(), model.loss_and_grads(data, objective)
    assert 0 < loss < np.inf
    named = grads.to_dict()
    assert sorted(named) == sorted(params)
    assert {"start", "end", "pairwise"} <= set(params)
    assert not named["pairwise"][~model.allowed].any()
    for name, gradient in named.items():
        if objective == "unary" and not name.startswith("network") and name != "unary_scale":
            continue
        report = quick_check(
            lambda p, name=name: model.with_parameters(params | {name: p}).loss(data, objective), gradient, params[name]
        )
        assert report.passed, f"{name}: {report.message}"


def test_likelihood_and_decoding_of_a_model_agree_with_enumeration():
    model, data = constrained_case(network=identity())
    total = 0.0
    for x, y, predicted in zip(data.split(data.inputs), data.split(data.labels), model.predict(data)):
        if len(y) > 4:
            continue
        scores = enumerate_chain(
            0.8 * x,
            np.where(model.allowed, 1.3 * model.pairwise, -np.inf),
            np.where(model.start_allowed, 1.3 * model.start, -np.inf),
            1.3 * model.end,
        )
        log_z = math.log(math.fsum(math.exp(s) for s in scores.values()))
        assert tuple(predicted) == max(scores, key=scores.get)
        own = model.loss(ChainDataset([x], [y]))
        assert_allclose(own, log_z - scores[tuple(y)], rtol=1e-11)
        total += own
    assert total > 0


@pytest.mark.parametrize("value", [-np.inf, "mask"])
def test_minus_infinity_in_the_matrix_is_the_mask(value):
    model, data = constrained_case()
    if value == "mask":
        matrix, mask = model.pairwise + np.where(model.allowed, 0.0, 7.0), model.allowed  # what stands there is ignored
    else:
        matrix, mask = np.where(model.allowed, model.pairwise, value), None
    other = replace(model, pairwise=matrix, allowed=mask)
    assert_array_equal(other.allowed, model.allowed)
    assert_array_equal(other.pairwise, model.pairwise)
    assert other.loss(data) == model.loss(data)


@pytest.mark.parametrize("scaling", [None, OnlineScaling(), OfflineScaling(), OfflineScaling(multiplier=0.1)])
@pytest.mark.parametrize("objective", ["nll", "ssvm"])
def test_training_and_scaling_leave_the_constraints_alone(scaling, objective):
    model, data = constrained_case()
    result = ae.train_structured(
        model,
        data,
        objective=objective,
        scaling=scaling,
        n_epochs=3,
        optimizer=Adam(step_size=0.01, weight_decay=0.01),
        rng=1,
    )
    trained = result.model
    assert result.success
    assert forbidden(trained, data) == 0
    assert_array_equal(trained.allowed, model.allowed)
    assert not trained.pairwise[~trained.allowed].any()
    assert np.abs(trained.pairwise - model.pairwise)[trained.allowed].min() > 0
    assert np.abs(trained.start - model.start)[trained.start_allowed].min() > 0  # the ends are trained too
    assert np.abs(trained.end - model.end).min() > 0
    if isinstance(scaling, OfflineScaling) and scaling.ratio is not None:
        n_w = component_norms(np.zeros(1), trained.pairwise, trained.allowed)[1]
        assert_allclose(n_w, 1.0, rtol=1e-14)


def test_a_large_negative_potential_is_no_constraint():
    """The usual -1e9 is what scaling is there to repair: the control of the test above."""
    model, data = constrained_case(ends=False)
    loose = ChainCRF(
        model.network, np.where(model.allowed, model.pairwise, -1e9), model.unary_scale, model.pairwise_scale
    )
    trained = ae.train_structured(loose, data, scaling=OnlineScaling(), n_epochs=3, rng=1).model
    kept = (trained.pairwise_scale * trained.pairwise)[~model.allowed]
    assert kept.max() > -100


def test_a_constraint_has_no_norm():
    model, _ = constrained_case()
    entries = 1.3 * model.pairwise[model.allowed]
    found = model.component_norms(np.zeros((1, 5)))[1]
    assert_allclose(found, math.sqrt(np.mean((entries - entries.mean()) ** 2)), rtol=1e-13)


def test_normalised_gradient_under_a_mask():
    rng = np.random.default_rng(3)
    allowed, _ = bio_constraints(TAGS)
    raw, upstream = np.where(allowed, rng.normal(size=(5, 5)), 0), rng.normal(size=(5, 5))
    unit, n = normalised(raw, allowed)
    assert not unit[~allowed].any()
    gradient = normalised_gradient(upstream, unit, n, allowed)
    assert not gradient[~allowed].any()
    assert quick_check(lambda x: np.vdot(normalised(x, allowed)[0], upstream), gradient, raw).passed
    unmasked = normalised_gradient(upstream, unit, n)
    assert not quick_check(lambda x: np.vdot(normalised(x, allowed)[0], upstream), unmasked, raw).passed


def test_scale_objective_keeps_what_is_forbidden():
    unary, pairwise, start, end = potentials(2, 4, 3)
    unary = unary + np.where([[True]] + [[False]] * 3, start, 0) + np.where([[False]] * 3 + [[True]], end, 0)
    scores = enumerate_chain(unary, pairwise, np.zeros(3), np.zeros(3))
    y = max(scores, key=scores.get)

    def value(a, b):
        finite_u, finite_w = np.where(unary > -np.inf, unary, 0), np.where(pairwise > -np.inf, pairwise, 0)
        scaled = enumerate_chain(
            np.where(unary > -np.inf, a * finite_u, -np.inf),
            np.where(pairwise > -np.inf, b * finite_w, -np.inf),
            np.zeros(3),
            np.zeros(3),
        )
        return math.log(math.fsum(map(math.exp, scaled.values()))) - scaled[y]

    a, b, h = 0.7, -0.4, 1e-4
    found = scale_objective(unary, pairwise, y, scales=(a, b))
    assert_allclose(found.value, value(a, b), rtol=1e-12)
    numeric = [(value(a + h, b) - value(a - h, b)) / (2 * h), (value(a, b + h) - value(a, b - h)) / (2 * h)]
    assert_allclose(found.gradient, numeric, rtol=1e-6)
    second = (value(a + h, b) - 2 * value(a, b) + value(a - h, b)) / h**2
    assert_allclose(found.hessian[0, 0], second, rtol=1e-5)


def test_models_keep_their_constraints(tmp_path):
    model, data = constrained_case()
    for copy in (pickle.loads(pickle.dumps(model)), replace(model, unary_scale=0.8)):
        assert_array_equal(copy.allowed, model.allowed)
        assert copy.loss(data) == model.loss(data)
    model.save(tmp_path / "model.npz")
    fresh = replace(model, start=np.zeros(5), end=np.zeros(5), pairwise=np.zeros((5, 5)))
    restored = fresh.restore(tmp_path / "model.npz")
    assert restored.loss(data) == model.loss(data)
    assert fresh.loss(data) != model.loss(data)


def test_bio_constraints():
    allowed, start_allowed = bio_constraints(TAGS)
    for i, left in enumerate(TAGS):
        for j, right in enumerate(TAGS):
            inside = right.startswith("I-")
            assert allowed[i, j] == (not inside or left[2:] == right[2:])
    assert_array_equal(start_allowed, [not tag.startswith("I") for tag in TAGS])
    plain, _ = bio_constraints(["B", "I", "O"])
    assert_array_equal(plain, [[1, 1, 1], [1, 1, 1], [1, 0, 1]])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bio_constraints(["O", "E-NP"]), InputError, "`tags` must be 'O', 'B-X' or 'I-X'; got 'E-NP'"),
        (lambda: bio_constraints(["O", "O"]), InputError, "`tags` must be different; got 'O' twice"),
        (lambda: bio_constraints("OBI"), InputTypeError, "`tags` must be a sequence of names"),
        (lambda: bio_constraints([]), InputError, "`tags` must name at least one label"),
        (lambda: bio_constraints([1, 2]), InputError, "`tags` must be 'O'"),
        (lambda: ChainCRF(identity(), np.eye(2), allowed=np.eye(2)), InputTypeError, "`allowed` must be boolean"),
        (lambda: ChainCRF(identity(), np.eye(2), allowed=np.ones(2, bool)), InputError, "`allowed` must have shape"),
        (lambda: ChainCRF(identity(), np.eye(2), start=np.zeros(3)), InputError, "`start` must have shape"),
        (lambda: ChainCRF(identity(), np.eye(2), end=[np.nan, 0]), InputError, "`end` must be finite"),
        (lambda: ChainCRF(identity(), np.array([[np.inf, 0], [0, 0]])), InputError, "`pairwise` must be finite"),
        (
            lambda: ChainCRF(identity(), np.eye(2), end_allowed=np.zeros(2, bool)),
            InputError,
            "`end_allowed` must allow at least one label",
        ),
        (
            lambda: ae.chain_log_partition(np.zeros((2, 2)), np.zeros((2, 2)), start=[0.0]),
            InputError,
            "`start` must have shape",
        ),
        (
            lambda: ae.chain_log_partition(np.zeros((2, 2)), np.zeros((2, 2)), end=[np.nan, 0.0]),
            InputError,
            "`end` must be finite or -inf",
        ),
        (
            lambda: ae.chain_log_partition(np.zeros((2, 2)), np.zeros((2, 2)), start=[-np.inf] * 2),
            InputError,
            "`start` must allow at least one label",
        ),
    ],
)
def test_bad_constraints_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("labels", "what"),
    [([[0], [2, 2]], "sequence 1, which begins with 2"), ([[0], [0, 2]], "sequence 1, which has 0 before 2")],
)
def test_labels_that_break_the_constraints_are_refused(labels, what):
    allowed, start_allowed = bio_constraints(TAGS[:3])
    model = ChainCRF(identity(), np.eye(3), allowed=allowed, start_allowed=start_allowed)
    data = ChainDataset([np.zeros((len(y), 3)) for y in labels], labels)
    with pytest.raises(InputError, match=f"`labels` must obey the constraints of the model; got {what}"):
        model.loss(data)
    assert model.loss(data, "unary") > 0  # the network alone knows no constraints
    assert forbidden(model, data) == 0
