"""The basin: its condition, the bound on the loss gap, and the two conditions that lead into selection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import expit

from attnembed.attention.data import TokenDataset, make_balanced_dataset
from attnembed.attention.first_step import one_step
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import margin_constraints, select
from attnembed.attention.theory import (
    Family,
    basin_bound,
    basin_condition,
    large_step_condition,
    large_step_size,
    small_step_condition,
)
from attnembed.errors import InputError
from attnembed.evidence.attention.extremal import led_astray
from attnembed.losses import logistic
from attnembed.margins import max_margin
from tests.attention.theory.instances import as_model, random_instance, unit_model
from tests.plain import AttentionProblem, attention_problems

PAIR = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
# The irrelevant token lies halfway between the two important ones: no p prefers both of them to it.
HALFWAY = AttentionModel([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], [0.0, 0.0], [50.0, 0.0])


def inside(seed: int) -> tuple[AttentionModel, TokenDataset]:
    """A random start in its basin: the max-margin point times the least factor that will do, plus noise."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        model, data = random_instance(rng)
        if basin_condition(model, data).margin == 0:
            continue
        p_mm = max_margin(margin_constraints(model, data, select(model, data).top).differences).p
        noise = 0.3 * rng.standard_normal(model.dim)
        for scale in np.arange(0.5, 30, 0.5):
            started = model.replace(p=scale * p_mm + noise)
            if basin_condition(started, data).holds:
                return started, data
    raise AssertionError("no start in the basin")


@given(attention_problems(distinct_values=True))
def test_left_and_right_are_as_stated(problem: AttentionProblem) -> None:
    model, data = as_model(problem)
    assume((np.diff(data.counts.indptr) > 1).any())
    condition = basin_condition(model, data)
    best, steps = [], []
    for y, row in zip(data.labels, np.split(data.counts.indices, data.counts.indptr[1:-1])):
        values = np.sort(y * model.token_values[row])
        best.append(values[-1])
        steps += [float(logistic(values[-2]) - logistic(values[-1]))] if values.size > 1 else []
    optimum = float(np.mean(logistic(best)))
    assert abs(condition.left - data.n_samples * (model.loss(data) - optimum)) <= 1e-13 * data.n_samples * (
        1 + model.loss(data)
    )
    assert abs(condition.right - min(steps)) <= 1e-14 * (1 + min(steps))
    assert condition.slack == condition.right - condition.left


@pytest.mark.parametrize("seed", range(6))
def test_flow_selects_and_stays_below_the_bound(seed: int) -> None:
    model, data = inside(seed)
    condition = basin_condition(model, data)
    flow = gradient_flow(model, data, until=40.0)
    assert flow.top_attention[-1] > 0.999
    bound = basin_bound(model, data, np.exp(flow.log_time))
    for name in ("bound", "sharp_bound"):
        ratio = flow.loss_gap / getattr(bound, name)
        np.testing.assert_allclose(ratio[0], 1.0, rtol=1e-12)
        assert ratio.max() <= 1 + 1e-9, (name, ratio.max())
    assert (bound.sharp_bound <= bound.bound).all()
    # The inequality behind the bound, ||grad|| >= gamma kap (L - L*), at every point of the path.
    for p, gap in zip(flow.path[::4], flow.loss_gap[::4]):
        grads = model.replace(p=p).loss_and_grads(data)[1]
        norm = np.linalg.norm(grads.scaled_p) * np.exp(grads.log_scale)
        assert norm >= condition.margin * condition.kap_sharp * gap * (1 - 1e-9)


def test_the_sharp_bound_is_sharp() -> None:
    # One pair per sequence: 1/(gamma^2 t) is the limit itself; a constant ten percent larger is refuted.
    model = unit_model([1.0, -1.0, 0.0]).replace(p=[6.0, 6.0, -12.0])
    flow = gradient_flow(model, PAIR, until=60.0)
    bound = basin_bound(model, PAIR, np.exp(flow.log_time[-1]))
    assert 0.99 < flow.loss_gap[-1] / bound.sharp_bound <= 1.0
    assert flow.loss_gap[-1] / (bound.sharp_bound / 1.1) > 1


