"""Baselines that a result on a structured task has to beat, without a chain, a grid or any model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Floats, Ints

__all__ = ["constant_mask", "most_frequent_tags", "near_pairs", "read_from_list"]

_NEAR = 10.0  # root mean square difference of two images that show the same photograph, of 255


def read_from_list(unary: Sequence[Floats], known: Iterable[Ints]) -> list[NDArray[np.intp]]:
    """Read each sequence as the known one of its length with the largest sum of U; label by label if there is none.

    Among equal sums the first in the order of the labels wins.

    >>> read_from_list([np.array([[1.0, 0.0], [0.4, 0.6]])], [np.array([0, 0]), np.array([1, 1])])
    [array([0, 0])]
    """
    words = sorted({tuple(np.asarray(word).tolist()) for word in known})
    by_length: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for word in words:
        by_length[len(word)].append(word)
    lists = {length: np.array(found, dtype=np.intp) for length, found in by_length.items()}
    out = []
    for u in unary:
        found = lists.get(len(u))
        if found is None:
            out.append(u.argmax(axis=1).astype(np.intp))
        else:
            out.append(found[int(np.argmax(u[np.arange(len(u)), found].sum(axis=1)))])
    return out


def most_frequent_tags(pos: Iterable[Sequence[str]], tags: Iterable[Sequence[str]]) -> dict[str, str]:
    """The most frequent tag of each part of speech; on ties, the first in alphabetical order.

    >>> most_frequent_tags([("DT", "NN", "NN")], [("B-NP", "I-NP", "B-NP")])
    {'DT': 'B-NP', 'NN': 'B-NP'}
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for words, labels in zip(pos, tags):
        for word, label in zip(words, labels):
            counts[word][label] += 1
    return {word: min(found, key=lambda tag: (-found[tag], tag)) for word, found in sorted(counts.items())}


def constant_mask(masks: NDArray[Any]) -> NDArray[np.intp]:
    """The single mask (H, W) with the best intersection over union with all masks (n, H, W) together.

    Pixels are taken in the order of their frequency in the foreground: for every size of a mask, the most frequent ones
    cover the most.

    >>> constant_mask(np.array([[[1, 1, 0]], [[1, 0, 0]]]))
    array([[1, 1, 0]])
    """
    hits = masks.sum(axis=0).ravel()
    order = np.argsort(-hits, kind="stable")
    size, covered = np.arange(1, hits.size + 1), np.cumsum(hits[order])
    # IoU over all images: covered / (foreground + size * n - covered).
    iou = covered / np.maximum(hits.sum() + size * len(masks) - covered, 1)
    mask = np.zeros(hits.size, dtype=np.intp)
    mask[order[: int(np.argmax(iou)) + 1]] = 1
    return mask.reshape(masks.shape[1:])


def near_pairs(images: NDArray[Any]) -> list[tuple[int, int]]:
    """Pairs of images, with values up to 255, that differ by less than 10 in root mean square: one photograph, twice.

    >>> near_pairs(np.array([[0, 0], [3, 4], [90, 90]]))
    [(0, 1)]
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = np.square(flat).sum(axis=1)
    distance = squares[:, None] + squares - 2 * flat @ flat.T
    first, second = np.nonzero(np.triu(distance < _NEAR**2 * flat.shape[1], k=1))
    return list(zip(first.tolist(), second.tolist()))
