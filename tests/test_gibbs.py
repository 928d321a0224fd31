"""The softmax over segments against loops and against sums in fifty digits."""

from __future__ import annotations

import math
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp, softmax

from attnembed.gibbs import AnchoredSoftmax, Segments, log_partition, mode, probabilities
from attnembed.gradcheck import check_gradient
from attnembed.testing import generators, reals

Floats = np.ndarray[Any, Any]
ONE = Segments(np.array([0, 4]))


@st.composite
def batches(draw: st.DrawFn, bound: float = 3.0) -> tuple[Floats, Floats, Floats, Segments]:
    """Scores, values, multiplicities 1..1000 and the layout of up to five segments of up to five positions."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    N = sum(sizes)
    scores, values = (np.array(draw(st.lists(reals(size), min_size=N, max_size=N))) for size in (bound, 2.0))
    multiplicity = np.array(draw(st.lists(st.integers(1, 1000), min_size=N, max_size=N)), dtype=float)
    return scores, values, multiplicity, Segments(np.cumsum([0, *sizes]))


def pieces(segments: Segments, *arrays: Floats) -> list[tuple[Floats, ...]]:
    """The arrays cut at the borders of the segments, one tuple per segment."""
    bounds = list(zip(segments.indptr[:-1], segments.indptr[1:]))
    return [tuple(array[a:b] for array in arrays) for a, b in bounds]


def exact_sensitivity(scores: Floats, values: Floats, multiplicity: Floats) -> list[Decimal]:
    """a_k (g_k - f) of one segment as a_k sum_r a_r (g_k - g_r): in 50 digits nothing cancels."""
    with localcontext(Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN)):
        weight = [Decimal(m) * Decimal(u).exp() for u, m in zip(scores.tolist(), multiplicity.tolist())]
        g = [Decimal(x) for x in values.tolist()]
        a = [w / sum(weight) for w in weight]
        return [a_k * sum(a_r * (g_k - g_r) for a_r, g_r in zip(a, g)) for a_k, g_k in zip(a, g)]


def relative_error(array: Floats, log_scale: float, exact: list[Decimal]) -> float:
    """||array e^{log_scale} - exact|| / ||exact||."""
    with localcontext(Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN)):
        scaled = [Decimal(x) * Decimal(log_scale).exp() for x in array.tolist()]
        error = sum((x - y) ** 2 for x, y in zip(scaled, exact)).sqrt()
        norm = sum(y * y for y in exact).sqrt()
        return float(error / norm) if norm else float(error)


@given(batches())
def test_segments_against_loops(batch: tuple[Floats, Floats, Floats, Segments]) -> None:
    scores, _, _, segments = batch
    rows = [u for (u,) in pieces(segments, scores)]
    assert len(segments) == len(rows)
    assert_allclose(segments.sum(scores), [row.sum() for row in rows], rtol=1e-14, atol=1e-14)
    assert_array_equal(segments.max(scores), [row.max() for row in rows])
    assert_array_equal(segments.ids, np.concatenate([np.full(row.size, i) for i, row in enumerate(rows)]))
    assert_array_equal(segments.spread(segments.indptr[:-1])[segments.indptr[:-1]], segments.indptr[:-1])
    assert_array_equal(mode(scores, segments) - segments.indptr[:-1], [np.argmax(row) for row in rows])


@given(batches(bound=0.6).map(lambda batch: (np.round(batch[0]), *batch[1:])))
def test_of_tied_scores_the_first_is_the_mode(batch: tuple[Floats, Floats, Floats, Segments]) -> None:
    scores, _, _, segments = batch
    assert_array_equal(
        mode(scores, segments) - segments.indptr[:-1], [np.argmax(u) for (u,) in pieces(segments, scores)]
    )


def test_nan_stays_in_its_segment() -> None:
    segments = Segments(np.array([0, 2, 4, 6]))
    scores = np.array([1.0, 2.0, np.nan, 0.0, 5.0, 4.0])
    assert mode(scores, segments).tolist() == [1, 2, 4]
    soft = AnchoredSoftmax(scores, np.arange(6.0), np.ones(6), segments)
    assert np.isfinite(soft.expectation).tolist() == [True, False, True]
    assert np.isfinite(probabilities(scores, segments, np.ones(6))).tolist() == [True] * 2 + [False] * 2 + [True] * 2


@given(batches(bound=500.0))
def test_log_partition_and_probabilities_against_scipy(batch: tuple[Floats, Floats, Floats, Segments]) -> None:
    scores, _, multiplicity, segments = batch
    a = probabilities(scores, segments, multiplicity)
    rows = pieces(segments, scores, multiplicity, a)
    assert_allclose(
        log_partition(scores, segments, multiplicity), [logsumexp(u, b=m) for u, m, _ in rows], rtol=1e-14, atol=1e-13
    )
    assert_allclose(segments.sum(a), 1, rtol=1e-15 * 10)
    for u, m, a_i in rows:
        assert_allclose(a_i, softmax(u + np.log(m)), rtol=1e-12, atol=1e-300)
        # a token that occurs m times is m positions of one token each
        repeated = softmax(np.repeat(u, m.astype(int)))
        assert_allclose(a_i, np.add.reduceat(repeated, np.cumsum([0, *m[:-1].astype(int)])), rtol=1e-11, atol=1e-300)


def test_each_segment_has_its_own_shift() -> None:
    segments, scores, ones = Segments(np.array([0, 2, 4])), np.array([2000.0, 1999.0, -2000.0, -2001.0]), np.ones(4)
    logistic = 1 / (1 + math.exp(-1))
    assert_allclose(probabilities(scores, segments, ones), [logistic, 1 - logistic] * 2, rtol=1e-14)
    assert_allclose(log_partition(scores, segments, ones), np.array([2000, -2000]) - math.log(logistic), rtol=1e-15)
    # control: one shift for all leaves nothing of the second segment
    assert np.exp(scores - scores.max())[2:].sum() == 0


@given(batches(), st.floats(-100, 100))
def test_a_common_shift_of_the_scores_changes_nothing(batch: Any, shift: float) -> None:
    scores, values, multiplicity, segments = batch
    here, there = (AnchoredSoftmax(scores + c, values, multiplicity, segments) for c in (0.0, shift))
    assert_allclose(there.probability, here.probability, rtol=1e-12)
    assert_allclose(there.expectation, here.expectation, rtol=0, atol=1e-12)


@pytest.mark.parametrize("wrong", [1.0, 1.001, -1.0])
def test_probabilities_are_the_gradient_of_the_log_partition(wrong: float) -> None:
    rng = np.random.default_rng(0)
    segments, multiplicity = Segments(np.array([0, 3, 4, 8])), rng.integers(1, 9, 8).astype(float)
    report = check_gradient(
        lambda u: log_partition(u, segments, multiplicity).sum(),
        lambda u: wrong * probabilities(u, segments, multiplicity),
        rng.standard_normal(8),
        rng=0,
    )
    assert report.passed == (wrong == 1.0)


@given(batches(), st.integers(0, 3))
def test_the_sensitivity_is_the_derivative_of_the_expectation(batch: Any, power: int) -> None:
    scores, values, multiplicity, segments = batch
    scores = 10.0**power * scores
    soft = AnchoredSoftmax(scores, values, multiplicity, segments)
    array, log_scale = soft.sensitivity()
    exact = [x for row in pieces(segments, scores, values, multiplicity) for x in exact_sensitivity(*row)]
    # a difference of scores is rounded to 1e-16 of them, which is an error of the exponential relative to itself
    assert relative_error(array, log_scale, exact) <= 2e-15 + 4e-16 * np.abs(scores).max()
    with np.errstate(under="ignore"):
        assert_allclose(soft.probability * soft.centred, array * np.exp(log_scale), rtol=1e-12, atol=1e-300)
    assert_allclose(soft.expectation, segments.sum(soft.probability * values), rtol=0, atol=1e-14)
    # so it is the direction in which the expectation moves
    ahead = AnchoredSoftmax(scores + 1e-6 * values, values, multiplicity, segments).expectation
    slope = segments.sum(array * np.exp(log_scale) * values)
    assert_allclose((ahead - soft.expectation) / 1e-6, slope, rtol=0, atol=1e-5)


@given(st.lists(reals(5.0), min_size=2, max_size=2), st.lists(st.floats(-3000, 0), min_size=2, max_size=2))
def test_segment_weights_do_not_underflow(gaps: list[float], log_weight: list[float]) -> None:
    scores, values = np.array([0.0, 300 * gaps[0], 0.0, 300 * gaps[1]]), np.array([1.0, -1.0, 2.0, 0.5])
    segments, ones = Segments(np.array([0, 2, 4])), np.ones(4)
    array, log_scale = AnchoredSoftmax(scores, values, ones, segments).sensitivity(np.array(log_weight))
    exact = []
    for i, row in enumerate(pieces(segments, scores, values, ones)):
        with localcontext(Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN)):
            exact += [Decimal(log_weight[i]).exp() * x for x in exact_sensitivity(*row)]
    assert relative_error(array, log_scale, exact) <= 1e-12
    assert 1e-3 < np.abs(array).max() < 1e3


@pytest.mark.parametrize("gap", [20.0, 40.0, 800.0])
def test_the_anchor_is_where_the_mass_is(gap: float) -> None:
    """Why: the textbook difference and an anchor at the largest value both cancel in this segment."""
    scores, values = np.array([0.0, gap, gap / 2, -gap]), np.array([1.0, 0.3, -0.7, 0.1])
    exact = exact_sensitivity(scores, values, np.ones(4))
    soft = AnchoredSoftmax(scores, values, np.ones(4), ONE)
    assert soft.anchor.tolist() == [1]
    assert relative_error(*soft.sensitivity(), exact) < 1e-14
    if gap == 40:
        textbook = soft.probability * (values - soft.probability @ values)
        difference = values - values.max()
        top = soft.probability * (difference - soft.probability @ difference)
        assert relative_error(textbook, 0.0, exact) > 1e-9
        assert relative_error(top, 0.0, exact) > 1e-9


def test_the_mass_may_come_from_the_multiplicity() -> None:
    scores, values, multiplicity = np.array([0.0, -1.0, -2.0, -3.0]), np.array([1.0, 0.3, 0.5, 0.7]), np.ones(4)
    multiplicity[2] = 1e12
    exact = exact_sensitivity(scores, values, multiplicity)
    soft = AnchoredSoftmax(scores, values, multiplicity, ONE)
    assert soft.anchor.tolist() == [2]
    assert mode(scores, ONE).tolist() == [0]
    assert relative_error(*soft.sensitivity(), exact) < 1e-14
    difference = values - values[0]
    assert relative_error(soft.probability * (difference - soft.probability @ difference), 0.0, exact) > 1e-7


def test_equal_values_have_no_sensitivity() -> None:
    array, log_scale = AnchoredSoftmax(np.arange(4.0), np.full(4, 0.3), np.ones(4), ONE).sensitivity()
    assert (array.tolist(), log_scale) == ([0.0] * 4, 0.0)
    single = AnchoredSoftmax(np.arange(4.0), np.arange(4.0), np.ones(4), Segments(np.arange(5)))
    assert_array_equal(single.expectation, np.arange(4.0))
    assert_array_equal(single.sensitivity()[0], np.zeros(4))


@given(generators(), st.sampled_from([1e2, 1e4]))
def test_low_temperature_selects_the_mode(rng: np.random.Generator, scale: float) -> None:
    segments, scores = Segments(np.array([0, 2, 5, 9])), rng.permutation(np.arange(9.0))
    a = probabilities(scale * scores, segments, rng.integers(1, 9, 9).astype(float))
    assert_allclose(a[mode(scores, segments)], 1, rtol=1e-15)
    assert log_partition(scale * scores, segments, np.ones(9)) == pytest.approx(scale * segments.max(scores), rel=1e-15)


@pytest.mark.parametrize("dtype", [float, bool, np.int64])
def test_long_segments_are_spread_as_short_ones_are(dtype: type) -> None:
    sizes = np.random.default_rng(0).integers(1, 40, size=2000)
    segments = Segments(np.r_[0, np.cumsum(sizes)])
    assert segments.indptr[-1] > 2**15
    for x in (np.arange(2000).astype(dtype), np.arange(4000).reshape(2000, 2).astype(dtype)):
        spread = segments.spread(x)
        assert spread.dtype == x.dtype
        assert np.array_equal(spread, np.array([x[i] for i, size in enumerate(sizes) for _ in range(size)]))
