"""The truth of a hypothesis, its slack and what a prediction says about it."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from attnembed.attention.theory import Hypothesis, Prediction


@pytest.mark.parametrize(
    ("measured", "relation", "required", "holds", "slack"),
    [
        (1.0, "<", 1.0, False, 0.0),
        (1.0, "<=", 1.0, True, 0.0),
        (0.25, "<", 1.0, True, 0.75),
        (1.0, ">", 1.0, False, 0.0),
        (1.5, ">=", 1.0, True, 0.5),
        (-1.0, ">", 0.0, False, -1.0),
    ],
)
def test_truth_and_slack(measured: float, relation: str, required: float, holds: bool, slack: float) -> None:
    hypothesis = Hypothesis("a quantity", measured, relation, required)
    assert (hypothesis.holds, hypothesis.slack) == (holds, slack)


@pytest.mark.parametrize("relation", ["<", "<=", ">", ">="])
def test_nan_never_holds(relation: str) -> None:
    assert not Hypothesis("a quantity", math.nan, relation, 0.0).holds


def test_a_prediction_names_what_fails_and_by_how_much() -> None:
    good, bad = Hypothesis("norm", 1.0, ">", 0.0), Hypothesis("gap", 3.0, "<", 1.0)
    prediction = Prediction(hypotheses=(good, bad))
    assert not prediction.holds
    assert prediction.failures == (bad,)
    assert "fails: gap (measured 3, required < 1, off by 2)" in str(prediction)
    assert "holds: norm" in str(prediction)
    assert Prediction(hypotheses=(good,)).holds


def test_plain_values_hold_the_verdicts() -> None:
    @dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
    class Answer(Prediction):
        value: float

    plain = Answer(hypotheses=(Hypothesis("gap", 3.0, "<", 1.0),), value=math.inf).to_dict()
    assert json.loads(json.dumps(plain)) == {
        "hypotheses": [{"name": "gap", "measured": 3.0, "relation": "<", "required": 1.0, "holds": False}],
        "value": "inf",
        "holds": False,
    }
