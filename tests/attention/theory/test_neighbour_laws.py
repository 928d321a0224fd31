"""One law for each neighbouring theorem, on random and degenerate problems of `attnembed.testing`."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import attnembed as ae
from attnembed import testing as t
from attnembed.attention.theory import basin_condition, local_optima, one_step_bound, random_step_window
from attnembed.losses import check_loss

pytestmark = pytest.mark.slow  # 25 examples of each take a quarter of a second to two seconds
ORDERS = {"l2": 2, "linf": 1, "l1": np.inf}  # of the dual norm


@given(t.problems(), st.sampled_from(["exponential", "softplus", "smoothed_squared_hinge"]))
def test_any_loss_the_step_stays_within_its_bound(problem: t.Problem, name: str) -> None:
    """E^1 v - E^0 v + l'(0) ||v||^2 eta alpha, with the gradient written out from the counts."""
    model, data = problem.model, problem.data
    loss, eta = check_loss(name), 0.7
    counts = data.counts.toarray()
    u, g = model.E @ model.p, model.E @ model.v
    weights = counts * np.exp(u - np.where(counts > 0, u, -np.inf).max(axis=1, keepdims=True)).clip(max=1e300)
    a = weights / weights.sum(axis=1, keepdims=True)
    f = a @ g
    c = -data.labels * np.asarray(loss.derivative(data.labels * f)) / data.n_samples
    along_v, along_p = c @ a, (c[:, None] * a * (g - f[:, None])).sum(axis=0)
    moved = eta * (along_v * (model.v @ model.v) + along_p * (model.p @ model.v))
    predicted = -eta * float(np.asarray(loss.derivative(0.0))) * (model.v @ model.v) * data.signed_frequency
    bound = one_step_bound(model, data, eta, loss=loss).value
    assert (np.abs(moved - predicted) <= bound * (1 + 1e-9) + 1e-12 * np.abs(moved).max(initial=0.0)).all()


@given(t.problems(n_samples=(2, 4), vocab_size=(2, 6), length=(1, 4)))
def test_a_local_optimum_satisfies_the_optimality_conditions(problem: t.Problem) -> None:
    """Feasible, p_mm a positive combination of all active rows, each of which pulls; and no optimum has C_k < 0."""
    model, data = problem.model, problem.data
    g, counts = model.E @ model.v, data.counts.toarray()
    for selection in local_optima(model, data):
        late = ae.theory.asymptotics(model, data, selection)
        D = model.E[late.pairs[:, 0]] - model.E[late.pairs[:, 1]]
        assert (D @ late.p_mm).min() > 1 - 1e-6
        np.testing.assert_allclose(D.T @ late.dual, late.p_mm, atol=1e-6 * np.abs(late.p_mm).max())
        assert late.dual[late.support].min() > 0
        for k in late.support:
            winner, loser = late.pairs[k]
            pull = sum(
                (data.labels[i] * (g[winner] - g[loser])) / (1 + np.exp(data.labels[i] * g[winner]))
                * counts[i, loser] / counts[i, winner]
                for i in np.flatnonzero((selection == winner) & (counts[:, loser] > 0))
            )  # fmt: skip
            assert pull > 0


@given(t.problems(where="basin"), st.sampled_from(["l2", "linf", "l1"]))
def test_in_the_basin_the_gradient_is_as_steep_as_the_rate(problem: t.Problem, norm: str) -> None:
    """||grad L||_* >= gamma kap (L - L*), of which the bound on steepest descent is the integral."""
    model, data = problem.model, problem.data
    bound = ae.theory.steepest_bound(model, data, 0.0, norm=norm)  # type: ignore[arg-type]
    assume(bound.holds and float(bound.gap) > 1e-250)
    grads = model.loss_and_grads(data)[1]
    steepness = np.exp(grads.log_scale) * np.linalg.norm(grads.scaled_p, ORDERS[norm])
    assert steepness >= bound.rate * float(bound.gap) * (1 - 1e-6)


