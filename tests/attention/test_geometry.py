"""Flows in other norms: against closed forms, small steps, gradient flow, the bound and the margins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import linprog, minimize

import attnembed as ae
from attnembed.attention.flow import FlowResult
from attnembed.attention.geometry import check_geometry
from attnembed.attention.theory.steepest import steepest_bound
from attnembed.errors import InputError
from attnembed.results import Status

DATA = ae.TokenDataset.from_tokens([[0, 2, 3], [0, 3, 4], [1, 2], [1, 4, 3]], [1, 1, -1, -1])
SIZES = {"l2": 2, "linf": np.inf, "l1": 1}


def differences(model: ae.AttentionModel) -> Any:
    return ae.margin_constraints(model, DATA, ae.select(model, DATA).top).differences


def in_basin(seed: int) -> ae.AttentionModel:
    """Five tokens in seven dimensions and a start inside the basin: the first draw that has one."""
    rng = np.random.default_rng(seed)
    while True:
        model = ae.AttentionModel(rng.normal(size=(5, 7)), np.zeros(7), rng.normal(size=7))
        try:
            best = ae.max_margin(differences(model)).p
        except ae.NotSeparableError:
            continue
        model = model.replace(p=rng.uniform(3.0, 6.0) * best + 0.2 * rng.normal(size=7))
        if all(steepest_bound(model, DATA, 0.0, loss=loss).holds for loss in ("logistic", "exponential")):
            return model


def follow(model: ae.AttentionModel, norm: Any, until: float, **options: Any) -> FlowResult:
    clock: Any = {"clock": "arclength"} if norm == "l2" else {}
    return ae.gradient_flow(model, DATA, geometry=norm, until=until, **clock, **options)


def linear_margin(D: Any, norm: str) -> float:
    """gamma by a program of its own: max g with D x >= g, |x| <= t (componentwise), and the norm of t at most 1."""
    m, d = D.shape
    eye, zero = np.eye(d), np.zeros((d, 1))
    A = np.vstack(
        [
            np.hstack([-D, np.zeros((m, d)), np.ones((m, 1))]),
            np.hstack([eye, -eye, zero]),
            np.hstack([-eye, -eye, zero]),
        ]
    )
    b = np.zeros(m + 2 * d)
    bounds = [(None, None)] * d + [(0, 1)] * d + [(None, None)]
    if norm == "l1":
        A, b = np.vstack([A, np.r_[np.zeros(d), np.ones(d), 0]]), np.r_[b, 1.0]
    return -linprog(np.r_[np.zeros(2 * d), -1.0], A_ub=A, b_ub=b, bounds=bounds).fun


def power_margin(D: Any, q: float, start: Any) -> float:
    """1/min |p|_q under D p >= 1, by SLSQP."""
    found = minimize(
        lambda p: np.sum(np.abs(p) ** q), start, jac=lambda p: q * np.sign(p) * np.abs(p) ** (q - 1), method="SLSQP",
        constraints={"type": "ineq", "fun": lambda p: D @ p - 1, "jac": lambda p: D},
        options={"maxiter": 500, "ftol": 1e-14},
    )  # fmt: skip
    return 1 / np.linalg.norm(found.x, q)


def test_one_pair_in_closed_form() -> None:
    # d = E_0 - E_1 alone: sign flow goes along sign(d), the coordinate flow along the largest entry, from the start on
    d = np.array([0.5, -2.0, 1.0])
    data = ae.TokenDataset.from_tokens([[0, 1], [2]], [1, -1])
    model = ae.AttentionModel(np.vstack([d, np.zeros(3), np.zeros(3)]), [0.1, 0.2, -0.3], [1.0, 0.0, 0.0])
    for norm, x in (("linf", np.sign(d)), ("l1", [0.0, -1.0, 0.0])):
        flow = ae.gradient_flow(model, data, geometry=norm, until=3.0)
        assert_allclose(flow.p, model.p + 3 * np.asarray(x), rtol=1e-9, atol=1e-9)
        assert flow.message.startswith("reached arclength = 3")
        assert flow.clock == "arclength"
        assert_allclose(flow.arclength, np.linalg.norm(flow.path - flow.path[0], SIZES[norm], axis=1), rtol=1e-9)
        # dp/dt = ||grad||_* x: t is the integral of dr / ||grad||_*
        lengths = np.linspace(0, 3, 1001)
        sizes = [
            np.linalg.norm(
                model.replace(p=model.p + r * np.asarray(x)).loss_and_grads(data)[1].p, {"linf": 1, "l1": np.inf}[norm]
            )
            for r in lengths
        ]
        assert_allclose(flow.log_time[-1], np.log(np.trapezoid(1 / np.array(sizes), lengths)), atol=1e-2)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_small_explicit_steps_come_to_the_same(norm: str) -> None:
    model = in_basin(9)
    p, h, until = model.p.copy(), 2e-3, 1.0
    for _ in range(round(until / h)):  # chattering across the surfaces on which the flow slides
        g = -model.replace(p=p).loss_and_grads(DATA)[1].scaled_p
        p = p + h * (np.sign(g) if norm == "linf" else np.sign(g) * (np.arange(g.size) == np.abs(g).argmax()))
    flow = follow(model, norm, until)
    assert_allclose(flow.p, p, atol=2e-2)
    assert_allclose(
        np.log(flow.loss_gap[-1]),
        np.log(ae.gradient_flow(model.replace(p=p), DATA, until=-600.0).loss_gap[0]),
        atol=1e-2,
    )


@pytest.mark.parametrize("geometry", ["linf", "l1", ("mirror", 1.5), ("mirror", 3.0)])
def test_smaller_steps_change_little(geometry: Any) -> None:
    model = in_basin(9)
    rough, fine = (follow(model, geometry, 0.5, score_step=step) for step in (0.2, 0.04))
    assert_allclose(rough.p, fine.p, atol=1e-2)
    assert_allclose(np.log(rough.loss_gap[-1]), np.log(fine.loss_gap[-1]), atol=2e-3)
    assert_allclose(rough.log_time[-1], fine.log_time[-1], atol=2e-2)


def test_the_mirror_of_q_2_is_gradient_flow() -> None:
    model = in_basin(6)
    mirror, flow = follow(model, ("mirror", 2), 2.0, score_step=0.03), follow(model, "l2", 2.0)
    assert_allclose(mirror.p, flow.p, atol=1e-5)
    assert_allclose(mirror.log_time[-1], flow.log_time[-1], atol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_the_margin_in_its_own_norm(norm: Any) -> None:
    model = in_basin(6)
    D = differences(model)
    gamma = ae.max_margin(D, norm=norm).margin
    if norm != "l2":
        assert_allclose(gamma, linear_margin(D, norm), rtol=1e-9)
    flow = follow(model, norm, {"l2": 40.0, "linf": 15.0, "l1": 50.0}[norm], score_step=0.5)
    assert flow.success
    reached, late = direction_margins(D, flow, SIZES[norm])
    assert 0.85 * gamma < reached <= gamma * (1 + 1e-9)  # it tends to gamma like 1/r ...
    assert_allclose(late, gamma, rtol=5e-3)  # ... and what is added to p has it already
    other = follow(model, "linf" if norm == "l2" else "l2", 15.0, score_step=0.5)  # of another geometry
    assert direction_margins(D, other, SIZES[norm])[1] < 0.97 * gamma


def direction_margins(D: Any, flow: FlowResult, q: float) -> tuple[float, float]:
    """min_k d_k.x / ||x|| of x = p and of the second half of the path, x = p - p(r/2)."""
    half = flow.path[np.searchsorted(flow.arclength, flow.arclength[-1] / 2)]
    first, second = ((D @ x).min() / np.linalg.norm(x, q) for x in (flow.p, flow.p - half))
    return float(first), float(second)


def test_the_margin_of_mirror_descent() -> None:
    model = in_basin(6)
    D, q = differences(model), 3.0
    flow = follow(model, ("mirror", q), 25.0, score_step=0.5)
    gamma = power_margin(D, q, ae.max_margin(D).p)
    reached, late = direction_margins(D, flow, q)
    assert 0.85 * gamma < reached <= gamma * (1 + 1e-6)
    assert_allclose(late, gamma, rtol=1e-2)
    assert direction_margins(D, follow(model, "l2", 25.0), q)[1] < 0.99 * gamma


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
@pytest.mark.parametrize("loss", ["logistic", "exponential"])
def test_the_bound_is_not_exceeded(norm: Any, loss: str) -> None:
    check_bound(norm, loss, range(9, 11))


def check_bound(norm: Any, loss: str, seeds: Any) -> float:
    """Returns how near a gap comes to its bound once that has fallen by a fifth."""
    best = attained = 0.0
    for seed in seeds:
        model = in_basin(seed)
        flow = follow(model, norm, {"l2": 2.0, "linf": 1.0, "l1": 4.0}[norm], score_step=0.3, loss=loss)
        bound = steepest_bound(model, DATA, flow.arclength, norm=norm, loss=loss)
        ratio = flow.loss_gap / bound.gap
        assert (ratio <= 1 + 1e-7).all(), seed
        later = flow.arclength > 0.5 * flow.arclength[-1]
        best = max(best, ratio[later].max())
        attained = max(attained, ratio[bound.gap <= 0.8 * bound.gap[0]].max(initial=0.0))
    assert best > 0.3
    return attained


@pytest.mark.thorough
@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_the_bound_over_many_instances(norm: Any) -> None:
    assert check_bound(norm, "logistic", range(1000)) > 0.8


@pytest.mark.thorough
def test_adam_has_nearly_the_margin_of_the_sign_flow() -> None:
    """Without its epsilon: what it adds to p has it to a few per cent, and gradient flow's stays well below."""
    for seed in range(3):
        model = in_basin(seed)
        D = differences(model)
        gamma = ae.max_margin(D, norm="linf").margin
        adam = ae.Adam(step_size=0.5, beta1=0.9, beta2=0.95, epsilon=1e-300)
        options: Any = {"params": ("p",), "optimizer": adam, "schedule": lambda k: (k + 1) ** -0.5, "rng": 0}
        early, late = (ae.train(model, DATA, n_epochs=n, **options).model.p for n in (1000, 8000))
        adam_margin = (D @ (late - early)).min() / np.abs(late - early).max()
        flow = direction_margins(D, follow(model, "l2", 25.0), np.inf)[1]
        assert adam_margin > 0.9 * gamma
        assert flow < adam_margin


