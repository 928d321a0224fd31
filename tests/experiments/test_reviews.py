"""The parts of the experiments on reviews, each against the plain computation that it replaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize

from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.attention.training import train
from attnembed.errors import RunFailedError
from attnembed.experiments import logistic_regression
from attnembed.experiments.bag_of_words import BagOfWords
from attnembed.experiments.logistic_regression import LogisticRegression
from attnembed.experiments.review_corpus import balanced, without_ratings
from attnembed.experiments.review_training import Pieces, ReviewOptions, Training, pooled
from attnembed.optim import Adam, Cosine

Array = np.ndarray[Any, Any]


def made_up_reviews(n: int = 300, words: int = 40, seed: int = 0) -> TokenDataset:
    """Words of very different frequencies, some for one class more than for the other."""
    rng = np.random.default_rng(seed)
    labels = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    rate = 3 / (1 + np.arange(words)) * np.exp(0.4 * np.outer(labels, rng.standard_normal(words)))
    counts = rng.poisson(rate)
    counts[:, 0] += 1
    return TokenDataset.from_counts(counts, labels, vocab=[str(k) for k in range(words)])


def objective(point: Array, x: Any, y: Array, penalty: float) -> tuple[float, Array]:
    """F and its gradient, from their definitions."""
    w, b = point[:-1], point[-1]
    margins = y * (x @ w + b)
    pull = -y / (1 + np.exp(margins)) / y.size
    value = np.logaddexp(0, -margins).mean() + penalty / 2 * (w @ w)
    return float(value), np.append(x.T @ pull + penalty * w, pull.sum())


@pytest.mark.parametrize("penalty", [1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_regression_is_solved_to_its_tolerance(penalty: float, shift: float) -> None:
    """Against L-BFGS until it stops, and by the gradient; a shift moves the start far from the solution."""
    data = made_up_reviews()
    x, y = BagOfWords.features(data), data.labels
    start = np.full(x.shape[1] + 1, shift)
    found = LogisticRegression(x, y).solve(start, penalty)
    value, gradient = objective(found, x, y, penalty)
    scale = np.linalg.norm(objective(np.zeros_like(found), x, y, penalty)[1])
    assert np.linalg.norm(gradient) <= 5.001e-4 * scale
    best = minimize(
        objective,
        np.zeros_like(found),
        args=(x, y, penalty),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10000, "ftol": 1e-16, "gtol": 1e-9},
    )
    # F is convex with curvature `penalty` in w, and more in the mean direction: the gap is at most |g|^2 / penalty.
    assert -1e-12 <= value - best.fun <= np.linalg.norm(gradient) ** 2 / penalty
    assert_allclose(x @ found[:-1] + found[-1], x @ best.x[:-1] + best.x[-1], atol=0.05)


def test_the_regression_against_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="the peer is optional")
    data = made_up_reviews(seed=1)
    x, y, penalty = BagOfWords.features(data), data.labels, 1e-2
    found = LogisticRegression(x, y).solve(np.zeros(x.shape[1] + 1), penalty)
    peer = linear_model.LogisticRegression(C=1 / (penalty * y.size), tol=1e-10, max_iter=1000)
    peer.fit(sp.csr_matrix((x.data, x.indices, x.indptr), shape=x.shape), y)
    assert_allclose(found[:-1], peer.coef_[0], atol=2e-3 * np.abs(peer.coef_).max())
    assert_allclose(found[-1], peer.intercept_[0], atol=2e-3 * np.abs(peer.coef_).max())


def test_a_regression_that_is_not_solved_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = made_up_reviews()
    monkeypatch.setattr(logistic_regression, "_MOST_STEPS", 1)
    with pytest.raises(RunFailedError, match="the logistic regression failed: the gradient is still"):
        LogisticRegression(BagOfWords.features(data), data.labels).solve(np.zeros(41), 1e-5)


def test_a_path_from_similar_solutions_ends_where_the_plain_one_does() -> None:
    data = made_up_reviews()
    words = np.arange(3, data.vocab_size)
    labels, counts = data.labels, data.counts[:, words]
    full = np.diff(counts.indptr) > 0
    reduced = TokenDataset.from_counts(counts[full], labels[full])
    plain = BagOfWords.path(reduced)
    near = BagOfWords.path(reduced, near=[model.on(words) for model in BagOfWords.path(data)])
    x, y = BagOfWords.features(reduced), reduced.labels
    for one, other in zip(plain, near, strict=True):
        assert one.penalty == other.penalty
        scale = np.linalg.norm(objective(np.zeros(words.size + 1), x, y, one.penalty)[1])
        for model in (one, other):
            point = np.append(model.weights, model.constant)
            assert np.linalg.norm(objective(point, x, y, model.penalty)[1]) <= 5.001e-4 * scale
    assert len({model.penalty for model in plain}) == 3


def test_uniform_pooling_in_one_dimension_is_that_in_all() -> None:
    data, held_out = made_up_reviews(), made_up_reviews(seed=2)
    model = AttentionModel.random(data.vocab_size, 16, embedding_scale=0.3, rng=0)
    epsilon, outputs = 1e-3, []
    for start, factor in ((model.replace(p=np.zeros(16)), 1), (pooled(model), 16)):
        optimizer = Adam(step_size=0.5, epsilon=factor * epsilon, weight_decay=0.05)
        schedule = Cosine(12)
        result = train(start, data, params=("E",), optimizer=optimizer, n_epochs=8, schedule=schedule)
        outputs.append(result.model.output(held_out))
    assert_allclose(outputs[0], outputs[1], rtol=0, atol=1e-11 * np.abs(outputs[0]).max())
    assert np.abs(outputs[0] - model.replace(p=np.zeros(16)).output(held_out)).max() > 0.1


def test_a_training_takes_the_epochs_that_are_best_on_the_validation_part() -> None:
    pieces = Pieces(made_up_reviews(), made_up_reviews(seed=2), made_up_reviews(600, seed=3))
    options = ReviewOptions(dim=8, epochs=6)
    training = Training.after_one_step(AttentionModel.random(40, 8, rng=0), pieces, options)
    optimizer = Adam(
        step_size=options.pooling_step_size,
        epsilon=options.relative_epsilon / pieces.part.lengths.sum(),
        weight_decay=options.pooling_weight_decay,
    )
    model = training.starts[0].replace(p=np.zeros(8))
    schedule, validation = Cosine(6), pieces.validation
    plain = train(
        model,
        pieces.part,
        params=("E",),
        optimizer=optimizer,
        n_epochs=6,
        schedule=schedule,
        validation=validation,
    )
    assert training.run(attends=False).best_epoch == max(plain.best_epoch, 1)


def test_even_classes_are_left_alone_and_draw_as_many_numbers() -> None:
    data = made_up_reviews()
    first, second = np.random.default_rng(0), np.random.default_rng(0)
    assert balanced(data, first) is data
    second.permutation(data.n_samples // 2)
    assert first.random() == second.random()


def test_reviews_without_ratings_are_those_counted_anew() -> None:
    data = made_up_reviews(words=30)
    reduced = without_ratings(data)
    kept = [k for k in range(30) if k > 10]
    dense = data.counts.toarray()[:, kept]
    full = dense.any(axis=1)
    assert not full.all()
    assert_array_equal(reduced.counts.toarray(), dense[full])
    assert_array_equal(reduced.labels, data.labels[full])
    assert reduced.vocab == tuple(str(k) for k in kept)
    again = TokenDataset.from_counts(reduced.counts, reduced.labels)
    assert_array_equal(again.counts.indices, reduced.counts.indices)
    assert reduced.counts.indices.dtype == again.counts.indices.dtype
    assert not reduced.counts.data.flags.writeable
