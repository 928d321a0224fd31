"""Objectives on chains: gradients, limits and inequalities."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from attnembed.errors import InputError
from attnembed.reference import enumerate_chain
from attnembed.structured import objectives
from attnembed.structured.chain import chain_marginals, chain_score, chain_viterbi, posterior
from attnembed.structured.objectives import CHAIN_OBJECTIVES, chain_objective, loss_augmented
from attnembed.structured.packing import Packing
from tests.gradients import quick_check

LENGTHS = np.array([3, 1, 4, 2])


def batch(spread: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    return (
        spread * rng.normal(size=(4, 4, 3)),
        spread * rng.normal(size=(3, 3)),
        rng.integers(0, 3, size=(4, 4)),
    )


# The widest spread reaches the log domain; the objectives are then piecewise linear up to rounding.
@pytest.mark.parametrize("spread", [1.0, 10.0, 400.0])
@pytest.mark.parametrize("name", CHAIN_OBJECTIVES)
def test_gradients(name, spread):
    unary, pairwise, labels = batch(spread)
    out = chain_objective(name, unary, pairwise, labels, LENGTHS)
    by_unary = quick_check(
        lambda u: chain_objective(name, u, pairwise, labels, LENGTHS).value, out.unary, unary, coordinates=4
    )
    assert by_unary.passed, by_unary.message
    by_pairwise = quick_check(
        lambda w: chain_objective(name, unary, w, labels, LENGTHS).value, out.pairwise, pairwise, coordinates=4
    )
    assert by_pairwise.passed or name == "unary", by_pairwise.message
    assert not out.unary[1, 1:].any()


@pytest.mark.parametrize("name", CHAIN_OBJECTIVES)
def test_wrong_gradients_are_caught(name):
    unary, pairwise, labels = batch(1.0)
    out = chain_objective(name, unary, pairwise, labels, LENGTHS)
    report = quick_check(lambda u: chain_objective(name, u, pairwise, labels, LENGTHS).value, 1.001 * out.unary, unary)
    assert not report.passed


def test_values_by_enumeration():
    rng = np.random.default_rng(2)
    unary, pairwise, labels = rng.normal(size=(4, 3)), rng.normal(size=(3, 3)), np.array([2, 0, 1, 1])
    truth = enumerate_chain(unary, pairwise)
    rows = np.arange(4)
    score = unary[rows, labels].sum() + pairwise[labels[:-1], labels[1:]].sum()
    value = {name: chain_objective(name, unary, pairwise, labels).value for name in CHAIN_OBJECTIVES}
    assert_allclose(value["nll"], truth.log_partition - score, rtol=1e-14)
    assert_allclose(value["marginal"], -np.log(truth.node[rows, labels]).sum(), rtol=1e-13)
    wrong = (np.arange(3) != labels[:, None]) / 4
    assert_allclose(value["ssvm"], enumerate_chain(unary + wrong, pairwise).score - score, rtol=1e-14)
    conditional = 0.0
    for i in rows:
        scores = []
        for k in range(3):
            changed = labels.copy()
            changed[i] = k
            scores.append(unary[rows, changed].sum() + pairwise[changed[:-1], changed[1:]].sum())
        conditional -= scores[labels[i]] - np.log(np.exp(scores).sum())
    assert_allclose(value["pseudolikelihood"], conditional, rtol=1e-13)


def test_all_probabilistic_objectives_agree_without_pairwise_part():
    unary, pairwise, labels = batch(1.0)
    values = [
        chain_objective(name, unary, 0 * pairwise, labels, LENGTHS)
        for name in ("nll", "pseudolikelihood", "marginal", "unary")
    ]
    for other in values[1:]:
        assert_allclose(other.value, values[0].value, rtol=1e-14)
        assert_allclose(other.unary, values[0].unary, rtol=0, atol=1e-15)


@pytest.mark.parametrize("spread", [0.01, 0.3, 3.0])
def test_hinge_bounds_the_hamming_loss(spread):
    for seed in range(20):
        unary, pairwise, labels = batch(spread, seed)
        wrong = chain_viterbi(unary, pairwise) != labels
        hinge = chain_objective("ssvm", unary, pairwise, labels).value
        assert wrong.mean() <= hinge * (1 + 1e-12) + 1e-15


def test_a_marginal_far_below_the_range_of_floats():
    unary = np.array([[0.0, -500.0], [0.0, 0.0]])
    pairwise = np.array([[0.0, 0.0], [-400.0, -400.0]])
    assert chain_marginals(unary, pairwise).node[0, 1] == 0
    out = chain_objective("marginal", unary, pairwise, [1, 0])
    assert_allclose(out.value, 900 + np.log(2), rtol=1e-15)
    assert_allclose(out.unary[0], [1.0, -1.0], rtol=1e-15)
    # Here log Z is safe in the exp domain, and only the marginal underflows.
    pairwise = np.array([[0.0, -380.0], [-380.0, -380.0]])
    unary = np.zeros((3, 2))
    assert posterior(unary, pairwise, Packing(np.array([3]))).log_node is None
    out = chain_objective("marginal", unary, pairwise, [0, 1, 0])
    assert_allclose(out.value, 760 - np.log(4), rtol=1e-15)
    assert_allclose(out.unary[1], [1.0, -1.0], rtol=1e-15)


def test_unknown_objective():
    with pytest.raises(InputError, match="`objective` must be one of 'nll'"):
        chain_objective("likelihood", np.zeros((1, 2)), np.zeros((2, 2)), [0])


@pytest.mark.parametrize("name", CHAIN_OBJECTIVES)
def test_a_batch_is_the_mean_of_its_sequences(name):
    unary, pairwise, labels = batch(0.3)
    out = chain_objective(name, unary, pairwise, labels, LENGTHS)
    alone = [chain_objective(name, u[:n], pairwise, y[:n]) for u, y, n in zip(unary, labels, LENGTHS)]
    assert_allclose(out.value, np.mean([o.value for o in alone]), rtol=1e-14)
    assert_allclose(out.pairwise, np.mean([o.pairwise for o in alone], axis=0), rtol=0, atol=1e-15)
    for u, o, n in zip(out.unary, alone, LENGTHS):
        assert_allclose(u[:n], o.unary / 4, rtol=0, atol=1e-15)


def test_bad_arguments_of_loss_augmentation_are_named():
    for arguments, weight, message in (
        ((3.0, [0]), 1.0, r"`unary` must have shape \(L, K\)"),
        ((np.zeros((2, 2)), [0, 2]), 1.0, "`labels` must be in 0..1; got 2"),
        ((np.zeros((2, 2)), [0, 1]), np.nan, "`weight` must be finite"),
    ):
        with pytest.raises(InputError, match=message):
            loss_augmented(*arguments, weight=weight)


def test_a_label_too_unlikely_for_floats_warns_nobody() -> None:
    """An overflow on the way, after which logarithms take over: e^{-900} and less are no numbers in the exp domain."""
    unary = np.array([[-0.5, -0.7, 1.1], [-0.7, 1.7, -1.0], [0.5, 0.8, 0.7], [-0.3, -0.2, -0.2]])
    pairwise = np.array([[428.0, 270.0, -40.0], [-294.0, -452.0, -224.0], [-5.0, -505.0, 113.0]])
    every = np.indices((3,) * 4).reshape(4, -1).T
    scores = [float(chain_score(unary, pairwise, y)) for y in every]
    exact = np.logaddexp.reduce(scores) - float(chain_score(unary, pairwise, [1, 2, 2, 1]))
    assert chain_objective("nll", unary, pairwise, [1, 2, 2, 1]).value == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize("n", [1, 50, 20_000])
def test_rows_are_gathered_by_their_index(n: int) -> None:
    rng = np.random.default_rng(n)
    index, rows = rng.integers(0, 7, size=n), rng.normal(size=(n, 4))
    expected = np.zeros((7, 4))
    np.add.at(expected, index, rows)
    assert_allclose(objectives._gather_rows(index, rows, 7), expected, rtol=1e-12, atol=1e-12 * n)
