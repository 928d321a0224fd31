"""Scores of a labeling: shares of correct letters, words, chunks, pixels and masks.

Every function takes the true labeling first, then the predicted one, and returns shares in [0, 1].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from attnembed._typing import Ints
from attnembed._validation import as_integer_array, check_items, check_shape
from attnembed.errors import InputError, InputTypeError

__all__ = [
    "ChunkScore",
    "ForegroundIoU",
    "chunk_f1",
    "chunk_spans",
    "foreground_iou",
    "letter_accuracy",
    "pixel_accuracy",
    "word_accuracy",
]


def letter_accuracy(true: Sequence[ArrayLike], predicted: Sequence[ArrayLike]) -> float:
    """Share of correct labels over all sequences: n int arrays (L,) each. InputError unless they match.

    >>> letter_accuracy([[0, 1, 2], [3]], [[0, 1, 1], [3]])
    0.75
    """
    return float(np.concatenate([a == b for a, b in _label_pairs(true, predicted)]).mean())


def word_accuracy(true: Sequence[ArrayLike], predicted: Sequence[ArrayLike]) -> float:
    """Share of sequences without an error: n int arrays (L,) each. InputError unless they match.

    >>> word_accuracy([[0, 1, 2], [3]], [[0, 1, 1], [3]])
    0.5
    """
    return float(np.mean([(a == b).all() for a, b in _label_pairs(true, predicted)]))


def pixel_accuracy(true: ArrayLike, predicted: ArrayLike) -> float:
    """Share of correct pixels over all images: int (n, H, W) each. InputError unless they match.

    >>> pixel_accuracy([[[0, 1], [1, 1]]], [[[0, 1], [0, 1]]])
    0.75
    """
    a, b = _images(true, predicted)
    return float((a == b).mean())


class ForegroundIoU(NamedTuple):
    """Intersection over union of the foreground: ``overall``, with all images as one, and the ``mean`` over images.

    >>> ForegroundIoU(overall=0.6, mean=0.5).overall
    0.6
    """

    overall: float
    mean: float


def foreground_iou(true: ArrayLike, predicted: ArrayLike) -> ForegroundIoU:
    """|T and P| / |T or P| for the pixels T of label 1 and P of predicted label 1; int (n, H, W) in {0, 1} each.

    If neither has a foreground, the ratio is 1. InputError unless shapes and labels match.

    >>> foreground_iou([[[0, 1], [1, 1]], [[0, 0], [0, 1]]], [[[0, 1], [1, 1]], [[0, 1], [0, 0]]])
    ForegroundIoU(overall=0.6, mean=0.5)
    """
    a, b = _images(true, predicted)
    for name, labels in (("true", a), ("predicted", b)):
        if not np.isin(labels, (0, 1)).all():
            raise InputError(name, "must hold only 0 and 1", got=labels[(labels != 0) & (labels != 1)][0])
    common, covered = (a & b).sum(axis=(1, 2)), (a | b).sum(axis=(1, 2))
    ratios = np.where(covered == 0, 1.0, common / np.maximum(covered, 1))
    total = int(covered.sum())
    return ForegroundIoU(int(common.sum()) / total if total else 1.0, float(ratios.mean()))


@dataclass(frozen=True)
class ChunkScore:
    """Counts of true, predicted and correct chunks, and the scores; ``by_type`` has one `ChunkScore` per chunk type.

    >>> score = ChunkScore(n_true=4, n_predicted=6, n_correct=3)
    >>> score.precision, score.recall, score.f1
    (0.5, 0.75, 0.6)
    """

    n_true: int
    n_predicted: int
    n_correct: int
    by_type: Mapping[str, ChunkScore] = field(default_factory=dict, repr=False)

    @property
    def precision(self) -> float:
        """Share of the predicted chunks that are correct; 0 if nothing is predicted."""
        return self.n_correct / self.n_predicted if self.n_predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the true chunks that are found; 0 if there are none."""
        return self.n_correct / self.n_true if self.n_true else 0.0

    @property
    def f1(self) -> float:
        """2 precision recall / (precision + recall), the harmonic mean, = 2 correct / (true + predicted)."""
        both = self.n_true + self.n_predicted
        return 2 * self.n_correct / both if both else 0.0


