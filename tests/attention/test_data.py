"""Counts and statistics against their definitions, Assumption 1, the generators, and what is refused."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_dtypes, array_shapes, arrays, from_dtype
from numpy.testing import assert_allclose, assert_array_equal

from attnembed.attention.data import (
    TokenDataset,
    TokenKind,
    check_data,
    make_balanced_dataset,
    make_iid_dataset,
)
from attnembed.errors import InputError
from tests.plain import AttentionProblem, attention_problems, balanced_problems

FROM_TOKENS, FROM_COUNTS = TokenDataset.from_tokens, TokenDataset.from_counts
PAIR = [1, -1]


def dataset(problem: AttentionProblem) -> TokenDataset:
    return FROM_TOKENS(problem.tokens, problem.labels, vocab_size=len(problem.E))


def same(one: TokenDataset, other: TokenDataset) -> bool:
    """Whether two data sets are equal, byte for byte."""
    parts = [(d.counts.data, d.counts.indices, d.counts.indptr, d.labels) for d in (one, other)]
    return one.vocab == other.vocab and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(*parts, strict=True)
    )


# ------------------------------------------------------------------------------------------------ counts, statistics


@given(attention_problems())
def test_statistics_by_definition(problem: AttentionProblem) -> None:
    data = dataset(problem)
    n, V = len(problem.tokens), len(problem.E)
    share = np.array([[x.count(s) / len(x) for s in range(V)] for x in problem.tokens])
    y = np.array(problem.labels, dtype=float)
    assert (data.n_samples, data.vocab_size) == (n, V)
    assert_array_equal(data.counts.toarray(), problem.counts)
    assert_array_equal(data.lengths, [len(x) for x in problem.tokens])
    assert_array_equal(data.labels, y)
    assert_allclose(data.frequency, share.mean(axis=0), rtol=1e-14)
    assert_allclose(data.signed_frequency, (y @ share) / n, rtol=0, atol=1e-15)
    # P(+|s) - P(-|s), each from the shares of the sequences of that label
    with np.errstate(invalid="ignore"):
        posterior = (share[y > 0].sum(axis=0) - share[y < 0].sum(axis=0)) / share.sum(axis=0)
    assert_allclose(data.posterior_difference, posterior, rtol=0, atol=2e-15)
    assert_array_equal(np.isnan(data.posterior_difference), share.sum(axis=0) == 0)
    assert np.nanmax(np.abs(data.posterior_difference)) <= 1
    occurs = data.frequency > 0
    assert_allclose(
        data.signed_frequency[occurs], (data.frequency * data.posterior_difference)[occurs], rtol=0, atol=1e-15
    )


@given(attention_problems())
def test_counts_are_canonical_and_cannot_be_written(problem: AttentionProblem) -> None:
    data = dataset(problem)
    assert isinstance(data.counts, sp.csr_array)
    assert data.counts.dtype == np.float64
    assert data.counts.has_canonical_format
    assert (data.counts.data > 0).all()
    for i in range(data.n_samples):
        row = data.counts.indices[data.counts.indptr[i] : data.counts.indptr[i + 1]]
        assert (np.diff(row) > 0).all()
    statistics = (data.lengths, data.frequency, data.signed_frequency, data.posterior_difference, data.token_kinds)
    for array in (data.counts.data, data.counts.indices, data.counts.indptr, data.labels, *statistics):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert_array_equal(data.counts_csc.toarray(), data.counts.toarray())
    assert data.token_kinds is data.token_kinds  # computed once


@given(attention_problems(), st.randoms(use_true_random=False))
def test_every_way_in_gives_the_same_bytes(problem: AttentionProblem, random: Any) -> None:
    data, counts, labels = dataset(problem), problem.counts, problem.labels
    shuffled = [random.sample(x, len(x)) for x in problem.tokens]
    assert same(data, FROM_TOKENS(shuffled, np.array(labels), vocab_size=len(problem.E)))
    assert same(data, FROM_TOKENS((np.array(x, dtype=np.uint8) for x in shuffled), labels, vocab_size=len(problem.E)))
    for dtype in (float, int, np.float32, np.uint8):
        assert same(data, FROM_COUNTS(counts.astype(dtype), labels))
    for form in (sp.csr_array, sp.csc_matrix, sp.coo_array, sp.lil_array):
        assert same(data, FROM_COUNTS(form(counts), labels))
    # a matrix with a duplicate, an explicit zero and unsorted indices
    coo = sp.coo_array(counts)
    rows, columns = np.r_[coo.row, 0], np.r_[coo.col, len(problem.E) - 1]
    messy = sp.coo_array((np.r_[coo.data, 0.0][::-1], (rows[::-1], columns[::-1])), shape=counts.shape)
    assert same(data, FROM_COUNTS(messy, labels))
    # every count in two halves, as a CSR matrix holds them that nobody has tidied
    rows, columns = np.repeat(coo.row, 2), np.repeat(coo.col, 2)
    order = np.argsort(rows, kind="stable")
    halves = np.column_stack([np.ones(coo.nnz), coo.data - 1]).ravel()
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(labels)))])
    assert same(data, FROM_COUNTS(sp.csr_array((halves[order], columns[order], indptr), shape=counts.shape), labels))


def test_the_input_is_copied() -> None:
    counts, labels = sp.csr_array(np.array([[1.0, 2.0], [0.0, 1.0]])), np.array([1.0, -1.0])
    data = FROM_COUNTS(counts, labels)
    counts.data[:], labels[:] = 7.0, 7.0
    assert data.counts.toarray().tolist() == [[1, 2], [0, 1]]
    assert data.labels.tolist() == [1, -1]


def test_an_array_of_tokens_and_a_vocabulary() -> None:
    data = FROM_TOKENS(np.array([[0, 2, 2], [1, 2, 2]]), PAIR, vocab=["good", "bad", "the"])
    assert same(data, FROM_TOKENS([[0, 2, 2], [1, 2, 2]], PAIR, vocab=("good", "bad", "the")))
    assert data.vocab == ("good", "bad", "the")
    assert repr(data) == "TokenDataset(n_samples=2, vocab_size=3, nnz=4)"
    assert FROM_TOKENS([[0], [1]], PAIR, vocab_size=5).vocab_size == 5
    assert FROM_TOKENS([[0], [1]], PAIR).vocab_size == 2
    assert FROM_COUNTS([[1, 0], [0, 1]], PAIR, vocab=["a", "b"]).vocab == ("a", "b")


# ------------------------------------------------------------------------------------------------------ Assumption 1


@given(balanced_problems())
def test_assumption_holds_for_mirrored_pairs(problem: AttentionProblem) -> None:
    report = dataset(problem).check_assumption()
    assert report.holds
    assert report.violations == []
    assert str(report) == "Assumption 1 holds"
    positive, negative = ({s for x, y in zip(problem.tokens, problem.labels) if y == sign for s in x} for sign in PAIR)
    assert_array_equal(report.important, [next(s for s in x if s in positive ^ negative) for x in problem.tokens])


@given(attention_problems(n=(2, 5), vocab=(2, 5)))
def test_assumption_by_definition(problem: AttentionProblem) -> None:
    data = dataset(problem)
    report, V = data.check_assumption(), len(problem.E)
    in_class = {y: {s for x, label in zip(problem.tokens, problem.labels) if label == y for s in x} for y in (1, -1)}
    complete = in_class[1] ^ in_class[-1]
    mixed = {s for s in in_class[1] & in_class[-1] if abs(data.signed_frequency[s]) > 1e-12}
    own = [sorted(set(x) & complete) for x in problem.tokens]
    assert report.holds == (not mixed and all(len(tokens) == 1 for tokens in own))
    assert report.important.tolist() == [tokens[0] if len(tokens) == 1 else -1 for tokens in own]
    # every violation is named, and nothing else
    named = {int(m[1]) for text in report.violations if (m := re.match(r"token (\d+) ", text))}
    wrong = {int(m[1]) for text in report.violations if (m := re.match(r"sequence (\d+) has", text))}
    assert named == mixed
    assert wrong == {i for i, tokens in enumerate(own) if len(tokens) != 1}
    kinds = data.token_kinds
    for s in range(V):
        expected = (
            TokenKind.ABSENT
            if not any(s in x for x in problem.tokens)
            else TokenKind.MIXED
            if s in mixed
            else TokenKind.IRRELEVANT
            if s not in complete
            else TokenKind.POSITIVE
            if s in in_class[1]
            else TokenKind.NEGATIVE
        )
        assert kinds[s] == expected


def test_violations_say_what_and_where() -> None:
    data = FROM_TOKENS([[0, 1, 3], [2, 3, 3], [3], [2, 3]], [1, -1, 1, -1], vocab=["fine", "good", "bad", "the"])
    report = data.check_assumption()
    assert not report.holds
    assert report.important.tolist() == [-1, 2, -1, 2]
    assert report.violations == [
        "token 3 ('the') is neither complete nor irrelevant: signed frequency +0.0417, posterior difference +0.0667",
        "sequence 0 has 2 completely positive or negative token types instead of 1: 0 ('fine'), 1 ('good')",
        "sequence 2 has 0 completely positive or negative token types instead of 1",
    ]
    assert str(report).startswith("Assumption 1 fails:\n  token 3")
    short = data.check_assumption(limit=1).violations
    assert short[-1] == "and 1 more sequences of that kind"
    many = FROM_TOKENS([[*range(9)], [*range(9), *range(9), 0]], PAIR).check_assumption(limit=3)
    assert "and 6 more tokens of that kind" in many.violations


# -------------------------------------------------------------------------------------------------------- generators

OPTIONS = st.fixed_dictionaries(
    {
        "n_samples": st.integers(1, 20).map(lambda k: 2 * k),
        "length": st.integers(4, 9),
        "n_positive": st.integers(1, 4),
        "n_negative": st.integers(1, 4),
        "n_irrelevant": st.integers(1, 9),
        "min_length": st.none() | st.integers(4, 4),
        "important_per_sequence": st.integers(1, 3),
        "zipf": st.floats(0, 3),
        "rng": st.integers(0, 2**32),
    }
)


@given(OPTIONS)
def test_balanced_data_is_balanced_exactly(options: dict[str, Any]) -> None:
    data = make_balanced_dataset(**options)
    M, P, k = options["n_positive"] + options["n_negative"], options["n_positive"], options["important_per_sequence"]
    assert (data.n_samples, data.vocab_size) == (options["n_samples"], M + options["n_irrelevant"])
    assert data.labels.sum() == 0
    assert_array_equal(data.signed_frequency[M:], 0.0)  # not merely small
    counts = data.counts.toarray()
    assert_array_equal(counts[0::2, M:], counts[1::2, M:])
    assert_array_equal(counts[data.labels > 0, :P].sum(axis=1), k)
    assert_array_equal(counts[data.labels < 0, P:M].sum(axis=1), k)
    assert_array_equal(counts[data.labels > 0, P:M], 0)
    assert_array_equal(counts[data.labels < 0, :P], 0)
    shortest = options["min_length"] or options["length"]
    assert data.lengths.min() >= shortest
    assert data.lengths.max() <= options["length"]
    if k == 1:
        assert data.check_assumption().holds
    pairs = options["n_samples"] // 2
    if pairs * k >= max(P, M - P):
        assert (data.frequency[:M] > 0).all()
    assert same(data, make_balanced_dataset(**options))


def test_generators_depend_on_the_seed_alone() -> None:
    probs = [0.3, 0.3, 0.4]
    for make, options in (
        (make_balanced_dataset, {}),
        (make_iid_dataset, {"positive_probs": probs, "negative_probs": probs, "min_length": 3, "label_noise": 0.2}),
    ):
        one, two, other = (make(rng=rng, **options) for rng in (1, np.random.default_rng(1), 2))
        assert same(one, two)
        assert not same(one, other)


def test_zipf_makes_the_first_tokens_frequent() -> None:
    flat, steep = (make_balanced_dataset(n_samples=400, zipf=zipf, rng=0).frequency[4:] for zipf in (0.0, 1.5))
    assert flat.max() < 2 * flat.mean()
    assert steep.argmax() == 0
    expected = np.arange(1, 41) ** -1.5
    assert_allclose(steep[:3] / steep.sum(), (expected / expected.sum())[:3], rtol=0.1)


def test_label_noise_breaks_the_assumption() -> None:
    clean, noisy = (make_balanced_dataset(n_samples=100, label_noise=noise, rng=0) for noise in (0.0, 0.1))
    assert_array_equal(clean.counts.toarray(), noisy.counts.toarray())
    assert (clean.labels != noisy.labels).sum() == 10
    assert not noisy.check_assumption().holds


def test_lengths_vary_between_the_bounds() -> None:
    lengths = make_balanced_dataset(n_samples=400, length=9, min_length=3, rng=0).lengths
    assert set(lengths) == set(range(3, 10))
    assert_array_equal(lengths[0::2], lengths[1::2])


def test_iid_data_has_the_frequencies_of_its_class() -> None:
    positive, negative = np.array([0.2, 0.0, 0.3, 0.5]), np.array([0.0, 0.2, 0.5, 0.3])
    data = make_iid_dataset(n_samples=2001, length=20, positive_probs=positive, negative_probs=negative, rng=0)
    assert data.labels.sum() == 1
    share = data.counts.toarray() / 20
    for sign, probs in ((1, positive), (-1, negative)):
        standard_error = np.sqrt(probs * (1 - probs) / 20000)
        assert (np.abs(share[data.labels == sign].mean(axis=0) - probs) <= 4 * standard_error).all()
    assert_array_equal(data.token_kinds, [TokenKind.POSITIVE, TokenKind.NEGATIVE, TokenKind.MIXED, TokenKind.MIXED])


# ------------------------------------------------------------------------------------------------- what is refused

TOKENS = [[0, 1], [1, 2]]
BAD: list[tuple[Any, str]] = [
    (lambda: FROM_TOKENS([], []), "`tokens` must hold at least one sequence; got none"),
    (lambda: FROM_TOKENS(None, PAIR), "`tokens` must be an (n, T) array or a list of int sequences; got 'NoneType'"),
    (lambda: FROM_TOKENS([[0], []], PAIR), "`tokens` must not contain empty sequences; got sequence 1; drop them"),
    (lambda: FROM_TOKENS(np.zeros((2, 0), int), PAIR), "`tokens` must not be empty; got shape (2, 0)"),
    (lambda: FROM_TOKENS([0, 1], PAIR), "`tokens` must hold flat sequences; got shape () at sequence 0"),
    (lambda: FROM_TOKENS(np.zeros((2, 2, 2), int), PAIR), "`tokens` must be an (n, T) array or a list of sequences"),
    (lambda: FROM_TOKENS([[0], [[1], [1, 2]]], PAIR), "`tokens` must be an (n, T) array or a list of int sequences"),
    (lambda: FROM_TOKENS([[0], [0.5]], PAIR), "`tokens` must hold integer ids; got dtype float64 at sequence 1"),
    (lambda: FROM_TOKENS(np.array([[np.nan], [0]]), PAIR), "`tokens` must hold integer ids; got dtype float64"),
    (lambda: FROM_TOKENS([[True], [False]], PAIR), "`tokens` must hold integer ids; got dtype bool at sequence 0"),
    (lambda: FROM_TOKENS(["good", "bad"], PAIR), "`tokens` must hold flat sequences; got shape () at sequence 0"),
    (lambda: FROM_TOKENS([["good"], ["bad"]], PAIR), "`tokens` must hold integer ids; got dtype <U4 at sequence 0"),
    (lambda: FROM_TOKENS([[0], [10**30]], PAIR), "`tokens` must hold integer ids; got dtype object at sequence 1"),
    (lambda: FROM_TOKENS([[0], [-1]], PAIR), "`tokens` must be ids in 0..0; got -1 in sequence 1; ids start at 0"),
    (
        lambda: FROM_TOKENS(TOKENS, PAIR, vocab_size=2),
        "`tokens` must be ids in 0..1; got 2 in sequence 1; pass vocab_size (or vocab) large enough",
    ),
    (lambda: FROM_TOKENS(TOKENS, PAIR, vocab=["a", "b"]), "`tokens` must be ids in 0..1; got 2 in sequence 1"),
    (lambda: FROM_TOKENS(TOKENS, PAIR, vocab_size=0), "`vocab_size` must be at least 1; got 0"),
    (lambda: FROM_TOKENS(TOKENS, PAIR, vocab_size=3.0), "`vocab_size` must be an integer; got 3.0"),
    (lambda: FROM_TOKENS([[0, 2**31], [1]], PAIR), "`vocab_size` must be at most 2147483647; got 2147483649"),
    (
        lambda: FROM_TOKENS(TOKENS, PAIR, vocab_size=4, vocab=["a", "b", "c"]),
        "`vocab` must have one name per token (4)",
    ),
    (lambda: FROM_TOKENS(TOKENS, PAIR, vocab="abc"), "`vocab` must be a sequence of names, one per token; got 'abc'"),
    (lambda: FROM_TOKENS(TOKENS, PAIR, vocab=3), "`vocab` must be a sequence of names, one per token; got 3"),
    (lambda: FROM_TOKENS(TOKENS, [1]), "`labels` must have one entry per sequence (2); got 1"),
    (
        lambda: FROM_TOKENS(TOKENS, [0, 1]),
        "`labels` must contain only -1 and +1; got values {0, 1}; use `2*labels - 1`",
    ),
    (lambda: FROM_TOKENS(TOKENS, [True, False]), "`labels` must contain only -1 and +1; got values {0, 1}"),
    (lambda: FROM_TOKENS(TOKENS, [1, 1]), "`labels` must contain both classes, -1 and +1; got only +1"),
    (lambda: FROM_TOKENS(TOKENS, ["+", "-"]), "`labels` must be a real numeric array; got dtype <U1"),
    (lambda: FROM_TOKENS(TOKENS, [[1], [-1]]), "`labels` must have 1 axes; got shape (2, 1)"),
    (lambda: FROM_COUNTS([[1], [1, 2]], PAIR), "`counts` must be an array, with rows of one length; got list"),
    (lambda: FROM_COUNTS([[1, np.nan], [1, 1]], PAIR), "`counts` must be finite; got nan at index (0, 1)"),
    (lambda: FROM_COUNTS([[1, -1], [1, 1]], PAIR), "`counts` must be whole numbers from 0 to 2**53 - 1; got -1"),
    (
        lambda: FROM_COUNTS([[1, 0.5], [1, 1]], PAIR),
        "`counts` must be whole numbers from 0 to 2**53 - 1; got 0.5; say how often each token occurs",
    ),
    (
        lambda: FROM_COUNTS(sp.csr_array([[1, np.inf], [1, 1]]), PAIR),
        "`counts` must be whole numbers from 0 to 2**53 - 1",
    ),
    (lambda: FROM_COUNTS(sp.csr_array([[1, 1j], [1, 1]]), PAIR), "`counts` must be real; got dtype complex128"),
    (
        lambda: FROM_COUNTS(sp.coo_array([1.0, 2.0]), PAIR),
        "`counts` must have 2 axes; got shape (2,)",
    ),
    (lambda: FROM_COUNTS([1.0, 2.0], PAIR), "`counts` must have 2 axes; got shape (2,)"),
    (
        lambda: FROM_COUNTS([[1, 0], [0, 0], [0, 0]], [1, -1, 1]),
        "`counts` must not contain empty sequences; got sequence 1 and 1 more",
    ),
    (lambda: FROM_COUNTS(np.zeros((0, 2)), []), "`labels` must contain both classes, -1 and +1; got no labels"),
    (lambda: make_balanced_dataset(n_samples=3), "`n_samples` must be even (sequences come in mirrored pairs); got 3"),
    (lambda: make_balanced_dataset(n_samples=0), "`n_samples` must be at least 2; got 0"),
    (lambda: make_balanced_dataset(n_positive=0), "`n_positive` must be at least 1; got 0"),
    (
        lambda: make_balanced_dataset(length=3, important_per_sequence=3),
        "`length` must satisfy important_per_sequence < min_length <= length; got important_per_sequence=3",
    ),
    (lambda: make_balanced_dataset(length=3, min_length=4), "`min_length` must satisfy important_per_sequence <"),
    (lambda: make_balanced_dataset(zipf=-1), "`zipf` must be finite and >= 0; got -1.0"),
    (lambda: make_balanced_dataset(label_noise=0.5), "`label_noise` must be in [0, 0.5); got 0.5"),
    (lambda: make_balanced_dataset(rng="seed"), "`rng` must be an int, a numpy.random.Generator or None; got str"),
    (
        lambda: make_iid_dataset(positive_probs=[0.5, 0.6], negative_probs=[1, 0]),
        "`positive_probs` must be probabilities",
    ),
    (
        lambda: make_iid_dataset(positive_probs=[1.5, -0.5], negative_probs=[1, 0]),
        "`positive_probs` must be probabilities",
    ),
    (lambda: make_iid_dataset(positive_probs=[], negative_probs=[1]), "`positive_probs` must be probabilities"),
    (lambda: make_iid_dataset(positive_probs="a", negative_probs=[1]), "`positive_probs` must be a real numeric array"),
    (lambda: make_iid_dataset(positive_probs=[1, 0], negative_probs=[1]), "`negative_probs` must have shape (2,)"),
    (
        lambda: make_iid_dataset(positive_probs=[1], negative_probs=[1], length=2, min_length=3),
        "`min_length` must be at most length (2)",
    ),
    (lambda: check_data([[0]], 3), "`data` must be a TokenDataset; got list"),
    (
        lambda: check_data(FROM_TOKENS(TOKENS, PAIR), 4),
        "`data` must have the model's vocabulary of 4 tokens; got 3; pass vocab_size to TokenDataset.from_tokens",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:70] for _, message in BAD])
def test_bad_input_ends_in_one_sentence(call: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("id", [2**63 + 5, 2**64 - 1])
def test_ids_beyond_64_bits_are_refused(id: int) -> None:
    for tokens in ([np.array([id], dtype=np.uint64), [1]], np.array([[id], [1]], dtype=np.uint64)):
        with pytest.raises(InputError, match=rf"`tokens` must be ids in 0\.\.2147483646; got {id} in sequence 0"):
            FROM_TOKENS(tokens, PAIR)


@cache  # it is checked once, which takes longer than drawing from it
def anything() -> st.SearchStrategy[Any]:
    """Arrays of any type and shape, ragged lists, text, numbers and nothing, some of it almost right."""
    any_array = array_dtypes().flatmap(
        lambda dtype: arrays(
            dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3), elements=from_dtype(dtype)
        )
    )
    scalars = st.none() | st.booleans() | st.integers(-3, 5) | st.floats() | st.text(max_size=2) | st.complex_numbers()
    nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner), max_leaves=6)
    ids = st.lists(st.lists(st.integers(-1, 4), max_size=3), max_size=3)
    counts = arrays(np.float64, (2, 3), elements=st.sampled_from([0.0, 1.0, 2.0, -1.0, 0.5, np.nan, 1e300]))
    return st.one_of(any_array, nested, ids, counts, counts.map(sp.csr_array), st.sets(st.integers()))


def outcome(build: Any, *arguments: Any, **options: Any) -> TokenDataset | InputError:
    """What was built, or the error of an input; any other error passes."""
    try:
        return build(*arguments, **options)
    except InputError as error:
        return error


@settings(max_examples=settings().max_examples // 2)  # each tries both ways in
@given(anything(), anything() | st.just(PAIR), anything() | st.none())
def test_garbage_gives_a_data_set_or_an_input_error(first: Any, labels: Any, vocab: Any) -> None:
    for build in (FROM_TOKENS, FROM_COUNTS):
        found = outcome(build, first, labels, vocab=vocab)
        if isinstance(found, InputError):
            assert found.name in ("tokens", "counts", "labels", "vocab", "vocab_size")
        else:
            assert set(found.labels) == {-1.0, 1.0}
            assert np.isfinite(found.frequency).all()
            assert found.frequency.sum() == pytest.approx(1, rel=1e-12)


@given(st.data(), anything() | st.integers())
def test_garbage_options_of_the_generators(data: st.DataObject, value: Any) -> None:
    probs = {"positive_probs": [1.0, 0.0], "negative_probs": [0.0, 1.0]}
    for make, needed in ((make_balanced_dataset, {}), (make_iid_dataset, probs)):
        name = data.draw(st.sampled_from([*inspect.signature(make).parameters]))
        if isinstance(value, int) and name in ("n_samples", "length", "n_positive", "n_negative", "n_irrelevant"):
            value = value % 50  # larger ones are fine, and slow
        found = outcome(make, **{"rng": 0, **needed, name: value})
        assert not isinstance(found, InputError) or found.name in (name, "length", "min_length", "negative_probs")
