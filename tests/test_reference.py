"""The oracles against hand-worked values, identities and slower arithmetic."""

from __future__ import annotations

import math
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp, softmax

from attnembed import reference as ref
from attnembed.errors import InputError
from attnembed.testing import grid_potentials, potentials, reals
from tests.plain import AttentionProblem, attention_problems, balanced_problems


def example(norm: float) -> AttentionProblem:
    """A fixed problem in which some sequences come to attend to the wrong token."""
    rng = np.random.default_rng(3)
    tokens = [[0, 1, 2, 2], [3, 4, 1], [5, 6, 7, 0], [2, 5]]
    problem = AttentionProblem(rng.normal(size=(8, 5)), rng.normal(size=5), rng.normal(size=5), tokens, [1, -1, 1, -1])
    return problem.scaled(norm)


def term_size(problem: AttentionProblem) -> float:
    """The size of the terms that make up the gradients: what their rounding error is relative to."""
    return float((1 + np.abs(problem.E @ problem.v).max()) * (np.abs(problem.E).max() + np.abs(problem.v).max() + 1))


def complex_step(function, x):
    """Derivative of a function of an array by Im f(x + i h e_j) / h, one row per entry of x."""
    rows = []
    for j in range(x.size):
        point = x.astype(complex)
        point.flat[j] += 1e-30j
        rows.append(np.imag(function(point)) / 1e-30)
    return np.array(rows).reshape(x.shape + np.shape(rows[0]))


# --------------------------------------------------------------------------------------- attention by definition


def test_output_of_a_hand_worked_sequence():
    # Scores 0 and log 3, so the weights are 1/4 and 3/4; a token that occurs twice counts twice: 2/5 and 3/5.
    E, p, v = [[0.0, 8.0], [1.0, 4.0]], [math.log(3), 0.0], [0.0, 1.0]
    assert_allclose(ref.attention_output(E, p, v, [[0, 1], [1, 0, 0]]), [5.0, 5.6], rtol=1e-15)
    assert_allclose(ref.attention_weights(E, p, [[0, 1], [1, 0, 0]]), [[0.25, 0.75], [0.4, 0.6]], rtol=1e-15)
    loss = (math.log1p(math.exp(-5)) + math.log1p(math.exp(5.6))) / 2
    assert_allclose(ref.attention_loss(E, p, v, [[0, 1], [1, 0, 0]], [1, -1]), loss, rtol=1e-15)


def test_large_scores_and_margins_do_not_overflow():
    # All scores near -2000, and margins of -1000 and 1000.
    E, p, v, tokens = [[1.0, 0.0], [1.0, 1.0]], [-2000.0, math.log(3)], [0.0, 4000 / 3], [[0, 1], [1, 0]]
    assert_allclose(ref.attention_output(E, p, v, tokens), [1000.0, 1000.0], rtol=1e-13)
    assert_allclose(ref.attention_loss(E, p, v, tokens, [-1, 1]), 500.0, rtol=1e-13)
    assert np.isfinite(np.concatenate(ref.attention_gradients(E, p, v, tokens, [-1, 1])[1:])).all()


@given(attention_problems())
def test_output_depends_on_the_counts_alone(problem):
    E, p, v, tokens, _ = problem.arguments
    output = ref.attention_output(E, p, v, tokens)
    sorted_output = ref.attention_output(E, p, v, ref.tokens_from_counts(problem.counts))
    weights = ref.attention_weights(E, p, tokens)
    assert_allclose(sorted_output, output, rtol=0, atol=1e-14 * term_size(problem))
    assert_allclose(weights @ (E @ v), output, rtol=0, atol=1e-14 * term_size(problem))
    assert_allclose(weights.sum(axis=1), 1, rtol=1e-14)
    assert_array_equal(weights > 0, problem.counts > 0)


