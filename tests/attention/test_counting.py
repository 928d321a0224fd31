"""Counts are the same numbers whatever the form they come in, and what is not a count is refused."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from attnembed.attention.data import TokenDataset, make_balanced_dataset
from attnembed.attention.model import AttentionModel
from attnembed.attention.text import drop_empty
from attnembed.errors import InputError, InputTypeError

FORMATS = ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
DTYPES = (bool, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64, np.float32, np.float64)
PAIR = [1, -1]


@st.composite
def repeated_entries(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[int], int]:
    """Places (row, column) of a matrix with two rows, none of them empty, a value for each, and the columns."""
    width = draw(st.integers(1, 3))
    place = st.tuples(st.integers(0, 1), st.integers(0, width - 1))
    runs = draw(st.lists(st.tuples(place, st.integers(1, 300), st.integers(1, 127)), max_size=3))
    runs = [*runs, ((0, 0), 1, 1), ((1, width - 1), 1, 127)]
    entries = [(place, value) for place, times, value in runs for _ in range(times)]
    draw(st.randoms(use_true_random=False)).shuffle(entries)
    places, values = map(list, zip(*entries))
    return places, values, width


@given(repeated_entries(), st.sampled_from(DTYPES), st.sampled_from(["array", "matrix"]))
def test_entries_of_one_place_add_up_in_every_type(entries: Any, dtype: Any, kind: str) -> None:
    places, values, width = entries
    if dtype is bool:
        values = [1] * len(values)
    sums: Counter[tuple[int, int]] = Counter()  # Python's integers have no end
    for place, value in zip(places, values):
        sums[place] += value
    expected = [[sums[i, s] for s in range(width)] for i in range(2)]
    rows, columns = np.array(places).T
    coo = getattr(sp, f"coo_{kind}")((np.array(values, dtype), (rows, columns)), shape=(2, width))
    order = np.argsort(rows, kind="stable")
    starts = np.searchsorted(rows[order], [0, 1, 2])
    csr = getattr(sp, f"csr_{kind}")((np.array(values, dtype)[order], columns[order], starts), shape=(2, width))
    csc = getattr(sp, f"csc_{kind}")((csr.data, csr.indices, csr.indptr), shape=(width, 2)).T
    blocks = csr.data.reshape(-1, 1, 1)
    bsr = getattr(sp, f"bsr_{kind}")((blocks, csr.indices, csr.indptr), shape=(2, width))
    for matrix in (coo, csr, csc, bsr):
        assert matrix.dtype == dtype
        before = copy.deepcopy(matrix)
        data = TokenDataset.from_counts(matrix, PAIR)
        assert data.counts.toarray().tolist() == expected
        assert data.counts.dtype == np.float64
        assert data.counts.has_canonical_format
        assert drop_empty(matrix, PAIR)[0].toarray().tolist() == expected
        assert matrix.data.tolist() == before.data.tolist()  # and the caller's matrix is as it was


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMATS)
def test_any_format_and_type(form: str, dtype: Any) -> None:
    dense = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 100], [7, 1, 0]]).astype(dtype)
    expected = dense.tolist()
    for kind in ("array", "matrix"):
        matrix = getattr(sp, f"{form}_{kind}")(dense)
        counts, labels, kept = drop_empty(matrix, [1, -1, -1, 1])
        assert counts.toarray().tolist() == [expected[i] for i in (0, 2, 3)]
        assert isinstance(counts, sp.csr_array)
        assert labels.tolist() == [1, -1, 1]
        assert kept.tolist() == [0, 2, 3]
        assert TokenDataset.from_counts(matrix[[0, 2, 3]] if form in ("csr", "csc", "lil", "dok") else counts, labels)
    assert drop_empty(dense, [1, -1, -1, 1])[0].toarray().tolist() == [expected[i] for i in (0, 2, 3)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, bool, np.int16])
def test_three_hundred_ones_at_one_place(dtype: Any) -> None:
    rows = np.r_[np.zeros(300, int), np.ones(256, int)]
    matrix = sp.coo_array((np.ones(556, dtype), (rows, np.zeros(556, int))), shape=(2, 1))
    assert TokenDataset.from_counts(matrix, PAIR).lengths.tolist() == [300, 256]
    assert drop_empty(matrix, PAIR)[2].tolist() == [0, 1]


LARGE = 2**53
WHOLE = r"^`counts` must be whole numbers from 0 to 2\*\*53 - 1; got "


@pytest.mark.parametrize("value", [LARGE, LARGE + 1, 2**63 - 1])
def test_counts_that_float64_would_round(value: int) -> None:
    for dtype in (np.int64, np.uint64, np.float64):
        dense = np.array([[value, 1], [1, 1]], dtype=dtype)
        for counts in (dense, dense.tolist(), *(getattr(sp, f"{form}_array")(dense) for form in FORMATS)):
            with pytest.raises(InputError, match=WHOLE):
                TokenDataset.from_counts(counts, PAIR)


def test_the_largest_count_is_exact() -> None:
    counts = np.array([[LARGE - 1, 1], [1, 1]])
    assert int(TokenDataset.from_counts(counts, PAIR).counts[0, 0]) == LARGE - 1
    halves = sp.coo_array((np.array([LARGE // 2, LARGE // 2, 1]), ([0, 0, 1], [0, 0, 1])), shape=(2, 2))
    with pytest.raises(InputError, match=WHOLE):
        TokenDataset.from_counts(halves, PAIR)


def test_signs_do_not_cancel_in_a_sum() -> None:
    matrix = sp.coo_array((np.array([3, -3, 1]), ([0, 0, 1], [0, 0, 1])), shape=(2, 2))
    for door in (TokenDataset.from_counts, drop_empty):
        with pytest.raises(InputError, match=WHOLE + "-3"):
            door(matrix, PAIR)


# ---------------------------------------------------------------------------------------------- masks and matrices

MASKED = np.ma.array([[1, 2], [2, 1]], mask=[[0, 1], [0, 0]])


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("counts", lambda: TokenDataset.from_counts(MASKED, PAIR)),
        ("counts", lambda: TokenDataset(MASKED, PAIR)),
        ("counts", lambda: drop_empty(MASKED, PAIR)),
        ("counts", lambda: TokenDataset.from_counts(list(MASKED), PAIR)),
        ("labels", lambda: TokenDataset.from_counts(np.ones((2, 2)), np.ma.array(PAIR, mask=[0, 1]))),
        ("labels", lambda: drop_empty(np.ones((2, 2)), np.ma.array(PAIR, mask=[0, 1]))),
        ("tokens", lambda: TokenDataset.from_tokens(MASKED, PAIR)),
        ("tokens", lambda: TokenDataset.from_tokens(list(MASKED), PAIR)),
        ("tokens", lambda: TokenDataset.from_tokens([[0], MASKED[0]], PAIR)),
        ("tokens", lambda: TokenDataset.from_tokens((row for row in MASKED), PAIR)),
        ("E", lambda: AttentionModel(MASKED.astype(float), [1, 1], [1, 1])),
        ("p", lambda: AttentionModel(np.ones((2, 2)), np.ma.array([1, 1.0]), [1, 1])),
    ],
)
def test_masked_arrays_are_refused_by_name(name: str, call: Any) -> None:
    with pytest.raises(InputTypeError, match=f"^`{name}` must not be masked; got a masked array; leave out"):
        call()


def test_matrices_of_numpy_are_arrays() -> None:
    ids = np.array([[0, 2, 2], [1, 2, 2]]).view(np.matrix)
    data = TokenDataset.from_tokens(ids, PAIR)
    assert data.counts.toarray().tolist() == [[1, 0, 2], [0, 1, 2]]
    again = TokenDataset.from_counts(data.counts.toarray().view(np.matrix), PAIR)
    assert again.counts.toarray().tolist() == [[1, 0, 2], [0, 1, 2]]


@pytest.mark.parametrize("id", [2**63, 2**63 + 5, 2**64 - 1])
def test_ids_beyond_64_bits_are_named_as_they_came(id: int) -> None:
    for tokens in ([[1], np.array([3, id], dtype=np.uint64)], np.array([[1, 1], [1, id]], dtype=np.uint64)):
        for size in (None, 2):
            with pytest.raises(InputError, match=rf"^`tokens` must be ids in .*; got {id} in sequence 1;"):
                TokenDataset.from_tokens(tokens, PAIR, vocab_size=size)


# ------------------------------------------------------------------------------------------------------------- copies


def test_the_constructor_checks() -> None:
    with pytest.raises(InputError, match=r"^`labels` must contain only -1 and \+1; got values \{5\}"):
        TokenDataset(np.eye(2), [5, 5])
    with pytest.raises(InputError, match=r"^`counts` must not contain empty sequences"):
        TokenDataset(np.zeros((2, 2)), PAIR)
    with pytest.raises(InputError, match=r"^`vocab` must have one name per token"):
        TokenDataset(np.eye(2), PAIR, ["a"])
    counts = np.eye(2)
    data = TokenDataset(counts, PAIR, ["a", "b"])
    counts[:] = 7
    assert data.counts.toarray().tolist() == np.eye(2).tolist()
    assert data.vocab == ("a", "b")


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_keep_their_promises(how: Any) -> None:
    data = make_balanced_dataset(n_samples=6, length=4, rng=0)
    before = {
        name: getattr(data, name)
        for name in ("lengths", "frequency", "signed_frequency", "posterior_difference", "token_kinds")
    }
    other = how(data)
    for array in (other.counts.data, other.counts.indices, other.counts.indptr, other.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert "frequency" in vars(data)
    assert "frequency" not in vars(other)
    for name, value in before.items():
        assert np.array_equal(getattr(other, name), value, equal_nan=True)
        assert not getattr(other, name).flags.writeable
    assert other.counts_csc.toarray().tolist() == data.counts.toarray().tolist()
    assert other.check_assumption().holds


def test_a_subset_holds_the_chosen_rows() -> None:
    data = TokenDataset.from_tokens([[0, 2], [1], [2]], [1, -1, 1], vocab=["a", "b", "c"])
    part = data.subset([2, 0])
    assert part.counts.toarray().tolist() == [[0, 0, 1], [1, 0, 1]]
    assert (part.labels.tolist(), part.vocab, len(part), len(data)) == ([1, 1], ("a", "b", "c"), 2, 3)
    assert not part.counts.data.flags.writeable
    for rows, message in (
        ([3], "must be in 0..2, at least one; got 3"),
        ([-1], "got -1"),
        ([0.5], "must hold integers"),
    ):
        with pytest.raises(InputError, match=f"^`indices` .*{message}" if "must" not in message else message):
            data.subset(rows)
