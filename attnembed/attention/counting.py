"""The canonical matrix of token counts, from token ids or from counts in any form."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from attnembed._sparse import check_sparse
from attnembed._typing import Ints
from attnembed._validation import as_array, as_real_array, check_integer, refuse_mask
from attnembed.errors import InputError, InputTypeError

__all__ = ["as_counts", "count_tokens"]


_LIMIT = 2**53  # below it float64 represents every whole number; 2^53 may be a rounded 2^53 + 1
LARGEST_VOCABULARY = 2**31 - 1  # ids are stored in 32 bits, which halves the index traffic of every pass


def as_counts(name: str, counts: Any) -> sp.csr_array:
    """A canonical copy, CSR float64 (n, V), of a dense or sparse matrix of whole numbers from 0 to 2^53 - 1.

    Duplicate entries are added, in double precision whatever the type of ``counts``.
    """
    if sp.issparse(counts):
        check_sparse(name, counts)
        if counts.format in ("lil", "dok", "dia"):  # these hold a place once
            counts = counts.tocsr()
        elif counts.format != "coo" and counts.indptr[-1] < len(counts.data):
            counts = counts.copy()
            counts.prune()
        _check_whole(name, counts.data)
        # First to double, then to CSR: the conversion adds duplicate entries in their own type.
        matrix = sp.csr_array(counts.astype(np.float64))
    else:
        dense = as_array(name, counts)
        doubles = as_real_array(name, dense, ndim=2, dtype=np.float64)
        _check_whole(name, dense)
        matrix = sp.csr_array(doubles)
    matrix.sum_duplicates()  # sorts the indices, too
    matrix.eliminate_zeros()
    _check_limit(name, matrix.data)
    return _with_short_indices(matrix)


def count_tokens(tokens: Any, vocab_size: int | None) -> sp.csr_array:
    """Canonical counts (n, V) of an int array (n, T) or n sequences of ints; V defaults to the largest id plus one."""
    rows, columns, n = _flatten(tokens)
    if vocab_size is None:
        vocab_size = int(columns.max()) + 1
    vocab_size = check_integer("vocab_size", vocab_size, minimum=1)
    bad = np.flatnonzero((columns < 0) | (columns >= vocab_size))
    if bad.size:
        hint = "pass vocab_size (or vocab) large enough" if columns[bad[0]] > 0 else "ids start at 0"
        raise _not_an_id(columns[bad[0]], int(rows[bad[0]]), vocab_size, hint)
    _check_vocab_size(vocab_size)
    matrix = sp.coo_array((np.ones(columns.size), (rows, columns)), shape=(n, vocab_size)).tocsr()
    return _with_short_indices(matrix)


def _flatten(tokens: Any) -> tuple[Ints, Ints, int]:
    """(sequence ids, token ids, number of sequences) of an (n, T) array or a list of sequences."""
    if isinstance(tokens, np.ndarray) and tokens.dtype != object:
        array = as_array("tokens", tokens)
        if array.ndim != 2:
            raise InputError("tokens", "must be an (n, T) array or a list of sequences", got=f"shape {array.shape}")
        if array.dtype.kind not in "iu":
            raise InputTypeError("tokens", "must hold integer ids", got=f"dtype {array.dtype}")
        if array.size == 0:
            raise InputError("tokens", "must not be empty", got=f"shape {array.shape}")
        _check_width(array.ravel(), 0, array.shape[1])
        return np.repeat(np.arange(len(array)), array.shape[1]), array.ravel().astype(np.int64), len(array)
    if isinstance(tokens, np.ndarray):
        refuse_mask("tokens", tokens)
    sequences = []
    try:
        for sequence in tokens:
            refuse_mask("tokens", sequence)
            sequences.append(np.asarray(sequence))
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputTypeError("tokens", "must be an (n, T) array or a list of int sequences", got=str(error)) from error
    if not sequences:
        raise InputError("tokens", "must hold at least one sequence", got="none")
    for i, sequence in enumerate(sequences):
        if sequence.ndim != 1:
            raise InputError("tokens", "must hold flat sequences", got=f"shape {sequence.shape} at sequence {i}")
        if sequence.size == 0:
            raise InputError("tokens", "must not contain empty sequences", got=f"sequence {i}", hint="drop them")
        if sequence.dtype.kind not in "iu":
            raise InputTypeError("tokens", "must hold integer ids", got=f"dtype {sequence.dtype} at sequence {i}")
        _check_width(sequence, i, sequence.size)
    rows = np.repeat(np.arange(len(sequences)), [sequence.size for sequence in sequences])
    return rows, np.concatenate([ids.astype(np.int64, copy=False) for ids in sequences]), len(sequences)


def _check_width(ids: Ints, first: int, length: int) -> None:
    """Reject ids from 2^63 on, which the cast to signed 64 bits would turn negative.

    ``ids`` belong to sequences of one length, numbered from ``first`` on.
    """
    if ids.dtype == np.uint64 and ids.max(initial=0) > np.iinfo(np.int64).max:
        at = int(ids.argmax())
        raise _not_an_id(ids[at], first + at // length, LARGEST_VOCABULARY, "ids are stored in 32 bits")


def _not_an_id(found: Any, sequence: int, vocab_size: int, hint: str) -> InputError:
    got = f"{found} in sequence {sequence}"
    return InputError("tokens", f"must be ids in 0..{vocab_size - 1}", got=got, hint=hint)


def _check_whole(name: str, values: NDArray[Any]) -> None:
    _check_limit(name, values)
    if values.dtype.kind == "f":
        _refuse(name, values, values == np.floor(values))


def _check_limit(name: str, values: NDArray[Any]) -> None:
    if values.size and not (values.min() >= 0 and values.max() < _LIMIT):  # NaN is neither
        _refuse(name, values, (values >= 0) & (values < _LIMIT))


def _refuse(name: str, values: NDArray[Any], good: NDArray[np.bool_]) -> None:
    if not good.all():
        hint = "say how often each token occurs; weights are not counts"
        raise InputError(name, "must be whole numbers from 0 to 2**53 - 1", got=values[~good][0], hint=hint)


def _check_vocab_size(vocab_size: int) -> None:
    if vocab_size > LARGEST_VOCABULARY:
        raise InputError("vocab_size", f"must be at most {LARGEST_VOCABULARY}", got=vocab_size)


def _with_short_indices(matrix: sp.csr_array) -> sp.csr_array:
    _check_vocab_size(matrix.shape[1])
    if matrix.nnz <= LARGEST_VOCABULARY:
        matrix.indices, matrix.indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    return matrix
