"""The late flow against p_mm log t + rho, its constants and their hypotheses."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy.optimize import linprog

from attnembed.attention.data import TokenDataset
from attnembed.attention.flow import FlowResult, gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import margin_constraints, select
from attnembed.attention.theory import Asymptotics, asymptotics
from tests.attention.theory.instances import random_instance, unit_model

PAIR = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])


def late(model: AttentionModel, data: TokenDataset, until: float) -> FlowResult:
    return gradient_flow(model, data, until=until, rtol=1e-10, atol=1e-12)


@functools.cache
def fast_instances() -> list[tuple[AttentionModel, TokenDataset, Asymptotics]]:
    """Five random instances with a transient below 1e-9 at log t = 60."""
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        model, data = random_instance(rng)
        prediction = asymptotics(model, data)
        if prediction.holds and prediction.transient_rate > 0.4 and prediction.loss_gap_constant < 100:
            found.append((model, data, prediction))
        if len(found) == 5:
            return found
    raise AssertionError("hardly any instance has an offset")


@pytest.mark.parametrize("number", range(5))
def test_every_constant_at_log_time_60(number: int) -> None:
    model, data, predicted = fast_instances()[number]
    flow = late(model, data, 60.0)
    assert flow.top_attention[-1] > 1 - 1e-9
    p, log_t, p_mm = flow.p, flow.log_time[-1], predicted.p_mm
    D = margin_constraints(model, data, select(model, data).top).differences
    span = np.linalg.qr(D[predicted.support].T)[0]
    offset = p - log_t * p_mm
    tolerance = 1e-8 + 10 * log_t * np.exp(-min(predicted.transient_rate, 1.0) * log_t)

    assert np.linalg.norm(span.T @ (offset - predicted.rho)) <= tolerance * (1 + np.linalg.norm(predicted.rho))
    # The component of p_0 outside the span of all rows has not moved.
    outside = np.linalg.svd(D)[2][np.linalg.matrix_rank(D) :]
    assert np.abs(outside @ (p - model.p)).max(initial=0.0) < 1e-10
    assert np.abs(outside @ (predicted.conserved - model.p)).max(initial=0.0) < 1e-10

    gap = np.exp(np.log(flow.loss_gap[-1]) + log_t)
    np.testing.assert_allclose(gap, predicted.loss_gap_constant, rtol=tolerance)
    np.testing.assert_allclose(predicted.loss_gap_constant, p_mm @ p_mm, rtol=1e-10)

    attention = flow.model.attention(data).toarray()
    for k in predicted.support:
        winner, other = predicted.pairs[k]
        both = (select(model, data).top == winner) & (data.counts[:, [other]].toarray()[:, 0] > 0)
        for i in np.flatnonzero(both):
            scaled = np.exp(np.log(attention[i, other]) + log_t) * data.counts[i, winner] / data.counts[i, other]
            np.testing.assert_allclose(scaled, predicted.attention_constants[k], rtol=10 * tolerance)


@pytest.mark.parametrize("number", range(5))
def test_the_selected_multipliers_solve_the_program(number: int) -> None:
    model, data, predicted = fast_instances()[number]
    D = margin_constraints(model, data, select(model, data).top).differences
    assert (predicted.dual[predicted.support] > 0).all()
    assert np.linalg.norm(D.T @ predicted.dual - predicted.p_mm) < 1e-9 * np.linalg.norm(predicted.p_mm)
    margins = D @ predicted.p_mm
    np.testing.assert_allclose(margins[predicted.support], 1.0, rtol=1e-8)
    rest = np.delete(margins, predicted.support)
    assert rest.min(initial=np.inf) == predicted.next_margin > 1
    k = predicted.support
    norm_constant = predicted.margin * (predicted.dual[k] @ np.log(predicted.C[k] / predicted.dual[k]))
    np.testing.assert_allclose(predicted.norm_constant, norm_constant, rtol=1e-7, atol=1e-9)


def test_norm_and_angle_constants() -> None:
    # Every row is active and the start has a component outside the span of the rows: token 3 is never beaten.
    data = TokenDataset.from_tokens([[0, 2, 2], [1, 2], [3]], [1, -1, 1])
    model = AttentionModel(np.eye(4) + 0.2 * np.eye(4)[::-1], [0.0, 0.0, 0.0, 1.0], [2.0, -1.0, 0.0, 0.5])
    predicted = asymptotics(model, data)
    assert predicted.holds
    assert predicted.angle_is_exact
    assert np.linalg.norm(predicted.conserved) > 0.5
    for log_t in (50.0, 100.0, 200.0):
        flow = late(model, data, log_t)
        direction, p = predicted.p_mm * predicted.margin, flow.p
        across = p - direction * (p @ direction)
        one_minus_cos = (across @ across) / (p @ p) / (1 + p @ direction / np.linalg.norm(p))
        norm_error = np.linalg.norm(p) - log_t / predicted.margin - predicted.norm_constant
        # Both approach their limits like 1/log t.
        assert abs(norm_error) * log_t < 5
        assert abs(one_minus_cos * log_t**2 / predicted.angle_constant - 1) * log_t < 5
        assert np.linalg.norm(p - predicted.p(log_t)) < 1e-7
    # Without the conserved component the angle would be another one.
    alone = asymptotics(model.replace(p=np.zeros(4)), data)
    assert alone.angle_constant < 0.9 * predicted.angle_constant


def test_the_angle_is_a_lower_bound_where_the_support_does_not_span_the_rows() -> None:
    seen = 0
    for model, data, predicted in fast_instances():
        if predicted.angle_is_exact:
            continue
        seen += 1
        direction = predicted.p_mm * predicted.margin
        first, second = late(model, data, 60.0), late(model.replace(p=-model.p), data, 60.0)
        offsets = [flow.p - 60.0 * predicted.p_mm for flow in (first, second)]
        across = [offset - direction * (offset @ direction) for offset in offsets]
        assert across[0] @ across[0] / (2 * predicted.loss_gap_constant) >= predicted.angle_constant * (1 - 1e-6)
        # The rest of the offset depends on the path: another start, another offset.
        assert np.linalg.norm(across[0] - across[1]) > 1e-3
    assert seen


def test_transient_rate() -> None:
    # M x N orthonormal tokens, every pair once, different losses: twelve dependent rows, a transient of rate mu < 1.
    rng = np.random.default_rng(0)
    tokens = [[s] * int(rng.integers(1, 4)) + [3 + j] for s in range(3) for j in range(4)]
    data = TokenDataset.from_tokens(tokens, [-1] * 4 + [1] * 8)
    model = unit_model([-1.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0]).replace(p=rng.standard_normal(7))
    predicted = asymptotics(model, data)
    assert predicted.holds
    assert len(predicted.support) == 12
    assert 0.1 < predicted.transient_rate < 0.9
    flow = late(model, data, 56.0)
    when = np.searchsorted(flow.log_time, [36.0, 52.0])
    distance = [np.linalg.norm(flow.path[k] - predicted.p(flow.log_time[k])) for k in when]
    rate = -np.log(distance[1] / distance[0]) / np.diff(flow.log_time[when])[0]
    np.testing.assert_allclose(rate, predicted.transient_rate, rtol=0.02)


def test_an_inactive_row_can_be_the_slowest() -> None:
    # d = (1, 0) is active, d = (1.3, 1) has margin 1.3 and pushes the second coordinate like t^-1.3.
    data = TokenDataset.from_tokens([[0, 1], [0, 2], [3]], [1, 1, -1])
    model = AttentionModel([[0.0, 0.0], [-1.0, 0.0], [-1.3, -1.0], [0.0, 0.0]], [0.0, 0.0], [1.0, 0.0])
    predicted = asymptotics(model, data)
    np.testing.assert_allclose((predicted.next_margin, predicted.transient_rate), (1.3, 0.3), rtol=1e-9)
    flow = late(model, data, 60.0)
    when = np.searchsorted(flow.log_time, [15.0, 30.0])
    left = flow.path[-1, 1] - flow.path[when, 1]
    np.testing.assert_allclose(-np.log(left[1] / left[0]) / np.diff(flow.log_time[when])[0], 0.3, rtol=0.02)


def test_multipliers_that_the_flow_selects_are_not_any_solution() -> None:
    # Two important tokens against the same two irrelevant ones: a square, its multipliers have one degree of freedom.
    data = TokenDataset.from_tokens([[0, 2], [0, 3, 3], [1, 2, 2, 2], [1, 3]], [1, 1, -1, -1])
    model = unit_model([1.0, -2.0, 0.0, 0.0])
    predicted = asymptotics(model, data)
    assert predicted.holds
    D = margin_constraints(model, data, [0, 0, 1, 1]).differences
    other = predicted.dual + 0.5 * predicted.dual.min() * np.array([1.0, -1.0, -1.0, 1.0])
    assert np.linalg.norm(D.T @ other - predicted.p_mm) < 1e-9
    flow = late(model, data, 60.0)
    attention = flow.model.attention(data).toarray()
    measured = np.exp(np.log([attention[0, 2], attention[1, 3] / 2, attention[2, 2] / 3, attention[3, 3]]) + 60.0)
    np.testing.assert_allclose(measured * predicted.C, predicted.dual, rtol=1e-6)
    assert np.abs(measured * predicted.C / other - 1).max() > 0.05


def test_on_the_boundary_of_the_cone_there_is_no_offset() -> None:
    # d = (1, 0) and (1, 1): p_mm = (1, 0) needs only the first row, but the second is active as well.
    data = TokenDataset.from_tokens([[0, 1], [0, 2], [3]], [1, 1, -1])
    model = AttentionModel([[0.0, 0.0], [-1.0, 0.0], [-1.0, -1.0], [0.0, 0.0]], [0.0, 0.0], [1.0, 0.0])
    predicted = asymptotics(model, data)
    assert [h.name.split(":")[0] for h in predicted.failures] == [
        "p_mm is in the relative interior of its support's cone",
        "rho was found",
    ]
    assert np.isnan(predicted.rho).all()
    assert np.isnan(predicted.transient_rate)
    # Indeed the offset grows for ever, like log log t.
    second = [late(model, data, until).p[1] for until in (30.0, 300.0)]
    np.testing.assert_allclose(second[1] - second[0], np.log(10.0), rtol=0.15)


def test_dependent_rows_inside_and_on_the_boundary() -> None:
    # Rows d_k = (1, a_k): p_mm = (1, 0) is inside their cone if the a_k have both signs. The multipliers of least norm
    # are alpha + beta a_k, negative at a = 10; positive ones exist all the same.
    def flat(a: list[float]) -> tuple[AttentionModel, TokenDataset]:
        E = np.vstack([[0.0, 0.0], -np.stack([np.ones(len(a)), a], axis=1), [0.0, 0.0]])
        tokens = [[0, 1 + k] for k in range(len(a))] + [[1 + len(a)]]
        return AttentionModel(E, [0.0, 0.0], [1.0, 0.0]), TokenDataset.from_tokens(tokens, [1] * len(a) + [-1])

    model, data = flat([-1.0, 1.0, 1.1, 0.9, 1.2, 10.0])
    D = margin_constraints(model, data, select(model, data).top).differences
    assert np.linalg.lstsq(D.T, np.array([1.0, 0.0]))[0].min() < -0.01
    predicted = asymptotics(model, data)
    assert predicted.holds
    assert predicted.hypotheses[3].measured > 0.01
    assert np.linalg.norm(late(model, data, 60.0).p - predicted.p(60.0)) < 1e-6
    # With a_k >= 0 the multipliers of the positive ones must vanish.
    on_boundary = asymptotics(*flat([0.0, 0.0, 0.5, 1.0]))
    assert on_boundary.hypotheses[1].holds
    assert not on_boundary.hypotheses[3].holds


def test_a_selection_that_loses_by_an_active_row_is_reported() -> None:
    model = unit_model([1.0, -1.0, 0.0])
    predicted = asymptotics(model, PAIR, [0, 2])
    assert not predicted.hypotheses[0].holds
    assert predicted.hypotheses[0].measured == -1.0
    # C_k = sigma(-gamma)/n D: sigma(-1)/2 for the pair (0, 2), -sigma(0)/2 for (2, 1)
    np.testing.assert_allclose(predicted.C, [1 / (1 + np.e) / 2, -0.25], rtol=1e-14)
    assert np.isfinite(predicted.p_mm).all()
    assert np.isnan(predicted.rho).all()
    same = asymptotics(model, PAIR, select(model.replace(p=[1.0, 1.0, 0.0]), PAIR))
    assert same.holds


# Token 1 is top, but the flow may end on token 0: the row against token 1 is not active.
BEATEN = TokenDataset.from_tokens([[0, 1, 2], [3]], [1, -1])
LOCAL = AttentionModel([[1.0, 0.0], [-1.0, 1.0], [0.0, 0.0], [0.0, -1.0]], [5.0, 0.0], [0.5, 1.5])


def test_a_flow_can_end_on_a_token_that_is_not_the_top_and_is_predicted() -> None:
    flow = late(LOCAL, BEATEN, 60.0)
    chosen = select(flow.model, BEATEN)
    assert (chosen.tokens[0], chosen.top[0]) == (0, 1)
    predicted = asymptotics(LOCAL, BEATEN, chosen)
    assert predicted.holds, predicted
    assert predicted.hypotheses[0].measured == 0.5  # of the row against token 2; against token 1, D = -0.5
    # By hand: p_mm = (1, 0), gamma = (0.5, 1.5), C = sigma(-0.5)/2 * 0.5 * 1 and rho = log C.
    np.testing.assert_allclose(predicted.p_mm, [1.0, 0.0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(predicted.loss_limit, np.log1p(np.exp([-0.5, -1.5])).mean(), rtol=1e-14)
    np.testing.assert_allclose(predicted.rho, [np.log(0.25 / (1 + np.exp(0.5))), 0.0], rtol=1e-12, atol=1e-14)
    cosine = flow.p @ predicted.p_mm * predicted.margin / np.linalg.norm(flow.p)
    assert abs(cosine - 1) < 2e-8
    # t (L - L_sigma) -> ||p_mm||^2, with L - L_sigma from the attention that token 0 has not got: nothing cancels.
    missing = np.exp([flow.p @ (LOCAL.E[s] - LOCAL.E[0]) for s in (1, 2)])
    delta = missing @ [-0.5, 0.5] / (1 + missing.sum())
    gap = np.log1p(np.expm1(delta) / (1 + np.exp(0.5))) / 2
    assert abs(np.exp(60.0) * gap / predicted.loss_gap_constant - 1) < 1e-9
    assert abs(flow.model.loss(BEATEN) - predicted.loss_limit) < 1e-15
    # L stays above what the top tokens would give.
    assert predicted.loss_limit - asymptotics(LOCAL, BEATEN).loss_limit > 0.05
    assert abs(flow.p[0] - predicted.p(60.0)[0]) < 1e-9
    # The second coordinate is pushed by the inactive row alone, and ends where the path took it.
    assert abs(np.abs(predicted.undetermined[:, 0]) - [0.0, 1.0]).max() < 1e-12
    assert not predicted.angle_is_exact
    assert abs(flow.p[1] - predicted.p(60.0)[1]) > 1e-3


@pytest.mark.parametrize("p0", [[5.0, 0.0], [8.0, 1.0], [20.0, -20 / 3]])
def test_no_flow_ends_where_an_active_row_pulls_away(p0: list[float]) -> None:
    # The same values; now both rows are active, with D = (-0.5, 0.5), and every start leaves for token 1.
    model = LOCAL.replace(E=[[1.0, 0.0], [0.2, 0.6], [0.0, 0.0], [0.0, -1.0]], p=p0)
    np.testing.assert_allclose(model.token_values, LOCAL.token_values, rtol=0, atol=1e-15)
    predicted = asymptotics(model, BEATEN, [0, 3])
    assert predicted.support.tolist() == [0, 1]
    np.testing.assert_allclose(predicted.hypotheses[0].measured, -0.5, rtol=1e-12)
    assert predicted.failures[0] is predicted.hypotheses[0]
    flow = late(model, BEATEN, 60.0)
    assert select(flow.model, BEATEN).tokens.tolist() == [1, 3]
    assert flow.top_attention[-1] > 0.999


def test_a_row_shared_by_sequences_counts_by_its_sum() -> None:
    # Token 0 over token 1 gains in the first sequence and loses in the second; C > 0 decides, not the sign of each D.
    def both(more: int, less: int) -> tuple[AttentionModel, TokenDataset]:
        return unit_model([0.5, -0.5]).replace(p=[4.0, -4.0]), TokenDataset.from_tokens(
            [[0] + [1] * more, [0] * less + [1]], [1, -1]
        )

    model, data = both(3, 3)
    predicted = asymptotics(model, data, [0, 0])
    assert predicted.holds
    weights = np.array([3.0, 1 / 3]) / (1 + np.exp([0.5, -0.5])) / 2
    np.testing.assert_allclose(predicted.C, [weights[0] - weights[1]], rtol=1e-13)
    flow = late(model, data, 60.0)
    np.testing.assert_allclose(flow.p, predicted.p(60.0), rtol=0, atol=1e-8)
    # With the counts the other way round C < 0, and the flow comes back to a finite point.
    model, data = both(1, 1)
    assert asymptotics(model, data, [0, 0]).hypotheses[0].measured < 0
    assert np.linalg.norm(late(model, data, 20.0).p) < 3


def test_outside_the_undetermined_directions_the_transient_has_the_predicted_rate() -> None:
    # One active row (1, 0), an inactive one of margin 1.3: the second coordinate is pushed for a finite time.
    data = TokenDataset.from_tokens([[0, 1], [0, 2], [3]], [1, 1, -1])
    model = AttentionModel([[0.0, 0.0], [-1.0, 0.0], [-1.3, -1.0], [0.0, 0.0]], [0.0, 0.0], [1.0, 0.0])
    predicted = asymptotics(model, data)
    assert predicted.holds
    assert not predicted.angle_is_exact
    flow = late(model, data, 60.0)
    when = np.searchsorted(flow.log_time, [15.0, 30.0, 59.9])
    rest = flow.path[when] - predicted.p(flow.log_time[when])
    assert np.linalg.norm(rest[-1]) > 0.1  # not o(1): the asymptote lacks what the path adds
    determined = rest - rest @ predicted.undetermined @ predicted.undetermined.T
    rate = -np.log(np.linalg.norm(determined[1]) / np.linalg.norm(determined[0])) / np.diff(flow.log_time[when[:2]])[0]
    np.testing.assert_allclose(rate, predicted.transient_rate, rtol=0.05)


@pytest.mark.parametrize("unit", [1e-180, 1e-90, 1e90, 1e150])
def test_the_unit_of_the_embeddings_only_scales(unit: float) -> None:
    model = unit_model([1.0, -2.0, 0.0, 0.0]).replace(p=np.zeros(4))
    data = TokenDataset.from_tokens([[0, 2], [0, 3, 3], [1, 2, 2, 2], [1, 3]], [1, 1, -1, -1])
    one, other = asymptotics(model, data), asymptotics(model.replace(E=unit * model.E, v=model.v / unit), data)
    assert other.holds, other
    np.testing.assert_allclose(other.p_mm * unit, one.p_mm, rtol=1e-10)
    if 1e-150 < unit < 1e100:  # C e^{-rho.d} = lambda, and lambda falls with the square of the unit
        np.testing.assert_allclose(other.attention_constants * unit * unit, one.attention_constants, rtol=1e-9)
    np.testing.assert_allclose(other.transient_rate, one.transient_rate, rtol=1e-9)


def test_how_far_inside_the_cone_has_no_unit() -> None:
    """The hypothesis measures a ratio: the smallest over the largest multiplier, whatever the embeddings' unit."""
    data = TokenDataset.from_tokens([[0, 2], [1, 3]], [1, -1])
    for unit in (1.0, 1e-3, 1e3):
        # Orthogonal rows of lengths 2 and 1: multipliers 1/4 and 1.
        rows = unit * np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
        found = asymptotics(AttentionModel(rows, np.zeros(2), [1.0, -1.0]), data)
        (inside,) = (h for h in found.hypotheses if "relative interior" in h.name)
        assert inside.measured == pytest.approx(0.25, rel=1e-12)


