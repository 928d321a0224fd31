"""Every function with a ``loss``: against the definition, in complex steps, and against the flow that it predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import attnembed as ae
from attnembed import losses
from attnembed.attention.theory.basin import basin_bound, basin_condition, large_step_condition, large_step_size
from attnembed.attention.theory.path import regularisation_path
from attnembed.attention.theory.steepest import steepest_bound
from attnembed.errors import InputError
from attnembed.gradcheck import check_gradient_complex_step
from attnembed.losses import Loss
from tests.gradients import quick_check

TOKENS = [[0, 2, 3, 3], [0, 3, 4], [1, 2], [1, 4, 3], [0]]
LABELS = np.array([1, 1, -1, -1, 1])
DATA = ae.TokenDataset.from_tokens(TOKENS, LABELS)
HINGE = losses.smoothed_squared_hinge(1.0)
BARE = Loss(lambda z: np.exp(-z), lambda z: -np.exp(-z), lambda z: np.exp(-z), name="bare")
# Written again, so that complex numbers pass.
DEFINITIONS = {
    "exponential": (losses.exponential, lambda z: np.exp(-z)),
    "bare": (BARE, lambda z: np.exp(-z)),
    "softplus": (losses.softplus(0.3), lambda z: 0.3 * np.log(1 + np.exp(-z / 0.3))),
    "hinge": (
        HINGE,
        lambda z: np.where(z.real >= 1, 0, np.where(z.real > 0, (1 - z) ** 3 / 6, 0.5 * z * z - z / 2 + 1 / 6)),
    ),
}


def model(seed: int = 0, scale: float = 1.0) -> ae.AttentionModel:
    rng = np.random.default_rng(seed)
    return ae.AttentionModel(rng.normal(size=(5, 6)), scale * rng.normal(size=6), rng.normal(size=6) / 2)


def definition(value: Any, E: Any, p: Any, v: Any) -> Any:
    """The mean loss; each output as its strongest token's value and what the others add, so that nothing cancels."""
    total = 0
    for tokens, y in zip(TOKENS, LABELS):
        u, g = E[tokens] @ p, E[tokens] @ v
        m = int(np.argmax(u.real))
        a = np.exp(u - u[m])
        total += value(np.asarray(y * (g[m] + (a @ (g - g[m])) / a.sum()))) / len(TOKENS)
    return total


