"""The diagnosis says which statements apply, and names what fails by how much."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attnembed as ae
from attnembed.errors import InputError, InputTypeError
from tests.attention.theory.instances import as_model
from tests.plain import AttentionProblem, attention_problems


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


@pytest.mark.parametrize(
    "model", [None, "model", np.eye(3), ae.TwoLayerModel(np.eye(3), [0.0] * 3, [0.0] * 3, np.eye(3))]
)
def test_what_is_no_model_is_refused(model: Any) -> None:
    data = ae.TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    calls: list[Callable[[], Any]] = [
        lambda: ae.diagnose(model, data),
        lambda: ae.select(model, data),
        lambda: ae.margin_constraints(model, data, [0, 1]),
        lambda: ae.gradient_flow(model, data),
        lambda: ae.theory.asymptotics(model, data),
        lambda: ae.theory.basin_condition(model, data),
        lambda: ae.theory.one_step_bound(model, data, 1.0),
        lambda: ae.theory.tie_invariant(model, data, 0, 1),
        lambda: ae.theory.smoothness_bound(model, data),
    ]
    for call in calls:
        with pytest.raises(InputTypeError, match=f"`model` must be an AttentionModel; got {type(model).__name__}"):
            call()


def test_limits_that_no_theorem_promises_are_conditional() -> None:
    """Inside the failure window the flow never selects A: its loss stays above L*, and t (L - L*) has no limit."""
    family = ae.theory.Family(10, 14, step_size=400.0)
    assert family.limit().loss_gap > 0.05
    report = ae.diagnose(ae.AttentionModel(*family.parameters()), family.dataset())
    assert not report.limits_hold
    assert report.to_dict()["limits_hold"] is False
    text = str(report)
    assert "predicted limits, if every top token is selected (no condition above promises it)" in text
    assert f"t (L - L*) -> {report.asymptotics.loss_gap_constant:.6g}" in text


def test_limits_hold_where_the_basin_or_a_large_step_promises_the_selection() -> None:
    reports = {scale: ae.diagnose(*orthogonal(scale)) for scale in (0.5, 5.0, 100.0)}
    assert {scale: report.limits_hold for scale, report in reports.items()} == {0.5: False, 5.0: False, 100.0: True}
    assert "if p_t/||p_t|| converges (F5 promises" in str(reports[0.5])
    assert "(F3 (basin) promises that every top token is selected)" in str(reports[100.0])
    model, data = orthogonal(100.0)
    flow = ae.gradient_flow(model, data, until=600.0)  # the force is e^-100 at the start
    limit = reports[100.0].asymptotics.loss_gap_constant
    assert abs(np.exp(600.0 + np.log(flow.loss_gap[-1])) / limit - 1) < 1e-2
    # promised, but the limits do not exist: not both
    boundary = ae.TokenDataset.from_tokens([[0, 1], [0, 2], [3]], [1, 1, -1])
    E = [[0.0, 0.0], [-1.0, 0.0], [-1.0, -1.0], [0.0, 0.0]]
    inside = ae.diagnose(ae.AttentionModel(E, [30.0, 1.0], [1.0, 0.0]), boundary)
    assert inside.conditions["F3 (basin)"].holds
    assert not inside.asymptotics.holds
    assert not inside.limits_hold


PAIR = ae.TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
UNIT = ae.AttentionModel(np.eye(3), np.zeros(3), [1.0, -1.0, 0.0])
ODD: dict[str, tuple[ae.AttentionModel, ae.TokenDataset]] = {
    "v is zero": (UNIT.replace(v=np.zeros(3)), PAIR),
    "beta is zero": (UNIT.replace(E=np.ones((3, 3))), PAIR),
    "E is zero": (UNIT.replace(E=np.zeros((3, 3))), PAIR),
    "one type in each": (UNIT, ae.TokenDataset.from_tokens([[0], [1, 1], [2]], [1, -1, 1])),
    "one token": (ae.AttentionModel([[1.0]], [0.0], [1.0]), ae.TokenDataset.from_tokens([[0], [0]], [1, -1])),
    "tiny": (UNIT.replace(E=1e-200 * np.eye(3)), PAIR),
    "huge": (UNIT.replace(E=1e200 * np.eye(3)), PAIR),
    "both": (UNIT.replace(E=np.diag([1e-200, 1.0, 1e200])), PAIR),
    "saturated": (UNIT.replace(p=1e8 * np.ones(3)), PAIR),
    "single precision": (ae.AttentionModel(*(x.astype(np.float32) for x in (UNIT.E, UNIT.p, UNIT.v))), PAIR),
}


@pytest.mark.parametrize("name", ODD)
def test_it_never_raises_on_what_is_valid(name: str) -> None:
    report = ae.diagnose(*ODD[name])
    assert isinstance(report.limits_hold, bool)
    text = str(report)
    assert "predicted limits" in text
    assert ("at any step: the loss does not depend on p" in text) == (report.smoothness.beta == 0)
    json.dumps(report.to_dict(), allow_nan=False)
    assert ("there is nothing to select" in text) == name.startswith("one t")


@given(attention_problems(), st.sampled_from([0.0, 1e-150, 1.0, 1e6]), st.sampled_from([0.0, 1e-300, 1.0]))
def test_it_never_raises_on_random_models(problem: AttentionProblem, scale: float, strength: float) -> None:
    model, data = as_model(problem)
    report = ae.diagnose(model.replace(E=scale * model.E, v=strength * model.v), data)
    assert str(report)
    assert repr(report)


def test_scores_that_overflow_are_named() -> None:
    model = UNIT.replace(E=1e200 * np.eye(3), p=1e200 * np.ones(3))
    with pytest.raises(InputError, match=r"`model` must have finite scores p.E_s; got inf for token 0"):
        ae.diagnose(model, PAIR)


TWO_OPTIMA = ae.TokenDataset.from_tokens([[0, 1, 2], [3]], [1, -1])


def planar(p: list[float]) -> ae.AttentionModel:
    return ae.AttentionModel([[1, 0], [-1, 1], [0, 0], [0, -1]], p, [0.5, 1.5])


def test_local_optima_are_listed_and_the_current_one_is_marked() -> None:
    report = ae.diagnose(planar([5.0, 0.0]), TWO_OPTIMA)
    assert report.local_optima is not None
    assert [optimum.tolist() for optimum in report.local_optima] == [[0, 3], [1, 3]]
    assert report.current_optimum == 0
    text = str(report)
    assert "locally optimal selections: 2" in text
    assert "tokens 0 3 (p selects it now)" in text
    assert "tokens 1 3 (top tokens)" in text
    assert "undecided without running the flow" in text
    assert "p selects a local optimum, which keeps all flows that come near enough" in text
    assert report.ends_in is None
    # It ends in the one that it selects now, which is not the top one: the limits printed are conditional.
    assert not report.limits_hold
    assert ae.gradient_flow(planar([5.0, 0.0]), TWO_OPTIMA, until=40.0).selection.tolist() == [0, 3]
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["local_optima"] == [[0, 3], [1, 3]]
    assert plain["current_optimum"] == 0


def test_in_the_basin_the_end_is_known() -> None:
    model = planar([0.0, 0.0])
    start = model.replace(p=12 * ae.theory.asymptotics(model, TWO_OPTIMA).p_mm)
    report = ae.diagnose(start, TWO_OPTIMA)
    assert report.limits_hold
    assert report.current_optimum == 1
    assert report.ends_in is not None
    assert report.ends_in.tolist() == [1, 3]
    assert "in that of the top tokens: F3 (basin) holds" in report.ends_because
    assert report.ends_because in str(report)
    assert ae.gradient_flow(start, TWO_OPTIMA, until=40.0).selection.tolist() == [1, 3]


def test_margins_in_three_norms_and_stable_steps() -> None:
    model = ae.AttentionModel(np.eye(3), np.zeros(3), [1.0, -1.0, 0.0])
    report = ae.diagnose(model, ae.TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1]))
    # d = (1, 0, -1), (0, 1, -1): x = (1, 1, -2)/sqrt 6, (1, 1, -1) and (0, 0, -1).
    assert report.margins == pytest.approx({"l2": 1.5**0.5, "linf": 2.0, "l1": 1.0})
    text = str(report)
    assert all(line in text for line in ("1.225 in l2 (gradient flow)", "2 in linf (sign desc", "1 in l1 (coordinate"))
    assert "normalised steps shorter than 4.899 contract L - L* by e^(-1.225 eta)" in text
    assert "Polyak's step contracts it by 1/e (lambda_max(H_perp) = 0.3333, stable below 2)" in text
    # beta by hand: values 1, 0 and -1 in pairs at distance sqrt 2.
    assert report.stable_steps == pytest.approx({"gradient": 2 / (2 / 64 + 2 / 4), "normalised": 24**0.5})
    assert report.attained == {}
    for norm, p in {"l2": [1.0, 1.0, -2.0], "linf": [1.0, 1.0, -1.0], "l1": [0.0, 0.0, -1.0]}.items():
        shares = ae.diagnose(model.replace(p=p), ae.TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])).attained
        assert [name for name, share in shares.items() if share > 1 - 1e-9] == [norm]


def test_large_data_are_not_enumerated() -> None:
    data = ae.make_balanced_dataset(n_samples=60, length=6, n_irrelevant=30, rng=0)
    report = ae.diagnose(ae.AttentionModel.random(data.vocab_size, 50, rng=0), data)
    assert report.local_optima is None
    assert report.current_optimum is None
    assert "not listed" in str(report)


def test_before_the_step_the_family_rests() -> None:
    """All values are 0, so that no p has a gradient: p selects the top tokens by a tie, and nothing is promised."""
    family = ae.theory.Family(4, 5, step_size=0.0)
    report = ae.diagnose(ae.AttentionModel(*family.parameters()), family.dataset())
    assert report.rests
    assert report.ends_in is None
    assert "the flow rests at p for ever" in str(report)
    assert "nothing else is predicted" in str(report)
    assert report.stable_steps["gradient"] == np.inf


@pytest.mark.parametrize(("step_size", "decided"), [(400.0, False), (1e5, True)])
def test_after_a_step_the_end_of_the_family_is_undecided_or_promised(step_size: float, decided: bool) -> None:
    family = ae.theory.Family(10, 14, step_size=step_size)
    report = ae.diagnose(ae.AttentionModel(*family.parameters()), family.dataset())
    text = str(report)
    assert (report.ends_in is not None) == decided
    assert ("undecided without running the flow" in text) == (not decided)
    assert ("in that of the top tokens: F3 (basin) holds" in text) == decided
    assert ("only conditional: normalised and Polyak steps (on being late enough)" in text) == decided
    # What the flow does: after the large step it selects the shared token, after the other it never does.
    assert (family.limit(690.0).attention_shared > 0.5) == decided


def test_what_makes_a_program_infeasible_is_named() -> None:
    data = ae.TokenDataset.from_tokens([[0, 1, 2], [0, 1, 2]], [1, -1], vocab=["good", "and", "bad"])
    report = ae.diagnose(ae.AttentionModel(np.eye(3), [0.5, 0.0, 0.0], [1.0, 1.0, -1.0]), data)
    assert report.conflict == "'good' would have to score above 'bad' in one sequence, and below it in another"
    assert report.conflict in str(report)
    assert "predicted limits: none, because no p selects every top token" in str(report)
    assert "not in that of the top tokens, which no p selects" in str(report)
    same = ae.diagnose(ae.AttentionModel(np.ones((3, 3)), np.zeros(3), [1.0, -1.0, 0.0]), PAIR)
    assert "same embedding" in same.conflict
    # Three rows on a circle, none of them opposite to another: tokens 0, 2 and 4 against a token at 0.
    turns = np.pi * np.array([1.0, -1.0, 3.0]) / 3
    E = np.zeros((6, 2))
    E[::2] = np.c_[np.cos(turns), np.sin(turns)]
    data = ae.TokenDataset.from_tokens([[0, 1], [2, 3], [4, 5]], [1, 1, -1])
    report = ae.diagnose(ae.AttentionModel(E, [0.0, 0.0], [1.0, 0.0]), data)
    assert "3 of its 3 rows add up to 0" in report.conflict
    assert float(report.conflict.split("= ")[-1]) < 1e-15


def test_data_on_which_assumption_1_holds_nowhere() -> None:
    """As on real counts: every word occurs under both labels."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.5, size=(300, 80)) + (np.arange(80) < 2)
    data = ae.TokenDataset.from_counts(counts, np.where(rng.random(300) < 0.5, 1, -1))
    report = ae.diagnose(ae.AttentionModel.random(80, 16, rng=0), data)
    text = str(report)
    assert report.in_order == 0
    assert "it holds in none of the 300 sequences" in text
    assert not report.feasible
    assert "one step of size eta on E changes the token values by 0.5 eta alpha_s (Lemma 4.1), to within" in text
    assert "gradient descent on p never increases the loss below a step of" in text
    # The bound holds for the exact step: |g^1 - g^0 - slope eta alpha| <= step_error eta phi.
    step = ae.one_step(ae.AttentionModel.random(80, 16, rng=0), data, 3.0)
    moved = step.model.token_values - ae.AttentionModel.random(80, 16, rng=0).token_values
    assert (np.abs(moved - 3 * report.slope * data.signed_frequency) <= 3 * report.step_error * data.frequency).all()


def test_sequences_that_obey_assumption_1_are_counted() -> None:
    data = ae.TokenDataset.from_tokens([[0, 1], [0, 1], [2], [3, 4, 4]], [1, -1, 1, -1])
    report = ae.diagnose(ae.AttentionModel(np.eye(5), np.zeros(5), np.ones(5)), data)
    assert report.in_order == 1  # [2]: 3 and 4 both occur in negative sequences only, and 0 and 1 decide nothing
    assert "it holds in 1 of the 4 sequences" in str(report)


@pytest.mark.slow
def test_real_counts_are_answered_in_seconds(data_folder: Path) -> None:
    tokenizer = ae.Tokenizer(max_vocabulary=5000)
    texts, labels = ae.load_reviews(data_folder / "imdb_train.tsv.gz")
    texts, labels = texts[::10], labels[::10]
    data = ae.TokenDataset.from_counts(tokenizer.fit_transform(texts), labels, vocab=tokenizer.vocabulary)
    start = perf_counter()
    report = ae.diagnose(ae.AttentionModel.random(data.vocab_size, 64, rng=0), data)
    assert perf_counter() - start < 10
    assert not report.feasible
    assert "would have to score above" in report.conflict