@given(attention_problems())
def test_gradients_agree_with_complex_steps_of_the_loss(problem):
    E, p, v, tokens, labels = problem.arguments
    gradients = ref.attention_gradients(*problem.arguments)
    steps = {
        "E": complex_step(lambda E: ref.attention_loss(E, p, v, tokens, labels), E),
        "p": complex_step(lambda p: ref.attention_loss(E, p, v, tokens, labels), p),
        "v": complex_step(lambda v: ref.attention_loss(E, p, v, tokens, labels), v),
    }
    for name, step in steps.items():
        assert np.linalg.norm(getattr(gradients, name) - step) <= 1e-13 * term_size(problem), name
    assert_allclose(gradients.B.sum(), 0, rtol=0, atol=1e-14 * term_size(problem))


@given(attention_problems())
def test_hessian_agrees_with_complex_steps_of_the_gradient(problem):
    E, p, v, tokens, labels = problem.arguments
    step = complex_step(lambda p: ref.attention_gradients(E, p, v, tokens, labels).p, p)
    hessian = ref.attention_hessian_p(*problem.arguments)
    assert np.linalg.norm(hessian - step) <= 1e-13 * term_size(problem) ** 2
    assert_allclose(hessian, hessian.T, rtol=0, atol=1e-14 * term_size(problem) ** 2)


@pytest.mark.parametrize("name", ["E", "p", "v"])
def test_the_complex_step_sees_a_gradient_that_is_wrong_by_a_tenth_of_a_percent(name):
    problem = example(2.0)
    E, p, v, tokens, labels = problem.arguments
    arguments = {"E": E, "p": p, "v": v}
    step = complex_step(
        lambda x: ref.attention_loss(**{**arguments, name: x}, tokens=tokens, labels=labels), arguments[name]
    )
    right = getattr(ref.attention_gradients(*problem.arguments), name)
    assert np.linalg.norm(right - step) <= 1e-14 * np.linalg.norm(step)
    assert np.linalg.norm(1.001 * right - step) > 0.9e-3 * np.linalg.norm(step)


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1))
def test_tokens_from_counts_have_these_counts(counts):
    assert [[s.count(k) for k in range(3)] for s in ref.tokens_from_counts(counts)] == counts


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[0], []], "an empty sequence at index 1"),
        ([[0], [1, -1]], r"ids in 0\.\.1; got \[1, -1\] at index 1"),
        ([[2]], r"ids in 0\.\.1"),
    ],
)
def test_bad_sequences_are_named(tokens, message):
    with pytest.raises(InputError, match=message):
        ref.attention_output(np.eye(2), np.zeros(2), np.ones(2), tokens)


def test_sequences_and_labels_must_pair_up():
    with pytest.raises(ValueError, match="zip"):
        ref.attention_gradients(np.eye(2), np.zeros(2), np.ones(2), [[0], [1]], [1])


# --------------------------------------------------------------------------------------- attention in many digits


def textbook(problem: AttentionProblem, digits: int):
    """The textbook formulas for grad_p L, L - L* and log a_is, with so many digits and no care for cancellation."""
    with localcontext(Context(prec=digits, Emax=MAX_EMAX, Emin=MIN_EMIN)):
        E, p, v = ([[Decimal(x) for x in row] for row in np.atleast_2d(a).tolist()] for a in problem.arguments[:3])
        u = [sum(a * b for a, b in zip(row, p[0], strict=True)) for row in E]
        g = [sum(a * b for a, b in zip(row, v[0], strict=True)) for row in E]
        n, gradient, gap = len(problem.tokens), [Decimal(0)] * len(p[0]), Decimal(0)
        log_attention = np.full((n, len(E)), -np.inf)
        for i, (sequence, y) in enumerate(zip(problem.tokens, problem.labels, strict=True)):
            weights = [u[s].exp() for s in sequence]
            total = sum(weights)
            f = sum(w * g[s] for w, s in zip(weights, sequence, strict=True)) / total
            c = y / (1 + (y * f).exp()) / n
            for w, s in zip(weights, sequence, strict=True):
                gradient = [x - c * w / total * (g[s] - f) * e for x, e in zip(gradient, E[s], strict=True)]
                log_attention[i, s] = (sequence.count(s) * w / total).ln()
            best = max(y * g[s] for s in sequence)
            gap += ((1 + (-y * f).exp()).ln() - (1 + (-best).exp()).ln()) / n
        return gradient, gap, log_attention