def test_an_infeasible_program_gives_its_certificate() -> None:
    model = AttentionModel([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], [0.0, 0.0], [1.0, 0.0])
    predicted = asymptotics(model, PAIR)
    assert not predicted.holds
    assert predicted.certificate is not None
    assert predicted.margin == 0.0
    assert np.isnan(predicted.rho).all()


def test_opposite_rows_are_a_certificate() -> None:
    """Token 0 must beat 1 under one label, and 1 must beat 0 under the other: no solver is asked, however many rows."""
    rng = np.random.default_rng(0)
    model = AttentionModel(rng.normal(size=(40, 60)), np.zeros(60), rng.normal(size=60))
    data = TokenDataset.from_tokens([rng.integers(0, 40, size=20) for _ in range(30)], [1, -1] * 15, vocab_size=40)
    predicted = asymptotics(model, data)
    w = predicted.certificate
    assert w is not None
    assert sorted(w[w > 0].tolist()) == [0.5, 0.5]
    first, second = predicted.pairs[w > 0]
    assert first.tolist() == second[::-1].tolist()
    # Independently: no p satisfies the rows.
    D = margin_constraints(model, data, predicted.selected).differences
    assert linprog(np.zeros(60), A_ub=-D, b_ub=-np.ones(len(D)), bounds=(None, None)).status == 2


