"""Block pivoting and the hinge against non-negative least squares and the conditions of optimality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from attnembed import margins
from attnembed.errors import NotSeparableError
from attnembed.margin_pivoting import combination_to_zero, shortest
from attnembed.margins import kkt_residual, max_margin_pairs

Array = np.ndarray


def unit_rows(rng: np.random.Generator, k: int, d: int, lead: float) -> Array:
    rows = rng.standard_normal((k, d))
    rows[:, 0] += lead * np.sqrt(d)
    return rows / np.linalg.norm(rows, axis=1)[:, None]


@given(st.integers(0, 2**32 - 1))
def test_the_shortest_is_the_one_of_nnls(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, d = rng.integers([2, 2], [40, 20])
    rows = unit_rows(rng, k, d, rng.uniform(0.5, 2))
    if rng.random() < 0.3:
        rows[rng.integers(k)] = rows[0]  # dependent rows
    target = rng.uniform(0.1, 1, k)
    found = shortest(rows, target)
    u, residual = nnls(np.vstack([rows.T, target]), np.append(np.zeros(d), 1.0))
    if found is None:
        return  # the caller falls back to nnls
    v, q = found
    assert v.min() >= 0
    assert np.abs(q - v @ rows).max() <= 1e-14 * np.linalg.norm(q)
    assert (rows @ q - target).min() >= -1e-13 * np.linalg.norm(q)
    assert residual > 0
    assert np.linalg.norm(q - rows.T @ u / residual**2) <= 1e-7 * np.linalg.norm(q)


def test_it_comes_out_where_rows_are_in_general_position() -> None:
    for seed in range(20):
        rows = unit_rows(np.random.default_rng(seed), 80, 40, 1.0)
        assert shortest(rows, np.ones(80)) is not None


@pytest.mark.parametrize("seed", range(5))
def test_weights_that_combine_to_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = unit_rows(rng, 200, 20, 0.0)
    u = combination_to_zero(rows)
    assert u is not None
    assert u.min() >= 0
    assert np.linalg.norm(u @ rows) <= 2e-14 * u.sum()
    assert combination_to_zero(unit_rows(rng, 30, 40, 2.0)) is None


@pytest.mark.parametrize("seed", [41, 53, 177, 201])
def test_rounding_of_the_objective_stops_no_step(seed: int) -> None:
    """Near the minimum a step may gain less than the rounding of the sum of squares."""
    rows = np.random.default_rng(seed).standard_normal((60, 6))
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    u = combination_to_zero(rows)
    assert u is not None
    assert u.min() >= 0
    assert np.linalg.norm(u @ rows) <= 2e-14 * u.sum()


@pytest.fixture(scope="module")
def pairs() -> tuple[Array, Array]:
    """A program whose working sets are large enough for pivoting, with pairs that close cycles."""
    rng = np.random.default_rng(0)
    E = rng.standard_normal((512, 256)) / 16
    winner, loser = np.divmod(rng.choice(51 * 461, 2000, replace=False), 461)
    return E, np.column_stack([winner, loser + 51])


def test_pivoting_is_used_and_finds_what_nnls_finds(
    pairs: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[bool] = []

    def watched(rows: Array, target: Array) -> tuple[Array, Array] | None:
        found = shortest(rows, target)
        answers.append(found is not None)
        return found

    monkeypatch.setattr(margins, "shortest", watched)
    fast = max_margin_pairs(*pairs)
    assert fast.success
    assert sum(answers) >= 3
    E, index = pairs
    assert kkt_residual(E[index[:, 0]] - E[index[:, 1]], fast.p, fast.dual) <= 1e-12
    monkeypatch.setattr(margins, "PIVOTED", 10**9)
    slow = max_margin_pairs(*pairs)
    assert np.linalg.norm(fast.p - slow.p) <= 1e-11 * np.linalg.norm(slow.p)


def test_the_hinge_certifies_that_there_is_no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []

    def watched(rows: Array) -> Array | None:
        weights = combination_to_zero(rows)
        calls.append(weights is not None)
        return weights

    monkeypatch.setattr(margins, "combination_to_zero", watched)
    rng = np.random.default_rng(0)
    E = rng.standard_normal((640, 64)) / 8
    winner, loser = np.divmod(rng.choice(64 * 576, 500, replace=False), 576)
    D = E[winner] - E[loser + 64]
    with pytest.raises(NotSeparableError) as caught:
        max_margin_pairs(E, np.column_stack([winner, loser + 64]))
    w = caught.value.certificate
    assert calls == [True]
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1)
    assert np.linalg.norm(w @ D) <= 1e-13 * np.linalg.norm(D, axis=1).max()
