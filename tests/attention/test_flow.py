"""Gradient flow on p against an explicit method on the textbook formula, in three clocks, and how it ends."""

from __future__ import annotations

import functools
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import solve_ivp

import attnembed.attention.flow as module
from attnembed import reference
from attnembed.attention.data import TokenDataset, make_balanced_dataset
from attnembed.attention.first_step import one_step
from attnembed.attention.flow import FlowResult, FlowState, gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import select
from attnembed.attention.theory import Family
from attnembed.clocks import CLOCKS, Clock
from attnembed.errors import InputError
from attnembed.results import Status
from tests.attention.theory.instances import as_model, unit_model
from tests.plain import AttentionProblem, attention_problems

Array = np.ndarray[Any, Any]


@functools.cache
def selecting() -> tuple[AttentionModel, TokenDataset]:
    """Balanced data, the embeddings after one step, p = 0: the flow selects the important tokens (V < d)."""
    data = make_balanced_dataset(n_samples=12, length=4, n_irrelevant=5, rng=0)
    return one_step(AttentionModel.random(data.vocab_size, 16, cls_scale=0.0, rng=1), data, 100.0).model, data


@functools.cache
def crowded() -> tuple[AttentionModel, TokenDataset]:
    """Seven tokens in three dimensions (V > d), sequences of different lengths, one of a single token type."""
    rng = np.random.default_rng(4)
    data = TokenDataset.from_tokens([[0, 1, 2, 2], [3, 4, 1], [5, 6, 0], [2, 5], [6, 6]], [1, -1, 1, -1, 1])
    return AttentionModel(rng.standard_normal((7, 3)), rng.standard_normal(3), rng.standard_normal(3)), data


def textbook_flow(model: AttentionModel, data: TokenDataset, t: float) -> Array:
    """p(t) by DOP853 at rtol 1e-12 on the textbook gradient."""
    counts, y, E = data.counts.toarray(), data.labels, model.E

    def rate(_: float, p: Array) -> Array:
        weight = counts * np.exp(E @ p - (E @ p).max())
        a = weight / weight.sum(axis=1, keepdims=True)
        g = E @ model.v
        f = a @ g
        return ((y / (1 + np.exp(y * f)) / len(y)) @ (a * (g - f[:, None]))) @ E

    solution = solve_ivp(rate, (0, t), model.p, method="DOP853", rtol=1e-12, atol=1e-14)
    assert solution.success
    return solution.y[:, -1]


# ---------------------------------------------------------------------------------------------------------- the path


@pytest.mark.parametrize("t", [0.5, 300.0])
@pytest.mark.parametrize("problem", [selecting, crowded])
def test_the_path_against_an_explicit_method(problem: Any, t: float) -> None:
    model, data = problem()
    exact = textbook_flow(model, data, t)
    by_time = gradient_flow(model, data, clock="time", until=t, rtol=1e-10, atol=1e-12)
    by_log_time = gradient_flow(model, data, until=math.log(t), rtol=1e-10, atol=1e-12)
    by_length = gradient_flow(
        model, data, clock="arclength", until=float(by_time.arclength[-1]), rtol=1e-10, atol=1e-12
    )
    for flow in (by_time, by_log_time, by_length):
        assert flow.success
        assert np.linalg.norm(flow.p - exact) <= 1e-6
        assert_allclose(flow.log_time[-1], math.log(t), rtol=1e-6, atol=1e-6)
        assert_allclose(flow.arclength[-1], by_time.arclength[-1], rtol=1e-7)
    # the same until on the other clock is another point
    other = gradient_flow(model, data, clock="log_time", until=min(t, 20.0))
    assert np.linalg.norm(other.p - exact) > 1e-3


