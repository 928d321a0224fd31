"""Normalised steps and Polyak's: rates and constants against those that the multipliers predict."""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

import attnembed as ae
from attnembed.attention.descent import DescentResult, DescentState
from attnembed.attention.theory import Asymptotics, asymptotics
from attnembed.errors import InputError
from attnembed.evidence.attention.instances import orthogonal_instance
from attnembed.results import Status

PAIR = ae.TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
FLAT = ae.AttentionModel(np.eye(3), np.zeros(3), [1.0, -1.0, 0.0])  # H_perp has the eigenvalue 1/3 only


@functools.cache
def late_instance(seed: int) -> tuple[ae.AttentionModel, ae.TokenDataset, Asymptotics]:
    """Orthonormal embeddings after one step, from a start on the asymptote and a little beside it."""
    rng = np.random.default_rng(seed)
    instance = orthogonal_instance(rng)
    model = instance.model.replace(p=0.3 * rng.standard_normal(instance.model.dim))
    late = asymptotics(model, instance.data)
    beside = 0.1 * rng.standard_normal(model.dim)
    return model.replace(p=6 * late.p_mm + late.rho + late.conserved + beside), instance.data, late


def log_contraction(run: DescentResult) -> float:
    """The mean change of log(L - L*) over the last third of the steps."""
    gaps = np.log(run.loss_gap)
    third = len(gaps) // 3
    return float((gaps[-1] - gaps[-1 - third]) / third)


def across(vector: NDArray[np.float64], late: Asymptotics) -> NDArray[np.float64]:
    """The part orthogonal to p_mm."""
    return vector - (vector @ late.p_mm) * late.margin**2 * late.p_mm


