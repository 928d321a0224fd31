"""The parts of the experiments on reviews, each against the plain computation that it replaces."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.stats import spearmanr

from attnembed.attention.data import TokenDataset
from attnembed.attention.first_step import one_step
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.training import TrainResult, train
from attnembed.errors import RunFailedError
from attnembed.experiments import logistic_regression, review_training
from attnembed.experiments.bag_of_words import BagOfWords
from attnembed.experiments.logistic_regression import LogisticRegression
from attnembed.experiments.review_corpus import balanced, once_per_data, without_ratings
from attnembed.experiments.review_pictures import spearman
from attnembed.experiments.review_training import Pieces, ReviewOptions, Training, pooled, single, step_size
from attnembed.experiments.reviews import flow_on_p
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


def test_few_products_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the preconditioner, and fewer still from similar solutions; without either twice as many."""
    data = made_up_reviews()
    products = []
    against = LogisticRegression._against
    monkeypatch.setattr(LogisticRegression, "_against", lambda self, pull: products.append(1) or against(self, pull))
    alone = BagOfWords.path(data)
    first = len(products)
    other = data.subset(np.arange(6, data.n_samples))
    BagOfWords.path(other)
    second = len(products) - first
    BagOfWords.path(other, near=alone)
    assert first < 70
    assert len(products) - first - second < 0.75 * second


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
    """Uniform pooling, in all dimensions: first on the part, then on the whole for as many epochs as were best."""
    pieces = Pieces(made_up_reviews(), made_up_reviews(seed=2), made_up_reviews(600, seed=3))
    options = ReviewOptions(dim=8, epochs=6)
    training = Training.after_one_step(AttentionModel.random(40, 8, rng=0), pieces, options)

    def plain(data: TokenDataset, start: AttentionModel, epochs: int, validation: TokenDataset | None) -> TrainResult:
        optimizer = Adam(
            step_size=options.pooling_step_size,
            epsilon=options.relative_epsilon / data.lengths.sum(),
            weight_decay=options.pooling_weight_decay,
        )
        return train(
            start.replace(p=np.zeros(8)),
            data,
            params=("E",),
            optimizer=optimizer,
            n_epochs=epochs,
            schedule=Cosine(6),
            validation=validation,
        )

    epochs = max(plain(pieces.part, training.starts[0], 6, pieces.validation).best_epoch, 1)
    expected = plain(pieces.whole, training.starts[1], epochs, None).model
    found = training.run(attends=False)
    assert found.best_epoch == epochs
    output = expected.output(pieces.validation)
    assert_allclose(found.model.output(pieces.validation), output, rtol=0, atol=1e-11 * np.abs(output).max())


def test_attention_trained_in_single_precision_is_that_in_double() -> None:
    pieces = Pieces(made_up_reviews(), made_up_reviews(seed=2), made_up_reviews(600, seed=3))
    training = Training.after_one_step(AttentionModel.random(40, 8, rng=0), pieces, ReviewOptions(dim=8, epochs=12))
    outputs = []
    for precision in (single, lambda model: model):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(review_training, "single", precision)
            result = training.run(attends=True)
        outputs.append((result.model.E.dtype, result.best_epoch, result.model.output(pieces.validation)))
    (kind, epochs, output), (plain_kind, plain_epochs, plain) = outputs
    assert (kind, plain_kind) == (np.float32, np.float64)
    assert epochs == plain_epochs
    assert_allclose(output, plain, rtol=0, atol=1e-5 * np.abs(plain).max())


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


def test_features_are_logarithms_of_counts_in_rows_of_unit_norm() -> None:
    counts = [[1, 0, 3], [0, 2, 0], [5, 70_000, 1]]
    for kept in (counts, [[1, 0, 3], [0, 2, 0]]):  # with a count too large for a table, and without
        x = BagOfWords.features(TokenDataset.from_counts(kept, [1, -1, 1][: len(kept)])).toarray()
        plain = np.log1p(np.array(kept, dtype=float))
        assert_allclose(x, plain / np.linalg.norm(plain, axis=1, keepdims=True), rtol=1e-15)


def test_results_are_kept_as_long_as_the_data() -> None:
    calls = []

    @once_per_data
    def count(data: TokenDataset) -> int:
        calls.append(data.n_samples)
        return data.n_samples

    data = made_up_reviews(20)
    assert [count(data), count(data), count(made_up_reviews(30))] == [20, 20, 30]
    assert calls == [20, 30]
    gone = weakref.ref(data)
    del data
    assert gone() is None


def test_the_flow_in_the_span_of_the_embeddings_is_that_of_all_dimensions() -> None:
    data, words = made_up_reviews(60), 12
    found = flow_on_p(data, words, 2.0, 1.5)
    kept = np.flatnonzero(data.counts[:, :words].sum(axis=1))
    frequent = TokenDataset.from_counts(data.counts[kept][:, :words], data.labels[kept])
    start = AttentionModel(np.eye(words, words + 1), np.zeros(words + 1), np.eye(words + 1)[-1])
    stepped = one_step(start, frequent, step_size(frequent, 2.0)).model
    plain = gradient_flow(stepped, frequent, clock="arclength", until=1.5, rtol=1e-9, atol=1e-11).model
    assert_allclose(found.token_values, plain.token_values, atol=1e-12)
    assert_allclose(found.token_scores, plain.token_scores, atol=1e-3 * np.ptp(plain.token_scores))
    assert np.ptp(plain.token_scores) > 0.1


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_against_scipy(ties: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 50))
    y += x
    if ties:
        x, y = x.round(), y.round()
    assert_allclose(spearman(x, y), spearmanr(x, y).statistic, rtol=1e-13)
    assert spearman(np.ones(50), y) == 0