def test_a_rest_a_stop_and_a_limit() -> None:
    model = in_basin(6)
    flow = ae.gradient_flow(model, DATA, geometry="linf", until=9.0, stop_attention=0.9999)
    assert flow.status is Status.STOPPED
    assert_allclose(flow.top_attention[-1], 0.9999, rtol=1e-9)
    assert ae.gradient_flow(model, DATA, geometry="l1", until=9.0, max_nfev=5).status is Status.MAX_ITERATIONS
    calls = []
    flow = ae.gradient_flow(
        model, DATA, geometry="linf", until=9.0, callback=lambda s: calls.append(s) or len(calls) == 3
    )
    assert flow.status is Status.STOPPED
    assert flow.path.shape[0] == 3
    # Both labels on one sequence: the loss has its minimum in a finite point, where every flow comes to rest.
    data = ae.TokenDataset.from_tokens([[0, 1], [0, 1]], [1, -1])
    start = ae.AttentionModel([[0.5, 0.3], [-0.5, 0.1]], [1.0, 0.5], [2.0, 0.0])
    for norm in ("linf", "l1"):
        flow = ae.gradient_flow(start, data, geometry=norm, until=9.0)
        assert flow.status is Status.CONVERGED
        assert np.abs(flow.model.loss_and_grads(data)[1].p).max() < 1e-8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"geometry": "l3"}, "`geometry` must be 'l2', 'linf', 'l1' or \\('mirror', q\\)"),
        ({"geometry": ("mirror", 1.0)}, "must lie between 1.01 and 100"),
        ({"geometry": None}, "`geometry` must be"),
        ({"geometry": "linf", "clock": "time"}, "`clock` must be 'arclength' for geometry='linf'"),
        ({"geometry": "linf", "until": -1.0}, "`until` must be finite and > 0"),
        ({"geometry": "l1", "score_step": 0.0}, "`score_step` must be finite and > 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    model = ae.AttentionModel.random(5, 7, rng=0)
    with pytest.raises(InputError, match=message):
        ae.gradient_flow(model, DATA, **options)


def test_an_exponent_and_a_figure() -> None:
    assert check_geometry(["mirror", 2]) == ("mirror", 2.0)
    model = in_basin(6)
    flow = follow(model, ("mirror", 1.5), 0.5)
    assert flow.geometry == ("mirror", 1.5)
    axes = flow.plot()
    assert axes.get_yscale() == "log"
    assert flow.plot(axes) is axes
    plain = ae.integrate(lambda p: -p, [1.0, 2.0], clock="time", until=1.0)
    assert len(plain.plot().get_lines()) == 2