def decimal_error(measured, exact):
    """||measured - exact|| / ||exact|| of two sequences of decimals."""
    with localcontext(Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN)):
        difference = sum((a - b) ** 2 for a, b in zip(measured, exact, strict=True)).sqrt()
        return float(difference / sum(b * b for b in exact).sqrt())


@pytest.mark.parametrize(("norm", "digits"), [(0.0, 60), (1e-3, 60), (10.0, 120), (300.0, 900)])
def test_precise_values_agree_with_the_textbook_in_enough_digits(norm, digits):
    problem = example(norm)
    gradient, gap, log_attention = textbook(problem, digits)
    precise = ref.precise_gradient_p(*problem.arguments)
    assert decimal_error(precise.values, gradient) < 1e-28
    assert decimal_error([ref.precise_loss_gap(*problem.arguments)], [gap]) < 1e-28
    assert_allclose(ref.precise_log_attention(*problem.arguments[:2], problem.tokens), log_attention, rtol=1e-15)
    # the same, read as floats on a logarithmic scale; log_norm itself is rounded
    with localcontext(Context(prec=30, Emin=MIN_EMIN)):
        assert_allclose(precise.log_norm, float(sum(x * x for x in gradient).ln() / 2), rtol=1e-15, atol=1e-15)
    assert precise.relative_error(precise.unit, precise.log_norm) < 1e-15 * (1 + abs(precise.log_norm))


def test_too_few_digits_are_worthless_at_a_large_norm():
    gradient = textbook(example(1e3), 60)[0]
    precise = ref.precise_gradient_p(*example(1e3).arguments)
    assert decimal_error(gradient, precise.values) > 0.5
    # float64 is lost long before that
    errors = {
        norm: ref.precise_gradient_p(*example(norm).arguments).relative_error(
            ref.attention_gradients(*example(norm).arguments).p
        )
        for norm in (1.0, 300.0)
    }
    assert errors[1.0] < 1e-14, errors
    assert errors[300.0] > 1e-2, errors


@given(attention_problems(), st.sampled_from([0.0, 1e-3, 1.0]))
def test_precise_values_agree_with_float64_where_it_has_digits(problem, norm):
    problem = problem.scaled(norm)
    gradient = ref.precise_gradient_p(*problem.arguments)
    textbook = ref.attention_gradients(*problem.arguments).p
    assert np.linalg.norm([float(x) for x in gradient.values] - textbook) <= 1e-14 * term_size(problem)
    weights = ref.attention_weights(*problem.arguments[:2], problem.tokens)
    log_attention = ref.precise_log_attention(*problem.arguments[:2], problem.tokens)
    assert_allclose(np.exp(log_attention), weights, rtol=1e-13)
    x = np.arange(1.0, 1 + len(problem.p))
    product = ref.precise_hessian_vector_p(*problem.arguments, x)
    naive = ref.attention_hessian_p(*problem.arguments) @ x
    size = term_size(problem) ** 2 * np.linalg.norm(x)
    assert np.linalg.norm([float(x) for x in product.values] - naive) <= 1e-14 * size


@given(attention_problems(), st.sampled_from([0.0, 1.0, 1e3]))
def test_the_loss_gap_is_loss_minus_the_loss_at_the_top_tokens(problem, norm):
    problem = problem.scaled(norm)
    g = problem.E @ problem.v
    best = [max(y * g[s] for s in sequence) for sequence, y in zip(problem.tokens, problem.labels, strict=True)]
    gap = ref.precise_loss_gap(*problem.arguments)
    expected = ref.attention_loss(*problem.arguments) - np.logaddexp(0, -np.array(best)).mean()
    assert gap >= 0
    assert_allclose(float(gap), expected, rtol=0, atol=1e-14 * term_size(problem))


