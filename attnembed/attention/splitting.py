"""Splitting off a random share of each class of a data set."""

from __future__ import annotations

import numpy as np

from attnembed._validation import RNGLike, as_rng, check_share
from attnembed.attention.data import TokenDataset, check_data
from attnembed.errors import InputError

__all__ = ["split_dataset"]


def split_dataset(data: TokenDataset, share: float, *, rng: RNGLike = None) -> tuple[TokenDataset, TokenDataset]:
    """Split off a random share in (0, 1) of each class: (rest, part), both in the order of ``data``.

    Raises
    ------
    InputError
        if a class is too small to be in both parts.

    >>> data = TokenDataset.from_tokens([[0], [1], [2], [3], [4]], [1, 1, 1, -1, -1])
    >>> [half.labels for half in split_dataset(data, 0.4, rng=0)]
    [array([ 1.,  1., -1.]), array([ 1., -1.])]
    """
    check_data(data)
    check_share("share", share, closed="neither")
    rng = as_rng(rng)
    inside = np.zeros(data.n_samples, dtype=bool)
    for sign in (1.0, -1.0):
        rows = np.flatnonzero(data.labels == sign)
        if rows.size < 2:
            raise InputError("data", "must have two sequences of each class to split", got=f"{rows.size} of {sign:+g}")
        inside[rng.permutation(rows)[: min(max(round(share * rows.size), 1), rows.size - 1)]] = True
    return data.subset(np.flatnonzero(~inside)), data.subset(np.flatnonzero(inside))
