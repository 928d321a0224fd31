"""The bound on steepest descent in three norms, against paths that know only the sign of the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linprog

import attnembed as ae
from attnembed.attention.theory import SteepestBound, basin_condition, steepest_bound
from attnembed.errors import InputError
from attnembed.margins import max_margin
from attnembed.results import to_plain

Array = NDArray[np.float64]
NORMS = ("l2", "linf", "l1")
PAIR = ae.TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])


def in_the_basin(rng: np.random.Generator) -> tuple[ae.AttentionModel, ae.TokenDataset]:
    """A random problem with p in the basin of the top tokens, as near to its edge as a few multiples of p_mm allow."""
    while True:
        n, V = int(rng.integers(2, 6)), int(rng.integers(3, 6))
        tokens = [rng.integers(0, V, size=rng.integers(2, 5)) for _ in range(n)]
        data = ae.TokenDataset.from_tokens(tokens, np.where(np.arange(n) % 2, 1, -1), vocab_size=V)
        model = ae.AttentionModel(rng.normal(size=(V, V + 1)), np.zeros(V + 1), rng.normal(size=V + 1))
        late = ae.theory.asymptotics(model, data)
        if not np.isfinite(late.p_mm).all() or late.certificate is not None or not len(late.pairs):
            continue
        for reach in (1.0, 2.0, 4.0, 8.0, 16.0):
            start = model.replace(p=reach * late.p_mm + 0.1 * rng.normal(size=V + 1))
            if basin_condition(start, data).holds:
                return start, data


def steepest_path(model: ae.AttentionModel, data: ae.TokenDataset, norm: str, until: float, n: int) -> Array:
    """L - L* at r = k until/n along p_{k+1} = p_k + h argmax_{||x|| <= 1} <-grad L, x>, h = until/n."""
    g = model.E @ model.v
    best = [max(y * g[s] for s in data.counts[[i]].indices) for i, y in enumerate(data.labels)]
    least, h, gaps = float(np.mean(np.logaddexp(0, -np.array(best)))), until / n, []
    for k in range(n + 1):
        loss, grads = model.loss_and_grads(data)
        gaps.append(loss - least)
        x = -grads.p
        if norm == "linf":
            x = np.sign(x)
        elif norm == "l1":
            x = np.where(np.arange(x.size) == np.abs(x).argmax(), np.sign(x), 0.0)
        else:
            x = x / np.linalg.norm(x)
        if k < n:
            model = model.replace(p=model.p + h * x)
    return np.array(gaps)


def check(seed: int, norm: Any, n: int) -> float:
    """The largest gap/bound; where a step runs ahead of or behind the flow, the path is repeated with shorter ones.

    Steps along one coordinate can jump across the surface on which the flow slides, and the loss then rises: twice the
    number of steps cures that, and would not cure a bound that is wrong.
    """
    model, data = in_the_basin(np.random.default_rng(seed))
    until = 1.5 / max_margin(rows(model, data), norm=norm).margin
    for steps in (n, 2 * n, 8 * n):
        gaps = steepest_path(model, data, norm, until, steps)
        bound = steepest_bound(model, data, np.linspace(0, until, steps + 1), norm=norm)
        assert bound.holds
        ratios = gaps / bound.gap
        if ratios.max() <= 1 + 5e-3:  # of Euler's error
            return float(ratios[steps // 3 :].max())
    raise AssertionError(f"seed {seed}: {ratios.max()} of the bound")


def rows(model: ae.AttentionModel, data: ae.TokenDataset) -> Array:
    return ae.margin_constraints(model, data, ae.select(model, data).top).differences


@pytest.mark.parametrize("norm", NORMS)
def test_the_bound_is_never_exceeded(norm: str) -> None:
    assert max(check(seed, norm, 60) for seed in range(12)) > 0.5


@pytest.mark.thorough
@pytest.mark.parametrize("norm", NORMS)
def test_the_bound_is_never_exceeded_in_1000(norm: str) -> None:
    assert max(check(seed, norm, 100) for seed in range(1000)) > 0.8


@pytest.mark.parametrize("norm", NORMS)
def test_the_bound_is_nearly_attained_by_a_pair_per_sequence(norm: str) -> None:
    """Small values far in the basin: kap tends to 1, and every row is active in every norm."""
    model = ae.AttentionModel(np.eye(3), [4.0, 4.0, -4.0], [1e-2, -1e-2, 0.0])
    until, n = 2.0, 400
    bound = steepest_bound(model, PAIR, np.linspace(0, until, n + 1), norm=norm)
    ratios = steepest_path(model, PAIR, norm, until, n) / bound.gap
    # The coordinate flow keeps to one coordinate at a time, and its margin is that of the average.
    assert 0.97 < ratios[-1] <= 1 + 5e-3
    # Control: the same statement with a rate 5 % larger is false.
    assert (ratios * np.exp(0.05 * bound.rate * bound.r)).max() > 1.05


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_the_margin_is_that_of_a_linear_program(norm: str) -> None:
    """The dual side by itself: min over convex weights of the dual norm of the combination."""
    for seed in range(8):
        model, data = in_the_basin(np.random.default_rng(seed))
        D = rows(model, data)
        m, d = D.shape
        if norm == "linf":  # min sum t, -t <= D^T w <= t
            cost, t = np.r_[np.zeros(m), np.ones(d)], np.eye(d)
        else:  # min t, -t <= (D^T w)_j <= t
            cost, t = np.r_[np.zeros(m), 1.0], np.ones((d, 1))
        A = np.vstack([np.hstack([D.T, -t]), np.hstack([-D.T, -t])])
        convex = np.r_[np.ones(m), np.zeros(t.shape[1])][None]
        expected = linprog(cost, A_ub=A, b_ub=np.zeros(2 * d), A_eq=convex, b_eq=[1.0]).fun
        np.testing.assert_allclose(steepest_bound(model, data, 1.0, norm=norm).margin, expected, rtol=1e-8)  # type: ignore[arg-type]


def test_outside_the_basin_the_bound_is_the_start() -> None:
    model = ae.AttentionModel(np.eye(3), [-3.0, -3.0, 3.0], [1.0, -1.0, 0.0])
    bound = steepest_bound(model, PAIR, [0.0, 5.0])
    assert not bound.holds
    assert bound.rate == 0
    assert bound.gap[0] == bound.gap[1]


def test_an_infeasible_program_has_margin_0() -> None:
    data = ae.TokenDataset.from_tokens([[0, 1], [0, 1]], [1, -1])
    for norm in NORMS:
        bound = steepest_bound(ae.AttentionModel(np.eye(2), np.zeros(2), [1.0, -1.0]), data, 1.0, norm=norm)  # type: ignore[arg-type]
        assert bound.margin == 0
        assert not bound.holds


def test_shapes_and_bad_arguments() -> None:
    model = ae.AttentionModel(np.eye(3), [1.0, 1.0, -1.0], [1.0, -1.0, 0.0])
    bound = steepest_bound(model, PAIR, np.ones((2, 3)))
    assert isinstance(bound, SteepestBound)
    assert bound.gap.shape == (2, 3)
    assert to_plain(bound)["norm"] == "l2"
    with pytest.raises(InputError, match="lengths >= 0"):
        steepest_bound(model, PAIR, [-1.0])
    with pytest.raises(InputError, match="norm"):
        steepest_bound(model, PAIR, 1.0, norm="l3")  # type: ignore[arg-type]
