"""One step on E against its prediction and the bound on its error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnembed.attention.data import TokenDataset, make_balanced_dataset
from attnembed.attention.model import AttentionModel
from attnembed.attention.theory import gaussian_one_step_bound, one_step_bound, one_step_prediction
from attnembed.errors import InputError, InputTypeError
from tests.attention.theory.instances import as_model, random_instance
from tests.plain import AttentionProblem, attention_problems


def step(model: AttentionModel, data: TokenDataset, step_size: float) -> np.ndarray:
    """E after a genuine gradient step."""
    return model.E - step_size * model.loss_and_grads(data)[1].E


def errors(model: AttentionModel, data: TokenDataset, step_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Per token: ||E^1_s - predicted|| and |g^1_s - predicted|."""
    after, predicted = step(model, data, step_size), one_step_prediction(model, data, step_size)
    return np.linalg.norm(after - predicted.E, axis=1), np.abs(after @ model.v - predicted.values)


@given(attention_problems(), st.floats(1e-3, 1e3))
def test_exact_without_initial_scores_and_values(problem: AttentionProblem, step_size: float) -> None:
    model, data = as_model(problem)
    v = model.v / (np.linalg.norm(model.v) or 1.0)
    model = model.replace(p=np.zeros(model.dim), E=model.E - np.outer(model.E @ v, v))
    prediction = one_step_prediction(model, data, step_size)
    after = step(model, data, step_size)
    assert np.linalg.norm(after - prediction.E) <= 1e-14 * (1 + step_size) * (1 + np.linalg.norm(after))
    assert prediction.slope == pytest.approx(step_size / 2 * float(model.v @ model.v), rel=1e-15)


def test_the_slope_is_not_another() -> None:
    model, data = random_instance(np.random.default_rng(0))
    v = model.v / (np.linalg.norm(model.v) or 1.0)
    model = model.replace(p=np.zeros(model.dim), E=model.E - np.outer(model.E @ v, v))
    prediction = one_step_prediction(model, data, 10.0)
    assert prediction.exact
    moved = step(model, data, 10.0) @ model.v
    np.testing.assert_allclose(moved, prediction.slope * data.signed_frequency, rtol=1e-12, atol=1e-14)
    assert np.abs(moved - 1.001 * prediction.slope * data.signed_frequency).max() > 1e-4 * np.abs(moved).max()


def test_says_which_hypothesis_fails() -> None:
    model, data = random_instance(np.random.default_rng(1))
    prediction = one_step_prediction(model, data, 1.0)
    assert not prediction.exact
    assert [h.name.split(":")[0] for h in prediction.failures] == ["p_0 is zero", "E_0 v is zero"]
    assert prediction.failures[0].measured == pytest.approx(float(np.linalg.norm(model.p)), rel=1e-15)


@given(attention_problems(), st.floats(-3, 0.5), st.floats(-4, 1))
def test_bound_holds(problem: AttentionProblem, log_scale: float, log_norm: float) -> None:
    model, data = as_model(problem.scaled(10**log_norm))
    model = model.replace(E=10**log_scale * model.E)
    bound = one_step_bound(model, data, 2.0)
    error, value_error = errors(model, data, 2.0)
    rounding = 1e-14 * (1 + np.abs(model.E).max()) * (1 + float(model.v @ model.v))
    assert (error <= bound.embedding * (1 + 1e-12) + rounding).all()
    assert (value_error <= bound.value * (1 + 1e-12) + rounding).all()


def test_bound_is_tight() -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(300):
        model, data = random_instance(rng)
        model = model.replace(E=10 ** rng.uniform(-3, 0.5) * model.E, p=10 ** rng.uniform(-4, 0.5) * model.p)
        occurs = data.frequency > 0
        error, bound = errors(model, data, 1.0)[0], one_step_bound(model, data, 1.0).embedding
        ratios.append((error[occurs] / bound[occurs]).max())
    # Half of the bound, as a wrong constant would give, is exceeded.
    assert 0.9 < max(ratios) <= 1 + 1e-12


def test_formula_of_the_bound() -> None:
    model, data = random_instance(np.random.default_rng(7))
    bound, eta = one_step_bound(model, data, 3.0), 3.0
    growth, sigma = np.exp(2 * bound.rho), 1 / (1 + np.exp(-bound.F))
    for measured, along_v, along_p in (
        (bound.embedding, np.linalg.norm(model.v), np.linalg.norm(model.p)),
        (bound.value, model.v @ model.v, abs(model.p @ model.v)),
    ):
        expected = ((growth - 1) * sigma + bound.F / 4) * along_v + 2 * growth * sigma * bound.G0 * along_p
        np.testing.assert_allclose(measured, eta * data.frequency * expected, rtol=1e-12)