@given(
    st.lists(reals(), min_size=6, max_size=6),
    st.sampled_from([1, -1]),
    st.sampled_from([1e-2, 1.0, 1e2, 1e4, 1e7]),
)
def test_two_tokens_have_a_closed_form_at_any_norm(numbers, label, norm):
    # One sequence {0, 1}: grad_p L = -y sigma(-y f) a_0 a_1 (g_0 - g_1) (E_0 - E_1), and a_0 a_1 = 1/(2 + 2 cosh(gap)).
    E, direction = np.reshape(numbers[:4], (2, 2)), np.array(numbers[4:])
    p, v = norm * direction, np.array([1.0, -0.5])
    gap = abs(float((E[0] - E[1]) @ p))
    values = E @ v
    if (E[0] == E[1]).all() or values[0] == values[1]:
        zero = ref.precise_gradient_p(E, p, v, [[0, 1]], [label])
        assert zero.log_norm == -math.inf
        assert zero.relative_error([0.0, 0.0]) == 0.0
        assert zero.relative_error([1e-300, 0.0]) == math.inf
        return
    f = ref.attention_output(E, p, v, [[0, 1]])[0]
    log_size = -np.logaddexp(0, label * f) - gap - 2 * np.log1p(np.exp(-gap))
    vector = -label * (values[0] - values[1]) * (E[0] - E[1])
    gradient = ref.precise_gradient_p(E, p, v, [[0, 1]], [label])
    # the scores are rounded in float64, and e^{-gap} turns their absolute error into a relative one
    rounding = 1e-15 * (10 + np.abs(E).sum() * np.abs(p).sum() + 1 / abs(values[0] - values[1]))
    assert gradient.relative_error(vector, log_size) <= rounding
    assert gradient.relative_error(-vector, log_size) > 1


@pytest.mark.parametrize("norm", [1.0, 30.0, 500.0])
def test_the_precise_hessian_is_the_derivative_of_the_precise_gradient(norm):
    E, p, v, tokens, labels = example(norm).arguments
    x = np.array([1.0, -2.0, 0.5, 0.0, 1.0])
    p = np.round(p * 2**30) / 2**30  # so that p + h x is exact
    step = 2.0**-20
    ahead, behind = (ref.precise_gradient_p(E, p + h * x, v, tokens, labels).values for h in (step, -step))
    difference = [(a - b) / Decimal(2 * step) for a, b in zip(ahead, behind, strict=True)]
    product = ref.precise_hessian_vector_p(E, p, v, tokens, labels, x)
    assert decimal_error(product.values, difference) < 1e-9
    other = ref.precise_hessian_vector_p(E, p, v, tokens, labels, 1.001 * x)
    assert decimal_error(other.values, difference) > 0.9e-3


@pytest.mark.parametrize(("winner", "norm"), [(0, 1e4), (1, 1e4), (0, 1e7), (1, 1e7)])
def test_the_loss_gap_of_two_tokens_at_a_huge_norm(winner, norm):
    # Label +1 and values 1 and -1: the gap is a_1 (g_0 - g_1) sigma(-g_0) where token 0 wins, l(-1) - l(1) = 1 else.
    E, v = [[1.0, 1.0], [-1.0, 1.0]], [1.0, 0.0]
    gap = ref.precise_loss_gap(E, [norm * (1 - 2 * winner), 0.0], v, [[0, 1]], [1])
    log_gap = -2 * norm + math.log(2) - math.log1p(math.e) if winner == 0 else 0.0
    assert_allclose(float(gap.ln()), log_gap, rtol=1e-15, atol=1e-15)


