"""Loss, gradients and Hessian against the definitions, and against many digits where attention saturates."""

from __future__ import annotations

import dataclasses
import math
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_expit, logsumexp

from attnembed import reference
from attnembed.attention import passes
from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.attention.passes import AnchoredPass, TokenPasses, loss_gap, token_sums
from attnembed.attention.selection import top_tokens
from attnembed.testing import generators
from tests.attention.theory.instances import as_model
from tests.plain import AttentionProblem, attention_problems

Array = np.ndarray[Any, Any]
EPS = float(np.finfo(float).eps)
NORMS = st.floats(-3, 3).map(lambda power: 10.0**power)


def gaussian_problem(seed: int, norm: float, *, values: float = 1.0, repeats: int = 1) -> AttentionProblem:
    """Seven tokens (one of them absent), six sequences of one to five token types, one of a single type."""
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(0, 6, size=T).tolist() for T in (1, 2, 3, 4, 5, 5)]
    tokens = [[s for s in sequence for _ in range(int(rng.choice([1, repeats])))] for sequence in tokens]
    E, p, v = rng.standard_normal((7, 4)), rng.standard_normal(4), values * rng.standard_normal(4)
    return AttentionProblem(E, p, v, tokens, [1, -1, 1, -1, 1, -1]).scaled(norm)


def rounding(problem: AttentionProblem) -> float:
    """What one rounding of every score and value does to a loss or an output, relative to the values."""
    E, p, v = (np.abs(x) for x in problem.arguments[:3])
    return EPS * (4 + float((E @ p).max() + (E @ v).max()))


def log_terms(problem: AttentionProblem) -> float:
    """log of sum_i c_i sum_s a_is sum_r a_ir (|g_s - g_r| + rounding) ||E_s||, what grad_p is a sum of."""
    E, p, v, tokens, labels = problem.arguments
    log_a = reference.precise_log_attention(E, p, tokens)
    g, noise = E @ v, 8 * EPS * float((np.abs(E) @ np.abs(v)).max())
    with np.errstate(divide="ignore"):
        log_gaps = np.log(np.abs(g[:, None] - g) + noise)
        log_sizes = np.log(np.linalg.norm(E, axis=1))
    log_c = log_expit(-np.array(labels) * reference.attention_output(E, p, v, tokens)) - math.log(len(tokens))
    log_moved = logsumexp(log_a[:, None, :] + log_gaps, axis=2)
    return float(logsumexp(log_c[:, None] + log_a + log_moved + log_sizes))


def log_distance(array: Array, log_scale: float, exact: tuple[Decimal, ...]) -> float:
    """log ||array e^{log_scale} - exact||."""
    with localcontext(Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN)):
        scale = Decimal(log_scale).exp()
        square = sum((Decimal(x) * scale - y) ** 2 for x, y in zip(array.tolist(), exact, strict=True))
        return float(square.ln() / 2) if square else -math.inf


# ------------------------------------------------------------------------------------------------- first derivatives


@given(attention_problems(), NORMS)
def test_loss_outputs_and_first_factor_at_any_norm(problem: AttentionProblem, norm: float) -> None:
    problem = problem.scaled(norm)
    model, data = as_model(problem)
    sums = token_sums(data, model.token_scores, model.token_values)
    textbook = reference.attention_gradients(*problem.arguments)
    tolerance = 8 * rounding(problem) * (1 + np.abs(model.token_values).max())
    assert_allclose(sums.output, reference.attention_output(*problem.arguments[:4]), rtol=0, atol=tolerance)
    assert_allclose(sums.loss, reference.attention_loss(*problem.arguments), rtol=0, atol=tolerance)
    assert_allclose(sums.A, textbook.A, rtol=0, atol=tolerance)
    assert abs(sums.scaled_B.sum()) <= 1e-13 * np.abs(sums.scaled_B).sum() + 1e-300
    absent = data.frequency == 0
    assert_array_equal(sums.A[absent], 0)
    assert_array_equal(sums.B[absent], 0)


@given(attention_problems(), st.floats(0, 3))
def test_gradients_at_moderate_norms(problem: AttentionProblem, norm: float) -> None:
    problem = problem.scaled(norm)
    model, data = as_model(problem)
    loss, grads = model.loss_and_grads(data)
    textbook = reference.attention_gradients(*problem.arguments)
    size = (1 + np.abs(model.E).max()) * (1 + np.abs(model.token_values).max())
    for name in ("p", "v", "E"):
        found, expected = getattr(grads, name), getattr(textbook, name)
        assert np.linalg.norm(found - expected) <= 2e-13 * size**2, name
    assert loss == model.loss(data)
    assert_allclose(
        grads.E,
        -(np.outer(grads.E_factors[0], model.v) + np.outer(grads.E_factors[1], model.p)),
        rtol=1e-13,
        atol=1e-15 * size,
    )
    assert_allclose(grads.p, grads.scaled_p * np.exp(grads.log_scale), rtol=1e-13, atol=1e-300)