def test_constants_are_those_of_the_start() -> None:
    model, data = random_instance(np.random.default_rng(2))
    bound = one_step_bound(model, data, 1.0)
    occurs = data.frequency > 0
    assert pytest.approx(float(np.abs(model.output(data)).max()), rel=1e-14) == bound.F
    assert np.abs(model.token_values[occurs]).max() == bound.G0
    assert bound.rho == np.abs(model.token_scores[occurs]).max()


def test_huge_scores_give_a_finite_bound() -> None:
    model, data = random_instance(np.random.default_rng(3))
    bound = one_step_bound(model.replace(p=1e4 * model.p), data, 1.0)
    assert np.isfinite(bound.embedding).all()
    assert np.isfinite(bound.value).all()


def gaussian(d: int, rng: np.random.Generator, scale: float = 1.0) -> AttentionModel:
    model = AttentionModel.random(20, d, rng=rng)
    return model.replace(E=scale * model.E, p=scale * model.p)


def violations(scale: float) -> int:
    """How many of 200 Gaussian starts, drawn ``scale`` times as wide as claimed, exceed the bound at delta = 0.1."""
    rng = np.random.default_rng(4)
    data = make_balanced_dataset(n_samples=20, length=6, n_irrelevant=16, rng=rng)
    count = 0
    for _ in range(200):
        model = gaussian(64, rng, scale)
        bound = gaussian_one_step_bound(data, model.v, 1.0, embedding_scale=1 / 8, cls_scale=1 / 8, delta=0.1)
        inside = (
            np.abs(model.token_values).max() <= bound.G0
            and np.linalg.norm(model.p) <= bound.cls_norm
            and np.abs(model.token_scores).max() <= bound.rho
        )
        error, value_error = errors(model, data, 1.0)
        count += not (inside and (error <= bound.embedding).all() and (value_error <= bound.value).all())
    return count


def test_gaussian_bound_holds_with_its_probability() -> None:
    assert violations(1.0) <= 20
    assert violations(1.7) > 20


def test_each_gaussian_event_is_nearly_as_likely_as_allowed() -> None:
    # What max |g|, ||p_0|| and max |p_0.E_s| exceed one time in ten, over the bounds: below 1, and not far below.
    rng, V, d, delta = np.random.default_rng(8), 100, 1000, 0.1
    data = TokenDataset.from_tokens(np.arange(V)[:, None], np.resize([1, -1], V))
    ratios = []
    for _ in range(100):
        model = AttentionModel.random(V, d, rng=rng)
        bound = gaussian_one_step_bound(data, model.v, 1.0, embedding_scale=d**-0.5, cls_scale=d**-0.5, delta=delta)
        measured = np.abs(model.token_values).max(), np.linalg.norm(model.p), np.abs(model.token_scores).max()
        ratios.append(np.array(measured) / (bound.G0, bound.cls_norm, bound.rho))
    reached = np.quantile(ratios, 1 - delta, axis=0)
    assert (reached < 1).all()
    assert (reached > [0.85, 0.98, 0.8]).all(), reached


def test_error_shrinks_like_one_over_root_d() -> None:
    rng = np.random.default_rng(5)
    data = make_balanced_dataset(n_samples=20, length=6, n_irrelevant=16, rng=rng)
    widths = np.array([50, 200, 800, 3200])
    occurs = data.frequency > 0
    worst = [
        np.median([(errors(gaussian(d, rng), data, 1.0)[0][occurs] / data.frequency[occurs]).max() for _ in range(9)])
        for d in widths
    ]
    slope = np.polyfit(np.log(widths), np.log(worst), 1)[0]
    assert -0.65 < slope < -0.35


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 2.0])
def test_delta_must_be_a_probability(delta: float) -> None:
    data = make_balanced_dataset(n_samples=4, length=3, rng=0)
    with pytest.raises(InputError, match="`delta`"):
        gaussian_one_step_bound(data, np.ones(3), 1.0, embedding_scale=1.0, cls_scale=1.0, delta=delta)


def test_vocabularies_must_match() -> None:
    model, _ = random_instance(np.random.default_rng(6))
    with pytest.raises(InputError, match="vocabulary"):
        one_step_prediction(model, make_balanced_dataset(n_samples=4, length=3, rng=0), 1.0)
    with pytest.raises(InputTypeError, match="TokenDataset"):
        one_step_prediction(model, [[0, 1], [1, 2]], 1.0)  # type: ignore[arg-type]


def test_a_bound_beyond_floats_leaves_absent_tokens_alone() -> None:
    """The error is 0 for a token that does not occur, whatever the others may do."""
    data = TokenDataset.from_tokens([[0, 1], [1]], [1, -1], vocab_size=3)
    E = np.array([[1e20], [-1e20], [1.0]])
    bound = one_step_bound(AttentionModel(E, [1e30], [1e10]), data, 1.0)
    assert bound.embedding[:2].tolist() == [np.inf, np.inf]
    assert (bound.embedding[2], bound.value[2]) == (0.0, 0.0)