def test_tokens_of_equal_score_and_value_leave_their_loser_visible():
    # Three tokens share the attention and the value c = 0.525; f = c - 2 c a_3 with a_3 = e^{-norm} / 9, so that only
    # the loser moves f, however small a_3. With f rounded to any number of digits, g_s - f would hide it.
    E, norm = np.array([[1.0, 0.75, 0.0], [1.0, 0.75, 1.0], [1.0, 0.75, -0.7], [0.0, -0.75, 0.0]]), 1e4
    gradient = ref.precise_gradient_p(E, [norm, 0.0, 0.0], [0.0, 0.7, 0.0], [[0] * 5 + [1] * 3 + [2, 3]], [1])
    vector = 2 * 0.525 * (E[3] - np.array([5, 3, 1]) @ E[:3] / 9)
    assert gradient.relative_error(vector, -norm - math.log(9) - math.log1p(math.exp(0.525))) < 1e-11


def test_a_gradient_that_is_zero_by_cancellation_is_zero():
    # Equal sequences of opposite labels, a third of the attention on each token, and a value of zero on average.
    E = [[1.0, 0.3], [-2.0, -0.6]]
    gradient = ref.precise_gradient_p(E, [0.0, 0.0], [1.0, 0.0], [[0, 0, 1]] * 2, [1, -1])
    assert gradient.log_norm == -math.inf
    assert_array_equal(gradient.unit, [0.0, 0.0])
    # one that is only almost zero is not: here 300 digits cancel
    almost = AttentionProblem(np.array(E), np.array([0, 1e-300]), np.array([1.0, 0]), [[0, 0, 1]] * 2, [1, -1])
    values = ref.precise_gradient_p(*almost.arguments).values
    assert 0 < max(abs(x) for x in values) < Decimal("1e-299")
    assert decimal_error(values, textbook(almost, 700)[0]) < 1e-28


def test_relative_error_is_relative_to_the_exact_vector():
    exact = ref.PreciseVector.of([Decimal("3e-5000"), Decimal("4e-5000")])
    log_scale = -5000 * math.log(10)
    assert_allclose(exact.unit, [0.6, 0.8], rtol=1e-15)
    assert_allclose(exact.log_norm, math.log(5) + log_scale, rtol=1e-15)
    assert_allclose(exact.relative_error([3.0, 4.5], log_scale), 0.1, rtol=1e-10)
    assert_allclose(exact.relative_error([-3.0, -4.0], log_scale), 2.0, rtol=1e-10)
    assert exact.relative_error([0.0, 0.0]) == 1.0
    assert exact.relative_error([np.nan, 4.0], log_scale) == math.inf
    with pytest.raises(ValueError, match="read-only"):
        exact.unit[0] = 1


# --------------------------------------------------------------------------------------- chains and grids


def test_a_hand_worked_chain():
    # Scores of 00, 01, 10, 11: 1 + 0 + 2, 1 + 3 - 1, 0 + 0 + 5, 0 + 3 + 1.
    chain = ref.enumerate_chain([[1.0, 0.0], [0.0, 3.0]], [[2.0, -1.0], [5.0, 1.0]])
    Z = math.exp(3) + math.exp(3) + math.exp(5) + math.exp(4)
    assert_allclose(chain.log_partition, math.log(Z), rtol=1e-15)
    assert_allclose(chain.edge[0] * Z, np.exp([[3, 3], [5, 4]]), rtol=1e-14)
    assert_allclose(chain.node[0] * Z, [2 * math.exp(3), math.exp(5) + math.exp(4)], rtol=1e-14)
    assert (chain.labeling.tolist(), chain.score) == ([1, 0], 5.0)


@given(potentials())
def test_the_partition_function_is_a_product_of_matrices(potentials):
    unary, pairwise = potentials
    message = unary[0]
    for row in unary[1:]:
        message = logsumexp(message[:, None] + pairwise, axis=0) + row
    chain = ref.enumerate_chain(unary, pairwise)
    assert_allclose(chain.log_partition, logsumexp(message), rtol=1e-13, atol=1e-13)
    reversed_chain = ref.enumerate_chain(unary[::-1], pairwise.T)
    assert_allclose(reversed_chain.node[::-1], chain.node, rtol=1e-12)
    assert_allclose(reversed_chain.score, chain.score, rtol=1e-15)


