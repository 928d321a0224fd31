"""The four-scalar flow of Family(T, r) against the full model, and the window in which selection fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from attnembed.attention.first_step import one_step
from attnembed.attention.model import AttentionModel
from attnembed.attention.theory import Family
from attnembed.attention.theory.family import FamilyState
from attnembed.errors import InputError

coordinates = st.lists(st.floats(-4, 4), min_size=4, max_size=4)


def full_model(family: Family, x: list[float]) -> AttentionModel:
    return AttentionModel(*family.parameters()).replace(p=family.lift(x))


def flow(family: Family, until: float) -> FamilyState:
    """The state at log t = until, from p = 0."""
    end = solve_ivp(
        lambda s, x: np.exp(s) * family.rate(x), (0, until), np.zeros(4), method="LSODA", rtol=1e-8, atol=1e-10
    )
    return family.observe(end.y[:, -1])


@given(coordinates, st.floats(0, 2000), st.floats(0.3, 3))
def test_reduction_is_exact(x: list[float], step_size: float, W: float) -> None:
    family = Family(5, 3, step_size=step_size, W=W)
    model, data, state = full_model(family, x), family.dataset(), family.observe(x)
    loss, grads = model.loss_and_grads(data)
    attention = model.attention(data)
    assert np.linalg.norm(family.lift(family.rate(x)) + grads.p) <= 1e-12 * np.linalg.norm(grads.p)
    np.testing.assert_allclose(state.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(
        (state.attention_shared, state.attention_own), (attention[0, 0], attention[3, 1]), rtol=1e-12
    )


def test_a_wrong_reduction_is_seen() -> None:
    family, x = Family(5, 3, step_size=300.0), [0.3, -0.2, 0.5, 0.1]
    gradient = full_model(family, x).loss_and_grads(family.dataset())[1].p
    rate = family.rate(x)
    rate[3] *= 1.01
    assert np.linalg.norm(family.lift(rate) + gradient) > 1e-5 * np.linalg.norm(gradient)


@pytest.mark.parametrize(("length", "repeats"), [(2, 1), (5, 3), (4, 6)])
def test_embeddings_are_those_after_one_step(length: int, repeats: int) -> None:
    family = Family(length, repeats, step_size=700.0, W=2.0)
    data = family.dataset()
    assert data.n_samples == family.n_samples == length * repeats
    assert (data.lengths == length).all()
    assert data.check_assumption().holds
    start = AttentionModel(*Family(length, repeats, step_size=0.0, W=2.0).parameters())
    np.testing.assert_allclose(one_step(start, data, 700.0).model.E, family.parameters()[0], rtol=1e-13, atol=1e-13)


def test_loss_gap_is_exact_near_the_optimum() -> None:
    family = Family(5, 3, step_size=100.0)
    x = [60.0, 60.0, -10.0, 0.0]
    state = family.observe(x)
    kappa = np.abs(family.kappa)
    weight = np.array([3, 12]) / 15
    missing = np.array([4.0, 0.25]) * np.exp(-70.0)  # 1 - attention
    expected = weight @ (kappa / (1 + np.exp(kappa)) * missing)
    np.testing.assert_allclose(state.loss_gap, expected, rtol=1e-12)
    far = Family(5, 3, step_size=1e5).observe([-50.0, -50.0, 50.0, 0.0])
    assert np.isfinite(far.loss_gap)


# Both sides of the window at T = 20, r = 30 (F6).
@pytest.mark.parametrize("step_size", [758, 1263, 1895, 2526, 3158])
def test_selection_fails_inside_the_window(step_size: float) -> None:
    state = flow(Family(20, 30, step_size=step_size), until=70.0)
    assert state.attention_shared < 1e-30
    assert state.attention_own > 1 - 1e-12
    assert state.loss_gap > 0.01
    if step_size == 1263:
        np.testing.assert_allclose((state.loss, state.loss - state.loss_gap), (0.332, 0.307), rtol=0, atol=5e-4)


@pytest.mark.parametrize("step_size", [50, 505, 3790, 12632])
def test_selection_succeeds_outside_the_window(step_size: float) -> None:
    state = flow(Family(20, 30, step_size=step_size), until=70.0)
    assert state.attention_shared > 1 - 1e-9
    assert state.loss_gap < 1e-15


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((1, 1, 1.0), "length"), ((3, 0, 1.0), "repeats"), ((3, 1, -1.0), "step_size"), ((3, 1, 1.0, 0.0), "W")],
)
def test_bad_arguments(arguments: tuple[float, ...], name: str) -> None:
    with pytest.raises(InputError, match=f"`{name}`"):
        Family(*arguments)  # type: ignore[arg-type]