@given(t.problems(where="basin"))
def test_in_the_basin_plain_descent_obeys_its_bound(problem: t.Problem) -> None:
    """L_k - L* <= 1/(1/gap + gamma^2 kap^2 eta (1 - eta beta/2) k) for ten steps of 1/beta."""
    model, data = problem.model, problem.data
    condition, beta = basin_condition(model, data), ae.theory.smoothness_bound(model, data).beta
    assume(condition.holds and beta > 0 and condition.loss_gap > 1e-250)
    rate = (condition.margin * condition.kap_sharp) ** 2 / (2 * beta)
    p = model.p
    for k in range(1, 11):
        p = p - model.replace(p=p).loss_and_grads(data)[1].p / beta
        after = basin_condition(model.replace(p=p), data).loss_gap
        assert after <= 1 / (1 / condition.loss_gap + rate * k) * (1 + 1e-9)


@given(t.problems(where="separable"), st.sampled_from([1e-3, 1e4]))
def test_the_step_limit_is_a_length(problem: t.Problem, unit: float) -> None:
    """In other units of the embeddings, with the same values, eta* and 1/gamma change by the same factor."""
    model, data = problem.model, problem.data
    late = ae.theory.asymptotics(model, data)
    assume(late.holds and np.isfinite(late.step_limit) and late.margin > 1e-3 and late.curvature > 1e-3)
    other = ae.theory.asymptotics(model.replace(E=unit * model.E, v=model.v / unit, p=model.p / unit), data)
    assume(other.holds)
    np.testing.assert_allclose(other.step_limit * unit, late.step_limit, rtol=1e-4)
    np.testing.assert_allclose(other.margin / unit, late.margin, rtol=1e-6)


@given(t.datasets("balanced"), st.sampled_from([10**7, 10**9]))
def test_a_window_of_a_smaller_risk_lies_inside(data: ae.TokenDataset, dim: int) -> None:
    careful, bold = (random_step_window(data, dim, delta=delta) for delta in (0.01, 0.3))
    assert careful.threshold == bold.threshold
    if careful.holds:
        assert bold.holds
        assert bold.low <= careful.low * (1 + 1e-9) <= careful.high * (1 + 2e-9) <= bold.high * (1 + 3e-9)


@given(t.problems(where="separable"))
def test_both_ends_of_an_enclosure_are_proved_in_fractions(problem: t.Problem) -> None:
    """Weak duality in exact arithmetic, from the very rows: min d.p / ||p|| >= low, ||D^T u|| / sum u <= high."""
    model, data = problem.model, problem.data
    D = ae.margin_constraints(model, data, ae.select(model, data).top).differences
    found = ae.max_margin(D)
    low, high = map(Fraction, found.enclosure())
    rows = [[Fraction(x) for x in row] for row in D.tolist()]
    p, u = ([Fraction(x) for x in array.tolist()] for array in (found.p, np.maximum(found.dual, 0.0)))
    least = min(sum(x * y for x, y in zip(row, p)) for row in rows)
    combination = [sum(w * row[j] for w, row in zip(u, rows)) for j in range(len(p))]
    assert low >= 0
    assert least**2 >= low**2 * sum(x * x for x in p)
    assert least > 0 or low == 0
    assert sum(x * x for x in combination) <= high**2 * sum(u) ** 2
    assert low <= high


def test_control_a_rate_ten_percent_larger_is_too_steep() -> None:
    """The law on the gradient is nearly attained, so that it is not true by a wide margin."""
    data = ae.TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    model = ae.AttentionModel(np.eye(3), [4.0, 4.0, -4.0], [1e-2, -1e-2, 0.0])
    bound = ae.theory.steepest_bound(model, data, 0.0)
    steepness = float(np.linalg.norm(model.loss_and_grads(data)[1].p))
    assert bound.rate * float(bound.gap) <= steepness < 1.1 * bound.rate * float(bound.gap)


def test_a_false_law_is_refuted() -> None:
    """That the top tokens are always a local optimum: ties and infeasible programs are found at once."""
    found = t.falsify(lambda problem: ae.theory.asymptotics(problem.model, problem.data).holds, max_examples=200)
    assert found is not None
