"""Chunking of sentences: features of a window of words, embedded and summed, and a chain (CoNLL-2000)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from attnembed.auditing.baselines import most_frequent_tags
from attnembed.experiments.tasks import CHAIN_OBJECTIVES, FLOAT, Split, Task
from attnembed.structured.corpora import Sentence, load_conll2000
from attnembed.structured.data import ChainDataset
from attnembed.structured.features import WindowFeatures
from attnembed.structured.layers import Dense, EmbeddingSum, Layer, Tanh
from attnembed.structured.metrics import chunk_f1
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import Network

__all__ = ["CHUNKS", "test_words"]

_HELD_OUT_SENTENCES, _MIN_COUNT = 1000, 3


def _chunks(path: str, split: int) -> Split:
    """The data, with 1,000 training sentences, drawn by ``split``, set aside for selection."""
    known, test = load_conll2000(path)
    order = np.random.default_rng(split).permutation(len(known))
    held_out = min(_HELD_OUT_SENTENCES, len(known) // 5)
    validation, train = ([known[i] for i in part] for part in (order[:held_out], order[held_out:]))
    features = WindowFeatures(min_count=_MIN_COUNT).fit(train)
    tags = sorted({tag for sentence in train for tag in sentence.chunks})
    # A tag that never occurs in training cannot be predicted; its number, beyond the model's, counts as an error.
    tags += sorted({tag for sentence in (*validation, *test) for tag in sentence.chunks} - set(tags))
    number = {tag: i for i, tag in enumerate(tags)}

    def dataset(sentences: list[Sentence]) -> ChainDataset:
        labels = [np.array([number[tag] for tag in sentence.chunks]) for sentence in sentences]
        return ChainDataset(features.transform(sentences), labels)

    return Split(dataset(train), dataset(validation), dataset(list(test)), tuple(tags))


@lru_cache(maxsize=1)
def test_words(path: str) -> tuple[tuple[str, ...], ...]:
    """The words of the test sentences."""
    return tuple(sentence.words for sentence in load_conll2000(path)[1])


def _chunk_scores(model: ChainCRF, data: ChainDataset, split: Split) -> dict[str, float]:
    parts = data.split(data.known_labels), model.predict(data)
    true, predicted = ([[split.names[i] for i in part] for part in labels] for labels in parts)
    return {"chunk F1": chunk_f1(true, predicted).f1, "tags": model.accuracy(data)}


def _chunk_model(split: Split, rng: np.random.Generator) -> ChainCRF:
    k, width = int(split.train.labels.max()) + 1, 32
    layers: list[Layer] = [EmbeddingSum(int(split.train.inputs.max()) + 1, width), Tanh(), Dense(width, k)]
    return ChainCRF(Network.create(layers, dtype=FLOAT, rng=rng), rng.normal(size=(k, k)).astype(FLOAT))


def _tag_of_each(column: int) -> Callable[[ChainCRF, ChainDataset, Split, str], dict[str, float]]:
    """The most frequent tag of each word (column 0) or part of speech (1) in all training sentences."""

    def scores(model: ChainCRF, data: ChainDataset, split: Split, path: str) -> dict[str, float]:
        train, test = load_conll2000(path)
        table = most_frequent_tags((one[column] for one in train), (one.chunks for one in train))
        ((most, _),) = Counter(tag for one in train for tag in one.chunks).most_common(1)
        found, true = (
            [[table.get(key, most) for key in one[column]] for one in test],
            [list(one.chunks) for one in test],
        )
        right = [tag == other for tags, others in zip(found, true) for tag, other in zip(tags, others)]
        return {"chunk F1": chunk_f1(true, found).f1, "tags": float(np.mean(right))}

    return scores


_BASELINES = {
    "most frequent tag of each part of speech": _tag_of_each(1),
    "most frequent tag of each word": _tag_of_each(0),
}

CHUNKS = (
    Task(
        "chunking",
        _chunks,
        _chunk_model,
        _chunk_scores,
        CHAIN_OBJECTIVES,
        40,
        stage_rate=10.0,
        starts_at_zero=True,
        baselines=_BASELINES,
    ),
)