@pytest.mark.parametrize("seed", range(3))
def test_constants_are_as_stated(seed: int) -> None:
    model, data = inside(seed)
    condition, worst, sharp = basin_condition(model, data), [], []
    for y, row in zip(data.labels, np.split(data.counts.indices, data.counts.indptr[1:-1])):
        values = np.sort(y * model.token_values[row])
        if values.size > 1:
            b = -np.log(np.expm1(logistic(values[-1]) + condition.left))
            sharp.append((b - values[-2]) / np.ptp(values))
            worst.append(sharp[-1] * expit(-values[-1]) / expit(-values[-2]))
    np.testing.assert_allclose((condition.kap, condition.kap_sharp), (min(worst), min(sharp)), rtol=1e-9)


def test_outside_the_basin_the_bound_promises_nothing() -> None:
    start = unit_model([1.0, -1.0, 0.0]).replace(p=[-3.0, -3.0, 0.0])
    condition = basin_condition(start, PAIR)
    assert [h.name.split(" (")[0] for h in condition.failures] == ["n"]
    assert condition.slack < 0
    bound = basin_bound(start, PAIR, [0.0, 1e30])
    assert (bound.bound == condition.loss_gap).all()


def test_a_start_outside_can_fail() -> None:
    family = Family(4, 6, step_size=60.0)
    model, data = AttentionModel(*family.parameters()), family.dataset()
    start = model.replace(p=family.lift([0.0, 100.0, -100.0, family.n_positive * family.kappa[1] * 100.0]))
    assert not basin_condition(start, data).holds
    assert gradient_flow(start, data, until=60.0).top_attention[-1] < 1e-9


def test_ties_and_infeasible_programs_are_answers_not_errors() -> None:
    tied = basin_condition(unit_model([1.0, -1.0, 1.0]), TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1]))
    assert not tied.hypotheses[0].holds
    assert tied.hypotheses[0].measured == 0.0
    infeasible = basin_condition(HALFWAY, PAIR)
    assert infeasible.margin == 0.0
    assert infeasible.certificate is not None
    np.testing.assert_allclose(infeasible.certificate.sum(), 1.0, rtol=1e-12)
    rows = margin_constraints(HALFWAY, PAIR, select(HALFWAY, PAIR).top).differences
    assert np.linalg.norm(rows.T @ infeasible.certificate) < 1e-12


def test_sequences_of_one_token_type_cost_nothing() -> None:
    model = unit_model([1.0, -1.0, 0.0]).replace(p=[4.0, 4.0, -8.0])
    more = TokenDataset.from_tokens([[0, 2], [1, 2], [1], [0, 0]], [1, -1, -1, 1])
    alone, together = basin_condition(model, PAIR), basin_condition(model, more)
    assert together.holds
    np.testing.assert_allclose((together.left, together.kap), (alone.left, alone.kap), rtol=1e-12)


def test_the_optimum_itself_is_inside() -> None:
    model = unit_model([1.0, -1.0, 0.0]).replace(p=[1e3, 1e3, -1e3])
    condition = basin_condition(model, PAIR)
    assert condition.holds
    assert condition.left == 0.0
    assert condition.kap_sharp == 1.0


def test_values_whose_losses_underflow() -> None:
    """y f = 1000 where gamma* = 2000: both losses are 0 in floats, and b = 1000 - log 2, not gamma*."""
    start = unit_model([2000.0, -2000.0, 0.0])
    condition = basin_condition(start, PAIR)
    assert condition.holds
    assert 0 < condition.kap_sharp <= (1000 - np.log(2)) / 2000
    assert condition.kap == 0  # l'(2000)/l'(0) = 2 e^-2000
    # Both slopes of the ratio in kap underflow, or nearly do: l'(760)/l'(735) = e^-25.
    apart = TokenDataset.from_tokens([[0, 2], [1, 3]], [1, -1])
    condition = basin_condition(unit_model([760.0, -760.0, 735.0, -735.0]).replace(p=[90.0, 90.0, 0.0, 0.0]), apart)
    assert condition.holds
    assert 0 <= condition.kap <= np.exp(-25) * (1 + 1e-9)


