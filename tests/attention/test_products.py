"""The fast products equal the plain ones at every size, block boundary and number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from attnembed import threads
from attnembed.attention import products
from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.errors import InputError, InputTypeError
from attnembed.testing import generators
from tests.plain import AttentionProblem, attention_problems

BLOCK = 12  # entries; the sizes below lie on, before and after multiples of it


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks of a few rows, and threads whatever the size."""
    monkeypatch.setattr(products, "_BLOCK", BLOCK)
    monkeypatch.setattr(products, "_VECTOR_BLOCK", BLOCK)
    monkeypatch.setattr(products, "_ONE_BLOCK", BLOCK)
    monkeypatch.setattr(products, "_LARGE", 0)
    yield
    threads.set_threads(None)


sizes = st.tuples(st.integers(1, 30), st.integers(1, 2 * BLOCK + 1))
counts_of_threads = st.sampled_from([1, 2, 3, 7])


def relative_error(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.linalg.norm(x - y) / (np.linalg.norm(y) or 1))


@given(generators(), sizes, counts_of_threads, st.sampled_from([np.float64, np.float32]))
def test_dense_products(rng: np.random.Generator, size: tuple[int, int], count: int, dtype: type) -> None:
    V, d = size
    E, X, F = (rng.standard_normal(shape).astype(dtype) for shape in ((V, d), (2, d), (2, V)))
    out = np.full((V, d), np.nan, dtype)
    threads.set_threads(count)
    limit = 20 * np.finfo(dtype).eps
    for fast, plain in (
        (products.embedding_product(E, X), X @ E.T),
        (products.embedding_transpose_product(E, F), F @ E),
        (products.rank_two(F, X), np.outer(F[0], X[0]) + np.outer(F[1], X[1])),
        (products.rank_two(F, X, out), F.T @ X),
    ):
        assert fast.dtype == dtype
        scale = max(1.0, float(np.linalg.norm(E) * np.linalg.norm(X)), float(np.linalg.norm(F) * np.linalg.norm(E)))
        assert np.linalg.norm(fast - plain) <= limit * scale
    assert not np.isnan(out).any()


@given(generators(), st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), counts_of_threads)
def test_count_product(rng: np.random.Generator, n: int, V: int, density: float, count: int) -> None:
    dense = rng.integers(1, 4, (n, V)) * (rng.random((n, V)) < density)  # with empty rows and columns
    W = rng.standard_normal((V, 2))
    threads.set_threads(count)
    assert relative_error(products.count_product(sp.csc_array(dense.astype(float)), W), dense @ W) <= 1e-14


@given(attention_problems(), st.floats(0, 50))
def test_the_number_of_threads_does_not_matter(problem: AttentionProblem, norm: float) -> None:
    data = TokenDataset.from_counts(problem.counts, problem.labels)
    model = AttentionModel(*problem.scaled(norm).arguments[:3])
    # Rounding is that of the summands, which may cancel, and of the scores, which the softmax magnifies.
    E, p, v = (float(np.linalg.norm(array)) for array in (model.E, model.p, model.v))
    limit = 4e-15 * (1 + E * p) * (1 + E) * (1 + v)
    results = []
    for count in (1, 2, 5):
        threads.set_threads(count)
        loss, gradients = model.loss_and_grads(data)
        results.append((np.array(loss), gradients.v, gradients.E))
    for other in results[1:]:
        for x, y in zip(other, results[0]):
            assert np.linalg.norm(x - y) <= limit


def test_a_thread_too_few_is_found() -> None:
    """Negative control: with one part left out, the comparison above fails."""
    E, X = np.ones((10, 3)), np.ones((2, 3))
    threads.set_threads(2)
    parts = products._even_parts(len(E), E.nbytes)
    assert [part.stop - part.start for part in parts] == [5, 5]
    assert relative_error(products.embedding_product(E[: parts[0].stop], X).sum(), (E @ X.T).sum()) > 0.4


def test_products_called_from_many_threads() -> None:
    rng = np.random.default_rng(0)
    E, X = rng.standard_normal((200, 30)), rng.standard_normal((2, 30))
    threads.set_threads(3)
    with ThreadPoolExecutor(8) as pool:
        for product in pool.map(lambda _: products.embedding_product(E, X), range(64)):
            assert_allclose(product, X @ E.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wrong", [0, -1])
def test_set_threads_rejects_numbers_below_one(wrong: int) -> None:
    with pytest.raises(InputError, match="`n` must be at least 1"):
        threads.set_threads(wrong)


def test_set_threads_rejects_fractions() -> None:
    with pytest.raises(InputTypeError, match="`n` must be an integer"):
        threads.set_threads(1.5)  # type: ignore[arg-type]


def test_the_variable_is_used_where_nothing_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNEMBED_THREADS", "5")
    assert threads.get_threads() == 5
    threads.set_threads(3)
    assert threads.get_threads() == 3
    threads.set_threads(None)
    monkeypatch.delenv("ATTNEMBED_THREADS")
    assert threads.get_threads() >= 1


@pytest.mark.parametrize("text", ["0", "two", "1.5", "-2"])
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ATTNEMBED_THREADS", text)
    with pytest.raises(InputError, match="`ATTNEMBED_THREADS` must be an integer of at least 1"):
        threads.get_threads()