@given(potentials(length=(2, 4), n_labels=(2, 3)))
def test_marginals_are_consistent_and_the_gradient_of_the_log_partition(potentials):
    unary, pairwise = potentials
    chain = ref.enumerate_chain(unary, pairwise)
    assert_allclose(chain.edge.sum(axis=2), chain.node[:-1], rtol=1e-12)
    assert_allclose(chain.edge.sum(axis=1), chain.node[1:], rtol=1e-12)
    assert_allclose(chain.node.sum(axis=1), 1, rtol=1e-12)

    def derivative(U, W):
        ends = (ref.enumerate_chain(unary + h * U, pairwise + h * W).log_partition for h in (1e-4, -1e-4))
        return (next(ends) - next(ends)) / 2e-4

    U, W = np.zeros_like(unary), np.zeros_like(pairwise)
    U[0, 1] = W[1, 0] = 1
    assert_allclose(derivative(U, 0 * W), chain.node[0, 1], rtol=0, atol=1e-7)
    assert_allclose(derivative(0 * U, W), chain.edge[:, 1, 0].sum(), rtol=0, atol=1e-7)


@given(potentials(), st.integers(0, 4))
def test_without_pairwise_potentials_a_chain_is_a_product_of_softmaxes(potentials, best):
    unary, pairwise = potentials
    chain = ref.enumerate_chain(unary, 0 * pairwise)
    assert_allclose(chain.node, softmax(unary, axis=1), rtol=1e-12)
    assert_allclose(chain.log_partition, logsumexp(unary, axis=1).sum(), rtol=1e-13, atol=1e-13)
    # A score is rounded once, so that labels whose potentials differ by less may tie: compare the scores.
    positions = np.arange(len(unary))
    assert math.fsum(unary[positions, chain.labeling]) == math.fsum(unary.max(axis=1)) == chain.score


@given(potentials(generic=False))
def test_of_equal_scores_the_first_labeling_wins(potentials):
    unary, pairwise = potentials
    chain = ref.enumerate_chain(unary, pairwise)
    L, K = unary.shape
    index = np.ravel_multi_index(chain.labeling, (K,) * L)
    for earlier in range(index):
        Y = np.unravel_index(earlier, (K,) * L)
        assert sum(unary[i, Y[i]] for i in range(L)) + sum(pairwise[Y[i], Y[i + 1]] for i in range(L - 1)) < chain.score


def test_scores_are_rounded_once():
    # 0.1 + 0.2 + 0.3 differs from 0.3 + 0.2 + 0.1 when added up from the left.
    unary = np.array([[0.3, 0.1], [0.2, 0.2], [0.1, 0.3]])
    equal = [[0.0, -9.0], [-9.0, 0.0]]
    assert sum(unary[:, 0]) != sum(unary[:, 1])
    assert ref.enumerate_chain(unary, equal).labeling.tolist() == [0, 0, 0]
    assert ref.enumerate_chain(unary[:, ::-1], equal).labeling.tolist() == [0, 0, 0]


def test_forbidden_labels_have_probability_zero():
    unary = np.array([[0.0, -np.inf], [1.0, 2.0]])
    chain = ref.enumerate_chain(unary, np.zeros((2, 2)))
    assert_allclose(chain.node, [[1, 0], softmax([1.0, 2.0])], rtol=1e-14)
    assert chain.labeling.tolist() == [0, 1]
    nothing = ref.enumerate_chain(np.full((2, 2), -np.inf), np.zeros((2, 2)))
    assert nothing.log_partition == nothing.score == -np.inf
    assert np.isnan(nothing.node).all()
    assert np.isnan(nothing.edge).all()