@pytest.mark.parametrize("t", [[-1.0], [np.nan]])
def test_times_must_not_be_negative(t: list[float]) -> None:
    with pytest.raises(InputError, match="`t`"):
        basin_bound(unit_model([1.0, -1.0, 0.0]), PAIR, t)


# F4: a large step leads into the basin.


@given(attention_problems(distinct_values=True), st.floats(0.0, 30.0), st.floats(1.0, 30.0))
def test_large_step_implies_the_inequality_of_the_basin(
    problem: AttentionProblem, along: float, strength: float
) -> None:
    model, data = as_model(problem)
    assume((np.diff(data.counts.indptr) > 1).any())
    # Push p towards the top tokens and scale the values, so that the condition holds now and then.
    tops = np.bincount(select(model, data).top, minlength=model.vocab_size).clip(max=1)
    model = model.replace(p=model.p + along * np.linalg.pinv(model.E) @ tops, v=strength * model.v)
    large, basin = large_step_condition(model, data), basin_condition(model, data)
    if large.left < large.right:
        assert basin.left < basin.right
    assert large.holds <= basin.holds


def test_large_step_holds_on_an_instance_and_not_with_a_smaller_margin() -> None:
    assert large_step_condition(unit_model([3.0, -3.0, 0.0]), PAIR).holds
    condition = large_step_condition(unit_model([1.0, -1.0, 0.5]), PAIR)
    assert (condition.Gamma, condition.eps, condition.theta) == (1.0, 0.5, 0.5)
    np.testing.assert_allclose(condition.left, 2 * np.log1p(np.exp(-(0.5 * 1.0 - 0.5 * 0.5))), rtol=1e-14)
    np.testing.assert_allclose(condition.right, np.log1p(np.exp(-0.5)), rtol=1e-14)
    assert not condition.holds


def test_theta_is_the_least_attention_on_a_top_token() -> None:
    data = TokenDataset.from_tokens([[0, 2], [1, 1, 1, 2]], [1, -1])
    assert large_step_condition(unit_model([1.0, -1.0, 0.0]), data).theta == 0.5


def test_large_step_inequality_alone_does_not_make_the_program_feasible() -> None:
    # 99 of 100 tokens are the important one, so that n l(theta Gamma) is far below log 2; yet no p selects both.
    data = TokenDataset.from_tokens([[0] * 99 + [2], [1] * 99 + [2]], [1, -1])
    condition = large_step_condition(HALFWAY, data)
    assert condition.left < condition.right
    assert not condition.holds
    assert condition.certificate is not None
    assert gradient_flow(HALFWAY, data, until=60.0).top_attention[-1] < 0.999


@pytest.mark.parametrize("factor", [1.0001, 30.0])
def test_large_step_size_is_sufficient(factor: float) -> None:
    rng = np.random.default_rng(0)
    data = make_balanced_dataset(n_samples=12, length=5, n_irrelevant=6, min_length=3, rng=rng)
    v = np.zeros(20)
    v[-1] = 0.7
    E = np.hstack([rng.standard_normal((data.vocab_size, 19)), np.zeros((data.vocab_size, 1))])
    start = AttentionModel(E, np.zeros(20), v)
    size = large_step_size(start, data)
    assert size.holds
    after = one_step(start, data, factor * size.step_size).model
    condition = large_step_condition(after, data)
    assert condition.eps < 1e-12 * condition.Gamma
    assert condition.holds
    assert basin_condition(after, data).holds
    # Not vacuous: a twentieth of the step is outside.
    assert not large_step_condition(one_step(start, data, size.step_size / 20).model, data).holds


def test_large_step_size_reports_what_fails() -> None:
    model, data = random_instance(np.random.default_rng(0))
    names = [h.name.split(":")[0] for h in large_step_size(model, data).failures]
    assert names == ["Assumption 1 holds", "p_0 is zero", "E_0 v is zero"]
    dependent = model.replace(p=np.zeros(model.dim), E=np.ones_like(model.E))
    assert "independent" in large_step_size(dependent, data).failures[-1].name


# F5: after a small step no directional limit selects anything but the top tokens.


