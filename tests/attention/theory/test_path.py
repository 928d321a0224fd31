"""The regularisation path against the flow's offset, and against a minimiser that knows nothing of either."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy.optimize import minimize

import attnembed as ae
from attnembed.attention.theory import Asymptotics, asymptotics, regularisation_path
from attnembed.errors import InputError

PAIR = ae.TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
MODEL = ae.AttentionModel(np.eye(3), np.zeros(3), [1.0, -1.0, 0.0])


@functools.cache
def instances() -> list[tuple[ae.AttentionModel, ae.TokenDataset, Asymptotics]]:
    """Three problems of eight sequences in seven dimensions whose offset is determined, with moderate constants."""
    rng, found = np.random.default_rng(3), []
    while len(found) < 3:
        data = ae.make_balanced_dataset(
            n_samples=8, length=3, n_irrelevant=4, n_positive=1, n_negative=1, rng=int(rng.integers(1_000_000))
        )
        model = ae.AttentionModel(rng.normal(size=(data.vocab_size, 7)), np.zeros(7), rng.normal(size=7))
        late = asymptotics(model, data)
        if late.holds and late.angle_is_exact and np.linalg.norm(late.rho) < 3 and late.margin > 0.7:
            found.append((model, data, late))
    return found


def across(vector: np.ndarray, late: Asymptotics) -> np.ndarray:
    return vector - np.multiply.outer(vector @ late.p_mm, late.p_mm) * late.margin**2


@pytest.mark.parametrize("number", range(3))
def test_the_offset_of_the_path_tends_to_the_flows(number: int) -> None:
    model, data, late = instances()[number]
    path = regularisation_path(model, data, [20.0, 40.0, 80.0, 160.0])
    assert path.holds
    distance = np.linalg.norm(path.offset - across(late.rho, late), axis=1)
    # Like 1/R: each doubling of R halves it.
    assert (np.abs(distance[2:] / distance[1:-1] - 0.5) < 0.12).all()
    assert distance[-1] < 0.2 * np.linalg.norm(across(late.rho, late)) + 0.02
    np.testing.assert_allclose(np.linalg.norm(path.p, axis=1), path.radii, rtol=1e-12)
    np.testing.assert_allclose(path.offset, across(path.p, late), atol=1e-8)
    assert [ae.select(model.replace(p=p), data).agrees for p in path.p] == [True] * 4


def test_the_flow_has_the_same_offset_and_from_elsewhere_keeps_its_own() -> None:
    model, data, late = instances()[0]
    beyond = np.array([20.0, 40.0, 80.0, 160.0])
    path = regularisation_path(model, data, beyond)
    limit = 2 * path.offset[3] - path.offset[2]  # of a sequence a + b/R
    inside = ae.gradient_flow(model, data, until=80.0)
    assert np.linalg.norm(across(inside.p, late) - limit) < 0.01 * np.linalg.norm(limit)
    # Control: one more coordinate, in which no row extends; the flow keeps what it started with.
    lifted = ae.AttentionModel(np.c_[model.E, np.zeros(len(model.E))], np.r_[model.p, 2.0], np.r_[model.v, 0.0])
    outside = ae.gradient_flow(lifted, data, until=80.0)
    assert abs(outside.p[-1] - 2.0) < 1e-12
    assert abs(regularisation_path(lifted, data, [160.0]).p[0, -1]) < 1e-6


def test_against_a_constrained_minimiser() -> None:
    """SLSQP on the ball itself, with the model's own loss, at a radius where L - L* still has digits."""
    model, data, _ = instances()[1]
    path = regularisation_path(model, data, [3.0])
    best = minimize(
        lambda p: model.replace(p=p).loss(data),
        path.direction * 2.0,
        jac=lambda p: model.replace(p=p).loss_and_grads(data)[1].p,
        constraints={"type": "ineq", "fun": lambda p: 9.0 - p @ p, "jac": lambda p: -2 * p},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    assert model.replace(p=path.p[0]).loss(data) <= best.fun + 1e-10
    np.testing.assert_allclose(path.p[0], best.x, atol=1e-3)


def test_the_radii_may_come_in_any_order() -> None:
    forward, backward = (regularisation_path(MODEL, PAIR, radii) for radii in ([3.0, 30.0], [30.0, 3.0]))
    np.testing.assert_allclose(forward.p, backward.p[::-1], rtol=1e-8)
    np.testing.assert_allclose(forward.loss_gap, backward.loss_gap[::-1], rtol=1e-12)


def test_the_gap_is_that_of_the_model() -> None:
    path = regularisation_path(MODEL, PAIR, [1.0, 4.0])
    least = np.mean(np.logaddexp(0, [-1.0, -1.0]))
    expected = [MODEL.replace(p=p).loss(PAIR) - least for p in path.p]
    np.testing.assert_allclose(path.loss_gap, expected, rtol=1e-10)


def test_an_infeasible_program_is_named() -> None:
    data = ae.TokenDataset.from_tokens([[0, 1], [0, 1]], [1, -1])
    path = regularisation_path(ae.AttentionModel(np.eye(2), np.zeros(2), [1.0, -1.0]), data, [5.0])
    assert not path.holds
    assert any("feasible" in failure.name for failure in path.failures)
    assert np.isnan(path.p).all()


@pytest.mark.parametrize("radii", [[], [0.0], [-1.0, 2.0]])
def test_bad_radii(radii: list[float]) -> None:
    with pytest.raises(InputError, match="positive radii"):
        regularisation_path(MODEL, PAIR, radii)


def test_radii_beyond_floats_are_refused() -> None:
    with pytest.raises(InputError, match="smaller radii"):
        regularisation_path(MODEL, PAIR, [5000.0])
