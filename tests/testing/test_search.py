"""False statements are refuted by small instances whose scripts run by themselves; true ones survive."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.special import expit

import attnembed as ae
from attnembed import testing as t
from attnembed.errors import InputError
from attnembed.evidence import Evidence
from attnembed.optim import Adam


def one_step_f8(problem: t.Problem) -> float | None:
    model, data = problem.model, problem.data
    bound, step = ae.theory.one_step_bound(model, data, 1.0), ae.one_step(model, data, step_size=1.0)
    W, power = model.v @ model.v, np.exp(2 * bound.rho)
    rate = ((power - 1) * expit(bound.F) + bound.F / 8) * W
    claimed = data.frequency * (rate + 2 * power * expit(bound.F) * bound.G0 * abs(model.p @ model.v))
    if claimed.max() == 0:
        return None
    error = np.abs(step.model.E @ model.v - model.E @ model.v - data.signed_frequency * W / 2)
    return float(np.max(error / np.maximum(claimed, 1e-9)))


def attention_never_falls(problem: t.Problem) -> bool:
    flow = ae.gradient_flow(problem.model, problem.data, until=3.0)
    return bool(np.diff(flow.top_attention).min(initial=0.0) > -1e-6)


def selects_most_frequent(problem: t.Problem) -> bool | None:
    model, data = problem.model, problem.data
    flow = ae.gradient_flow(model, data, until=20.0, max_nfev=3000)
    if flow.top_attention[-1] < 0.99:
        return None
    chosen, counts = ae.select(flow.model, data).tokens, data.counts.toarray()
    pure = np.abs(data.posterior_difference) == 1
    most = [data.frequency[(counts[i] > 0) & pure].max(initial=0) for i in range(data.n_samples)]
    return bool((data.frequency[chosen] >= np.array(most) - 1e-12).all())


def online_never_lowers(problem: t.Problem) -> bool:
    def accuracy(scaling: Any) -> float:
        run = ae.train_structured(
            problem.model, problem.data, scaling=scaling, n_epochs=2, optimizer=Adam(step_size=0.1), rng=0
        )
        return run.model.accuracy(problem.data)

    return accuracy(ae.OnlineScaling()) >= accuracy(None)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("statement", "problems"),
    [
        (one_step_f8, None),
        (attention_never_falls, None),
        (selects_most_frequent, t.problems(where=["unique_top"], kind="several")),
        (online_never_lowers, t.chains()),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_the_four_false_statements_are_refuted(statement: Any, problems: Any, tmp_path: Path) -> None:
    refuted(t.falsify(statement, problems), tmp_path)


def refuted(found: t.Counterexample | None, folder: Path) -> None:
    """At most three sequences or labels, and a script under 25 lines that runs and says so."""
    assert found is not None
    data = getattr(found.problem, "data", None)
    if isinstance(data, ae.TokenDataset):
        assert data.n_samples <= 3
    script = folder / "counterexample.py"
    script.write_text(str(found), encoding="utf-8")
    assert len(str(found).splitlines()) < 25
    out = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=folder, check=False)
    assert out.returncode == 0, out.stderr
    answer = out.stdout.strip()
    assert answer == "False" or float(answer) > 1


# Five more, each of which sounds right.


def loss_falls_with_any_step(problem: t.Problem) -> bool:
    """A gradient step of 10 on p never raises the loss."""
    model, data = problem.model, problem.data
    loss, grads = model.loss_and_grads(data)
    return bool(model.replace(p=model.p - 10 * grads.p).loss(data) <= loss + 1e-9)


def hessian_is_positive(problem: t.Problem) -> bool:
    """The loss is convex in p."""
    return bool(np.linalg.eigvalsh(problem.model.hessian_p(problem.data))[0] > -1e-6)


def selection_is_top(problem: t.Problem) -> bool:
    """The token with the largest score is a top token."""
    choice = ae.select(problem.model, problem.data)
    values = problem.model.token_values * 1.0
    y = problem.data.labels
    return bool((y * values[choice.tokens] >= y * values[choice.top] - 1e-9).all())


def viterbi_is_greedy(chain: Any) -> bool:
    """The best labeling takes the best label at each position."""
    unary, pairwise = chain
    greedy = ae.structured.chain.chain_score(unary, pairwise, unary.argmax(axis=1))
    best = ae.structured.chain.chain_score(unary, pairwise, ae.chain_viterbi(unary, pairwise))
    return bool(greedy >= best - 1e-9)


def more_frequent_is_more_aligned(problem: t.Problem) -> bool:
    """The most frequent token has the largest signed frequency in modulus."""
    data = problem.data
    return bool(abs(data.signed_frequency[data.frequency.argmax()]) >= np.abs(data.signed_frequency).max() - 1e-9)


@pytest.mark.parametrize(
    ("statement", "problems"),
    [
        pytest.param(loss_falls_with_any_step, None, marks=pytest.mark.thorough),
        (hessian_is_positive, None),
        (selection_is_top, None),
        (more_frequent_is_more_aligned, None),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_five_more_false_statements_are_refuted(statement: Any, problems: Any) -> None:
    found = t.falsify(statement, problems)
    assert found is not None
    assert found.problem.data.n_samples <= 3
    assert statement(found.problem) is False
    assert len(str(found).splitlines()) < 25


def test_a_false_statement_about_chains_is_refuted_with_two_labels() -> None:
    found = t.falsify(viterbi_is_greedy, t.potentials())
    assert found is not None
    assert found.problem[0].shape == (2, 2)


TRUE: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "beta bounds the Hessian": (
        lambda x: np.linalg.norm(x.model.hessian_p(x.data), 2) <= x.model.smoothness_p(x.data) * (1 + 1e-9) + 1e-12,
        None,
    ),
    "the attention sums to one": (
        lambda x: bool(np.allclose(x.model.attention(x.data).toarray().sum(axis=1), 1)),
        None,
    ),
    "log Z is at least the best score": (
        lambda x: bool(ae.chain_log_partition(*x) >= ae.structured.chain.chain_score(*x, ae.chain_viterbi(*x)) - 1e-9),
        t.potentials(),
    ),
}


@pytest.mark.parametrize(
    ("name", "n"),
    [pytest.param(name, n, marks=[pytest.mark.thorough] * (n > 300)) for name in TRUE for n in (300, 10_000)],
)
def test_true_statements_survive(name: str, n: int) -> None:
    statement, problems = TRUE[name]
    assert t.falsify(statement, problems, max_examples=n) is None


def test_evidence_and_annotations_are_understood() -> None:
    def short(problem: Annotated[Any, t.potentials(length=(1, 3))]) -> Evidence:
        return Evidence(measured=float(problem[0].max()), bound=1.0, control=2.0, hypotheses={"h": len(problem[0]) > 1})

    found = t.falsify(short)
    assert found is not None
    assert found.ratio > 1
    assert len(found.problem[0]) in (2, 3)


@pytest.mark.parametrize(
    ("predicate", "words"),
    [
        (lambda problem: "no", "must return True, False, a ratio, Evidence or None; got 'no'; compare"),
        (lambda problem: float("nan"), "got nan"),
        (lambda problem: 1 / 0, "got ZeroDivisionError: division by zero; return None where"),
        (lambda problem: None, "got None for all"),
    ],
)
def test_predicates_that_say_nothing_are_one_line(predicate: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        t.falsify(predicate, max_examples=30)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_strategy_that_draws_nothing_is_named() -> None:
    with pytest.raises(InputError, match="a strategy that drew none within its hypotheses; let `problems` draw"):
        t.falsify(lambda problem: True, st.integers().filter(lambda x: False), max_examples=30)
