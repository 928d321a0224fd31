"""Chain inference against enumeration, in every regime of the recursion, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from attnembed.errors import InputError
from attnembed.reference import enumerate_chain
from attnembed.structured import chain as chains
from attnembed.structured.chain import (
    chain_log_partition,
    chain_marginals,
    chain_sample,
    chain_score,
    chain_viterbi,
    posterior,
)
from attnembed.structured.objectives import CHAIN_OBJECTIVES, chain_objective, loss_augmented
from attnembed.structured.packing import Packing

# Spread of the potentials: exp domain, one shift per row, log domain.
SPREADS = (1.0, 60.0, 3000.0)


def chain(seed: int, length: int, k: int, spread: float, *, forbidden: bool = False):
    """Random potentials; with ``forbidden`` some are -inf, and the labeling of zeros is allowed."""
    rng = np.random.default_rng(seed)
    unary, pairwise = spread * rng.normal(size=(length, k)), spread * rng.normal(size=(k, k))
    if forbidden:
        unary[:, 1:][rng.random((length, k - 1)) < 0.3] = -np.inf
        pairwise.flat[1:][rng.random(k * k - 1) < 0.3] = -np.inf
    return unary, pairwise


def assert_matches(unary, pairwise):
    truth, found = enumerate_chain(unary, pairwise), chain_marginals(unary, pairwise)
    size = max(1.0, abs(truth.log_partition))
    assert abs(found.log_partition - truth.log_partition) <= 1e-13 * size
    # Scores of size s carry rounding errors of s * eps, and probabilities that relative error.
    assert np.abs(found.node - truth.node).max() <= 1e-13 * size
    assert np.abs(found.edge - truth.edge).max(initial=0) <= 1e-13 * size
    best = chain_viterbi(unary, pairwise)
    assert chain_score(unary, pairwise, best) >= truth.score - 1e-13 * size


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 4), st.sampled_from(SPREADS), st.booleans())
def test_equals_enumeration(seed, length, k, spread, forbidden):
    assert_matches(*chain(seed, length, k, spread, forbidden=forbidden))


def test_all_domains_are_used():
    """The three spreads of the test above reach the three branches."""
    for spread, logarithms in zip(SPREADS, (False, False, True)):
        unary, pairwise = chain(0, 5, 4, spread)
        packing = Packing(np.array([5]))
        assert (posterior(unary, pairwise, packing).log_node is not None) == logarithms
    # Rows of very different level: one shift would underflow, one per row does not, and needs no logarithms.
    unary = np.array([[0.0, 1.0], [5000.0, 5001.0]])
    result = posterior(unary, np.zeros((2, 2)), Packing(np.array([2])))
    assert result.log_node is None
    assert_allclose(result.log_partition, 5000 + 2 * np.log1p(np.e), rtol=1e-15)


def test_a_small_message_that_ends_alone_survives():
    """Two sets of labels that never meet; the last position forbids the likely one."""
    pairwise = np.array([[0.0, -np.inf], [-np.inf, -400.0]])
    unary = np.zeros((6, 2))
    unary[-1, 0] = -np.inf
    assert_allclose(chain_log_partition(unary, pairwise), -2000.0, rtol=1e-15)
    assert_array_equal(chain_viterbi(unary, pairwise), np.ones(6))
    assert_allclose(chain_marginals(unary, pairwise).node[:, 1], 1.0, rtol=1e-15)


@pytest.mark.parametrize("spread", SPREADS)
def test_padding_changes_nothing(spread):
    rng = np.random.default_rng(5)
    lengths = np.array([3, 7, 1, 7, 4])
    unary = spread * rng.normal(size=(5, 7, 3))
    pairwise = spread * rng.normal(size=(3, 3))
    for i, length in enumerate(lengths):
        unary[i, length:] = (np.nan, np.inf, -np.inf)
    together = chain_marginals(unary, pairwise, lengths)
    best = chain_viterbi(unary, pairwise, lengths)
    sample = chain_sample(unary, pairwise, lengths, rng=0)
    for i, length in enumerate(lengths):
        alone = chain_marginals(unary[i, :length], pairwise)
        assert_allclose(together.log_partition[i], alone.log_partition, rtol=1e-15)
        assert_allclose(together.node[i, :length], alone.node, rtol=0, atol=1e-15)
        assert_allclose(together.edge[i, : length - 1], alone.edge, rtol=0, atol=1e-15)
        assert not together.node[i, length:].any()
        assert not together.edge[i, length - 1 :].any()
        assert_array_equal(best[i, :length], chain_viterbi(unary[i, :length], pairwise))
        assert (best[i, length:] == -1).all()
        assert (sample[i, length:] == -1).all()


@pytest.mark.parametrize("spread", [1.0, 3000.0])
def test_samples_follow_the_distribution(spread):
    unary, pairwise = chain(3, 3, 2, 1.0)
    if spread > 1:
        # The log domain, on the same distribution: a label that never occurs widens the potentials.
        unary = np.column_stack([unary, np.full(3, -spread)])
        pairwise = np.pad(pairwise, (0, 1))
    truth = enumerate_chain(unary, pairwise)
    n = 20_000
    samples = chain_sample(np.broadcast_to(unary, (n, *unary.shape)), pairwise, rng=1)
    k = unary.shape[1]
    for i in range(2):
        share = np.bincount(samples[:, i] * k + samples[:, i + 1], minlength=k * k).reshape(k, k) / n
        error = np.abs(share - truth.edge[i])
        assert (error <= 5 * np.sqrt(truth.edge[i] * (1 - truth.edge[i]) / n) + 1e-12).all()


def test_samples_repeat_with_the_seed():
    unary, pairwise = chain(0, 8, 4, 1.0)
    draws = [chain_sample(unary, pairwise, rng=7) for _ in range(2)]
    assert_array_equal(*draws)


def test_float32_stays_float32():
    unary, pairwise = (x.astype(np.float32) for x in chain(0, 6, 4, 1.0))
    found = chain_marginals(unary, pairwise)
    assert found.node.dtype == np.float32
    assert_allclose(found.node, chain_marginals(*chain(0, 6, 4, 1.0)).node, rtol=0, atol=1e-6)


def test_viterbi_ties_go_to_the_smaller_label():
    assert_array_equal(chain_viterbi(np.zeros((4, 3)), np.zeros((3, 3))), np.zeros(4))


def test_results_are_read_only():
    found = chain_marginals(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="read-only"):
        found.node[0, 0] = 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3), np.zeros((3, 3))), r"`unary` must have shape \(L, K\) or \(B, L, K\)"),
        ((np.zeros((0, 3)), np.zeros((3, 3))), "`unary` .* no axis empty"),
        ((np.zeros((2, 3)), np.zeros((2, 3))), r"`pairwise` must have shape \(3, 3\)"),
        ((np.zeros((2, 3)), np.zeros((3, 3)), [2]), "`lengths` belongs to a batch"),
        ((np.zeros((1, 2, 3)), np.zeros((3, 3)), [2, 2]), r"`lengths` must have one entry per sequence \(1\)"),
        ((np.zeros((1, 2, 3)), np.zeros((3, 3)), [3]), r"`lengths` must be in 1..2; got 3 for sequence 0"),
        ((np.zeros((1, 2, 3)), np.zeros((3, 3)), [0]), r"`lengths` must be in 1..2; got 0 for sequence 0"),
        ((np.zeros((1, 2, 3)), np.zeros((3, 3)), [1.0]), "`lengths` must be integers"),
        ((np.zeros((2, 2, 3)), np.zeros((3, 3)), [1, [1, 2]]), "`lengths` must be an array"),
        (([[0.0, np.nan]], np.zeros((2, 2))), "`unary` must be finite or -inf; got NaN or .inf at position 0"),
        (([[0.0, np.inf]], np.zeros((2, 2))), "`unary` must be finite or -inf"),
        (([[0.0, 0.0]], [[0.0, np.nan], [0.0, 0.0]]), "`pairwise` must be finite or -inf"),
        (([[0.0, 0.0], [-np.inf, -np.inf]], np.zeros((2, 2))), "-inf throughout position 1"),
        (([["a"]], [[0.0]]), "`unary` must be a real numeric array"),
        ((np.zeros((2, 2)), np.full((2, 2), -np.inf)), "`pairwise` must allow at least one labeling"),
        (([[0.0, -np.inf], [-np.inf, 0.0]], [[0.0, -np.inf], [0.0, 0.0]]), "sequence 0 has none"),
    ],
)
@pytest.mark.parametrize("function", [chain_log_partition, chain_marginals, chain_viterbi, chain_sample])
def test_bad_input_is_named(function, arguments, message):
    with pytest.raises(InputError, match=message):
        function(*arguments)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], "`labels` must be in 0..1; got 2 at position 1"),
        ([0], "`labels` must have shape"),
        ([0.0, 1.0], "`labels` must be integers"),
        ([0, [1, 2]], "`labels` must be an array"),
    ],
)
def test_bad_labels_are_named(labels, message):
    with pytest.raises(InputError, match=message):
        chain_score(np.zeros((2, 2)), np.zeros((2, 2)), labels)


def test_external_fixture(data_folder: Path):
    """Potentials and results of another implementation (docs/derivations/provenance.md)."""
    with np.load(data_folder / "ocr_crf_fixture.npz") as archive:
        unary, pairwise, target, augmented = (archive[k] for k in ("unary", "pairwise", "target", "lossaug60"))
    assert_allclose(chain_score(unary, pairwise, target), 175.58605, rtol=0, atol=5e-6)
    assert_allclose(chain_log_partition(unary, pairwise), 175.63195, rtol=0, atol=5e-6)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    assert "".join(letters[chain_viterbi(unary, pairwise)]) == "nconsequential"
    assert "".join(letters[unary.argmax(axis=1)]) == "nconsequentldl"
    assert_array_equal(chain_viterbi(loss_augmented(unary, target, weight=60), pairwise), augmented)
    assert (chain_viterbi(loss_augmented(unary, target, weight=1), pairwise) != augmented).any()


@pytest.mark.parametrize("given_end", ["left", "right"])
@pytest.mark.parametrize(("spread", "log_domain"), [(1.0, False), (1.0, True), (20.0, False)])
def test_carry_by_its_definition(spread, log_domain, given_end):
    """One sequence after the other, from the marginals of its edges."""
    lengths, k = [3, 1, 4], 3
    potentials = [chain(seed, length, k, spread) for seed, length in enumerate(lengths)]
    pairwise = potentials[0][1]
    packing = Packing(np.array(lengths))
    rows = packing.rows
    unary = np.concatenate([unary for unary, _ in potentials])[rows]
    p = posterior(unary, pairwise, packing, resolution=0 if log_domain else np.inf)
    assert (p.log_node is not None) == log_domain
    start = np.random.default_rng(0).random(size=(sum(lengths), k))
    x, _ = p.carry(given_end, start[rows].T)
    expected = start.copy()
    for (unary, _), end in zip(potentials, np.cumsum(lengths)):
        truth, part = chain_marginals(unary, pairwise), expected[end - len(unary) : end]
        places = range(len(unary) - 1)
        for t in places if given_end == "left" else reversed(places):
            joint = truth.edge[t]
            if given_end == "left":
                moved = joint * (part[t] / truth.node[t])[:, None]
                part[t + 1] += moved.sum(axis=0)
            else:
                moved = joint * (part[t + 1] / truth.node[t + 1])
                part[t] += moved.sum(axis=1)
    assert_allclose(x.T, expected[rows], rtol=1e-11)


@pytest.mark.parametrize("spread", [1.0, 20.0, 100.0])
def test_wide_single_precision_is_taken_in_double(spread):
    """Range 70 is the limit of single precision; logarithms would cost many times as much as doubles."""
    unary, pairwise = (values.astype(np.float32) for values in chain(0, 5, 4, spread))
    p = posterior(unary, pairwise, Packing(np.array([5])))
    assert p.log_node is None
    assert p.node.dtype == (np.float32 if spread == 1 else np.float64)
    found, truth = chain_marginals(unary, pairwise), enumerate_chain(unary.astype(float), pairwise.astype(float))
    assert found.node.dtype == found.edge.dtype == np.float32
    assert_allclose(found.node, truth.node, rtol=1e-5, atol=1e-30)
    assert_allclose(found.log_partition, truth.log_partition, rtol=1e-6)
    labels = np.array([0, 1, 2, 3, 0])
    for name in CHAIN_OBJECTIVES:
        single, double = (
            chain_objective(name, u, w, labels)
            for u, w in ((unary, pairwise), (unary.astype(float), pairwise.astype(float)))
        )
        assert single.unary.dtype == np.float32
        assert_allclose(single.unary, double.unary, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spread", [1.0, 2000.0])
def test_pair_counts_in_either_domain(spread: float) -> None:
    rng = np.random.default_rng(4)
    unary, pairwise = spread * rng.normal(size=(5, 3)), spread * rng.normal(size=(3, 3))
    p = posterior(unary, pairwise, Packing(np.array([5])))
    assert (p.log_node is None) == (spread == 1.0)
    edge, weight = enumerate_chain(unary, pairwise).edge, rng.uniform(1.0, 2.0, size=5)
    np.testing.assert_allclose(p.pair_counts(), edge.sum(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(p.pair_counts(weight), np.tensordot(weight[1:], edge, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [10, 100])
def test_a_recursion_leaves_numpys_buffer_as_it_was(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    within = []
    monkeypatch.setattr(chains, "_walk", lambda *_: within.append(np.getbufsize()))
    before = np.getbufsize()
    packing = Packing(np.full(n, 3))
    chains.decode(np.zeros((3 * n, 2)), np.zeros((2, 2)), packing)
    assert within == [256 if n == 100 else before]
    assert np.getbufsize() == before
    with pytest.raises(InputError, match="at least one labeling"):
        chains.decode(np.zeros((3 * n, 2)), np.full((2, 2), -np.inf), packing)
    assert np.getbufsize() == before
