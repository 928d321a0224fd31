"""Locally optimal selections against the limits of flows from random starts, which know nothing of programs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

import attnembed as ae
from attnembed.attention.theory import asymptotics, local_optima
from attnembed.errors import InputError

Array = NDArray[np.float64]

# Token 1 is top, and a flow from (5, 0) ends on token 0 for ever: its active row pulls, the other is not active.
TWO = ae.TokenDataset.from_tokens([[0, 1, 2], [3]], [1, -1])


def planar(first: tuple[float, float]) -> ae.AttentionModel:
    """Embeddings of four tokens in the plane, with E_1 as given and v such that g = (.5, 1, 0, -1.5) for either."""
    return ae.AttentionModel([[1, 0], first, [0, 0], [0, -1]], [0.0, 0.0], [0.5, 1.5])


def random_problem(rng: np.random.Generator) -> tuple[ae.AttentionModel, ae.TokenDataset]:
    """Two to five sequences of up to four of four to seven tokens, in two to four dimensions."""
    n, V, d = (int(rng.integers(*ends)) for ends in ((2, 6), (4, 8), (2, 5)))
    tokens = [rng.choice(V, size=rng.integers(2, 5)) for _ in range(n)]
    data = ae.TokenDataset.from_tokens(tokens, np.where(np.arange(n) % 2, 1, -1), vocab_size=V)
    return ae.AttentionModel(rng.normal(size=(V, d)), np.zeros(d), 2 * rng.normal(size=d)), data


def limits(
    model: ae.AttentionModel, data: ae.TokenDataset, starts: Array, steps: int = 3000
) -> list[tuple[int, ...] | None]:
    """The selection that the flow from each start ends in, None where some sequence selects no token.

    All flows at once, in arc length up to 180 in 3000 steps, which transients can take; embeddings are taken relative
    to the winner's, so that nothing cancels.
    """
    counts, y, E, g = data.counts.toarray(), data.labels, model.E, model.E @ model.v
    present, P, step = counts > 0, starts.copy(), 0.06
    seen: list[NDArray[np.int64]] = []
    for k in range(steps + 1):
        scores = np.where(present, (P @ E.T)[:, None], -np.inf)  # (starts, n, V)
        winner = scores.argmax(axis=2)
        a = counts * np.exp(scores - scores.max(axis=2, keepdims=True))
        a /= a.sum(axis=2, keepdims=True)
        rise = g - g[winner][..., None]
        f = g[winner] + (a * rise).sum(axis=2)
        weight = a * (rise - (f - g[winner])[..., None]) * (y / data.n_samples / (1 + np.exp(y * f)))[..., None]
        np.put_along_axis(weight, winner[..., None], 0.0, axis=2)
        force = np.einsum("kis,sd->kd", weight, E) - np.einsum("ki,kid->kd", weight.sum(axis=2), E[winner])
        if k in (steps // 2, steps):
            seen.append(np.where(a.max(axis=2).min(axis=1) > 1 - 1e-6, 1, -1)[:, None] * (1 + winner))
        force /= np.maximum(np.abs(force).max(axis=1, keepdims=True), 1e-300)
        P = P + step * force / np.maximum(np.linalg.norm(force, axis=1, keepdims=True), 1e-300)
    settled = (seen[0] == seen[1]).all(axis=1) & (seen[1] > 0).all(axis=1)
    return [tuple((end - 1).tolist()) if ok else None for end, ok in zip(seen[1], settled)]


def check_limits(seed: int, n_starts: int) -> tuple[int, int]:
    """Every limit is in the list; returns how many flows had one, and how many selections they were."""
    rng = np.random.default_rng(seed)
    model, data = random_problem(rng)
    found = {tuple(selection.tolist()) for selection in local_optima(model, data)}
    ends = [end for end in limits(model, data, 2 * rng.normal(size=(n_starts, model.dim))) if end is not None]
    assert set(ends) <= found
    return len(ends), len(set(ends))


def test_every_limit_of_random_flows_is_in_the_list() -> None:
    numbers = np.array([check_limits(seed, 30) for seed in range(2)])
    assert numbers[:, 0].sum() >= 36  # the others rest, or leave two tokens level
    assert numbers[:, 1].max() >= 2


@pytest.mark.thorough
def test_every_limit_of_2000_flows_is_in_the_list() -> None:
    numbers = np.array([check_limits(seed, 40) for seed in range(100, 150)])
    assert numbers[:, 0].sum() >= 1200
    assert (numbers[:, 1] >= 2).sum() >= 10


@pytest.mark.slow
def test_every_limit_of_the_flow_in_log_time_is_in_the_list() -> None:
    selected = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        model, data = random_problem(rng)
        found = {tuple(selection.tolist()) for selection in local_optima(model, data)}
        for _ in range(5):
            start = model.replace(p=3 * rng.normal(size=model.dim))
            flow = ae.gradient_flow(start, data, until=30.0, rtol=1e-6, atol=1e-8, max_nfev=1500)
            attention = flow.model.attention(data).toarray()[np.arange(data.n_samples), flow.selection]
            # One flow still passes another selection at log t = 30, and leaves it only after log t = 48.
            if flow.success and attention.min() > 0.9999 and "no flow ends in it" not in flow.message:
                selected += 1
                assert tuple(flow.selection.tolist()) in found
    assert selected > 30


@pytest.mark.parametrize("seed", range(4))
def test_pruning_loses_nothing(seed: int) -> None:
    model, data = random_problem(np.random.default_rng(seed))
    types = [np.flatnonzero(row).tolist() for row in data.counts.toarray()]
    expected = [list(tokens) for tokens in itertools.product(*types) if asymptotics(model, data, tokens).holds]
    assert [selection.tolist() for selection in local_optima(model, data)] == sorted(expected)


@pytest.mark.parametrize("seed", range(2))
def test_flows_that_start_near_a_local_optimum_stay(seed: int) -> None:
    model, data = random_problem(np.random.default_rng(seed))
    optima = local_optima(model, data)
    starts = []
    for selection in optima:
        late = asymptotics(model, data, selection)
        starts.append(late.rho + 10 / (late.next_margin - 1 if late.next_margin < 2 else 1) * late.p_mm)
    assert limits(model, data, np.array(starts), 1000) == [tuple(selection.tolist()) for selection in optima]


def test_a_selection_of_another_token_can_be_locally_optimal() -> None:
    assert [s.tolist() for s in local_optima(planar((-1.0, 1.0)), TWO)] == [[0, 3], [1, 3]]
    assert limits(planar((-1.0, 1.0)), TWO, np.array([[5.0, 0.0]])) == [(0, 3)]


def test_control_a_selection_whose_active_row_pulls_away_is_not() -> None:
    model = planar((0.2, 0.6))
    assert [s.tolist() for s in local_optima(model, TWO)] == [[1, 3]]
    starts = [[5.0, 0.0], [8.0, 1.0], 20 * asymptotics(model, TWO, [0, 3]).p_mm]
    assert limits(model, TWO, np.array(starts)) == [(1, 3)] * 3


def test_one_type_per_sequence_has_nothing_to_select() -> None:
    data = ae.TokenDataset.from_tokens([[0, 0], [1]], [1, -1])
    assert local_optima(ae.AttentionModel(np.eye(2), np.zeros(2), [1.0, -1.0]), data) == ()


def test_equal_values_are_not_locally_optimal() -> None:
    assert local_optima(ae.AttentionModel(np.eye(3), np.zeros(3), np.zeros(3)), TWO_OF_THREE) == ()


TWO_OF_THREE = ae.TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])


def test_too_many_selections_are_refused() -> None:
    data = ae.make_balanced_dataset(n_samples=60, length=6, n_irrelevant=30, rng=0)
    model = ae.AttentionModel.random(data.vocab_size, 50, rng=0)
    with pytest.raises(InputError, match="not have more than 50 selections to examine"):
        local_optima(model, data, limit=50)
    with pytest.raises(InputError, match="limit"):
        local_optima(model, data, limit=0)
