"""Long chains in blocks against the plain recursions, at every kind of edge, and where the answer is known."""

from __future__ import annotations

import pickle
import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from attnembed.errors import InputError
from attnembed.structured import chain, forward_backward
from attnembed.structured.chain import (
    chain_log_partition,
    chain_marginals,
    chain_sample,
    chain_score,
    chain_viterbi,
    posterior,
)
from attnembed.structured.long_chains import Blocks, cut
from attnembed.structured.objectives import chain_objective
from attnembed.structured.packing import Packing
from attnembed.structured.theory import scale_objective


def run_with(size, call):
    """The result of ``call`` with all chains in blocks of ``size``, or in one piece where it is None; and the count."""
    used = []

    def chosen(packing, *_):
        used.append(packing)
        return None if size is None else Blocks(packing, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "cut", chosen)
        patch.setattr(forward_backward, "cut", chosen)
        out = call()
    assert used
    return out


@st.composite
def problems(draw):
    """unary (n, L, K), pairwise, lengths, size of a block: potentials of many levels, repeated ones, forbidden ones."""
    n, length, k = draw(st.integers(1, 4)), draw(st.integers(1, 23)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([1.0, 30.0, 300.0, 3e3]))
    if draw(st.booleans()):
        unary, pairwise = spread * rng.normal(size=(n, length, k)), spread * rng.normal(size=(k, k))
    else:  # exact in binary: equal scores stay equal
        unary, pairwise = rng.integers(-1, 2, size=(n, length, k)) / 2, rng.integers(-1, 2, size=(k, k)) / 2
    if draw(st.booleans()):
        labels = rng.integers(0, k, size=(n, length))
        pairwise[rng.random((k, k)) < 0.4] = -np.inf
        unary[rng.random((n, length, k)) < 0.2] = -np.inf
        pairwise[labels[:, :-1], labels[:, 1:]] = 0.5
        np.put_along_axis(unary, labels[..., None], 0.5, axis=-1)
    lengths = rng.integers(1, length + 1, size=n)
    lengths[0] = length
    return unary, pairwise, lengths, draw(st.integers(1, 9))


@given(problems())
def test_blocks_give_what_the_plain_recursions_give(problem):
    unary, pairwise, lengths, size = problem
    level = max(1.0, *(float(np.abs(x[np.isfinite(x)]).max(initial=0)) for x in (unary, pairwise)))
    packing = Packing(lengths)
    rows = unary[packing.sequence, packing.time]

    log_z = [run_with(s, lambda: chain_log_partition(unary, pairwise, lengths)) for s in (size, None)]
    assert_allclose(*log_z, rtol=1e-12, atol=1e-12 * level)
    for resolution in (np.inf, 0):  # products, where they are exact; logarithms
        found, right = (
            run_with(s, partial(posterior, rows, pairwise, packing, resolution=resolution)) for s in (size, None)
        )
        assert_allclose(found.log_partition, right.log_partition, rtol=1e-12, atol=1e-12 * level)
        tolerance = 1e-12 * (1 if found.log_node is None and right.log_node is None else level)
        assert_allclose(found.node, right.node, rtol=0, atol=tolerance)
        assert_allclose(found.pair_counts(), right.pair_counts(), rtol=1e-12, atol=len(rows) * tolerance)
        assert_array_equal(found.node == 0, right.node == 0)

    best, right = (run_with(s, lambda: chain_viterbi(unary, pairwise, lengths)) for s in (size, None))
    for i, n in enumerate(lengths):
        scores = [float(chain_score(unary[i, :n], pairwise, y[i, :n])) for y in (best, right)]
        assert_allclose(*scores, rtol=1e-12, atol=1e-12 * level)
    if level <= 1:  # no rounding: the smaller label among equals, from the last position backwards
        assert_array_equal(best, right)
    drawn = [run_with(s, lambda: chain_sample(unary, pairwise, lengths, rng=7)) for s in (size, None)]
    assert_array_equal(*drawn)


@given(problems())
def test_numbers_carried_through_blocks_are_those_carried_along(problem):
    unary, pairwise, lengths, size = problem
    labels = np.maximum(chain_viterbi(unary, pairwise, lengths), 0)  # allowed, whatever is forbidden
    level = max(1.0, *(float(np.abs(x[np.isfinite(x)]).max(initial=0)) for x in (unary, pairwise)))
    if level > 100:  # logarithms, which are carried step by step in any case
        unary, pairwise, level = unary / level, pairwise / level, 1.0
    found, right = (
        run_with(s, lambda: chain_objective("marginal", unary, pairwise, labels, lengths)) for s in (size, None)
    )
    scale = 1e-12 * unary.shape[1]
    assert_allclose(found.value, right.value, rtol=1e-12, atol=scale * level)
    assert_allclose(found.unary, right.unary, rtol=1e-12, atol=scale * level)
    assert_allclose(found.pairwise, right.pairwise, rtol=1e-12, atol=scale * level * len(lengths))
    found, right = (run_with(s, lambda: scale_objective(unary, pairwise, labels, lengths)) for s in (size, None))
    assert_allclose(found.gradient, right.gradient, rtol=1e-12, atol=scale * level)
    assert_allclose(found.hessian, right.hessian, rtol=1e-11, atol=scale * level**2)