@given(attention_problems(), NORMS)
def test_gradient_in_p_of_any_problem_in_many_digits(problem: AttentionProblem, norm: float) -> None:
    """Ties, equal values, parallel embeddings, cancelling sequences: relative to the terms that cancel."""
    problem = problem.scaled(norm)
    model, data = as_model(problem)
    grads = model.loss_and_grads(data)[1]
    exact = reference.precise_gradient_p(*problem.arguments)
    allowed = math.log(1e-12 + 8 * rounding(problem)) + log_terms(problem)
    assert log_distance(grads.scaled_p, grads.log_scale, exact.values) <= allowed


@pytest.mark.parametrize("values", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("norm", [1e-3, 0.1, 1.0, 3.0, 10.0, 18.0, 30.0, 100.0, 1e3])
def test_gradient_in_p_is_right_to_ten_digits(norm: float, values: float) -> None:
    errors, textbook = [], []
    for seed in range(2):
        problem = gaussian_problem(seed, norm, values=values, repeats=1000)
        model, data = as_model(problem)
        grads = model.loss_and_grads(data)[1]
        exact = reference.precise_gradient_p(*problem.arguments)
        errors.append(exact.relative_error(grads.scaled_p, grads.log_scale))
        textbook.append(exact.relative_error(reference.attention_gradients(*problem.arguments).p))
        if exact.log_norm > -690:
            assert exact.relative_error(grads.p) <= 1e-10
        else:
            # float64 has lost it, the scaled form has not
            assert np.linalg.norm(grads.p) < 1e-299
    assert max(errors) <= 1e-11
    if norm >= 100:
        assert max(textbook) > 1e-3


def test_the_oracle_is_not_blind() -> None:
    problem = gaussian_problem(0, 300.0)
    model, data = as_model(problem)
    grads = model.loss_and_grads(data)[1]
    exact = reference.precise_gradient_p(*problem.arguments)
    assert 0.9e-9 < exact.relative_error((1 + 1e-9) * grads.scaled_p, grads.log_scale) < 1.1e-9


# ---------------------------------------------------------------------------------------- the forms of the same sums


def random_scores(rng: np.random.Generator) -> tuple[TokenDataset, Array, Array]:
    """Counts up to a million, scores over up to 500, and values of very different sizes, offsets and signs."""
    V, n = int(rng.integers(2, 9)), int(rng.integers(2, 6))
    counts = np.zeros((n, V))
    for row in counts:
        np.add.at(row, rng.integers(0, V, rng.integers(1, 6)), rng.choice([1, 1, 2, 30, 1000, 10**6]))
    u = 10 ** rng.uniform(-3, 2.5) * rng.standard_normal(V)
    g = 10 ** rng.uniform(-3, 2.5) * rng.standard_normal(V)
    kind = rng.integers(5)
    if kind == 0:
        g[rng.integers(V)] *= 10 ** rng.uniform(0, 6)
    elif kind == 1:
        g += 10 ** rng.uniform(0, 6) * rng.choice([-1, 1], V)
    elif kind == 2:
        g, u = np.round(g), np.round(u)
    return TokenDataset.from_counts(counts, np.where(np.arange(n) % 2 == 0, 1, -1)), u, g


@given(generators())
def test_all_forms_agree_along_a_path(rng: np.random.Generator) -> None:
    """The cheap forms, kept anchors among them, against the form that has its own anchors in every row."""
    data, u, g = random_scores(rng)
    kept = TokenPasses(data)
    for step in range(4):
        fresh, followed, rows = token_sums(data, u, g), kept.sums(u, g), AnchoredPass(data, u, g)
        terms = np.abs(rows.slope).sum()
        for sums in (fresh, followed):
            difference = sums.scaled_B * np.exp(sums.log_scale - rows.log_scale) - rows.scaled_B
            assert np.abs(difference).sum() <= 1e-10 * terms, step
            assert_allclose(sums.output, rows.output, rtol=0, atol=2e-14 * np.abs(g).max())
            assert_allclose(sums.loss, rows.sums.loss, rtol=1e-12, atol=1e-300)
            weight = np.exp(rows._log_weight).sum()
            assert np.abs(sums.A - rows.sums.A).sum() <= 1e-13 * weight * (1 + np.abs(rows.margins).max())
        u = u + rng.uniform(0, 1) * np.abs(u).max() * rng.standard_normal(u.size)
        g = g if step < 2 else g[::-1].copy()  # other values, other anchors


def used(monkeypatch: pytest.MonkeyPatch, data: TokenDataset, u: Array, g: Array) -> str:
    """Which form answers."""
    calls: list[str] = []
    for name, owner in (("_plain_sums", passes), ("sums", passes._AnchoredCounts), ("sums", passes.AnchoredPass)):
        original = owner.__dict__[name]
        label = getattr(owner, "__name__", name).rsplit(".", 1)[-1]
        if isinstance(original, property):
            spy: Any = property(lambda self, f=original.fget, label=label: calls.append(label) or f(self))
        else:
            spy = lambda *args, f=original, label=label: calls.append(label) or f(*args)  # noqa: E731
        monkeypatch.setattr(owner, name, spy)
    token_sums(data, u, g)
    monkeypatch.undo()
    return calls[-1]


@pytest.mark.parametrize("count", [1, 1000])
def test_the_forms_take_turns_without_losing_digits(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """One sequence saturates more and more; in closed form B = c a_0 a_1 (g_0 - g_1) (1, -1)."""
    data = TokenDataset.from_tokens([[0] * count + [1], [2]], [1, -1])
    forms = []
    for gap in [*np.arange(-math.log(count), 40.0, 0.5), 100.0, 500.0, 590.0, 620.0, 2000.0]:
        u, g = np.array([gap, 0.0, 0.0]), np.array([1.0, -1.0, 0.3])
        sums = token_sums(data, u, g)
        # c a_0 (1 - a_0) (g_0 - g_1), with 1 - a_0 = 1 / (1 + count e^gap)
        log_rest = -math.log(count) - gap - math.log1p(math.exp(-gap) / count)
        log_a = math.log(count) + gap + log_rest
        f = 1 - 2 * math.exp(log_rest)
        log_B = log_expit(-f) - math.log(2) + log_rest + log_a + math.log(2)
        assert_allclose(sums.scaled_B[0] * math.exp(sums.log_scale - log_B), 1, rtol=1e-12 + 1e-15 * gap)
        assert_allclose(sums.scaled_B[1], -sums.scaled_B[0], rtol=1e-12)
        forms.append(used(monkeypatch, data, u, g))
    # plain first, then anchors, then row by row
    order = ["passes", "_AnchoredCounts", "AnchoredPass"]
    assert forms == sorted(forms, key=order.index)
    assert set(forms) == set(order)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
def test_large_values_elsewhere_do_no_harm(size: float) -> None:
    """A token of huge value that is absent, or alone in its sequence, and values with a common offset."""
    E, p = np.eye(3), np.array([9.0, 0.0, 0.0])
    v = np.array([1.0, -1.0, size])
    offset = AttentionProblem(
        np.array([[size, 1.0], [size + 1, 0.0], [-size, 0.0], [-size - 1, 3.0]]),
        np.array([0.0, 9.0]),
        np.array([-1.0, 0.0]),
        [[0, 1], [2, 3]],
        [1, -1],
    )
    for problem in (
        AttentionProblem(E, p, v, [[0, 1], [0, 1, 1]], [1, -1]),
        AttentionProblem(E, p, v, [[0, 1], [0, 1, 1], [2]], [1, -1, -1]),
        offset,
    ):
        model, data = as_model(problem)
        grads = model.loss_and_grads(data)[1]
        exact = reference.precise_gradient_p(*problem.arguments)
        assert exact.relative_error(grads.scaled_p, grads.log_scale) <= 1e-15 * (10 + size)
        plain = passes._plain_sums(data, model.token_scores, model.token_values)
        assert exact.relative_error(-(model.E.T @ plain.B)) > 1e-15 * (10 + size)


def test_the_most_probable_token_is_the_anchor_not_the_highest_score() -> None:
    counts = np.array([[1, 1e12, 1], [1, 2, 1e12]])
    data, u, g = TokenDataset.from_counts(counts, [1, -1]), np.array([0.1, 0.0, -0.5]), np.array([1.0, -1.0, -0.5])
    sums, rows = token_sums(data, u, g), AnchoredPass(data, u, g)
    assert_allclose(sums.B, rows.sums.B, rtol=1e-14)
    # B_0 in closed form, to first order in 1e-12
    a = np.array([math.exp(0.1), math.exp(0.6)]) * 1e-12
    c = np.array([1 / (1 + math.exp(-1.0)), -1 / (1 + math.exp(0.5))]) / 2
    assert_allclose(rows.sums.B[0], c[0] * a[0] * 2 + c[1] * a[1] * 1.5, rtol=1e-11)


def test_not_a_number_comes_out_as_such() -> None:
    data = TokenDataset.from_tokens([[0, 1], [1, 2], [2]], [1, -1, 1])
    for u, g in ((np.array([np.nan, 0.0, 1.0]), np.arange(3.0)), (np.arange(3.0), np.array([np.nan, 0.0, 1.0]))):
        for sums in (token_sums(data, u, g), AnchoredPass(data, u, g).sums):
            assert np.isnan(sums.loss)


# ------------------------------------------------------------------------------------------------------- the Hessian


@given(attention_problems(), st.floats(0, 3))
def test_hessian_by_definition(problem: AttentionProblem, norm: float) -> None:
    problem = problem.scaled(norm)
    model, data = as_model(problem)
    hessian = model.hessian_p(data)
    size = (1 + np.abs(model.E).max()) ** 2 * (1 + np.abs(model.token_values).max()) ** 2
    assert np.linalg.norm(hessian - reference.attention_hessian_p(*problem.arguments)) <= 1e-13 * size
    assert_array_equal(hessian, hessian.T)
    for x in np.eye(model.dim):
        assert_allclose(model.hessian_vector_p(data, x), hessian @ x, rtol=0, atol=1e-13 * size)


@pytest.mark.parametrize("norm", [1e-3, 1.0, 10.0, 30.0, 100.0, 1e3])
def test_hessian_in_many_digits(norm: float) -> None:
    textbook = []
    for seed in range(3):
        problem = gaussian_problem(seed, norm, repeats=1000)
        model, data = as_model(problem)
        x = np.random.default_rng(seed).standard_normal(model.dim)
        exact = reference.precise_hessian_vector_p(*problem.arguments, x)
        rows = AnchoredPass(data, model.token_scores, model.token_values)
        assert exact.relative_error(rows.scaled_hessian(model.E) @ x, rows.log_scale) <= 1e-10
        assert exact.relative_error(rows.scaled_hessian_vector(model.E, x), rows.log_scale) <= 1e-10
        textbook.append(exact.relative_error(reference.attention_hessian_p(*problem.arguments) @ x))
        if exact.log_norm > -690:
            assert exact.relative_error(model.hessian_p(data) @ x) <= 1e-10
    if norm >= 100:
        assert max(textbook) > 1e-3


def test_a_common_offset_of_the_embeddings_does_not_cancel() -> None:
    # without centring, the offset enters as its square and leaves an error of 1e-7
    problem = gaussian_problem(0, 1.0)
    problem = dataclasses.replace(problem, E=problem.E + 1e4 * np.array([1.0, -1.0, 1.0, 2.0]))
    model, data = as_model(problem)
    x = np.random.default_rng(0).standard_normal(model.dim)
    exact = reference.precise_hessian_vector_p(*problem.arguments, x)
    assert exact.relative_error(model.hessian_p(data) @ x) <= 1e-10
    assert exact.relative_error(model.hessian_vector_p(data, x)) <= 1e-10


def test_sequences_of_vanishing_weight_leave_the_hessian_finite() -> None:
    # margins of about 1800: sigma(-y f) is e^-1800 there, and 0 * inf waits
    problem = gaussian_problem(0, 1.0, values=2000.0)
    model, data = as_model(problem)
    exact = reference.precise_hessian_vector_p(*problem.arguments, np.ones(4))
    assert exact.relative_error(model.hessian_p(data) @ np.ones(4)) <= 1e-13
    assert exact.relative_error(model.hessian_vector_p(data, np.ones(4))) <= 1e-13


@given(attention_problems(), NORMS)
def test_both_forms_of_the_hessian_agree(problem: AttentionProblem, norm: float) -> None:
    model, data = as_model(problem.scaled(norm))
    rows = AnchoredPass(data, model.token_scores, model.token_values)
    hessian = rows.scaled_hessian(model.E)
    size = np.abs(rows.slope).sum() * (1 + np.abs(model.E).max()) ** 2 * (1 + np.abs(model.token_values).max())
    for x in np.eye(model.dim):
        assert_allclose(rows.scaled_hessian_vector(model.E, x), hessian @ x, rtol=0, atol=1e-12 * size + 1e-300)


# ------------------------------------------------------------------------------------------------------ the loss gap


def gap_of(problem: AttentionProblem) -> float:
    model, data = as_model(problem)
    top, _, gamma, _ = top_tokens(data, model.token_values)
    return loss_gap(data, model.token_values, top, gamma, model.attention(data).data)


@given(attention_problems(scale=20.0), NORMS)
def test_loss_gap_in_many_digits(problem: AttentionProblem, norm: float) -> None:
    problem = problem.scaled(norm)
    exact = float(reference.precise_loss_gap(*problem.arguments))
    # values that are equal but for rounding make a gap of their own
    noise = 8 * EPS * float((np.abs(problem.E) @ np.abs(problem.v)).max())
    assert_allclose(gap_of(problem), exact, rtol=1e-13 + 8 * rounding(problem), atol=noise + 1e-300)


@pytest.mark.parametrize("norm", [1.0, 10.0, 30.0, 100.0])
def test_loss_gap_does_not_cancel(norm: float) -> None:
    rng = np.random.default_rng(0)
    E, v = np.eye(6), np.array([1.0, 0.5, -1.0, -0.4, 0.1, 0.2])
    p = np.array([1.0, 0.4, 1.0, 0.3, 0.1, -0.2]) + 0.1 * rng.random(6)
    problem = AttentionProblem(E, p, v, [[0, 1, 4], [2, 3, 5], [0, 5]], [1, -1, 1]).scaled(norm)
    exact = float(reference.precise_loss_gap(*problem.arguments))
    assert_allclose(gap_of(problem), exact, rtol=1e-13)
    best = np.logaddexp(0, -np.array([1.0, 1.0, 1.0])).mean()
    difference = float(reference.attention_loss(*problem.arguments)) - best
    if norm == 100:
        assert abs(difference - exact) > 0.1 * exact


# -------------------------------------------------------------------------------------------------- single precision


@given(attention_problems(), st.floats(0, 10))
def test_single_precision_keeps_its_digits(problem: AttentionProblem, norm: float) -> None:
    problem = problem.scaled(norm)
    arrays = [array.astype(np.float32) for array in problem.arguments[:3]]
    data = TokenDataset.from_tokens(problem.tokens, problem.labels, vocab_size=len(problem.E))
    single, double = AttentionModel(*arrays), AttentionModel(*(array.astype(np.float64) for array in arrays))
    (loss, grads), (loss_double, exact) = single.loss_and_grads(data), double.loss_and_grads(data)
    size = (1 + np.abs(single.E).max()) * (1 + np.abs(double.token_values).max()) * (1 + norm)
    for name in ("E", "p", "v"):
        found = getattr(grads, name)
        assert found.dtype == np.float32
        assert np.linalg.norm(found - getattr(exact, name)) <= 2e-6 * size**2
    assert all(factor.dtype == np.float32 for factor in grads.E_factors)
    assert_allclose(loss, loss_double, rtol=0, atol=2e-6 * size)
    assert_allclose(single.hessian_p(data), double.hessian_p(data), rtol=0, atol=5e-6 * size**3)


@pytest.mark.parametrize("norm", [30.0, 300.0])
def test_single_precision_where_attention_saturates(norm: float) -> None:
    problem = gaussian_problem(0, norm)
    single = AttentionModel(*(array.astype(np.float32) for array in problem.arguments[:3]))
    data = TokenDataset.from_tokens(problem.tokens, problem.labels, vocab_size=7)
    grads = single.loss_and_grads(data)[1]
    exact = reference.precise_gradient_p(single.E, single.p, single.v, problem.tokens, problem.labels)
    assert exact.relative_error(grads.scaled_p, grads.log_scale) <= 1e-6 * norm


# ---------------------------------------------------------------------------------------------------- parts of the sums


@given(attention_problems(), NORMS)
def test_outputs_alone_are_those_of_the_sums(problem: AttentionProblem, norm: float) -> None:
    problem = problem.scaled(norm)
    model, data = as_model(problem)
    u, g = model.token_scores, model.token_values
    sums, (loss, output) = token_sums(data, u, g), passes.token_outputs(data, u, g)
    tolerance = 8 * rounding(problem) * (1 + np.abs(g).max())
    assert_allclose(output, sums.output, rtol=0, atol=tolerance)
    assert_allclose(loss, sums.loss, rtol=0, atol=tolerance)


@given(attention_problems(), NORMS)
def test_sums_without_scores_are_those_of_scores_that_are_zero(problem: AttentionProblem, norm: float) -> None:
    model, data = as_model(problem)
    g = norm * model.token_values
    sums, uniform = token_sums(data, np.zeros_like(g), g), passes.uniform_sums(data, g)
    size = 32 * EPS * (1 + np.abs(g).max())
    assert_allclose(uniform.output, sums.output, rtol=0, atol=size)
    assert_allclose(uniform.loss, sums.loss, rtol=0, atol=size)
    assert_allclose(uniform.A, sums.A, rtol=0, atol=size)