@given(potentials(length=(2, 4), n_labels=(2, 3)))
def test_a_grid_of_one_row_or_one_column_is_a_chain(potentials):
    unary, pairwise = potentials
    chain, other = ref.enumerate_chain(unary, pairwise), np.full_like(pairwise, 7.0)
    row = ref.enumerate_grid(unary[None], pairwise, other)
    column = ref.enumerate_grid(unary[:, None], other, pairwise)
    assert row.log_partition == column.log_partition == chain.log_partition
    assert_array_equal(row.horizontal[0], chain.edge)
    assert_array_equal(column.vertical[:, 0], chain.edge)
    assert_array_equal(row.labeling[0], chain.labeling)
    assert row.vertical.size == column.horizontal.size == 0


@given(grid_potentials(height=(2, 2), width=(2, 3)))
def test_transposing_a_grid_swaps_its_edges(potentials):
    unary, horizontal, vertical = potentials
    grid = ref.enumerate_grid(unary, horizontal, vertical)
    transposed = ref.enumerate_grid(unary.swapaxes(0, 1), vertical, horizontal)
    assert_allclose(transposed.log_partition, grid.log_partition, rtol=1e-14)
    assert_allclose(transposed.node.swapaxes(0, 1), grid.node, rtol=1e-12)
    assert_allclose(transposed.horizontal.swapaxes(0, 1), grid.vertical, rtol=1e-12)
    assert_allclose(grid.horizontal.sum(axis=-1), grid.node[:, :-1], rtol=1e-12)
    assert_allclose(grid.vertical.sum(axis=-2), grid.node[1:], rtol=1e-12)
    shared = np.tile(horizontal, (*grid.horizontal.shape[:2], 1, 1))
    assert ref.enumerate_grid(unary, shared, vertical).log_partition == grid.log_partition


def test_a_hand_worked_grid_with_one_matrix_per_edge():
    # 3 x 2 nodes. Three edges count: (1, 0)-(2, 0) rewards agreement, (0, 1)-(1, 1) disagreement twice as much, and
    # (2, 0)-(2, 1) the labels 1, 0 three times as much.
    horizontal, vertical = np.zeros((3, 1, 2, 2)), np.zeros((2, 2, 2, 2))
    vertical[1, 0], vertical[0, 1] = np.eye(2), 2 * (1 - np.eye(2))
    horizontal[2, 0, 1, 0] = 3
    grid = ref.enumerate_grid(np.zeros((3, 2, 2)), horizontal, vertical)
    parts = (2 * (1 + math.e) / 2, 2 * (1 + math.e**2), 3 + math.e**3, 2)
    assert_allclose(grid.log_partition, math.log(math.prod(parts)), rtol=1e-14)
    assert (grid.labeling.tolist(), grid.score) == ([[0, 0], [1, 1], [1, 0]], 6.0)


def test_too_many_labelings_are_refused():
    with pytest.raises(InputError, match=r"at most a million labelings; got 4\^12"):
        ref.enumerate_chain(np.zeros((12, 4)), np.zeros((4, 4)))


# --------------------------------------------------------------------------------------- the strategies themselves


@given(attention_problems(distinct_values=True))
def test_distinct_values_make_one_top_token_per_sequence(problem):
    values = np.sort(problem.E @ problem.v)
    assert (np.diff(values) > 3.9 / len(values)).all()
    assert set(problem.labels) == {-1, 1}


@given(balanced_problems())
def test_balanced_problems_have_one_important_token_per_sequence(problem):
    share = problem.counts / problem.counts.sum(axis=1, keepdims=True)
    signed_frequency = np.array(problem.labels) @ share
    only_positive = ~(problem.counts[np.array(problem.labels) < 0] > 0).any(axis=0)
    only_negative = ~(problem.counts[np.array(problem.labels) > 0] > 0).any(axis=0)
    important = only_positive ^ only_negative
    assert_array_equal((problem.counts[:, important] > 0).sum(axis=1), 1)
    assert_allclose(signed_frequency[~important], 0, rtol=0, atol=1e-15)
