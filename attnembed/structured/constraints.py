"""The two ends of a chain and hard constraints on its labels.

With potentials s and e (K,) of the first and the last label the score of a labeling is

    F(Y) = s[y_1] + sum_i U[i, y_i] + sum_i W[y_i, y_{i+1}] + e[y_L].

Each end is part of the unary potentials of one position, so that inference and objectives need not treat it apart.
A forbidden label or pair has the potential -inf, whatever the scale: a constraint has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed._typing import Floats, Ints
from attnembed._validation import as_array, check_items, check_shape, freeze
from attnembed.errors import InputError, InputTypeError
from attnembed.structured.packing import Packing

__all__ = [
    "add_ends",
    "as_mask",
    "bio_constraints",
    "check_labels_allowed",
    "constrained",
    "end_gradients",
    "split_forbidden",
]

Mask = NDArray[np.bool_]


def bio_constraints(tags: Iterable[str]) -> tuple[Mask, Mask]:
    """Masks of the pairs of B-I-O tags that may follow each other, and of the tags that may begin a sequence.

    I-X is allowed only after B-X and I-X, and never first (Ramshaw and Marcus 1995, in the IOB2 form).

    Parameters
    ----------
    tags : the K distinct names in the order of the labels: "O", "B-X" or "I-X" for any X, or plain "B" and "I"

    Returns
    -------
    allowed : (K, K) bool, row = left tag; start_allowed : (K,) bool. Both for `ChainCRF`

    Raises
    ------
    InputError
        for a name of another scheme, or a repeated name.

    >>> allowed, start_allowed = bio_constraints(["O", "B-NP", "I-NP"])
    >>> allowed
    array([[ True,  True, False],
           [ True,  True,  True],
           [ True,  True,  True]])
    >>> start_allowed
    array([ True,  True, False])
    """
    names = check_items("tags", tags, "names")
    if not names:
        raise InputError("tags", "must name at least one label", got="none")
    kinds: list[tuple[str, str]] = []
    for name in names:
        prefix, _, chunk = name.partition("-") if isinstance(name, str) else ("", "", "")
        if not (name == "O" or (prefix in ("B", "I") and name in (prefix, f"{prefix}-{chunk}"))):
            raise InputError(
                "tags",
                "must be 'O', 'B-X' or 'I-X'",
                got=repr(name),
                hint="for another scheme build `allowed` (K, K) yourself",
            )
        kinds.append((prefix, chunk))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError("tags", "must be different", got=f"{twice!r} twice")
    inside = np.array([prefix == "I" for prefix, _ in kinds])
    continues = np.array([[left[0] != "O" and left[1] == right[1] for right in kinds] for left in kinds])
    return freeze(~inside | continues), freeze(~inside)


def as_mask(name: str, value: ArrayLike | None, shape: tuple[int, ...]) -> Mask | None:
    """A read-only copy of a boolean array of the given shape, or None."""
    if value is None:
        return None
    array = as_array(name, value)
    if array.dtype != bool:
        raise InputTypeError(name, "must be boolean: True where allowed", got=f"dtype {array.dtype}")
    check_shape(name, array, shape)
    return freeze(array.copy())


def split_forbidden(values: ArrayLike, allowed: Mask | None) -> tuple[NDArray[Any], Mask | None]:
    """Potentials with 0 for each forbidden entry, and the mask of the others (None if nothing is forbidden).

    An entry is forbidden if the mask excludes it or it is -inf.
    """
    array = np.array(values)
    if array.dtype.kind == "f":
        finite = array != -np.inf
        if not finite.all():
            allowed = freeze(finite if allowed is None or allowed.shape != finite.shape else finite & allowed)
    if allowed is not None and allowed.shape == array.shape:
        if allowed.all():
            return array, None
        array[~allowed] = 0
    return array, allowed


def constrained(values: Floats, allowed: Mask | None) -> Floats:
    """The values with -inf where they are forbidden."""
    return values if allowed is None else np.where(allowed, values, values.dtype.type(-np.inf))


def add_ends(unary: Floats, packing: Packing, start: Floats | None, end: Floats | None) -> Floats:
    """Packed unary potentials (N, K) with those of the ends added; the same array if there are none."""
    if start is None and end is None:
        return unary
    out = unary.copy()
    if start is not None:
        out[: len(packing)] += start
    if end is not None:
        out[packing.last] += end
    return out


def end_gradients(unary: Floats, packing: Packing) -> tuple[Floats, Floats]:
    """Gradients in the potentials of the start and the end (K,), from the gradient in the unary ones (N, K)."""
    return unary[: len(packing)].sum(axis=0), unary[packing.last].sum(axis=0)


def check_labels_allowed(
    labels: Ints, packing: Packing, allowed: Mask | None, start_allowed: Mask | None, end_allowed: Mask | None
) -> None:
    """Raise for a true labeling, packed (N,), that the constraints forbid: no parameters make it likely."""
    found: list[tuple[int, str]] = []
    for mask, rows, what in ((start_allowed, slice(0, len(packing)), "begins"), (end_allowed, packing.last, "ends")):
        if mask is not None:
            bad = np.flatnonzero(~mask[labels[rows]])
            found += [(int(packing.order[r]), f"{what} with {labels[rows][r]}") for r in bad[:1]]
    if allowed is not None:
        left, right = labels[packing.left], labels[packing.right]
        bad = np.flatnonzero(~allowed[left, right])
        found += [(int(packing.sequence[packing.right[e]]), f"has {left[e]} before {right[e]}") for e in bad[:1]]
    if found:
        sequence, what = found[0]
        raise InputError(
            "labels",
            "must obey the constraints of the model",
            got=f"sequence {sequence}, which {what}",
            hint="correct the labels, or allow all that they contain",
        )
