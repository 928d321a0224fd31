"""The products that dominate the attention passes, each over two columns at once.

    X E^T (2, V),   F E (2, d),   F^T X (V, d),   C W (n, 2),   C^T R (V, 2)

for embeddings E (V, d), counts C (n, V), and X (2, d), F (2, V), W (V, 2), R (n, 2).
Each has a plain form, the formula in its first line, against which tests/attention/test_products.py compares it. The
fast forms are explained beside the code; docs/performance.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from attnembed import threads
from attnembed._typing import Floats, Ints

__all__ = ["count_product", "embedding_product", "embedding_transpose_product", "rank_two", "two_columns"]


# Rows of E go to BLAS in blocks of this many entries: they stay in the cache, and OpenBLAS works on the calling thread
# whatever its setting (matrix times vector below 9,216 entries, matrix times matrix below 2^18 multiplications), so
# that the threads here never wait for threads of BLAS. The blocks are the leading axis of a stacked product: NumPy then
# runs over them without the interpreter, whose lock two threads would pass back and forth at every block. A gradient
# of few entries is one block.
_VECTOR_BLOCK, _BLOCK, _ONE_BLOCK = 2**13, 2**15, 2**17

# Number of blocks whose partial sums are kept at once.
_PARTIAL = 64

Block = tuple[slice, tuple[int, int]]

# Below this many bytes a second thread costs more than it saves.
_LARGE = 2**22


def two_columns(first: Floats, second: Floats) -> Floats:
    """Two vectors (m,) side by side, (m, 2)."""
    out = np.empty((first.size, 2), dtype=first.dtype)
    out[:, 0], out[:, 1] = first, second
    return out


def embedding_product(E: Floats, X: Floats) -> Floats:
    """X E^T, (2, d)(d, V) -> (2, V)."""
    # Two products with vectors, the second from the cache, take a third of the time of one with two columns.
    out = np.empty((2, len(E)), dtype=E.dtype)
    columns = X.reshape(2, -1, 1)

    def task(part: slice) -> None:
        for rows, (count, step) in _blocks(part.start, part.stop, E.shape[1], _VECTOR_BLOCK):
            target = out[:, rows].reshape(2, count, step, 1).swapaxes(0, 1)
            np.matmul(E[rows].reshape(count, 1, step, -1), columns, target)

    threads.share(task, _even_parts(len(E), E.nbytes))
    return out


def embedding_transpose_product(E: Floats, F: Floats) -> Floats:
    """F E, (2, V)(V, d) -> (2, d)."""

    def task(part: slice) -> Floats:
        sums = [np.zeros((2, E.shape[1]), dtype=E.dtype)] if part.start == part.stop else []
        for rows, (count, step) in _blocks(part.start, part.stop, E.shape[1], _VECTOR_BLOCK, _PARTIAL):
            weights = F[:, rows].reshape(2, count, 1, step).swapaxes(0, 1)
            partial = np.matmul(weights, E[rows].reshape(count, 1, step, -1))
            sums.append(np.add.reduce(partial[:, :, 0]) if count > 1 else partial[0, :, 0])
        return _sum(sums)

    return _sum(threads.share(task, _even_parts(len(E), E.nbytes)))


def rank_two(F: Floats, X: Floats, out: Floats | None = None) -> Floats:
    """F^T X, (V, 2)(2, d) -> (V, d), into ``out`` where it is given.

    Writing to untouched memory doubles the cost (page faults): a loop should pass ``out``.
    """
    if out is None:
        out = np.empty((F.shape[1], X.shape[1]), dtype=np.result_type(F, X))
    # As a product of inner dimension two: the sum of two outer products passes through memory three times.
    if out.size <= _ONE_BLOCK or not out.flags.c_contiguous:
        return np.matmul(F.T, X, out=out)
    columns = np.ascontiguousarray(F.T)

    def task(part: slice) -> None:
        for rows, shape in _blocks(part.start, part.stop, X.shape[1], _BLOCK):
            np.matmul(columns[rows].reshape(*shape, -1), X, out=out[rows].reshape(*shape, -1))

    threads.share(task, _even_parts(len(out), out.nbytes))
    return out


def count_product(matrix: sp.csc_array, W: Floats) -> Floats:
    """C W, (n, V)(V, 2) -> (n, 2), for counts in CSC form; with C^T in that form, C^T R, (V, n)(n, 2) -> (V, 2)."""
    # In CSC form a product walks the matrix once and adds to the rows of a small result, both columns at a time; the
    # CSR form of the same product gathers and takes 1.4 times as long. Hence the two orientations of the counts.
    count = _thread_count(12 * matrix.data.size)
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


@lru_cache
def _blocks(start: int, stop: int, width: int, entries: int, most: int | None = None) -> list[Block]:
    """Rows ``start`` to ``stop``, and their shape (blocks, rows of a block): at most ``most`` blocks, then the rest.

    Blocks of somewhat fewer rows where these leave no rest.
    """
    most_rows = max(1, min(entries // width, stop - start))
    step = next((rows for rows in range(most_rows, most_rows // 2, -1) if (stop - start) % rows == 0), most_rows)
    whole = (stop - start) // step * step
    at_once = step * (most or max(1, whole // step))
    ends = [min(k + at_once, start + whole) for k in range(start, start + whole, at_once)]
    blocks = [(slice(a, b), ((b - a) // step, step)) for a, b in pairwise([start, *ends])]
    rest = stop - start - whole
    return [*blocks, (slice(stop - rest, stop), (1, rest))] if rest else blocks


def _sum(arrays: Sequence[Floats]) -> Floats:
    """The sum of at least one array."""
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total


def _even_parts(rows: int, nbytes: int) -> list[slice]:
    count = _thread_count(nbytes)
    return [slice(0, rows)] if count == 1 else _parts(np.linspace(0, rows, count + 1).astype(int))


def _parts(bounds: Ints) -> list[slice]:
    return [slice(int(a), int(b)) for a, b in pairwise(bounds)]


def _thread_count(nbytes: int) -> int:
    return threads.get_threads() if nbytes >= _LARGE else 1