@pytest.mark.parametrize("problem", [selecting, crowded])
def test_what_is_recorded_belongs_to_the_points(problem: Any) -> None:
    model, data = problem()
    flow = gradient_flow(model, data, until=12.0)
    k = len(flow.path)
    assert flow.path.shape == (k, model.dim)
    assert flow.log_time.shape == flow.arclength.shape == flow.loss_gap.shape == flow.top_attention.shape == (k,)
    assert_array_equal(flow.path[0], model.p)
    assert_array_equal(flow.path[-1], flow.p)
    assert_array_equal(flow.model.p, flow.p)
    assert (flow.log_time[0], flow.arclength[0]) == (-np.inf, 0.0)
    assert (np.diff(flow.log_time) > 0).all()
    tokens, labels = reference.tokens_from_counts(data.counts.toarray()), data.labels.astype(int).tolist()
    y_g = data.labels[:, None] * np.where(data.counts.toarray() > 0, model.token_values, np.nan)
    top = np.nanargmax(y_g, axis=1)
    for j in (0, k // 2, k - 1):
        here = model.replace(p=flow.path[j])
        gap = reference.precise_loss_gap(here.E, here.p, here.v, tokens, labels)
        assert_allclose(flow.loss_gap[j], float(gap), rtol=1e-10)
        attention = here.attention(data).toarray()[np.arange(len(top)), top]
        assert_allclose(flow.top_attention[j], attention.min(), rtol=1e-12)
    # every step follows the force at its middle
    middle = (flow.path[1:] + flow.path[:-1]) / 2
    moved = np.diff(flow.path, axis=0)
    forces = np.array([-model.replace(p=p).loss_and_grads(data)[1].p for p in middle])
    cosine = (moved * forces).sum(axis=1) / np.linalg.norm(moved, axis=1) / np.linalg.norm(forces, axis=1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize("problem", [selecting, crowded])
def test_the_loss_falls_and_the_rest_of_p_does_not_move(problem: Any) -> None:
    model, data = problem()
    start = model.replace(p=model.p + np.random.default_rng(0).standard_normal(model.dim))
    flow = gradient_flow(start, data, until=30.0)
    assert (np.diff(flow.loss_gap) < 0).all()
    assert (flow.loss_gap > 0).all()
    moved = flow.path - start.p
    basis = np.linalg.svd(model.E.T, full_matrices=False)[0]
    outside = moved - moved @ basis @ basis.T
    assert np.abs(outside).max() <= 1e-13 * np.abs(moved).max()
    # control: in coordinates of p itself the point that does not move could have been lost
    assert np.linalg.norm(moved[-1]) > 1


@given(attention_problems(), st.floats(-3, 8))
def test_the_loss_falls_from_any_start(problem: AttentionProblem, until: float) -> None:
    model, data = as_model(problem)
    flow = gradient_flow(model, data, until=until, rtol=1e-6, atol=1e-9)
    assert flow.success
    loss, end = model.loss(data), flow.model.loss(data)
    assert end <= loss + 1e-9
    assert_allclose(flow.loss_gap[0] - flow.loss_gap[-1], loss - end, rtol=0, atol=1e-12 * (1 + loss))
    slope = float(np.linalg.norm(model.loss_and_grads(data)[1].p))
    assert flow.arclength[-1] >= np.linalg.norm(flow.p - model.p) - 1e-6
    assert loss - end <= slope**2 * math.exp(until) + model.smoothness_p(data) * flow.arclength[-1] ** 2 + 1e-9


def test_far_along_the_path_nothing_underflows() -> None:
    model, data = selecting()
    flow = gradient_flow(model, data, until=60.0)
    assert flow.success
    assert flow.log_time[-1] == pytest.approx(60, rel=1e-12)
    assert flow.top_attention[-1] == pytest.approx(1, rel=1e-12)
    assert (np.diff(flow.loss_gap) < 0).all()
    # t (L - L*) settles: the last twenty units of log time change it by less than a thousandth
    late = flow.log_time > 40
    settled = np.exp(flow.log_time[late] + np.log(flow.loss_gap[late]))
    assert_allclose(settled, settled[-1], rtol=1e-3)
    # and the growth per unit of log time is that of a straight line
    growth = np.diff(np.linalg.norm(flow.path[late], axis=1)) / np.diff(flow.log_time[late])
    assert_allclose(growth, growth[-1], rtol=1e-2)
    assert flow.nfev < 5000


def test_arc_length_to_a_norm_of_five_hundred() -> None:
    model, data = selecting()
    flow = gradient_flow(model, data, clock="arclength", until=1e4, stop_norm=500.0)
    assert flow.status is Status.STOPPED
    assert np.linalg.norm(flow.p) == pytest.approx(500, rel=1e-12)
    assert flow.message.startswith("stopped where ||p|| = 500, at arclength = ")
    by_time = gradient_flow(model, data, until=float(flow.log_time[-1]))
    assert np.linalg.norm(by_time.p - flow.p) <= 1e-4
    direction = flow.p / 500
    assert direction @ by_time.p / np.linalg.norm(by_time.p) == pytest.approx(1, abs=1e-12)


def test_a_saturated_start_in_arc_length() -> None:
    # ||p|| = 4000: the force is e^-1000 or so, and the time it takes to move is beyond floats
    model, data = selecting()
    far = model.replace(p=np.full(16, 1000.0))
    flow = gradient_flow(far, data, clock="arclength", until=50.0)
    assert flow.success
    assert np.linalg.norm(flow.p - far.p) == pytest.approx(50, rel=0.1)
    assert flow.log_time[-1] > 300
    resting = gradient_flow(far, data, until=50.0)
    assert resting.success
    assert_array_equal(resting.p, far.p)


def test_tighter_tolerances_are_nearer() -> None:
    model, data = crowded()
    exact = textbook_flow(model, data, math.exp(4.0))
    errors, evaluations = [], []
    for rtol in (1e-4, 1e-7, 1e-10):
        flow = gradient_flow(model, data, until=4.0, rtol=rtol, atol=rtol * 1e-2)
        errors.append(np.linalg.norm(flow.p - exact))
        evaluations.append(flow.nfev)
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert evaluations == sorted(evaluations)


def test_single_precision_flows_in_double() -> None:
    model, data = crowded()
    single = AttentionModel(*(array.astype(np.float32) for array in (model.E, model.p, model.v)))
    double = AttentionModel(*(array.astype(np.float64) for array in (single.E, single.p, single.v)))
    flow, exact = gradient_flow(single, data, until=20.0), gradient_flow(double, data, until=20.0)
    assert_array_equal(flow.path, exact.path)
    assert flow.p.dtype == np.float64
    assert flow.model.p.dtype == np.float32


# ---------------------------------------------------------------------------------------------------- special problems


def test_sequences_of_one_token_type_do_not_move_p() -> None:
    data = TokenDataset.from_tokens([[0, 0], [1]], [1, -1])
    model = AttentionModel(np.eye(2), [1.0, 2.0], [1.0, -1.0])
    for clock in ("time", "log_time"):
        flow = gradient_flow(model, data, clock=clock, until=5.0)
        assert flow.success
        assert_array_equal(flow.path, np.tile([1.0, 2.0], (len(flow.path), 1)))
        assert_array_equal(flow.loss_gap, 0)
        assert_array_equal(flow.top_attention, 1)
    with pytest.raises(InputError, match=r"`model` must have a nonzero gradient in p for clock='arclength'"):
        gradient_flow(model, data, clock="arclength", until=5.0)


@pytest.mark.parametrize(("p", "winner"), [([0.3, 0.0, 0.0], 0), ([0.0, 0.3, 0.0], 1)])
def test_of_tied_top_tokens_the_one_ahead_takes_all(p: list[float], winner: int) -> None:
    """Exact ties: e^{-u_1} - e^{-u_2} is conserved, so the token that starts ahead wins (statement F7)."""
    data = TokenDataset.from_tokens([[0, 1, 2], [2]], [1, -1])
    model = unit_model([1.0, 1.0, -1.0]).replace(p=p)
    flow = gradient_flow(model, data, until=60.0, rtol=1e-10, atol=1e-12)
    conserved = np.exp(-flow.path[:, 0]) - np.exp(-flow.path[:, 1])
    assert_allclose(conserved, conserved[0], rtol=0, atol=1e-8)
    attention = flow.model.attention(data).toarray()[0]
    assert attention[winner] > 0.99
    # the report is about the lowest id of the tie
    assert (flow.top_attention[-1] > 0.99) == (winner == 0)
    assert flow.loss_gap[-1] < 1e-10


# ------------------------------------------------------------------------------------------------------ how it ends


def test_the_end_of_the_clock() -> None:
    flow = gradient_flow(*selecting(), until=30.0)
    assert (flow.status, flow.success, flow.clock) == (Status.REACHED_END, True, "log_time")
    assert flow.message.startswith("reached log_time = 30; attention on the top token is at least ")
    early = gradient_flow(*selecting(), until=-3.0)
    assert "selection has not happened (yet); see theory.basin_condition" in early.message


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("level", [0.5, 0.99])
def test_stop_at_an_attention(clock: Clock, level: float) -> None:
    model, data = selecting()
    flow = gradient_flow(model, data, clock=clock, until={"log_time": 40.0}.get(clock, 1e5), stop_attention=level)
    assert (flow.status, flow.success) == (Status.STOPPED, True)
    assert flow.top_attention[-1] == pytest.approx(level, rel=1e-9)
    assert (flow.top_attention[:-1] < level).all()
    assert flow.message.startswith(f"stopped where top attention = {level:g}, at {clock} = ")
    # from there on, it is over at once
    again = gradient_flow(flow.model, data, clock=clock, until=5.0, stop_attention=level * (1 - 1e-6))
    assert (again.status, len(again.path), again.nfev <= 1) == (Status.STOPPED, 1, True)


def test_the_first_of_two_stops() -> None:
    model, data = selecting()
    for stop_norm, name in ((1.0, "||p|| = 1,"), (1e3, "top attention = 0.5,")):
        flow = gradient_flow(model, data, stop_attention=0.5, stop_norm=stop_norm)
        assert f"stopped where {name}" in flow.message
    # the norm is that of p, not of its coordinates from the start
    flow = gradient_flow(model.replace(p=np.full(16, 0.5)), data, stop_norm=3.0)
    assert np.linalg.norm(flow.p) == pytest.approx(3.0, rel=1e-12)


def test_the_callback_sees_and_stops() -> None:
    model, data = selecting()
    states: list[FlowState] = []

    def tenth(state: FlowState) -> bool:
        states.append(state)
        return len(states) == 10

    flow = gradient_flow(model, data, callback=tenth)
    assert (flow.status, flow.success) == (Status.STOPPED, True)
    assert flow.message.startswith("stopped by the callback at log_time = ")
    assert_allclose([state.p for state in states], flow.path, rtol=1e-13)
    assert_array_equal([state.log_time for state in states], flow.log_time)
    assert_array_equal([state.arclength for state in states], flow.arclength)
    assert states[-1].nfev == flow.nfev
    whole = gradient_flow(model, data, callback=lambda state: None)
    assert_array_equal(whole.path[:10], flow.path)


@pytest.mark.parametrize("clock", CLOCKS)
def test_too_few_evaluations_are_not_success(clock: Clock) -> None:
    model, data = selecting()
    flow = gradient_flow(model, data, clock=clock, until=20.0, max_nfev=30)
    assert (flow.status, flow.success, flow.nfev) == (Status.MAX_ITERATIONS, False, 30)
    assert "30 evaluations used" in flow.message
    assert np.isfinite(flow.path).all()


def test_a_finite_stationary_point() -> None:
    """The same two tokens in both labels: p comes to rest where the attention balances them."""
    data = TokenDataset.from_tokens([[0, 1], [0, 1, 1]], [1, -1])
    model = AttentionModel([[1.0, 0.3], [-1.0, 0.5]], [0.3, 0.1], [1.0, 0.2])
    ends = [gradient_flow(model, data, clock="time", until=1e9), gradient_flow(model, data, until=60.0)]
    # the path is finite: in arc length it ends before the clock does
    ends.append(gradient_flow(model, data, clock="arclength", until=50.0))
    assert [flow.status for flow in ends] == [Status.REACHED_END, Status.REACHED_END, Status.CONVERGED]
    assert ends[2].success
    assert ends[2].message.startswith("p rests at a stationary point (the gradient is ")
    for flow in ends:
        assert np.linalg.norm(flow.model.loss_and_grads(data)[1].p) <= 1e-10
        assert_allclose(flow.p, ends[0].p, rtol=1e-7)
        assert flow.arclength[-1] == pytest.approx(ends[0].arclength[-1], rel=1e-6)


def test_rest_in_one_direction_and_escape_in_another() -> None:
    """Two tokens of both labels beside two of one: in the end, rounding of the former hides the latter."""
    data = TokenDataset.from_tokens([[0, 1], [0, 1, 1], [2, 3], [2, 3, 3]], [1, -1, 1, 1])
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    model = AttentionModel(Q, np.zeros(4), Q.T @ [1.0, -1.0, 1.0, -1.0])
    early = gradient_flow(model, data, until=20.0)
    assert early.success
    late = gradient_flow(model, data, until=60.0, max_nfev=2000)
    assert (late.status, late.success) == (Status.MAX_ITERATIONS, False)
    assert re.search(r"the gradient is \de-1\d of its terms there: rounding hides the rest", late.message)
    assert 20 < late.log_time[-1] < 60
    # a budget that is spent elsewhere says nothing of the kind
    assert "rounding" not in gradient_flow(*selecting(), until=60.0, max_nfev=300).message


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("good", [0, 1, 60])
def test_not_a_number_is_not_success(monkeypatch: pytest.MonkeyPatch, clock: Clock, good: int) -> None:
    model, data = selecting()
    force, calls = module._ClsField.force, [0]

    def broken(self: Any, x: Array) -> tuple[Array, float]:
        calls[0] += 1
        array, log_scale = force(self, x)
        return (array if calls[0] <= good else np.nan * array), log_scale

    monkeypatch.setattr(module._ClsField, "force", broken)
    flow = gradient_flow(model, data, clock=clock, until=20.0)
    assert (flow.status, flow.success) == (Status.NOT_FINITE, False)
    assert "not finite" in flow.message
    assert np.isfinite(flow.path).all()
    assert np.isfinite(flow.loss_gap).all()
    monkeypatch.undo()
    assert gradient_flow(model, data, clock=clock, until=5.0).success


def test_embeddings_out_of_range_are_refused() -> None:
    model, data = selecting()
    for size in (1e60, 1e160, 1e200):
        with pytest.raises(InputError, match=r"`model` must have entries of E of at most 1e\+50"):
            gradient_flow(model.replace(E=size * model.E), data, until=5.0)


def test_impossible_tolerances_are_not_success() -> None:
    flow = gradient_flow(*selecting(), until=20.0, rtol=1e-12, atol=1e-300)
    assert (flow.status, flow.success) == (Status.FAILED, False)
    assert "larger tolerances" in flow.message


def test_a_result_is_frozen_and_becomes_json() -> None:
    flow = gradient_flow(*crowded(), until=2.0)
    assert isinstance(flow, FlowResult)
    for array in (flow.p, flow.path, flow.log_time, flow.arclength, flow.loss_gap, flow.top_attention):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    plain = json.loads(json.dumps(flow.to_dict(), allow_nan=False))
    assert plain["log_time"][0] == "-inf"
    assert plain["success"] is True
    assert repr(flow).startswith("FlowResult(status=reached_end, message=")


# ---------------------------------------------------------------------------------------------------- what it reports


def test_the_selection_is_that_of_the_last_point() -> None:
    model, data = selecting()
    flow = gradient_flow(model, data, until=30.0)
    assert_array_equal(flow.selection, select(flow.model, data).tokens)
    assert_array_equal(flow.selection, select(model, data).top)


# The flow ends on token 0 of the first sequence for ever; token 1 is its top token.
LOCAL = AttentionModel([[1.0, 0.0], [-1.0, 1.0], [0.0, 0.0], [0.0, -1.0]], [5.0, 0.0], [0.5, 1.5])
BEATEN = TokenDataset.from_tokens([[0, 1, 2], [3]], [1, -1])
OTHER = "p selects another token in 1 of 2 sequences (in sequence 0 token 0, not 1)"


def test_another_selection_for_ever_is_not_called_early() -> None:
    flow = gradient_flow(LOCAL, BEATEN, until=60.0)
    assert "yet" not in flow.message
    loss = np.log1p(np.exp([-0.5, -1.5])).mean()
    assert f"{OTHER}, a locally optimal selection, which nearby flows keep for good" in flow.message
    assert flow.message.endswith(f"the loss then tends to {loss:.6g}, not to L*")
    assert flow.model.loss(BEATEN) == pytest.approx(loss, rel=1e-12)


def test_another_selection_for_a_while_is_told_from_it() -> None:
    # token 0 beats token 1 from this start, but the active row against token 1 pulls away
    model = LOCAL.replace(E=[[1.0, 0.0], [0.2, 0.6], [0.0, 0.0], [0.0, -1.0]], p=[8.0, -1.0])
    early, end = gradient_flow(model, BEATEN, until=2.0), gradient_flow(model, BEATEN, until=60.0)
    assert f"{OTHER}, not a locally optimal selection: no flow ends in it" in early.message
    assert end.top_attention[-1] > 0.999


def test_tokens_of_one_value_count_together() -> None:
    # inside the failure window attention leaves A for the irrelevant tokens, which share it: no one of them is selected
    family = Family(10, 14, step_size=400.0)
    flow = gradient_flow(AttentionModel(*family.parameters()), family.dataset(), until=60.0)
    assert flow.top_attention[-1] < 1e-30
    assert "yet" not in flow.message
    assert "p selects another token in 14 of 140 sequences (in sequence 0 token " in flow.message
    assert "no theorem says whether that is for good (fails: every active row pulls" in flow.message


def test_attention_is_never_called_one_while_some_is_missing() -> None:
    model, data = selecting()
    flow = gradient_flow(model, data, until=60.0)
    assert flow.top_attention[-1] == 1.0  # in floats
    shown = re.search(r"at least 1 - (\S+) in every sequence$", flow.message)
    assert shown is not None
    # what the other tokens have, in the last point, from their scores
    counts, u = data.counts.toarray(), flow.p @ model.E.T
    top = flow.selection
    rest = [sum(c[s] * np.exp(u[s] - u[k]) / c[k] for s in np.flatnonzero(c) if s != k) for c, k in zip(counts, top)]
    assert max(rest) <= float(shown[1]) <= 1.1 * max(rest)
    alone = TokenDataset.from_tokens([[0], [1]], [1, -1])
    assert "at least 1 in every sequence" in gradient_flow(unit_model([1.0, -1.0]), alone, until=1.0).message
    far = unit_model([1.0, -1.0, 0.0]).replace(p=[1e4, 1e4, -1e4])
    assert "at least 1 - 2.3e-308 in" in gradient_flow(far, TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])).message