@pytest.mark.parametrize("share", [0.2, 0.7, 0.95])
def test_below_the_limit_steps_contract_as_predicted_and_reach_the_offset(share: float) -> None:
    model, data, late = late_instance(0)
    eta = share * late.step_limit
    n = min(250, int(600 / (late.margin * eta)))
    run = ae.normalised_descent(model, data, eta, n)
    assert run.success
    assert abs(log_contraction(run) / np.log(late.contraction(eta)) - 1) < 1e-5
    offset = late.rho + asymptotics(model, data).conserved
    np.testing.assert_allclose(across(run.p, late), across(offset, late), atol=1e-3 if share == 0.2 else 1e-6)
    growth = (np.linalg.norm(run.path[-1]) - np.linalg.norm(run.path[n // 2])) / (eta * (n - n // 2))
    assert abs(growth - 1) < 1e-2
    np.testing.assert_allclose(run.step_length, eta)


@pytest.mark.parametrize("seed", [0, 1])
def test_five_percent_above_the_limit_the_contraction_is_visibly_slower(seed: int) -> None:
    model, data, late = late_instance(seed)
    eta = 1.05 * late.step_limit
    run = ae.normalised_descent(model, data, eta, 300)
    assert log_contraction(run) > -0.97 * late.margin * eta
    assert np.isnan(late.contraction(eta))
    # The offset jumps to and fro between two places.
    last, before = across(run.path[-1] - run.path[-2], late), across(run.path[-1] - run.path[-3], late)
    assert np.linalg.norm(last) > 100 * np.linalg.norm(before) > 0


def reported_instance() -> tuple[ae.AttentionModel, ae.TokenDataset, Asymptotics]:
    """Five Gaussian embeddings in seven dimensions: 0 beats 2, 3 and 4, and 1 beats 2 and 4; three rows are active."""
    E = np.random.default_rng(4).normal(size=(5, 7))
    v = np.linalg.lstsq(E, np.array([1.0, -1.0, 0.0, 0.0, 0.0]))[0]
    data = ae.TokenDataset.from_tokens([[0, 2, 3], [0, 3, 4], [1, 2], [1, 2, 4]], [1, 1, -1, -1])
    late = asymptotics(ae.AttentionModel(E, np.zeros(7), v), data)
    return ae.AttentionModel(E, 6 * late.p_mm + late.rho, v), data, late


def test_the_reported_digits() -> None:
    """Figures of a prototype with integrators and programs of its own: margins, the limit, and each contraction."""
    model, data, late = reported_instance()
    assert round(late.margin, 5) == 1.83957
    assert round(late.step_limit, 5) == 1.97184
    predicted = [round(float(np.log(late.contraction(share * late.step_limit))), 6) for share in (0.2, 0.7, 0.95)]
    assert predicted == [-0.725467, -2.539136, -3.445970]
    measured = []
    for share in (0.2, 0.7, 0.95, 1.2):
        eta = share * late.step_limit
        measured.append(log_contraction(ae.normalised_descent(model, data, eta, int(600 / (late.margin * eta)))))
    np.testing.assert_allclose(measured[:3], predicted, atol=5e-7)
    assert round(measured[3], 3) == -4.165  # and not -4.353, which a step that contracts would give
    assert round(-late.margin * 1.2 * late.step_limit, 3) == -4.353
    # At twice the limit the cycle is irregular: -6.3 to within its fluctuations, and not -7.25.
    assert abs(log_contraction(ae.normalised_descent(model, data, 2 * late.step_limit, 82)) + 6.31) < 0.1
    polyak = ae.normalised_descent(model, data, 1.0, 400, polyak=True)
    assert abs(np.diff(np.log(polyak.loss_gap))[-1] + 1) < 1e-12


def test_the_reported_margins_in_linf() -> None:
    model, data, late = reported_instance()
    D = ae.margin_constraints(model, data, late.selected).differences
    assert round(ae.max_margin(D, norm="linf").margin, 4) == 2.9718
    assert round(float((D @ late.p_mm).min() / np.abs(late.p_mm).max()), 3) == 2.137  # of the l2 solution


def test_the_curvature_by_hand() -> None:
    """Rows d = (1, 0, -1), (0, 1, -1), lambda = 1/3 each: H has the eigenvalues 1 along p_mm and 1/3 across."""
    late = asymptotics(FLAT, PAIR)
    assert abs(late.curvature - float(Fraction(1, 3))) < 1e-14
    assert abs(late.step_limit - 6 * np.sqrt(2 / 3)) < 1e-12
    # rho = (log C - log lambda)/1 in each row, C = sigma(-1)/2.
    C = 0.5 / (1 + np.e)
    assert abs(late.gap_constant - np.log(2 / 3) - np.log(3 * C)) < 1e-12
    np.testing.assert_allclose(late.contraction([1.0, 2.0]), np.exp(-np.sqrt(1.5) * np.array([1.0, 2.0])))


@pytest.mark.parametrize("seed", range(3))
def test_the_step_limit_is_a_matter_of_the_support_alone(seed: int) -> None:
    """Against the dense Hessian part, in the units of the caller: the limit scales like 1/unit of the embeddings."""
    model, data, late = late_instance(seed)
    D = model.E[late.pairs[:, 0]] - model.E[late.pairs[:, 1]]
    unit = late.p_mm * late.margin
    H = D.T @ (late.dual[:, None] * D) - np.outer(unit, unit)
    expected = 2 / (late.margin * np.linalg.eigvalsh(H)[-1])
    np.testing.assert_allclose(late.step_limit, expected, rtol=1e-10)
    scaled = asymptotics(model.replace(E=1e6 * model.E, v=1e-6 * model.v), data)
    np.testing.assert_allclose(scaled.step_limit, 1e-6 * expected, rtol=1e-8)


def test_one_active_row_has_no_step_limit() -> None:
    data = ae.TokenDataset.from_tokens([[0, 1], [1]], [1, -1])
    late = asymptotics(ae.AttentionModel(np.eye(2), np.zeros(2), [1.0, 0.0]), data)
    assert late.curvature == 0
    assert late.step_limit == np.inf
    assert late.contraction(100.0) == np.exp(-100 * late.margin)


def test_without_an_offset_nothing_is_promised() -> None:
    late = asymptotics(FLAT.replace(v=[0.0, 0.0, 0.0]), PAIR)
    assert not late.holds
    assert np.isnan([late.step_limit, late.contraction(1.0), late.gap_constant]).all()


@pytest.mark.parametrize("step_size", [0.0, -1.0, np.nan])
def test_a_step_must_be_positive(step_size: float) -> None:
    with pytest.raises(InputError, match="step_size"):
        asymptotics(FLAT, PAIR).contraction(step_size)
    with pytest.raises(InputError, match="step_size"):
        ae.normalised_descent(FLAT, PAIR, step_size, 5)


def test_polyak_contracts_by_e_where_it_is_stable() -> None:
    run = ae.normalised_descent(FLAT, PAIR, 1.0, 300, polyak=True)
    assert asymptotics(FLAT, PAIR).curvature < 2
    assert abs(np.diff(np.log(run.loss_gap))[-1] + 1) < 1e-12
    assert run.loss_gap[-1] < 1e-120


def test_control_polyak_is_slower_where_the_curvature_exceeds_2() -> None:
    model, data, late = late_instance(0)
    run = ae.normalised_descent(model, data, 1.0, 300, polyak=True)
    assert late.curvature > 2
    assert log_contraction(run) > -0.9


def test_polyak_changes_sides_at_a_curvature_of_2() -> None:
    """More pairs with one shared loser: curvature grows with their number; the contraction is 1/e below 2 only."""
    rng, seen = np.random.default_rng(0), set()
    for _ in range(12):
        M = int(rng.integers(2, 5))
        data = ae.TokenDataset.from_tokens([[s, M] for s in range(M)], [1] * (M - 1) + [-1])
        E = np.eye(M + 1) + 0.35 * rng.normal(size=(M + 1, M + 1))
        g = np.r_[np.ones(M - 1), -1.0, 0.0]
        model = ae.AttentionModel(np.c_[E, g], np.zeros(M + 2), np.eye(M + 2)[-1])
        late = asymptotics(model, data)
        if not late.holds or abs(late.curvature - 2) < 0.2 or late.transient_rate < 0.05:
            continue
        run = ae.normalised_descent(model.replace(p=10 * late.p_mm), data, 1.0, 400, polyak=True)
        stable = abs(log_contraction(run) + 1) < 1e-6
        assert stable == (late.curvature < 2)
        seen.add(stable)
    assert seen == {True, False}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_gap_constant_along_flow_and_descent(seed: int) -> None:
    """log(L - L*) + gamma ||p|| differs from its limit by gamma ||offset_perp||^2 / (2 ||p||), to first order."""
    model, data, late = late_instance(seed)
    late = asymptotics(model, data)
    next_term = late.margin * np.linalg.norm(across(late.rho + late.conserved, late)) ** 2 / 2
    flow = ae.gradient_flow(model, data, until=200.0)
    descent = ae.normalised_descent(model, data, 0.6 * late.step_limit, 400)
    for run in (flow, descent):
        size = float(np.linalg.norm(run.p))
        excess = np.log(run.loss_gap[-1]) + late.margin * size - late.gap_constant
        assert abs(excess * size / next_term - 1) < 0.02
        assert abs(excess) < 0.02


def test_gaps_far_below_the_underflow_of_squares() -> None:
    run = ae.normalised_descent(FLAT, PAIR, 1.0, 560)
    late = asymptotics(FLAT, PAIR)
    assert run.loss_gap[-1] < 1e-290
    np.testing.assert_allclose(np.diff(np.log(run.loss_gap))[-5:], -late.margin, rtol=1e-9)


def test_callback_and_ends() -> None:
    seen: list[DescentState] = []
    run = ae.normalised_descent(FLAT, PAIR, 0.5, 9, callback=lambda state: seen.append(state) or state.step == 4)
    assert run.status is Status.STOPPED
    assert [state.step for state in seen] == [0, 1, 2, 3, 4]
    assert len(run.path) == len(run.loss_gap) == 5
    assert len(run.step_length) == 4
    still = ae.normalised_descent(FLAT.replace(v=[0.0, 0.0, 0.0]), PAIR, 0.5, 9)
    assert still.status is Status.CONVERGED
    assert "gradient is zero" in still.message
    assert len(still.path) == 1
    np.testing.assert_array_equal(run.model.p, run.p)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"n_steps": 0}, "n_steps"), ({"polyak": 1}, "polyak"), ({"callback": 3}, "callback")],
)
def test_bad_arguments(arguments: dict[str, object], name: str) -> None:
    with pytest.raises(InputError, match=name):
        ae.normalised_descent(FLAT, PAIR, **{"step_size": 1.0, "n_steps": 3, **arguments})  # type: ignore[arg-type]
