"""Sparse matrices from outside: which values are some, and whether their index arrays are as SciPy expects."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed.errors import InputError, InputTypeError

__all__ = ["check_sparse", "is_sparse", "with_values"]


def is_sparse(value: Any) -> bool:
    """Whether a value is a SciPy sparse matrix or array.

    Does not import ``scipy.sparse``, which takes longer than importing NumPy: before that there is no such value.
    """
    issparse = getattr(sys.modules.get("scipy.sparse"), "issparse", None)
    return issparse is not None and bool(issparse(value))


def check_sparse(name: str, matrix: Any) -> None:
    """Raise unless ``matrix`` is a real SciPy sparse matrix with two axes whose index arrays fit its shape.

    SciPy's compiled code trusts these arrays, and its constructors check only some of them. This checks the arrays one
    by one, and changes nothing.
    """
    if matrix.dtype.kind not in "biuf":
        raise InputTypeError(name, "must be real", got=f"dtype {matrix.dtype}")
    if matrix.ndim != 2:
        raise InputError(name, "must have 2 axes", got=f"shape {matrix.shape}")
    try:
        problem = _FORMATS[matrix.format](matrix)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:  # attributes that are not arrays, set by hand
        problem = str(error) or type(error).__name__
    if problem:
        hint = "rebuild it from rows, columns and values"
        raise InputError(name, "must be a sparse matrix with indices that fit its shape", got=problem, hint=hint)


def _compressed_problem(matrix: Any) -> str:
    """The fault in CSR, CSC or BSR arrays: the starts of rows (or columns), and the indices in them."""
    rows, columns = matrix.shape
    values: tuple[int, ...] = ()
    if matrix.format == "csc":
        rows, columns = columns, rows
    elif matrix.format == "bsr":
        values = matrix.data.shape[1:]
        if len(values) != 2 or 0 in values or rows % values[0] or columns % values[1]:
            return f"blocks of shape {values} in a matrix of shape {matrix.shape}"
        rows, columns = rows // values[0], columns // values[1]
    starts, indices = matrix.indptr, matrix.indices
    if problem := _index_problem("indptr", starts) or _index_problem("indices", indices):
        return problem
    if len(starts) != rows + 1:
        return f"indptr of length {len(starts)} instead of {rows + 1}"
    if starts[0] != 0:
        return f"indptr that starts at {starts[0]}"
    if (starts[1:] < starts[:-1]).any():
        return "indptr that decreases"
    end = int(starts[-1])
    if matrix.data.ndim != 1 + len(values) or end > len(indices) or end > len(matrix.data):
        return f"{len(indices)} indices and data of shape {matrix.data.shape} for the {end} entries of indptr"
    return _range_problem("indices", indices[:end], columns)


def _coordinate_problem(matrix: Any) -> str:
    if len(matrix.coords) != 2 or matrix.data.ndim != 1:
        return f"{len(matrix.coords)} arrays of coordinates, data of shape {matrix.data.shape}"
    for label, indices, size in zip(("row", "col"), matrix.coords, matrix.shape):
        if problem := _index_problem(label, indices):
            return problem
        if len(indices) != len(matrix.data):
            return f"{len(indices)} entries in {label} for {len(matrix.data)} values"
        if problem := _range_problem(label, indices, size):
            return problem
    return ""


def _diagonal_problem(matrix: Any) -> str:
    if problem := _index_problem("offsets", matrix.offsets):
        return problem
    if matrix.data.ndim != 2 or len(matrix.data) != len(matrix.offsets):
        return f"data of shape {matrix.data.shape} for {len(matrix.offsets)} diagonals"
    if len(np.unique(matrix.offsets)) < len(matrix.offsets):
        return "a diagonal twice"
    # Offsets are cast to the type of the indices, and one that wraps around would be a diagonal twice.
    far = np.iinfo(np.int32)
    outside = (matrix.offsets < far.min) | (matrix.offsets > far.max)
    return f"a diagonal at {matrix.offsets[outside][0]}" if outside.any() else ""


def _list_problem(matrix: Any) -> str:
    for label, lists in (("rows", matrix.rows), ("data", matrix.data)):
        if lists.dtype != object or lists.shape != matrix.shape[:1] or not all(isinstance(row, list) for row in lists):
            return f"{label} that is not an array of {matrix.shape[0]} lists"
    for number, (indices, values) in enumerate(zip(matrix.rows, matrix.data)):
        if len(indices) != len(values):
            return f"{len(indices)} indices for {len(values)} values in row {number}"
        np.array(values, dtype=matrix.dtype)  # raises for anything but numbers
    return _indices_problem("rows", [index for row in matrix.rows for index in row], matrix.shape[1])


def _dictionary_problem(matrix: Any) -> str:
    keys = list(matrix.keys())
    if not all(isinstance(key, tuple) and len(key) == 2 for key in keys):
        return "keys that are not pairs"
    np.array(list(matrix.values()), dtype=matrix.dtype)
    pairs = zip(("rows", "columns"), matrix.shape, (0, 1))
    return next(filter(None, (_indices_problem(label, [key[k] for key in keys], size) for label, size, k in pairs)), "")


def _indices_problem(label: str, values: list[Any], size: int) -> str:
    indices = np.array(values) if values else np.zeros(0, dtype=np.intp)
    return _index_problem(label, indices) or _range_problem(label, indices, size)


def _index_problem(label: str, indices: Any) -> str:
    fits = isinstance(indices, np.ndarray) and indices.ndim == 1 and indices.dtype.kind in "iu"
    return "" if fits else f"{label} that is not a vector of integers"


def _range_problem(label: str, indices: np.ndarray[Any, Any], size: int) -> str:
    if not indices.size or (indices.min() >= 0 and indices.max() < size):
        return ""
    return f"{label} with {indices[(indices < 0) | (indices >= size)][0]}, outside 0..{size - 1}"


_FORMATS: dict[str, Callable[[Any], str]] = {
    "csr": _compressed_problem,
    "csc": _compressed_problem,
    "bsr": _compressed_problem,
    "coo": _coordinate_problem,
    "dia": _diagonal_problem,
    "lil": _list_problem,
    "dok": _dictionary_problem,
}


def with_values(counts: Any, values: NDArray[Any]) -> Any:
    """A CSR matrix with the sparsity of ``counts`` and other entries (indices shared, not copied)."""
    return type(counts)((values, counts.indices, counts.indptr), shape=counts.shape)
