"""The k best labelings and posterior decoding, against enumeration."""

from __future__ import annotations

from itertools import pairwise as neighbours
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import attnembed as ae
from attnembed.errors import InputError, InputTypeError
from attnembed.structured import decoding


def score(unary, pairwise, labels, start=0.0, end=0.0):
    """F(Y), term by term."""
    ends = np.zeros(unary.shape[1]) + start, np.zeros(unary.shape[1]) + end
    total = ends[0][labels[0]] + ends[1][labels[-1]]
    total += sum(unary[i, label] for i, label in enumerate(labels))
    return total + sum(pairwise[a, b] for a, b in neighbours(labels))


def ranked(unary, pairwise, start=0.0, end=0.0):
    """All labelings that have a score, best first, equal ones by their labels from the last position backwards."""
    found = [
        (-score(unary, pairwise, labels, start, end), labels[::-1])
        for labels in product(range(unary.shape[1]), repeat=len(unary))
    ]
    return [(labels[::-1], -value) for value, labels in sorted(found) if value < np.inf]


def integers(seed, length, n_labels, *, wide=2):
    """Potentials whose sums are exact and often tie, some of them forbidden; the labeling of zeros is allowed."""
    rng = np.random.default_rng(seed)
    unary, pairwise = (
        rng.integers(-wide, wide + 1, size).astype(float) for size in ((length, n_labels), (n_labels,) * 2)
    )
    unary[:, 1:][rng.random((length, n_labels - 1)) < 0.2] = -np.inf
    pairwise.flat[1:][rng.random(n_labels**2 - 1) < 0.2] = -np.inf
    start, end = rng.integers(-wide, wide + 1, (2, n_labels)).astype(float)
    return unary, pairwise, start, end


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 3), st.integers(1, 12))
def test_the_k_best_are_those_of_enumeration_ties_included(seed, length, n_labels, k):
    unary, pairwise, start, end = integers(seed, length, n_labels)
    truth = ranked(unary, pairwise, start, end)[:k]
    found = ae.chain_k_best(unary, pairwise, k, start=start, end=end)
    assert found.labels.shape == (k, length)
    assert_array_equal(found.labels[: len(truth)], [labels for labels, _ in truth])
    assert_array_equal(found.scores[: len(truth)], [value for _, value in truth])
    assert_array_equal(found.labels[0], ae.chain_viterbi(unary, pairwise, start=start, end=end))
    assert (found.labels[len(truth) :] == -1).all()
    assert (found.scores[len(truth) :] == -np.inf).all()


@pytest.mark.parametrize("cached", [1, decoding._CACHED])
def test_a_batch_is_its_sequences(cached, monkeypatch):
    monkeypatch.setattr(decoding, "_CACHED", cached)
    rng = np.random.default_rng(0)
    lengths, (n_labels, k) = np.array([2, 5, 1, 4]), (3, 7)
    unary, pairwise = rng.normal(size=(4, 6, n_labels)), rng.normal(size=(n_labels, n_labels))
    found = ae.chain_k_best(unary, pairwise, k, lengths)
    assert found.labels.shape == (4, k, 6)
    for i, length in enumerate(lengths):
        truth = ranked(unary[i, :length], pairwise)[:k]
        assert_array_equal(found.labels[i, : len(truth), :length], [labels for labels, _ in truth])
        assert_allclose(found.scores[i, : len(truth)], [value for _, value in truth], rtol=1e-13)
        assert (found.labels[i, :, length:] == -1).all()
        assert (found.scores[i, len(truth) :] == -np.inf).all()


def test_long_chains_and_large_scores_keep_their_order():
    """One of 500 positions has a rival that is 1e-6 ahead, far below the rounding of the sum of the scores."""
    unary = np.zeros((500, 2))
    unary[:, 0] = 1e9
    unary[234, 1] = 1e9 + 1e-6
    found = ae.chain_k_best(unary, np.zeros((2, 2)), 2)
    assert_array_equal(np.flatnonzero(found.labels[0]), [234])
    assert not found.labels[1].any()


def test_all_labelings_sum_to_the_partition_function():
    rng = np.random.default_rng(1)
    unary, pairwise = rng.normal(size=(5, 3)), rng.normal(size=(3, 3))
    scores = ae.chain_k_best(unary, pairwise, 3**5).scores
    assert np.logaddexp.reduce(scores) == pytest.approx(float(ae.chain_log_partition(unary, pairwise)), rel=1e-14)


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 3))
def test_posterior_decoding_takes_the_largest_marginal(seed, length, n_labels):
    rng = np.random.default_rng(seed)
    unary, pairwise = rng.normal(size=(length, n_labels)), 2 * rng.normal(size=(n_labels, n_labels))
    node = np.zeros((length, n_labels))
    for labels in product(range(n_labels), repeat=length):
        node[np.arange(length), labels] += np.exp(score(unary, pairwise, labels))
    assert_array_equal(ae.chain_posterior_decode(unary, pairwise), node.argmax(axis=1))


def test_posterior_decoding_of_a_batch_and_where_it_leaves_viterbi():
    P = np.log([[0.36, 0.04], [0.3, 0.3]])
    unary = np.zeros((2, 3, 2))
    assert_array_equal(ae.chain_viterbi(unary, P, [2, 1]), [[0, 0, -1], [0, -1, -1]])
    assert_array_equal(ae.chain_posterior_decode(unary, P, [2, 1]), [[1, 0, -1], [0, -1, -1]])


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (0, InputError, "`k` must be at least 1; got 0"),
        (2.0, InputTypeError, "`k` must be an integer; got 2.0"),
        (True, InputTypeError, "`k` must be an integer; got True"),
    ],
)
def test_bad_numbers_are_named(k, error, message):
    with pytest.raises(error, match=f"^{message}"):
        ae.chain_k_best(np.zeros((2, 2)), np.zeros((2, 2)), k)


@pytest.mark.parametrize("decoder", [lambda U, W: ae.chain_k_best(U, W, 2), ae.chain_posterior_decode])
def test_a_sequence_without_a_labeling_is_named(decoder):
    unary = np.zeros((2, 2, 2))
    unary[1, :, 1] = -np.inf
    with pytest.raises(InputError, match="sequence 1"):
        decoder(unary, np.array([[-np.inf, 0.0], [0.0, 0.0]]))
