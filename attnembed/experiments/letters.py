"""The letters of handwritten words: a chain over a convolutional network or an MLP, on ten folds (Taskar et al.)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from attnembed.experiments.tasks import CHAIN_OBJECTIVES, FLOAT, Split, Task
from attnembed.structured.corpora import load_ocr
from attnembed.structured.data import ChainDataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import Network, lenet, mlp

__all__ = ["LETTERS"]

FOLDS = 10


def _letters(path: str, split: int, *, large: bool) -> Split:
    """Folds 8 and 9, moved on by ``split``, are for selection and test; or 0 and 1 for training and selection."""
    letters = load_ocr(path)
    data = ChainDataset([word.astype(FLOAT) for word in letters.words], letters.labels)
    place = (letters.folds - split) % FOLDS
    parts = (place < 8, place == 8, place == 9) if large else (place == 0, place == 1, place > 1)
    train, validation, test = (data.subset(np.flatnonzero(part)) for part in parts)
    return Split(train, validation, test)


def _large(path: str, split: int) -> Split:
    return _letters(path, split, large=True)


def _small(path: str, split: int) -> Split:
    return _letters(path, split, large=False)


def _letter_scores(model: ChainCRF, data: ChainDataset, split: Split) -> dict[str, float]:
    wrong = model.predict_rows(data) != data.labels
    return {"letters": float(1 - wrong.mean()), "words": float(np.mean(data.packing.sum(wrong) == 0))}


def _letter_model(network: Callable[..., Network]) -> Callable[[Split, np.random.Generator], ChainCRF]:
    def make(split: Split, rng: np.random.Generator) -> ChainCRF:
        return ChainCRF(network(dtype=FLOAT, rng=rng), rng.normal(size=(26, 26)).astype(FLOAT))

    return make


def _letter_lenet(**options: Any) -> Network:
    return lenet(channels=(12, 32), **options)


def _letter_mlp(**options: Any) -> Network:
    return mlp(128, (200,), 26, **options)


LETTERS = (
    # A third stage gains nothing on validation data: without it the network alone is trained for longer.
    Task(
        "ocr-large",
        _large,
        _letter_model(_letter_lenet),
        _letter_scores,
        CHAIN_OBJECTIVES,
        40,
        shares=(0.8, 0.2),
    ),
    Task("ocr-large-mlp", _large, _letter_model(_letter_mlp), _letter_scores, CHAIN_OBJECTIVES, 20),
    Task("ocr-small", _small, _letter_model(_letter_mlp), _letter_scores, CHAIN_OBJECTIVES, 20),
)