@given(problems())
def test_marginals_in_blocks_are_a_distribution(problem):
    unary, pairwise, lengths, size = problem
    found = run_with(size, lambda: chain_marginals(unary, pairwise, lengths))
    for i, n in enumerate(lengths):
        node, edge = found.node[i, :n], found.edge[i, : n - 1]
        assert_allclose(edge.sum(axis=2), node[:-1], rtol=0, atol=1e-9)
        assert_allclose(edge.sum(axis=1), node[1:], rtol=0, atol=1e-9)
        assert not edge[:, np.isneginf(pairwise)].any()


@pytest.mark.parametrize("lengths", [[1], [7], [6, 6], [9, 1, 4, 4], [1, 1, 1]])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_cutting_and_its_way_back(lengths, size):
    packing = Packing(np.array(lengths))
    blocks = Blocks(packing, size)
    assert_array_equal(np.sort(blocks.rows), np.arange(sum(lengths)))
    columns = np.arange(2 * sum(lengths)).reshape(2, -1)
    assert_array_equal(blocks.scatter(blocks.gather(columns)), columns)
    # Within a block, the right neighbour of a row is that of the uncut chain.
    right_of = dict(zip(packing.left.tolist(), packing.right.tolist()))
    inner = blocks.inner
    assert all(right_of[blocks.rows[i]] == blocks.rows[j] for i, j in zip(inner.left, inner.right))
    assert int(blocks.first.sum()) == len(lengths)
    assert inner.lengths.max() <= size


@pytest.mark.parametrize("size", [3, None])
def test_a_sequence_without_a_labeling_is_named(size):
    unary, pairwise = np.zeros((3, 8, 2)), np.array([[0.0, -np.inf], [-np.inf, 0.0]])
    unary[1, 2, 0] = unary[1, 6, 1] = -np.inf
    for call in (chain_log_partition, chain_marginals, chain_viterbi, chain_sample):
        with pytest.raises(InputError, match="sequence 1 has none"):
            run_with(size, lambda call=call: call(unary, pairwise))


def test_ties_go_to_the_smaller_label_from_the_last_position_backwards():
    rng = np.random.default_rng(0)
    unary, pairwise = rng.integers(0, 2, size=(1, 400, 3)).astype(float), rng.integers(0, 2, size=(3, 3)).astype(float)
    assert cut(Packing(np.array([400])), 3) is not None
    value = [unary[0, 0].astype(int)]
    for row in unary[0, 1:].astype(int):
        value.append((value[-1][:, None] + pairwise.astype(int)).max(axis=0) + row)
    labels = [int(value[-1].argmax())]
    for now in value[-2::-1]:
        labels.insert(0, int((now + pairwise[:, labels[0]].astype(int)).argmax()))
    assert_array_equal(chain_viterbi(unary, pairwise)[0], labels)


def test_a_long_chain_of_equal_steps_has_the_power_of_its_matrix():
    """Z of T equal factors is 1^T A^(T-1) 1 with A = e^W, known from its eigenvalues."""
    pairwise, length = (
        np.log(np.array([[2.0, 1.0], [1.0, 2.0]])),
        20_000,
    )  # eigenvalues 3 and 1, vectors (1, 1), (1, -1)
    assert cut(Packing(np.array([length])), 2) is not None
    found = chain_marginals(np.zeros((length, 2)), pairwise)
    assert_allclose(found.log_partition, np.log(2) + (length - 1) * np.log(3), rtol=1e-14)
    assert_allclose(found.node, 0.5, rtol=1e-13)
    assert_allclose(found.edge[[0, 1, length // 2, -1]], np.broadcast_to([[1 / 3, 1 / 6], [1 / 6, 1 / 3]], (4, 2, 2)))


def test_blocks_only_where_they_pay():
    one = Packing(np.array([100_000]))
    assert cut(one, 5) is not None
    assert cut(one, 60) is None
    assert cut(Packing(np.full(5000, 200)), 5) is None
    assert cut(Packing(np.array([20])), 2) is None


def test_edge_marginals_are_formed_when_asked_for_and_frozen():
    unary, pairwise = np.random.default_rng(0).normal(size=(2, 6, 3)), np.zeros((3, 3))
    found = chain_marginals(unary, pairwise, [6, 4])
    assert "edge" not in vars(found)
    again = pickle.loads(pickle.dumps(found))
    for marginals in (found, again):
        assert marginals.edge.shape == (2, 5, 3, 3)
        assert marginals.edge is marginals.edge
        assert not marginals.edge.flags.writeable
        assert not marginals.edge[1, 3:].any()
        assert_allclose(marginals.edge[0].sum(axis=2), found.node[0, :-1], rtol=1e-12)
    assert_array_equal(found.edge, again.edge)


def test_what_is_passed_in_stays_writable():
    unary, pairwise = np.array([[0.0, -2e3], [1e3, 0.0], [0.0, 3e3]]), np.array([[0.0, -5e3], [2e3, 0.0]])
    chain_marginals(unary, pairwise)
    assert unary.flags.writeable
    assert pairwise.flags.writeable


def test_marginals_of_many_labels_hold_no_pairs():
    unary, pairwise = np.zeros((4, 20, 120)), np.zeros((120, 120))
    tracemalloc.start()
    try:
        chain_marginals(unary, pairwise)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * (20 * unary.size + 4 * pairwise.size)  # all pairs alone: 114 times the unary potentials