def adverse_limit(step_size: float) -> tuple[bool, float]:
    """Whether the condition holds, and the least attention on A reached from starts far along the wrong limit."""
    family = Family(4, 6, step_size=step_size)
    condition = small_step_condition(AttentionModel(*family.parameters()), family.dataset())
    kappa_own, N = family.kappa[1], family.n_positive
    reached = []
    for size in (10.0, 100.0):
        end = solve_ivp(
            lambda s, x: np.exp(s) * family.rate(x),
            (0, 300),
            [0.0, size, -size, N * kappa_own * size],
            method="LSODA",
            rtol=1e-7,
            atol=1e-9,
        )
        reached.append(family.observe(end.y[:, -1]).attention_shared)
    return condition.holds, min(reached)


def test_below_the_small_step_every_start_selects_the_top_tokens() -> None:
    for step_size in (5.0, 10.0, 14.0):
        holds, attention = adverse_limit(step_size)
        assert holds
        assert attention > 0.999


def test_above_it_some_start_does_not() -> None:
    for step_size in (32.0, 60.0):
        holds, attention = adverse_limit(step_size)
        assert not holds
        assert attention < 1e-9


@pytest.mark.parametrize(("factor", "selects"), [(0.99, True), (1.1, False)])
def test_the_constant_of_the_small_step_is_nearly_attained(factor: float, selects: bool) -> None:
    # Fifteen positive tokens at kappa/2 against one at -kappa, thirty irrelevant tokens each: 2 tau / sqrt(M) by hand.
    full, reduced = led_astray(15, 30, factor * 2 / np.sqrt(16), along=30.0)
    condition = small_step_condition(full.model, full.data)
    assert condition.right == pytest.approx(0.5, rel=1e-12)
    assert condition.holds == selects
    # Four dimensions do: the gradient stays in their span.
    gradients = [instance.model.loss_and_grads(instance.data)[1] for instance in (full, reduced)]
    lengths = [np.log(np.linalg.norm(grads.scaled_p)) + grads.log_scale for grads in gradients]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-9)
    flow = gradient_flow(reduced.model, reduced.data, clock="arclength", until=300.0, rtol=1e-7, atol=1e-9)
    assert flow.success
    assert (flow.top_attention[-1] > 0.999) == selects
    assert (flow.top_attention[-1] < 1e-30) != selects


def test_small_step_measures_the_deviations() -> None:
    rng = np.random.default_rng(0)
    data = make_balanced_dataset(n_samples=12, length=4, n_irrelevant=6, rng=rng)
    start = AttentionModel.random(data.vocab_size, 400, cls_scale=0.0, rng=rng)
    condition = small_step_condition(one_step(start, data, 1.0).model, data)
    assert condition.n_important == 4
    failed = {h.name.split(":")[0]: h for h in condition.failures}
    assert set(failed) == {
        "e_s are orthogonal",
        "e_s have equal norms",
        "irrelevant tokens are orthogonal to v",
        "important tokens have the sign of their label",
    } or set(failed) == {"e_s are orthogonal", "e_s have equal norms", "irrelevant tokens are orthogonal to v"}
    assert 0.01 < failed["e_s are orthogonal"].measured < 0.3
    assert condition.left < condition.right


def test_small_step_needs_assumption_1() -> None:
    data = TokenDataset.from_tokens([[0, 2], [1, 2], [2, 2]], [1, -1, 1])
    condition = small_step_condition(AttentionModel(np.eye(3, 4), np.zeros(4), [0.0, 0.0, 0.0, 1.0]), data)
    assert condition.failures[0].name == "Assumption 1 holds: number of violations"
    assert condition.failures[0].measured == 2  # token 2 is neither kind, and the third sequence has no important one


def test_all_violations_are_counted_however_many_tokens() -> None:
    """Seven mixed tokens in two sequences, none of them decisive: nine violations."""
    data = TokenDataset.from_tokens([[0, 1, 2, 3, 4, 5, 6], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]], [1, -1])
    model = AttentionModel(np.eye(8, 9), np.zeros(9), np.ones(9))
    violations = data.check_assumption(limit=10**6).violations
    assert len(violations) > data.n_samples + 2
    for found in (small_step_condition(model, data), large_step_size(model, data)):
        (hypothesis,) = (h for h in found.hypotheses if h.name.startswith("Assumption 1"))
        assert hypothesis.measured == len(violations)
