"""Equality, zeros and independence are measured per row, over the tokens that occur, and in one way."""

from __future__ import annotations

import numpy as np
import pytest

from attnembed.attention.data import TokenDataset
from attnembed.attention.first_step import one_step
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import TokenValues, select, top_tokens
from attnembed.attention.theory import (
    asymptotics,
    basin_condition,
    divergence,
    large_step_size,
    one_step_prediction,
    tie_invariant,
)

# Token 3 never occurs, or occurs alone, and is enormous.
ABSENT = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1], vocab_size=4)
PRESENT = TokenDataset.from_tokens([[0, 2], [1, 2], [3]], [1, -1, 1])
E = np.array([[1.0, 0, 0, 0, 0.2], [0, 1.0, 0, 0, -0.1], [0, 0, 1.0, 0, 0.0], [0, 0, 0, 1e13, 0.0]])
MODEL = AttentionModel(E, np.zeros(5), [0.0, 0.0, 0.0, 0.0, 1.0])


@pytest.mark.parametrize("data", [ABSENT, PRESENT], ids=["absent", "present"])
def test_a_large_row_does_not_make_the_step_exact(data: TokenDataset) -> None:
    prediction = one_step_prediction(MODEL, data, 100.0)
    assert not prediction.exact
    # By hand: E_0 . v / (||E_0|| ||v||)
    np.testing.assert_allclose(prediction.failures[0].measured, 0.2 / np.sqrt(1.04), rtol=1e-12)
    assert one_step(MODEL, data, 100.0).error.max() > 0.1
    assert one_step_prediction(MODEL.replace(E=E * [1, 1, 1, 1, 0]), data, 100.0).exact


def test_a_large_row_does_not_make_the_large_step_safe() -> None:
    names = [failure.name.split(":")[0] for failure in large_step_size(MODEL, ABSENT).failures]
    assert names == ["E_0 v is zero"]
    assert large_step_size(MODEL.replace(E=E * [1, 1, 1, 1, 0]), ABSENT).holds


def test_independence_is_that_of_directions() -> None:
    short = MODEL.replace(E=np.eye(4, 5) * np.array([[1e-20], [1.0], [1e13], [1.0]]), v=[1e20, -1.0, 0.0, 0.0, 0.0])
    assert large_step_size(short, ABSENT).hypotheses[-1].measured == pytest.approx(1.0, rel=1e-12)
    growth = divergence(short, ABSENT)
    assert growth.holds
    assert growth.hypotheses[0].measured == pytest.approx(1.0, rel=1e-12)
    # phat_s . E_r = 1 if r = s else 0, and phat_s is as long as E_s is short
    np.testing.assert_allclose(growth.dual_basis @ short.E[:3].T, np.eye(2, 3), rtol=0, atol=1e-12)
    bent = short.replace(E=np.array([[1.0, 0, 0, 0, 0], [1e13, 0, 0, 0, 0], [0, 1.0, 0, 0, 0], [0, 0, 1.0, 0, 0]]))
    assert divergence(bent, ABSENT).hypotheses[0].measured < 1e-15


def tied(gap: float) -> tuple[AttentionModel, TokenDataset]:
    """Two top tokens in a rotated frame, whose values differ by rounding and by ``gap``; and a far larger value."""
    frame = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    values = np.array([0.7 + gap, 0.7, -0.3, 1e9, -0.4, 0.1])
    data = TokenDataset.from_tokens([[0, 1, 2], [4, 5], [3]], [1, -1, 1])
    return AttentionModel(frame, np.zeros(6), frame.T @ values), data


def test_all_agree_on_what_a_tie_is() -> None:
    model, data = tied(0.0)
    g = model.token_values
    assert 0 < abs(g[0] - g[1]) < 1e-6  # the value 1e9 leaves this much rounding in each
    choice = select(model, data)
    assert choice.top_ties.tolist() == [2, 1, 1]
    assert choice.top.tolist() == [0, 4, 3]
    assert not choice.agrees
    assert basin_condition(model, data).hypotheses[0].measured == 0.0
    assert basin_condition(model, data).right == 0.0
    assert not {0, 1} & set(divergence(model, data).tokens.tolist())
    assert tie_invariant(model, data, 0, 1).holds
    assert asymptotics(model, data, [0, 4, 3]).hypotheses[0].measured == 0.0
    _, ties, gamma, runner_up = top_tokens(data, TokenValues.of(model))
    assert ties[0] == 2
    assert gamma[0] == runner_up[0]


def test_and_on_what_is_none() -> None:
    model, data = tied(1e-2)
    assert select(model, data).top_ties.tolist() == [1, 1, 1]
    assert basin_condition(model, data).hypotheses[0].measured == pytest.approx(1e-2, rel=1e-3)
    assert 0 in divergence(model, data).tokens
    assert not tie_invariant(model, data, 0, 1).hypotheses[0].holds
    assert asymptotics(model, data, [0, 4, 3]).hypotheses[0].measured == pytest.approx(1e-2, rel=1e-3)


def test_small_values_beside_large_ones_are_not_tied() -> None:
    # Both values are exact, 1e-9 apart, in a sequence of a model that also knows the value 1e6.
    model = AttentionModel(np.eye(4), np.zeros(4), [2e-9, 1e-9, -1.0, 1e6])
    data = TokenDataset.from_tokens([[0, 1], [2, 3]], [1, -1])
    assert select(model, data).top_ties.tolist() == [1, 1]
    assert not tie_invariant(model, data, 0, 1).hypotheses[0].holds
    assert basin_condition(model, data).hypotheses[0].holds
