"""The window of step sizes from a random start, against draws of the start."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi, norm

import attnembed as ae
from attnembed.attention.theory import basin_condition, large_step_condition, large_step_size, random_step_window
from attnembed.errors import InputError, InputTypeError

DATA = ae.make_balanced_dataset(n_samples=16, length=4, n_irrelevant=6, n_positive=1, n_negative=1, rng=0)


def share_in_the_basin(
    dim: int, step_size: float, embedding_scale: float, cls_scale: float, n_draws: int, rng: np.random.Generator
) -> float:
    """The share of draws of the start after which a genuine step leads into the basin.

    The Gram matrix of embeddings, p and v decides everything; rows of it are drawn in a rotated basis whose first axes
    span them, so that d may be millions: a Gaussian in the complement has a length of chi distribution.
    """
    inside = 0
    V = DATA.vocab_size
    for _ in range(n_draws):
        # QR of a Gaussian (d, V + 2) matrix: Bartlett's decomposition, R has chi entries on and normal ones off the
        # diagonal. Column 0 is the direction of v.
        R = np.triu(rng.normal(size=(V + 2, V + 2)), 1)
        R[np.diag_indices(V + 2)] = np.sqrt(rng.chisquare(dim - np.arange(V + 2)))
        v = np.eye(V + 2)[0]
        model = ae.AttentionModel(embedding_scale * R[:, 2:].T, cls_scale * R[:, 1], v)
        after = ae.one_step(model, DATA, step_size).model
        inside += basin_condition(after, DATA).holds
    return inside / n_draws


@pytest.mark.parametrize("dim", [10**7, 10**8])
def test_the_ends_of_the_window_select(dim: int) -> None:
    window = random_step_window(DATA, dim)
    assert window.holds
    rng, scale = np.random.default_rng(0), dim**-0.5
    for eta in (window.low, window.high):
        assert share_in_the_basin(dim, eta, scale, scale, 5, rng) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dim", "scale"), [(200, 2e-4), (10**6, 2e-4), (10**7, None)], ids=["narrow", "wide", "as the model's own"]
)
def test_at_least_1_minus_delta_of_200_draws_select_everywhere_in_the_window(dim: int, scale: float | None) -> None:
    window = random_step_window(DATA, dim, embedding_scale=scale, cls_scale=scale, delta=0.05)
    assert window.holds
    size, rng = dim**-0.5 if scale is None else scale, np.random.default_rng(1)
    high = min(window.high, 1e3 * window.low)
    for eta in np.geomspace(window.low, high, 5):
        assert share_in_the_basin(dim, float(eta), size, size, 200, rng) >= 1 - window.delta


def test_the_bounds_of_the_four_events_hold() -> None:
    dim, rng, delta = 400, np.random.default_rng(2), 0.2
    window = random_step_window(DATA, dim, delta=delta)
    v = rng.choice([-1.0, 1.0], size=dim) / np.sqrt(dim)
    missed, ratios = 0, np.zeros(4)
    for _ in range(200):
        E, p = rng.normal(size=(DATA.vocab_size, dim)) / np.sqrt(dim), rng.normal(size=dim) / np.sqrt(dim)
        measured = np.array([np.abs(E @ v).max(), np.linalg.norm(p), np.abs(E @ p).max(), abs(p @ v)])
        share = measured / [window.G0, window.cls_norm, window.rho, window.cls_value]
        missed, ratios = missed + bool((share > 1).any()), np.maximum(ratios, share)
    assert missed <= 0.2 * 200
    assert ratios.min() > 0.7  # none is loose by more than that


def test_the_window_is_empty_for_small_widths() -> None:
    for dim in (50, 500, 5000):
        window = random_step_window(DATA, dim)
        assert not window.holds
        assert np.isnan([window.low, window.high]).all()
        assert window.best_ratio >= 1


def test_independence_of_the_embeddings_is_a_hypothesis() -> None:
    window = random_step_window(DATA, DATA.vocab_size - 1, embedding_scale=1e-6, cls_scale=0.0)
    assert not window.holds
    assert ["independent embeddings" in failure.name for failure in window.failures] == [True]


def test_control_from_zero_the_threshold_suffices() -> None:
    """p_0 = 0 and E_0 v = 0: the step of `large_step_size`, exactly, and no step is too large."""
    window = random_step_window(DATA, 10**6, embedding_scale=0.0, cls_scale=0.0)
    assert window.high == np.inf
    # With eps = 0 the condition is n l(theta Gamma) < l(0) = log 2, exactly, instead of n e^{-theta Gamma} < log 2.
    share, phi = 1 / 4, DATA.frequency[:2].min()
    expected = -np.log(np.expm1(np.log(2) / DATA.n_samples)) * 2 / (share * phi)
    np.testing.assert_allclose(window.low, expected, rtol=1e-9)
    model = ae.AttentionModel(np.eye(DATA.vocab_size, 20), np.zeros(20), np.eye(20)[-1])
    np.testing.assert_allclose(large_step_size(model, DATA).step_size, window.threshold, rtol=1e-12)
    for factor, expected_holds in ((1.001, True), (0.9, False)):
        after = ae.one_step(model, DATA, factor * window.low).model
        condition = large_step_condition(after, DATA)
        # theta is larger than the share after no step only where scores have moved; here they are all 0.
        assert condition.holds == expected_holds


def test_the_window_widens_with_delta_and_width() -> None:
    first, second = (random_step_window(DATA, 10**8, delta=delta) for delta in (0.01, 0.2))
    assert second.low < first.low < first.high < second.high
    wider = random_step_window(DATA, 10**9, delta=0.01)
    assert wider.low < first.low < first.high < wider.high


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"dim": 0}, "dim"),
        ({"embedding_scale": -1.0}, "embedding_scale"),
        ({"cls_scale": np.nan}, "cls_scale"),
        ({"delta": 1.0}, "delta"),
        ({"v_norm": 0.0}, "v_norm"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], name: str) -> None:
    with pytest.raises(InputError, match=name):
        random_step_window(DATA, **{"dim": 100, **arguments})  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="data"):
        random_step_window([[0]], 100)  # type: ignore[arg-type]


@pytest.mark.parametrize(("dim", "scale"), [(10**7, None), (10**5, 2e-4)])
def test_both_ends_solve_the_condition_of_the_page(dim: int, scale: float | None) -> None:
    """n l(theta Gamma - (1 - theta) eps) = l(eps) at either end, with every bound written out again."""
    delta, size = 0.05, dim**-0.5 if scale is None else scale
    window = random_step_window(DATA, dim, embedding_scale=scale, cls_scale=scale, delta=delta)
    spread = norm.isf((1 - (1 - delta / 4) ** (1 / DATA.vocab_size)) / 2)
    G0, P = size * spread, size * chi.isf(delta / 4, dim)
    rho, beta = size * P * spread, size * norm.isf(delta / 8)
    sigma, power = 1 / (1 + np.exp(-G0)), np.exp(2 * rho)
    phi, irrelevant = DATA.frequency[:2].min(), DATA.frequency[2:].max()
    b = (power - 1) * sigma + G0 / 4 + 2 * power * sigma * G0 * beta
    x = DATA.frequency.max() * sigma * power * (beta + 2 * G0 * P**2)
    for eta in (window.low, window.high):
        Gamma, eps = eta * phi * (0.5 - b) - G0, G0 + eta * irrelevant * b
        theta = 0.25 * np.exp(-2 * (rho + eta * x))
        left, right = np.logaddexp(0, -(theta * Gamma - (1 - theta) * eps)), np.logaddexp(0, -eps)
        np.testing.assert_allclose(DATA.n_samples * left, right, rtol=1e-7)