@pytest.mark.parametrize("dimension", [3, 5])
def test_what_never_changes_with_many_rows(dimension: int) -> None:
    """A sample of the rows may show that they span everything; else all of them are asked."""
    rng = np.random.default_rng(1)
    E = rng.normal(size=(30, dimension)) @ rng.normal(size=(dimension, 5))
    model = AttentionModel(E, rng.normal(size=5), rng.normal(size=5))
    data = TokenDataset.from_tokens([rng.integers(0, 30, size=12) for _ in range(20)], [1] * 19 + [-1], vocab_size=30)
    predicted = asymptotics(model, data)
    assert len(predicted.pairs) > 20 * 5
    D = E[predicted.pairs[:, 0]] - E[predicted.pairs[:, 1]]
    expected = model.p - D.T @ np.linalg.lstsq(D.T, model.p)[0]
    np.testing.assert_allclose(predicted.conserved, expected, atol=1e-12)
    assert (np.linalg.norm(expected) > 0.1) == (dimension == 3)


def test_one_pair_in_closed_form() -> None:
    # d = (1, -1)/1, C = sigma(-1)/2: p_mm = d/2, lambda = 1/2 and rho = log(C / lambda) d / ||d||^2.
    data = TokenDataset.from_tokens([[0, 1], [2]], [1, -1])
    predicted = asymptotics(unit_model([1.0, 0.0, 0.0]), data)
    C = 1 / (1 + np.e) / 2
    np.testing.assert_allclose(predicted.C, [C], rtol=1e-14)
    np.testing.assert_allclose(predicted.p_mm, [0.5, -0.5, 0.0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(predicted.rho, np.log(2 * C) / 2 * np.array([1.0, -1.0, 0.0]), rtol=0, atol=1e-14)
    np.testing.assert_allclose(predicted.transient_rate, 1.0, rtol=1e-12)
    assert predicted.next_margin == np.inf
