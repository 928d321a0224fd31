"""The digits with which the neighbours' theorems were first written down, for the instances that were given in full."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit

import attnembed as ae
from attnembed.attention.theory import Family, asymptotics, local_optima

DATA = ae.TokenDataset.from_tokens([[0, 1, 2], [3]], [1, -1])


def fan(first: tuple[float, float], p: tuple[float, float]) -> ae.AttentionModel:
    """Token 1 is top, with embedding ``first``; values 0.5, about 1, 0 and -1.5."""
    return ae.AttentionModel([[1.0, 0.0], first, [0.0, 0.0], [0.0, -1.0]], p, [0.5, 1.5])


def test_a_flow_that_keeps_another_token_than_the_top_one() -> None:
    """cos to its own p_mm 0.99999999, t (L - L_sigma) / ||p_mm||^2 = 0.99999999997."""
    model = fan((-1.0, 1.0), (5.0, 0.0))
    flow = ae.gradient_flow(model, DATA, until=60.0, rtol=1e-12, atol=1e-13)
    chosen = ae.select(flow.model, DATA).tokens
    late = asymptotics(model, DATA, chosen)
    assert (chosen[0], late.holds) == (0, True)
    assert round(float(flow.p @ late.p_mm) * late.margin / float(np.linalg.norm(flow.p)), 8) == 0.99999999
    # L - L_sigma of the first sequence, with no difference of nearly equal numbers
    scores, values = model.E[:3] @ flow.p, model.token_values[:3]
    weights = np.exp(scores - scores[0])
    lost = weights @ (values[0] - values) / weights.sum()
    excess = np.log1p(expit(-values[0]) * np.expm1(lost)) / 2
    assert_allclose(np.exp(flow.log_time[-1]) * excess * late.margin**2, 0.99999999997, rtol=0, atol=5e-11)


@pytest.mark.parametrize("start", [(5.0, 0.0), (8.0, 1.0), None])
def test_an_active_row_that_pulls_away(start: tuple[float, float] | None) -> None:
    """With E_1 = (0.2, 0.6) both rows are active with D = (-0.5, 0.5), and all three starts end on token 1."""
    model = fan((0.2, 0.6), (0.0, 0.0))
    rows = ae.margin_constraints(model, DATA, [0, 3]).differences
    found = ae.max_margin(rows)
    assert_allclose(rows @ found.p, [1, 1], rtol=1e-12)
    assert_allclose(model.token_values[0] - model.token_values[[1, 2]], [-0.5, 0.5], rtol=1e-12)
    p = 20 * found.p if start is None else np.array(start)
    flow = ae.gradient_flow(model.replace(p=p), DATA, until=60.0)
    assert ae.select(flow.model, DATA).tokens[0] == 1
    assert [tuple(x) for x in local_optima(model, DATA)] == [(1, 3)]


def test_a_step_in_the_failure_window() -> None:
    """Family with T = 10, r = 14, step 400: t (L - L*) -> 6.6 if the top tokens were selected; the gap stays 0.057."""
    family = Family(10, 14, step_size=400.0)
    model, data = ae.AttentionModel(*family.parameters()), family.dataset()
    late = asymptotics(model, data)
    assert round(float(late.p_mm @ late.p_mm), 1) == 6.6
    assert round(family.limit().loss_gap, 3) == 0.057


@pytest.mark.parametrize(
    ("data", "model", "end"),
    [
        # The winner does not take everything,
        (
            ae.TokenDataset.from_tokens([[0, 1, 2], [0, 1, 2]], [1, -1]),
            ae.AttentionModel(np.eye(3), [0.5, 0, 0], [1.0, 1, -1]),
            [0.295, 0.205, 0.5],
        ),
        # nor is it one of the two that are tied.
        (
            ae.TokenDataset.from_tokens([[0, 1, 2], [2, 3], [4]], [1, 1, -1]),
            ae.AttentionModel([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0.5], [0, 0, 0]], [-5, -5.1, 0], [1.0, 1, 0.5]),
            [0, 0, 1, 0, 0],
        ),
    ],
    ids=["rest", "third"],
)
def test_tied_tokens_that_do_not_win(data: ae.TokenDataset, model: ae.AttentionModel, end: list[float]) -> None:
    flow = ae.gradient_flow(model, data, until=40.0, max_nfev=3000)
    assert_allclose(flow.model.attention(data).toarray()[0], end, rtol=0, atol=5e-4)
