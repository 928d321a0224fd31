"""The products that dominate the attention passes, each over two columns at once.

    E X^T (V, 2),   F^T E (2, d),   F X (V, d),   C W (n, 2),   C^T R (V, 2)

for embeddings E (V, d), counts C (n, V), and X (2, d), F and W (V, 2), R (n, 2).
Each has a plain form, the formula in its first line, against which tests/attention/test_products.py compares it. The
fast forms are explained beside the code; docs/performance.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from attnembed import threads
from attnembed._typing import Floats, Ints

__all__ = ["count_product", "embedding_product", "embedding_transpose_product", "rank_two", "two_columns"]


# Rows of E go to BLAS in blocks of this many entries (256 kB in float64): they stay in the second-level cache, and
# OpenBLAS works on the calling thread whatever its setting (below 2^18 multiplications), so that the threads here
# never wait for threads of BLAS. A small E is one block. The blocks are the leading axis of a stacked product: NumPy
# then runs over them without the interpreter, whose lock two threads would pass back and forth at every block.
_BLOCK, _ONE_BLOCK = 2**15, 2**17

# Number of blocks whose partial sums are kept at once.
_PARTIAL = 16

# Below this many bytes a second thread costs more than it saves.
_LARGE = 2**22


def two_columns(first: Floats, second: Floats) -> Floats:
    """Two vectors (m,) side by side, (m, 2)."""
    out = np.empty((first.size, 2), dtype=first.dtype)
    out[:, 0], out[:, 1] = first, second
    return out


def embedding_product(E: Floats, X: Floats) -> Floats:
    """E X^T, (V, d)(d, 2) -> (V, 2)."""
    # One product with two columns reads E once; two matrix-vector products read it twice.
    if E.size <= _ONE_BLOCK:
        return E @ X.T
    out = np.empty((len(E), len(X)), dtype=np.result_type(E, X))

    def task(part: slice) -> None:
        for rows, shape in _blocks(part, E.shape[1]):
            np.matmul(E[rows].reshape(*shape, -1), X.T, out=out[rows].reshape(*shape, -1))

    threads.share(task, _even_parts(len(E), E.nbytes))
    return out


def embedding_transpose_product(E: Floats, F: Floats) -> Floats:
    """F^T E, (2, V)(V, d) -> (2, d)."""
    if E.size <= _ONE_BLOCK:
        return F.T @ E

    def task(part: slice) -> Floats:
        total = np.zeros((F.shape[1], E.shape[1]), dtype=np.result_type(E, F))
        for rows, shape in _blocks(part, E.shape[1], most=_PARTIAL):
            partial = F[rows].reshape(*shape, -1).transpose(0, 2, 1) @ E[rows].reshape(*shape, -1)
            total += partial.sum(axis=0)
        return total

    value: Floats = np.sum(threads.share(task, _even_parts(len(E), E.nbytes)), axis=0)
    return value


def rank_two(F: Floats, X: Floats, out: Floats | None = None) -> Floats:
    """F X, (V, 2)(2, d) -> (V, d), into ``out`` where it is given.

    Writing to untouched memory doubles the cost (page faults): a loop should pass ``out``.
    """
    if out is None:
        out = np.empty((len(F), X.shape[1]), dtype=np.result_type(F, X))
    # As a product of inner dimension two: the sum of two outer products passes through memory three times.
    if out.size <= _ONE_BLOCK or not out.flags.c_contiguous:
        return np.matmul(F, X, out=out)

    def task(part: slice) -> None:
        for rows, shape in _blocks(part, X.shape[1]):
            np.matmul(F[rows].reshape(*shape, -1), X, out=out[rows].reshape(*shape, -1))

    threads.share(task, _even_parts(len(F), out.nbytes))
    return out


def count_product(matrix: sp.csc_array, W: Floats) -> Floats:
    """C W, (n, V)(V, 2) -> (n, 2), for counts in CSC form; with C^T in that form, C^T R, (V, n)(n, 2) -> (V, 2)."""
    # In CSC form a product walks the matrix once and adds to the rows of a small result, both columns at a time; the
    # CSR form of the same product gathers and takes 1.4 times as long. Hence the two orientations of the counts.
    count = _thread_count(12 * matrix.nnz)
    if count == 1:
        value: Floats = matrix @ W
        return value
    inner = np.searchsorted(matrix.indptr, np.linspace(0, matrix.nnz, count + 1)[1:-1])
    parts = _parts(np.r_[0, inner, matrix.shape[1]])
    value = np.sum(threads.share(lambda part: _columns(matrix, part) @ W[part], parts), axis=0)
    return value


def _columns(matrix: sp.csc_array, part: slice) -> sp.csc_array:
    """Neighbouring columns that share the matrix's arrays (its constructor would copy such views)."""
    start, stop = matrix.indptr[part.start], matrix.indptr[part.stop]
    view = sp.csc_array((matrix.shape[0], part.stop - part.start))
    view.data, view.indices = matrix.data[start:stop], matrix.indices[start:stop]
    view.indptr = matrix.indptr[part.start : part.stop + 1] - start
    return view


def _blocks(part: slice, width: int, *, most: int | None = None) -> Iterator[tuple[slice, tuple[int, int]]]:
    """Rows of ``part`` and their shape (blocks, rows of a block): at most ``most`` blocks at a time, then the rest."""
    step = max(1, min(_BLOCK // width, part.stop - part.start))
    whole = (part.stop - part.start) // step * step
    at_once = step * (most or max(1, whole // step))
    for k in range(part.start, part.start + whole, at_once):
        rows = slice(k, min(k + at_once, part.start + whole))
        yield rows, ((rows.stop - rows.start) // step, step)
    if part.start + whole < part.stop:
        yield slice(part.start + whole, part.stop), (1, part.stop - part.start - whole)


def _even_parts(rows: int, nbytes: int) -> list[slice]:
    count = _thread_count(nbytes)
    return [slice(0, rows)] if count == 1 else _parts(np.linspace(0, rows, count + 1).astype(int))


def _parts(bounds: Ints) -> list[slice]:
    return [slice(int(a), int(b)) for a, b in pairwise(bounds)]


def _thread_count(nbytes: int) -> int:
    return threads.get_threads() if nbytes >= _LARGE else 1
