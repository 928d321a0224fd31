"""False statements are refuted by instances of at most three sequences or labels; true ones survive."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

import attnembed as ae
from attnembed import testing as t
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


# Seconds of processor time that a search may take.
MOST_SECONDS = 60.0

FALSE: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "the one-step bound with F/8": (one_step_f8, None),
    "top attention never falls along the flow": (attention_never_falls, None),
    "the most frequent important token is selected": (
        selects_most_frequent,
        t.problems(where=["unique_top"], kind="several"),
    ),
    "online scaling never lowers accuracy": (online_never_lowers, t.chains()),
    "no step raises the loss": (loss_falls_with_any_step, None),
    "the loss is convex in p": (hessian_is_positive, None),
    "the largest score is that of a top token": (selection_is_top, None),
    "the best labeling is greedy": (viterbi_is_greedy, t.potentials()),
    "the most frequent token is the most aligned": (more_frequent_is_more_aligned, None),
}
LONG_SEARCHES = (
    "the one-step bound with F/8",
    "top attention never falls along the flow",
    "the most frequent important token is selected",
    "online scaling never lowers accuracy",
    "no step raises the loss",
)


def marked(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.thorough if name in LONG_SEARCHES else pytest.mark.slow)


@pytest.mark.parametrize("name", [marked(name) for name in FALSE])
def test_false_statements_are_refuted_by_few_sequences_and_labels(name: str, tmp_path: Path) -> None:
    statement, problems = FALSE[name]
    start = time.process_time()
    found = t.falsify(statement, problems)
    assert time.process_time() - start < MOST_SECONDS
    assert found is not None
    assert statement(found.problem) is False or statement(found.problem) > 1
    assert len(str(found).splitlines()) < 25
    assert max(sizes(found.problem)) <= 3
    run_script(found, tmp_path)


def sizes(problem: Any) -> tuple[int, ...]:
    """Sequences, and for structured models also labels."""
    if not isinstance(problem, t.Problem):  # the potentials of one chain
        return (1, problem[0].shape[1])
    if isinstance(problem.data, ae.TokenDataset):
        return (problem.data.n_samples,)
    return len(problem.data), len(problem.model.pairwise)


def run_script(found: t.Counterexample, folder: Path) -> None:
    """The script says of itself that the statement is false."""
    script = folder / "counterexample.py"
    script.write_text(str(found), encoding="utf-8")
    out = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=folder, check=False)
    assert out.returncode == 0, out.stderr
    answer = out.stdout.strip()
    assert answer == "False" or float(answer) > 1


# True statements, in the two forms that a predicate may have: a verdict, or measured over bound.


def beta_bounds_the_hessian(problem: t.Problem) -> bool:
    model, data = problem.model, problem.data
    return bool(np.linalg.norm(model.hessian_p(data), 2) <= model.smoothness_p(data) * (1 + 1e-9) + 1e-12)


def a_step_below_two_over_beta_never_hurts(problem: t.Problem) -> bool | None:
    model, data = problem.model, problem.data
    (loss, grads), beta = model.loss_and_grads(data), model.smoothness_p(data)
    if beta == 0:
        return None
    after = model.replace(p=model.p - 1.9 / beta * grads.p)
    return bool(after.loss(data) <= loss + 1e-12 * (1 + loss))


def the_one_step_error_is_below_its_bound(problem: t.Problem) -> bool:
    model, data = problem.model, problem.data
    bound, v = ae.theory.one_step_bound(model, data, 1.0), model.v
    predicted = model.E @ v + data.signed_frequency * (v @ v) / 2
    error = np.abs(ae.one_step(model, data, step_size=1.0).model.E @ v - predicted)
    return bool((error <= bound.value * (1 + 1e-9) + 1e-12 * (1 + np.abs(predicted))).all())


def attention_sums_to_one(problem: t.Problem) -> bool:
    return bool(np.allclose(problem.model.attention(problem.data).toarray().sum(axis=1), 1, rtol=0, atol=1e-12))


def a_shift_across_v_changes_nothing(problem: t.Problem) -> bool:
    """Attention does not see what all embeddings have in common, and values do not where it is orthogonal to v."""
    model, data = problem.model, problem.data
    size = model.v @ model.v
    c = model.p - (model.p @ model.v) / size * model.v if size else model.p
    moved = model.replace(E=model.E + c)
    scale = 1 + np.abs(model.E @ model.p).max() + model.p @ model.p + np.abs(model.token_values).max()
    return bool(abs(moved.loss(data) - model.loss(data)) <= 1e-12 * scale**2)


def no_p_beats_the_best_tokens(problem: t.Problem) -> bool:
    """L >= mean_i log(1 + exp(-max_s y_i E_s.v)): the output is an average of values."""
    model, data = problem.model, problem.data
    signed = np.where(data.counts.toarray() > 0, data.labels[:, None] * (model.E @ model.v), -np.inf)
    least = np.logaddexp(0, -signed.max(axis=1)).mean()
    return bool(model.loss(data) >= least - 1e-12 * (1 + least))


def signed_frequencies_are_below_frequencies(problem: t.Problem) -> bool:
    return bool((np.abs(problem.data.signed_frequency) <= problem.data.frequency * (1 + 1e-12) + 1e-15).all())


def no_direction_has_more_than_the_margin(problem: t.Problem) -> bool | None:
    model, data = problem.model, problem.data
    rows = ae.margin_constraints(model, data, ae.select(model, data).top).differences
    length = float(np.linalg.norm(model.p))
    if length == 0:
        return None
    return bool((rows @ model.p).min() / length <= ae.max_margin(rows).margin * (1 + 1e-9))


def log_z_is_above_the_best_score(chain: Any) -> bool:
    best = ae.structured.chain.chain_score(*chain, ae.chain_viterbi(*chain))
    return bool(ae.chain_log_partition(*chain) >= best - 1e-9)


def log_z_is_convex(chain: Any) -> bool:
    """Between the potentials and none."""
    unary, pairwise = chain
    ends = ae.chain_log_partition(unary, pairwise) + ae.chain_log_partition(0 * unary, 0 * pairwise)
    return bool(ae.chain_log_partition(unary / 2, pairwise / 2) <= ends / 2 + 1e-9)


TRUE: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "beta bounds the Hessian": (beta_bounds_the_hessian, None),
    "a step below 2/beta never hurts": (a_step_below_two_over_beta_never_hurts, None),
    "the one-step error is below its bound": (the_one_step_error_is_below_its_bound, None),
    "attention sums to one": (attention_sums_to_one, None),
    "a shift across v changes nothing": (a_shift_across_v_changes_nothing, None),
    "no p beats the best tokens": (no_p_beats_the_best_tokens, None),
    "signed frequencies are below frequencies": (signed_frequencies_are_below_frequencies, None),
    "no direction has more than the margin": (no_direction_has_more_than_the_margin, t.problems(where=["separable"])),
    "log Z is above the best score": (log_z_is_above_the_best_score, t.potentials()),
    "log Z is convex": (log_z_is_convex, t.potentials()),
}


@pytest.mark.parametrize("name", TRUE)
def test_true_statements_survive(name: str) -> None:
    statement, problems = TRUE[name]
    assert t.falsify(statement, problems, max_examples=30) is None


@pytest.mark.thorough
@pytest.mark.parametrize("name", TRUE)
def test_true_statements_survive_10000_examples(name: str) -> None:
    statement, problems = TRUE[name]
    asked = 0

    def counted(problem: Any) -> Any:
        nonlocal asked
        answer = statement(problem)
        asked += answer is not None
        return answer

    assert t.falsify(counted, problems, max_examples=10_000) is None
    assert asked > 5_000
