"""The diagnosis says which statements apply, and names what fails by how much."""

from __future__ import annotations

import json

import numpy as np
import pytest

import attnembed as ae
from attnembed.errors import InputError


def orthogonal(scale: float) -> tuple[ae.AttentionModel, ae.TokenDataset]:
    data = ae.make_balanced_dataset(n_samples=20, length=4, n_irrelevant=5, rng=0)
    E = np.eye(data.vocab_size, data.vocab_size + 1)
    E[:4, -1] = np.array([1, 1, -1, -1]) * scale
    return ae.AttentionModel(E, np.zeros(len(E) + 1), np.eye(len(E) + 1)[-1]), data


def test_small_and_large_steps_are_told_apart() -> None:
    holding = {
        scale: [name for name, prediction in ae.diagnose(*orthogonal(scale)).conditions.items() if prediction.holds]
        for scale in (0.5, 5.0, 100.0)
    }
    assert holding == {0.5: ["F5 (small step)"], 5.0: [], 100.0: ["F3 (basin)", "F4 (large step)"]}


def test_the_table_names_what_holds_and_the_limits() -> None:
    model, data = orthogonal(0.5)
    text = str(ae.diagnose(model, data))
    assert "Assumption 1 holds" in text
    assert "2 positive, 2 negative, 5 irrelevant" in text
    assert "t (L - L*) -> " in text
    flow = ae.gradient_flow(model, data, until=40.0)
    predicted = ae.diagnose(model, data).asymptotics.loss_gap_constant
    assert abs(np.exp(40.0) * flow.loss_gap[-1] / predicted - 1) < 1e-3


def test_violations_are_answers_and_not_errors() -> None:
    data = ae.TokenDataset.from_tokens([[0, 1], [0, 1], [2]], [1, -1, 1])
    model = ae.AttentionModel(np.eye(3), np.zeros(3), [1.0, -1.0, 0.5])
    report = ae.diagnose(model, data)
    assert not report.assumption.holds
    assert not report.feasible
    assert not any(prediction.holds for prediction in report.conditions.values())
    text = str(report)
    assert "sequence 0 has 0 completely positive or negative token types" in text
    assert "infeasible" in text
    certificate = report.asymptotics.certificate
    differences = ae.margin_constraints(model, data, report.selection.top).differences
    assert certificate is not None
    assert abs(certificate.sum() - 1) < 1e-12
    assert np.linalg.norm(differences.T @ certificate) < 1e-12


def test_the_answer_is_json() -> None:
    content = json.loads(json.dumps(ae.diagnose(*orthogonal(0.5)).to_dict()))
    assert content["conditions"]["F5 (small step)"]["holds"] is True
    assert content["feasible"] is True


def test_a_model_of_another_vocabulary_is_refused() -> None:
    _, data = orthogonal(0.5)
    with pytest.raises(InputError, match="`data` must"):
        ae.diagnose(ae.AttentionModel.random(3, 2, rng=0), data)