@pytest.mark.parametrize("scale", [0.5, 20.0], ids=["plain", "saturated"])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_value_gradients_and_hessian(name: str, scale: float) -> None:
    loss, formula = DEFINITIONS[name]
    m = model(scale=scale)
    value, grads = m.loss_and_grads(DATA, loss=loss)
    assert_allclose(value, definition(formula, m.E, m.p, m.v), rtol=1e-13)
    assert m.loss(DATA, loss=loss) == value
    parts = {"E": m.E, "p": m.p, "v": m.v}
    for part in parts:
        report = check_gradient_complex_step(
            lambda x, part=part: definition(formula, **{**parts, part: x}),
            lambda _, part=part: getattr(grads, part),
            parts[part],
        )
        assert report.relative_error < 1e-12, part
    hessian = m.hessian_p(DATA, loss=loss)
    x = np.random.default_rng(1).normal(size=6)
    step = 1e-5
    ahead, behind = (m.replace(p=m.p + s * step * x).loss_and_grads(DATA, loss=loss)[1].p for s in (1, -1))
    assert_allclose(hessian @ x, (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-8 * np.abs(hessian).max())
    assert_allclose(m.hessian_vector_p(DATA, x, loss=loss), hessian @ x, rtol=1e-9, atol=1e-14 * np.abs(hessian).max())


def test_gradients_by_the_taylor_remainder() -> None:
    m = model()
    for name in ("exponential", "softplus", "smoothed_squared_hinge"):
        report = quick_check(
            lambda p, name=name: m.replace(p=p).loss(DATA, loss=name), m.loss_and_grads(DATA, loss=name)[1].p, m.p
        )
        assert report.passed, name


def test_the_logistic_loss_by_any_name() -> None:
    m = model()
    plain = m.loss_and_grads(DATA)
    for loss in ("logistic", losses.logistic):
        same = m.loss_and_grads(DATA, loss=loss)
        assert same[0] == plain[0]
        assert_array_equal(same[1].E, plain[1].E)
    other = m.loss_and_grads(DATA, loss=losses.softplus(1.0))
    assert_allclose(other[1].E, plain[1].E, rtol=1e-12)
    assert_allclose(m.hessian_p(DATA, loss="softplus"), m.hessian_p(DATA), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("name", ["exponential", "softplus", "hinge"])
def test_one_step_moves_by_minus_the_derivative_at_zero(name: str) -> None:
    loss, _ = DEFINITIONS[name]
    start = model().replace(p=np.zeros(6), E=np.hstack([np.eye(5), np.zeros((5, 1))]), v=np.eye(6)[5])
    step = ae.one_step(start, DATA, 3.0, loss=loss)
    slope = 3.0 * float(-loss.derivative(np.float64(0.0)))
    assert_allclose(step.slope, slope, rtol=1e-15)
    assert_allclose(step.model.E[:, 5], slope * DATA.signed_frequency, rtol=1e-13, atol=1e-16)
    assert step.error.max() < 1e-14
    for seed in range(20):  # and elsewhere the bound holds
        step = ae.one_step(model(seed, 0.3), DATA, 0.5, loss=loss)
        assert (step.error <= step.bound).all()


@pytest.mark.parametrize("name", ["exponential", "bare", "softplus"])
def test_the_flow_meets_its_asymptote(name: str) -> None:
    loss, _ = DEFINITIONS[name]
    E = np.hstack([np.eye(5), np.zeros((5, 1))])
    start = ae.AttentionModel(E, np.array([0.3, -0.2, 0.1, 0.4, 0.0, 0.7]), [1.0, -1.2, 0.1, 0.0, -0.1, 0.0])
    flow = ae.gradient_flow(start, DATA, until=60.0, rtol=1e-11, atol=1e-13, loss=loss)
    late = ae.theory.asymptotics(start, DATA, flow.selection, loss=loss)
    assert flow.success
    assert late.holds
    assert late.angle_is_exact
    assert_allclose(np.exp(60.0) * flow.loss_gap[-1], late.loss_gap_constant, rtol=1e-6)
    assert_allclose(flow.p, late.p(60.0), rtol=1e-6, atol=1e-5)
    other = ae.theory.asymptotics(start, DATA, flow.selection)  # of the logistic loss: the offset is another
    assert np.abs(flow.p - other.p(60.0)).max() > 1e-2
    gamma = LABELS * start.token_values[flow.selection]
    assert_allclose(late.loss_limit, np.mean(loss(gamma)), rtol=1e-14)


def test_a_path_of_regularisation_tends_to_the_same_offset() -> None:
    start = ae.AttentionModel(np.eye(5), np.zeros(5), [1.0, -1.2, 0.1, 0.0, -0.1])
    late = ae.theory.asymptotics(start, DATA, loss="exponential")
    across = late.rho - late.p_mm * (late.rho @ late.p_mm) / (late.p_mm @ late.p_mm)
    path = regularisation_path(start, DATA, [40.0, 80.0], loss="exponential")
    far = np.linalg.norm(path.offset - across, axis=1)
    assert path.holds
    assert 1.7 < far[0] / far[1] < 2.3


def test_a_loss_that_stops_pulling_is_named() -> None:
    start = ae.AttentionModel(np.eye(5), np.zeros(5), [3.0, -3.0, 0.1, 0.0, -0.1])
    late = ae.theory.asymptotics(start, DATA, loss=HINGE)
    assert not late.holds
    assert "pulls towards the selection" in late.failures[0].name
    condition = basin_condition(start.replace(p=[9.0, 9.0, 0, 0, 0]), DATA, loss=HINGE)
    assert [failed for failed in condition.failures if "still pulls" in failed.name]
    flow = ae.gradient_flow(start, DATA, until=20.0, loss=HINGE)  # it reaches loss zero, and stops short of selecting
    assert flow.loss_gap[-1] < 1e-10
    assert flow.top_attention[-1] < 0.9
    weaker = start.replace(v=start.v / 4)  # values below 1: it still pulls
    assert ae.theory.asymptotics(weaker, DATA, loss=HINGE).holds


@pytest.mark.parametrize("name", ["exponential", "softplus", "hinge"])
def test_the_basin_bound_is_not_exceeded(name: str) -> None:
    loss, _ = DEFINITIONS[name]
    seen, best = 0, 0.0
    for seed in range(8):
        start = model(seed)
        try:
            p = 4 * ae.max_margin(ae.margin_constraints(start, DATA, ae.select(start, DATA).top).differences).p
        except ae.NotSeparableError:
            continue
        start = start.replace(p=p, v=start.v / (4 if name == "hinge" else 1))  # values below 1
        if not basin_condition(start, DATA, loss=loss).holds:
            continue
        flow = ae.gradient_flow(start, DATA, until=8.0, loss=loss)
        bound = basin_bound(start, DATA, np.exp(flow.log_time), loss=loss)
        assert 0 < bound.kap <= basin_condition(start, DATA, loss=loss).kap_sharp * (1 + 1e-12)
        assert (flow.loss_gap <= bound.sharp_bound * (1 + 1e-7)).all()
        seen, best = seen + 1, max(best, (flow.loss_gap / bound.sharp_bound)[1:].max())
    assert seen >= 2


def test_a_loss_without_inverse() -> None:
    start = ae.AttentionModel(np.eye(5), [9.0, 9.0, 0, 0, 0], [1.0, -1.2, 0.1, 0.0, -0.1])
    condition = basin_condition(start, DATA, loss=BARE)
    assert condition.holds
    assert np.isnan(condition.kap_sharp)
    for ask in (lambda: basin_bound(start, DATA, 1.0, loss=BARE), lambda: steepest_bound(start, DATA, 1.0, loss=BARE)):
        with pytest.raises(InputError, match="`loss` must have an inverse"):
            ask()


def test_the_large_step_of_another_loss() -> None:
    data = ae.make_balanced_dataset(n_samples=8, length=3, n_irrelevant=4, rng=0)
    start = ae.AttentionModel(np.eye(8, 9), np.zeros(9), np.eye(9)[8])
    needed = large_step_size(start, data, loss="exponential")
    assert needed.holds
    after = ae.one_step(start, data, 1.001 * needed.step_size, loss="exponential").model
    assert large_step_condition(after, data, loss="exponential").holds
    # T log n / alpha_min: e^{-z} = l(0)/n at z = log n, and -l'(0) = 1
    alpha = np.abs(data.signed_frequency)[np.abs(data.signed_frequency) > 0].min()
    assert_allclose(needed.step_size, 3 * np.log(8) / alpha, rtol=1e-12)


def test_training_on_another_loss(tmp_path: Any) -> None:
    data = ae.make_balanced_dataset(n_samples=40, length=4, n_irrelevant=10, rng=0)
    start = ae.AttentionModel.random(14, 8, rng=0)
    options: Any = {"optimizer": ae.Adam(step_size=0.05), "rng": 0}
    result = ae.train(start, data, loss="exponential", n_epochs=20, **options)
    assert_allclose(result.history.loss[0], np.mean(np.exp(-data.labels * start.output(data))), rtol=1e-12)
    assert result.history.loss[-1] < 0.5 * result.history.loss[0]
    path = tmp_path / "run.npz"
    ae.train(start, data, loss="exponential", n_epochs=10, checkpoint=path, **options)
    resumed = ae.train(start, data, loss="exponential", n_epochs=20, checkpoint=path, **options)
    assert_array_equal(resumed.model.E, result.model.E)
    with pytest.raises(InputError, match="loss"):
        ae.train(start, data, n_epochs=20, checkpoint=path, **options)


@pytest.mark.parametrize("loss", ["hinge", 3, None])
def test_an_unknown_loss_is_refused_everywhere(loss: Any) -> None:
    m = model()
    for call in (
        m.loss,
        m.loss_and_grads,
        m.hessian_p,
        lambda d, loss: ae.one_step(m, d, 1.0, loss=loss),
        lambda d, loss: ae.gradient_flow(m, d, loss=loss),
        lambda d, loss: ae.train(m, d, loss=loss),
        lambda d, loss: ae.theory.asymptotics(m, d, loss=loss),
        lambda d, loss: basin_condition(m, d, loss=loss),
    ):
        with pytest.raises(InputError, match="`loss` must be a Loss or"):
            call(DATA, loss=loss)