def chunk_f1(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> ChunkScore:
    """Score the chunk tags of n sentences as in the CoNLL-2000 shared task (its program conlleval).

    A predicted chunk is correct if a true chunk of the same type begins and ends at the same tokens; `chunk_spans`
    defines a chunk. All sentences count together. conlleval prints the same shares times 100. InputError if the
    sentences do not match or a tag is invalid.

    Source: Tjong Kim Sang and Buchholz, CoNLL 2000, section 3.

    >>> score = chunk_f1([["B-NP", "I-NP", "B-VP"], ["B-NP"]], [["B-NP", "B-NP", "B-VP"], ["B-NP"]])
    >>> score
    ChunkScore(n_true=3, n_predicted=4, n_correct=2)
    >>> score.precision, round(score.recall, 3), round(score.f1, 3), score.by_type["VP"].f1
    (0.5, 0.667, 0.571, 1.0)
    """
    kinds, true_codes, codes = _Codes(), [0], [0]
    for number, (a, b) in enumerate(_pairs(true, predicted)):
        for name, tags in (("true", a), ("predicted", b)):
            if isinstance(tags, str) or not (isinstance(tags, Sequence) or np.ndim(tags)):
                expected = "must hold sentences, each a list of tags"
                got, hint = f"{type(tags).__name__} at {number}", "put a single sentence into a list: [tags]"
                raise InputTypeError(name, expected, got=got, hint=hint)
        if len(a) != len(b):
            raise InputError(
                "predicted", "must have one tag per token", got=f"{len(b)} for {len(a)} tokens in sentence {number}"
            )
        for found, tags in ((true_codes, a), (codes, b)):
            try:
                found += [kinds[tag] for tag in tags]
            except (KeyError, TypeError):
                chunk_spans(tags)  # names the tag and its place
                raise
            found.append(0)  # the end of a sentence ends its chunks, as "O" does
    (start, stop, kind), (at, end, guess) = _spans(true_codes), _spans(codes)
    _, i, j = np.intersect1d(start, at, assume_unique=True, return_indices=True)
    correct = kind[i][(kind[i] == guess[j]) & (stop[i] == end[j])]
    n_true, n_predicted, n_correct = (
        Counter({name: count for name, count in zip(kinds.names, np.bincount(found).tolist()) if count})
        for found in (kind, guess, correct)
    )
    by_type = {k: ChunkScore(n_true[k], n_predicted[k], n_correct[k]) for k in sorted(n_true | n_predicted)}
    return ChunkScore(n_true.total(), n_predicted.total(), n_correct.total(), by_type)


class _Codes(dict[str, int]):
    """Tags as numbers: 0 for "O", 2 k + 1 for B and 2 k + 2 for I of the k-th type met; KeyError for any other tag."""

    def __init__(self) -> None:
        super().__init__(O=0)
        self.names: list[str] = []

    def __missing__(self, tag: str) -> int:
        mark, _, kind = tag.partition("-") if isinstance(tag, str) else ("", "", "")
        if not (mark in ("B", "I") and kind):
            raise KeyError(tag)
        if kind not in self.names:
            self.names.append(kind)
        self[tag] = code = 2 * self.names.index(kind) + (1 if mark == "B" else 2)
        return code


def _spans(codes: list[int]) -> tuple[Ints, Ints, Ints]:
    """Start, stop and type of every chunk of tags in a row, as `chunk_spans` finds them; before and after is an "O"."""
    code = np.array(codes)
    kind = (code + 1) // 2  # 0 outside of chunks
    fresh = np.ones(len(code), dtype=bool)
    fresh[1:] = (code[1:] % 2 == 1) | (kind[1:] != kind[:-1]) | (code[1:] == 0)
    bounds = np.flatnonzero(fresh)
    starts = code[bounds] > 0
    return bounds[starts], np.append(bounds[1:], len(code))[starts], kind[bounds][starts] - 1


def chunk_spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The chunks (type, start, stop) of a sentence with tags "O", "B-type" and "I-type", as found by conlleval.

    A chunk begins at every B, and also at an I after an O, after a chunk of another type or at the start of the
    sentence; it ends before an O, before the next chunk, or with the sentence. InputError for any other tag.

    >>> chunk_spans(["B-NP", "I-NP", "I-VP", "O", "I-NP", "B-NP"])
    [('NP', 0, 2), ('VP', 2, 3), ('NP', 4, 5), ('NP', 5, 6)]
    """
    names = check_items("tags", tags, "tags")
    spans: list[tuple[str, int, int]] = []
    start, open_type = 0, ""
    for i, tag in enumerate((*names, "O")):
        mark, _, kind = tag.partition("-") if isinstance(tag, str) else ("", "", "")
        if not (tag == "O" or (mark in ("B", "I") and kind)):
            raise InputError("tags", "must be 'O', 'B-type' or 'I-type'", got=f"{tag!r} at {i}")
        if mark == "I" and kind == open_type:
            continue
        if open_type:
            spans.append((open_type, start, i))
        start, open_type = i, kind
    return spans


def _pairs(true: Sequence[Any], predicted: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    for name, sequences in (("true", true), ("predicted", predicted)):
        if isinstance(sequences, str) or not (isinstance(sequences, Sequence) or np.ndim(sequences)):
            raise InputTypeError(name, "must be a list of sequences", got=type(sequences).__name__)
    if len(true) != len(predicted):
        raise InputError("predicted", f"must have one entry per sequence ({len(true)})", got=len(predicted))
    if len(true) == 0:
        raise InputError("true", "must hold at least one sequence")
    return zip(true, predicted)


def _label_pairs(true: Sequence[ArrayLike], predicted: Sequence[ArrayLike]) -> Iterator[tuple[Ints, Ints]]:
    for number, (x, y) in enumerate(_pairs(true, predicted)):
        a, b = (as_integer_array(name, labels, ndim=1) for name, labels in (("true", x), ("predicted", y)))
        check_shape("predicted", b, a.shape, f"as in sequence {number} of the true labels")
        if a.size == 0:
            raise InputError("true", "must have at least one label per sequence", got=f"none in sequence {number}")
        yield a, b


def _images(true: ArrayLike, predicted: ArrayLike) -> tuple[Ints, Ints]:
    a, b = (as_integer_array(name, labels, ndim=3) for name, labels in (("true", true), ("predicted", predicted)))
    if a.size == 0:
        raise InputError("true", "must hold at least one pixel", got=f"shape {a.shape}")
    check_shape("predicted", b, a.shape, "as the true labels")
    return a, b
