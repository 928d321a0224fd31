"""The conserved quantity of two tokens of equal value, and which of them wins."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnembed.attention.data import TokenDataset
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.theory import tie_invariant
from attnembed.errors import InputError
from attnembed.losses import logistic
from tests.attention.theory.instances import unit_model

# Tokens 0 and 1 are tied at the top of the first two sequences, in the proportion 1 : 2.
DATA = TokenDataset.from_tokens([[0, 1, 1, 2], [0, 0, 1, 1, 1, 1, 3], [4, 2]], [1, 1, -1])
VALUES = [1.0, 1.0, 0.0, -0.5, -1.0]


def drift(model: AttentionModel, data: TokenDataset = DATA) -> float:
    """The largest change of the predicted invariant along the flow, over its scale."""
    start = tie_invariant(model, data, 0, 1)
    flow = gradient_flow(model, data, until=12.0, rtol=1e-10, atol=1e-12)
    along = [tie_invariant(model.replace(p=p), data, 0, 1).value for p in flow.path]
    return float(np.abs(np.array(along) - start.value).max() / (np.exp(-model.token_scores[:2]) / [1, 2]).max())


@settings(max_examples=5)
@given(st.lists(st.floats(-1.5, 1.5), min_size=5, max_size=5))
def test_conserved_along_the_flow(p: list[float]) -> None:
    model = unit_model(VALUES).replace(p=p)
    assert tie_invariant(model, DATA, 0, 1).holds
    assert drift(model) < 1e-7


def test_the_larger_multiplicity_times_exponential_wins() -> None:
    for p0, winner in ((0.0, 1), (0.6, 1), (0.8, 0)):  # log 2 = 0.693
        model = unit_model(VALUES).replace(p=[p0, 0.0, 0.0, 0.0, 0.0])
        assert tie_invariant(model, DATA, 0, 1).winner == winner
        attention = gradient_flow(model, DATA, until=60.0).model.attention(DATA).toarray()
        assert attention[0, winner] > 0.97
    equal = tie_invariant(unit_model(VALUES).replace(p=[np.log(2.0), 0, 0, 0, 0]), DATA, 0, 1)
    assert equal.winner == -1


# The winner has the larger share for ever, but not always everything: each time all four hypotheses hold.
REST = (  # the same sequence with both labels: p comes to rest at a finite point
    TokenDataset.from_tokens([[0, 1, 2], [0, 1, 2]], [1, -1]),
    AttentionModel(np.eye(3), [0.5, 0.0, 0.0], [1.0, 1.0, -1.0]),
    [0.295, 0.205, 0.5],
)
THIRD = (  # another sequence drives token 2 up, and it takes everything before the two can
    TokenDataset.from_tokens([[0, 1, 2], [2, 3], [4]], [1, 1, -1]),
    AttentionModel(np.vstack([np.eye(3), [[0, 0, 0.5], [0, 0, 0]]]), [-5.0, -5.1, 0.0], [1.0, 1.0, 0.5]),
    [0.0, 0.0, 1.0],
)
# Another sequence drives token 2 down so fast (like -2 log t) that the two are left where they are, although no third
# token can win: n (L - L*) is below every l(gamma^(2)) - l(gamma*), gamma^(2) taken beside the tie.
BOUNDED = (
    THIRD[0],
    AttentionModel(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0.5, 0], [0, 0, 0, 1]], [3.0, 2.0, -6.0, 0.0], [1, 1, -1, 0]
    ),
    [0.732, 0.268, 0.0],
)


@pytest.mark.parametrize(("case", "until"), [(REST, 60.0), (THIRD, 60.0), (BOUNDED, 60.0), (BOUNDED, 300.0)])
def test_the_winner_need_not_take_everything(
    case: tuple[TokenDataset, AttentionModel, list[float]], until: float
) -> None:
    data, model, limit = case
    tie = tie_invariant(model, data, 0, 1)
    assert tie.holds, tie
    assert tie.winner == 0
    flow = gradient_flow(model, data, until=until, rtol=1e-10, atol=1e-12)
    attention = flow.model.attention(data).toarray()[0, :3]
    np.testing.assert_allclose(attention, limit, rtol=0, atol=6e-4)
    # What does hold: the winner leads at all times, and the loser's share is what the invariant says.
    u = flow.path @ model.E[:2].T
    assert (u[:, 0] > u[:, 1]).all()
    share = np.exp(-u[:, 0]) / (abs(tie.value) + 2 * np.exp(-u[:, 0]))
    np.testing.assert_allclose(1 / (1 + np.exp(u[:, 0] - u[:, 1])), share, rtol=1e-6)


def test_the_third_case_lies_inside_the_basin_of_the_tie() -> None:
    data, model, _ = BOUNDED
    gap = data.n_samples * gradient_flow(model, data, until=-5.0).loss_gap[0]
    steps = [logistic(-1.0) - logistic(1.0), logistic(-1.0) - logistic(-0.5)]
    assert gap < min(steps) / 10


def test_a_token_that_never_occurs_does_not_make_values_equal() -> None:
    E = np.vstack([np.eye(5), [[0.0, 0.0, 0.0, 0.0, 1e13]]])
    tokens = [[0, 1, 1, 2], [0, 0, 1, 1, 1, 1, 3], [4, 2]]
    data = TokenDataset.from_tokens(tokens, [1, 1, -1], vocab_size=6)
    different = AttentionModel(E, np.zeros(5), [1.2, *VALUES[1:]])
    assert tie_invariant(different, data, 0, 1).failures[0].name.startswith("equal values")
    assert drift(different, data) > 1e-3
    assert tie_invariant(AttentionModel(E, np.zeros(5), VALUES), data, 0, 1).holds


def test_scores_beyond_the_exponential_are_no_warning() -> None:
    tie = tie_invariant(unit_model(VALUES).replace(p=[-1e4, 0.0, 0.0, 0.0, 0.0]), DATA, 0, 1)
    assert (tie.value, tie.winner) == (np.inf, 1)


def test_an_orthogonal_frame_of_any_length_will_do() -> None:
    frame = 3 * np.linalg.qr(np.random.default_rng(0).standard_normal((7, 5)))[0].T
    model = AttentionModel(frame, frame.T @ [0.05, -0.02, 0, 0.01, 0], frame.T @ np.array(VALUES) / 9)
    assert tie_invariant(model, DATA, 0, 1).holds
    assert drift(model) < 1e-7


@dataclasses.dataclass(frozen=True)
class Broken:
    """An instance that violates one hypothesis, and the number of that hypothesis."""

    hypothesis: int
    model: AttentionModel
    data: TokenDataset = DATA


E_BENT = np.eye(5)
E_BENT[0, 2] = 0.3
E_CLOSE = np.eye(5)
E_CLOSE[1, :2] = np.sin(0.4), np.cos(0.4)
E_LONG = np.diag([1.5, 1.0, 1.0, 1.0, 1.0])
BROKEN = {
    "values": Broken(0, unit_model([1.2, *VALUES[1:]])),
    "proportion": Broken(
        1, unit_model(VALUES), TokenDataset.from_tokens([[0, 1, 1, 2], [0, 1, 3, 3], [4, 2]], [1, 1, -1])
    ),
    "orthogonality": Broken(2, AttentionModel(E_BENT, np.zeros(5), np.linalg.solve(E_BENT, VALUES))),
    "overlap": Broken(2, AttentionModel(E_CLOSE, np.zeros(5), np.linalg.solve(E_CLOSE, VALUES))),
    "norms": Broken(3, AttentionModel(E_LONG, np.zeros(5), np.linalg.solve(E_LONG, VALUES))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_hypothesis_is_needed(name: str) -> None:
    broken = BROKEN[name]
    tie = tie_invariant(broken.model, broken.data, 0, 1)
    assert not tie.hypotheses[broken.hypothesis].holds
    assert drift(broken.model, broken.data) > 1e-3


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 4), (0, 9), (-1, 0)])
def test_bad_tokens(first: int, second: int) -> None:
    with pytest.raises(InputError):
        tie_invariant(unit_model(VALUES), DATA, first, second)


@pytest.mark.parametrize("product", [0.5, -0.5])
def test_a_product_of_either_sign_breaks_orthogonality(product: float) -> None:
    model = unit_model(VALUES)
    E = model.E.copy()
    E[2] += product * E[0]
    found = tie_invariant(model.replace(E=E), DATA, 0, 1)
    (orthogonal,) = (h for h in found.hypotheses if h.name.startswith("orthogonal"))
    assert not orthogonal.holds