def test_a_start_beyond_the_norm_says_so() -> None:
    model, data = selecting()
    flow = gradient_flow(model.replace(p=np.full(16, math.sqrt(2))), data, stop_norm=1)
    assert (flow.status, len(flow.path)) == (Status.STOPPED, 1)
    assert flow.message.startswith("stopped at the start, which is beyond ||p|| = 1 by 4.66, at log_time = -inf")


@pytest.mark.parametrize("clock", CLOCKS)
def test_the_shortest_flows_are_reached(clock: Clock) -> None:
    model, data = crowded()
    until = -690.0 if clock == "log_time" else 1e-200
    flow = gradient_flow(model, data, clock=clock, until=until)
    assert (flow.status, flow.success) == (Status.REACHED_END, True)
    assert_array_equal(flow.p, model.p)
    # from p = 0 the point itself shows how far it has come: dp = -grad dt
    zero = model.replace(p=np.zeros(3))
    flow = gradient_flow(zero, data, clock=clock, until=until)
    force = -zero.loss_and_grads(data)[1].p
    moved = {"time": 1e-200, "log_time": math.exp(-690.0), "arclength": 1e-200 / np.linalg.norm(force)}[clock] * force
    assert_allclose(flow.p, moved, rtol=1e-9, atol=0)


MODEL, DATA = unit_model([1.0, -1.0, 0.0]), TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
BAD: list[tuple[dict[str, Any], str]] = [
    ({"clock": "days"}, "`clock` must be one of 'time', 'log_time', 'arclength'; got 'days'"),
    ({"clock": None}, "`clock` must be one of 'time', 'log_time', 'arclength'; got None"),
    *(
        (
            {"until": until},
            f"`until` must lie between -700 and 700; got {float(until)}; for this clock it is log t, not t",
        )
        for until in (701, -701, math.nan, math.inf, -math.inf)
    ),
    ({"until": 10**400}, "`until` must lie between -700 and 700; got inf; for this clock it is log t, not t"),
    ({"until": None}, "`until` must be a real number; got None"),
    ({"until": "40"}, "`until` must be a real number; got '40'"),
    ({"until": True}, "`until` must be a real number; got True"),
    ({"until": 1j}, "`until` must be a real number; got 1j"),
    ({"until": [1, 2]}, "`until` must be a real number; got [1, 2]"),
    *(
        ({"clock": clock, "until": until}, f"`until` must be finite and > 0; got {float(until)}")
        for clock in ("time", "arclength")
        for until in (0, -1, math.nan, math.inf)
    ),
    *(({name: 0}, f"`{name}` must be finite and > 0; got 0.0") for name in ("rtol", "atol", "stop_norm")),
    ({"stop_attention": 0}, "`stop_attention` must be in (0, 1); got 0.0"),
    *(({name: -1}, f"`{name}` must be finite and > 0; got -1.0") for name in ("rtol", "atol", "stop_norm")),
    ({"rtol": math.nan}, "`rtol` must be finite and > 0; got nan"),
    ({"atol": "small"}, "`atol` must be a real number; got 'small'"),
    ({"stop_attention": 1}, "`stop_attention` must be in (0, 1); got 1.0"),
    ({"stop_norm": math.inf}, "`stop_norm` must be finite and > 0; got inf"),
    ({"max_nfev": 0}, "`max_nfev` must be at least 1; got 0"),
    *(
        ({"callback": callback}, f"`callback` must be a function; got {type(callback).__name__}")
        for callback in (1, "print", [print])
    ),
    ({"max_nfev": 1.5}, "`max_nfev` must be an integer; got 1.5"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[f"{options}" for options, _ in BAD])
def test_bad_options_end_in_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        gradient_flow(MODEL, DATA, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("change", "what"), [({"p": 1e200 * np.ones(3)}, "scores p.E_s"), ({"v": [1e200, 0, 0]}, "values E_s.v")]
)
def test_parameters_whose_products_overflow_are_named(change: dict[str, Any], what: str) -> None:
    model = MODEL.replace(E=1e200 * np.eye(3), **change)
    with pytest.raises(
        InputError, match=f"`model` must have finite {what}.*; got inf for token 0; the products overflow in float64"
    ):
        gradient_flow(model, DATA)


def test_data_must_fit_the_model() -> None:
    with pytest.raises(InputError, match="`data` must have the model's vocabulary of 3 tokens; got 2"):
        gradient_flow(MODEL, TokenDataset.from_tokens([[0], [1]], [1, -1]))


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_points_observed_by_tokens_are_those_observed_by_positions(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the attention on the other tokens is far below the rounding of one."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.8, size=(40, 12))
    counts[:, 0] += 1
    data = TokenDataset.from_counts(counts, np.where(rng.random(40) < 0.5, 1, -1))
    model = AttentionModel.random(12, 6, rng=1)
    field = module._ClsField(model, data)
    smallest = 1.0
    for x in (np.zeros(6), scale * rng.standard_normal(6)):
        plain = field.observe(x)
        monkeypatch.setattr(module, "_MANY", 0)
        assert_allclose(field.observe(x), plain, rtol=1e-11)
        monkeypatch.undo()
        smallest = min(smallest, plain[1])
    assert scale == 1 or smallest < 1e-12
