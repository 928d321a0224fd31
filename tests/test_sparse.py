"""The guard of sparse matrices. It only has to raise: nothing is ever computed from the matrices below."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from attnembed._sparse import check_sparse
from attnembed.attention import counting
from attnembed.attention.data import TokenDataset
from attnembed.attention.text import drop_empty
from attnembed.errors import InputError, InputTypeError

FORMATS = ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
DENSE = np.array([[1, 0, 2, 0], [0, 3, 0, 0], [4, 0, 0, 5], [0, 6, 0, 0]])


def made(form: str, kind: str = "array", dense: Any = DENSE) -> Any:
    return getattr(sp, f"{form}_{kind}")(dense)


def changed(form: str, **parts: Any) -> Any:
    """A good matrix with some of its parts exchanged by hand, as no constructor would take them."""
    matrix = made(form)
    for name, value in parts.items():
        setattr(matrix, name, value)
    return matrix


def entries(form: str, name: str, index: Any, value: Any) -> Any:
    """A good matrix with one entry of a part changed."""
    matrix = made(form)
    part = copy.deepcopy(getattr(matrix, name))
    part[index] = value
    setattr(matrix, name, part)
    return matrix


def dictionary(key: Any, value: Any = 1.0) -> Any:
    matrix = made("dok")
    matrix._dict[key] = value
    return matrix


ints = lambda *values: np.array(values, dtype=np.int32)  # noqa: E731
WRONG: list[tuple[Any, str]] = [
    *((entries(form, "indices", 1, 4), "indices with 4, outside 0..3") for form in ("csr", "csc")),
    *((entries(form, "indices", 0, -1), "indices with -1, outside 0..3") for form in ("csr", "csc")),
    *((entries(form, "indptr", 1, 5), "indptr that decreases") for form in ("csr", "csc")),
    *((entries(form, "indptr", 0, 1), "indptr that starts at 1") for form in ("csr", "csc")),
    *((entries(form, "indptr", 0, -1), "indptr that starts at -1") for form in ("csr", "csc", "bsr")),
    *((entries(form, "indptr", -1, 10**6), "for the 1000000 entries of indptr") for form in ("csr", "csc", "bsr")),
    *((changed(form, indptr=ints(0, 6)), "indptr of length 2 instead of 5") for form in ("csr", "csc")),
    *((changed(form, indptr=ints()), "indptr of length 0 instead of 5") for form in ("csr", "csc")),
    *((changed(form, indices=ints(0)), "1 indices and data of shape") for form in ("csr", "csc")),
    *((changed(form, data=np.ones(2)), "data of shape (2,) for the 6 entries") for form in ("csr", "csc")),
    *((changed(form, data=np.ones((6, 1))), "data of shape (6, 1)") for form in ("csr", "csc")),
    *((changed(form, indices=np.zeros(6)), "indices that is not a vector of integers") for form in ("csr", "csc")),
    *((changed(form, indptr=[0, 1, 2, 3, 6]), "indptr that is not a vector of integers") for form in ("csr", "csc")),
    (changed("csr", indptr=np.zeros((5, 1), int)), "indptr that is not a vector of integers"),
    (entries("bsr", "indices", 0, 9), "indices with 9, outside 0.."),
    (changed("bsr", data=np.ones((4, 3, 2))), "blocks of shape (3, 2) in a matrix of shape (4, 4)"),
    (changed("bsr", data=np.ones((4, 0, 2))), "blocks of shape (0, 2)"),
    (changed("coo", coords=(ints(0, 4), ints(0, 0)), data=np.ones(2)), "row with 4, outside 0..3"),
    (changed("coo", coords=(ints(0, 3), ints(0, -1)), data=np.ones(2)), "col with -1, outside 0..3"),
    (changed("coo", coords=(ints(0), ints(0)), data=np.ones(2)), "1 entries in row for 2 values"),
    (changed("coo", coords=(ints(0, 1), ints(0)), data=np.ones(2)), "1 entries in col for 2 values"),
    (changed("coo", coords=(ints(0),), data=np.ones(1)), "1 arrays of coordinates"),
    (changed("coo", coords=(np.zeros(1), ints(0)), data=np.ones(1)), "row that is not a vector of integers"),
    (changed("dia", offsets=ints(0)), "diagonals"),
    (changed("dia", offsets=ints(0, 0), data=np.ones((2, 4))), "a diagonal twice"),
    (changed("dia", offsets=np.array([0, 2**32]), data=np.ones((2, 4))), "a diagonal at 4294967296"),
    (changed("dia", data=np.ones(4)), "data of shape (4,)"),
    (entries("lil", "rows", 1, [7]), "rows with 7, outside 0..3"),
    (entries("lil", "rows", 1, [-1]), "rows with -1, outside 0..3"),
    (entries("lil", "rows", 1, []), "0 indices for 1 values in row 1"),
    (entries("lil", "data", 1, [1, 2]), "1 indices for 2 values in row 1"),
    (entries("lil", "rows", 1, None), "rows that is not an array of 4 lists"),
    (entries("lil", "rows", 1, [0.5]), "rows that is not a vector of integers"),
    (entries("lil", "data", 1, ["x"]), "invalid literal"),
    (changed("lil", rows=np.empty(2, object)), "rows that is not an array of 4 lists"),
    (dictionary((4, 0)), "rows with 4, outside 0..3"),
    (dictionary((0, -1)), "columns with -1, outside 0..3"),
    (dictionary(3), "keys that are not pairs"),
    (dictionary((0, "a")), "columns that is not a vector of integers"),
    (dictionary((0, 1), "x"), "invalid literal"),
]


@pytest.mark.parametrize(("matrix", "problem"), WRONG, ids=[f"{m.format} {text}" for m, text in WRONG])
def test_indices_that_do_not_fit_are_refused(matrix: Any, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        check_sparse("counts", matrix)
    message = str(caught.value)
    assert message.startswith("`counts` must be a sparse matrix with indices that fit its shape; got ")
    assert problem in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("form", FORMATS)
def test_what_scipy_makes_passes_and_stays_as_it_is(form: str, kind: str) -> None:
    for dense in (DENSE, DENSE[:2], DENSE[:, :3] > 0, np.zeros((2, 3)), np.zeros((0, 3)), np.zeros((2, 0))):
        if form == "dok" and 0 in dense.shape:
            continue
        matrix = made(form, kind, dense)
        before = copy.deepcopy(matrix)
        check_sparse("counts", matrix)
        assert type(matrix) is type(before)
        assert (matrix.toarray() == before.toarray()).all()


def test_room_for_more_entries_is_no_fault() -> None:
    matrix = changed("csr", indices=np.r_[made("csr").indices, ints(99)], data=np.r_[made("csr").data, 7])
    check_sparse("counts", matrix)
    assert TokenDataset.from_counts(matrix, [1, -1, 1, -1]).counts.toarray().tolist() == DENSE.tolist()


def test_other_types_and_axes() -> None:
    with pytest.raises(InputTypeError, match="`counts` must be real; got dtype complex128"):
        check_sparse("counts", sp.csr_array([[1j]]))
    with pytest.raises(InputError, match=r"`counts` must have 2 axes; got shape \(2,\)"):
        check_sparse("counts", sp.coo_array([1.0, 2.0]))


@pytest.mark.parametrize(
    "door",
    [
        lambda matrix: TokenDataset(matrix, [1, -1, 1, -1]),
        lambda matrix: TokenDataset.from_counts(matrix, [1, -1, 1, -1]),
        lambda matrix: drop_empty(matrix, [1, -1, 1, -1]),
    ],
)
@pytest.mark.parametrize("form", FORMATS)
def test_every_door_asks_the_guard_first(monkeypatch: pytest.MonkeyPatch, door: Any, form: str) -> None:
    def guard(name: str, matrix: Any) -> None:
        raise InputError(name, f"was asked for {matrix.format}")

    door(made(form))
    monkeypatch.setattr(counting, "check_sparse", guard)
    with pytest.raises(InputError, match=f"^`counts` was asked for {form}$"):
        door(made(form))
