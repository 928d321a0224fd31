"""The letters of handwritten words: a chain over a convolutional network or an MLP (Taskar et al.).

Two ways to split them. By folds, every word of the test is a word of training in another hand: all word types are in
all folds. By words, a part of the types is held out, and the test has two populations: new words, of types that
training never shows, and known ones, of its own types in other folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Ints
from attnembed.auditing.baselines import read_from_list
from attnembed.errors import DataFileError
from attnembed.experiments.tasks import CHAIN_OBJECTIVES, FLOAT, Split, Task
from attnembed.structured.corpora import Letters, load_ocr
from attnembed.structured.data import ChainDataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import Network, lenet, mlp

__all__ = ["LETTERS", "TYPE_GROUPS", "type_groups"]

FOLDS = 10
TYPE_GROUPS = 5  # of word types: one is for the test, the next for selection
_ATTEMPTS = 200


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


def type_groups(types: Sequence[str], path: str = "data") -> Ints:
    """The group 0..4 of each word, all words of one type in one group, drawn once and for all.

    Held out are two groups at a time, one after the other in a circle; of the first draws, the first is taken in which
    the training types have every letter each time. Raises DataFileError where there are too few types, or none is.

    >>> type_groups(["ab", "ba", "ab", "aab", "abb", "bab"]).tolist()
    [4, 0, 4, 2, 3, 1]
    """
    names, place = np.unique(np.asarray(types), return_inverse=True)
    if names.size < TYPE_GROUPS:
        have = f"holds {names.size} different word{'' if names.size == 1 else 's'}"
        raise DataFileError(path, f"{have}, too few to hold some out; at least {TYPE_GROUPS} are needed")
    letters = sorted(set("".join(names)))
    holds = np.array([[letter in name for letter in letters] for name in names])
    rng = np.random.default_rng(0)
    missing: NDArray[np.bool_] = np.zeros(len(letters), dtype=bool)
    for _ in range(_ATTEMPTS):
        group = rng.permutation(names.size) % TYPE_GROUPS
        shown = np.array([holds[~_held_out(group, split)].any(axis=0) for split in range(TYPE_GROUPS)])
        if shown.all():
            return np.asarray(group[place])
        missing = np.logical_not(shown.all(axis=0))
    letter = letters[int(np.flatnonzero(missing)[0])]
    raise DataFileError(path, f"has too few different words with {letter!r}: a split leaves none of them for training")


def _held_out(group: Ints, split: int) -> Any:
    return np.isin(group, (split % TYPE_GROUPS, (split + 1) % TYPE_GROUPS))


def word_types(letters: Letters) -> list[str]:
    """The words as text."""
    return ["".join(chr(ord("a") + int(label)) for label in word) for word in letters.labels]


def _letters_by_words(path: str, split: int, *, large: bool) -> Split:
    """Group ``split`` of the word types is for the test, the next for selection; the folds of the others are split.

    New words are taken from all folds, as none of them is shown in training.
    """
    letters = load_ocr(path)
    data = ChainDataset([word.astype(FLOAT) for word in letters.words], letters.labels)
    group = type_groups(word_types(letters), path)
    place, known = (letters.folds - split) % FOLDS, ~_held_out(group, split)
    parts = (place < 8, place == 8, place == 9) if large else (place == 0, place == 1, place > 1)
    for part, what in zip(parts, ("training", "selection", "the test")):
        if not (part & known).any():
            raise DataFileError(path, f"holds no known words for {what} in split {split}; ten folds are needed")
    train, validation, test = (data.subset(np.flatnonzero(part & known)) for part in parts)
    missing = np.setdiff1d(data.known_labels, train.known_labels)
    if missing.size:
        letter = chr(ord("a") + int(missing[0]))
        raise DataFileError(path, f"has too few words with {letter!r}: split {split} leaves none for training")
    chosen = (split + 1) % TYPE_GROUPS
    new_validation, new_test = (data.subset(np.flatnonzero(group == g)) for g in (chosen, split % TYPE_GROUPS))
    return Split(train, new_validation, new_test, known=(validation, test))


def _large_by_words(path: str, split: int) -> Split:
    return _letters_by_words(path, split, large=True)


def _small_by_words(path: str, split: int) -> Split:
    return _letters_by_words(path, split, large=False)


def _read_from(model: ChainCRF, data: ChainDataset, known: list[Any]) -> dict[str, float]:
    found, true = read_from_list(data.split(model.unary(data)), known), data.split(data.known_labels)
    wrong = [one != other for one, other in zip(found, true)]
    return {"letters": float(1 - np.concatenate(wrong).mean()), "words": float(np.mean([not w.any() for w in wrong]))}


def _from_training(model: ChainCRF, data: ChainDataset, split: Split, path: str) -> dict[str, float]:
    """Every word read as one of the words of training, of its length, by the network alone."""
    return _read_from(model, data, split.train.split(split.train.labels))


def _from_all(model: ChainCRF, data: ChainDataset, split: Split, path: str) -> dict[str, float]:
    """The same with the words of the test in the list."""
    return _read_from(model, data, list(load_ocr(path).labels))


_BASELINES = {"network alone, read from the list of training words": _from_training}
_BASELINES_BY_WORDS = {**_BASELINES, "network alone, read from the list of all words": _from_all}


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


def _task(name: str, load: Callable[[str, int], Split], network: Callable[..., Network], **options: Any) -> Task:
    model = _letter_model(network)
    baselines = _BASELINES_BY_WORDS if "words" in name else _BASELINES
    return Task(name, load, model, _letter_scores, CHAIN_OBJECTIVES, baselines=baselines, **options)


# A third stage gains nothing on validation data: without it the network alone is trained for longer.
_LARGE: dict[str, Any] = {"batch_size": 40, "shares": (0.8, 0.2)}

LETTERS = (
    _task("ocr-large", _large, _letter_lenet, **_LARGE),
    _task("ocr-large-mlp", _large, _letter_mlp, batch_size=20),
    _task("ocr-small", _small, _letter_mlp, batch_size=20),
    _task("ocr-words-large", _large_by_words, _letter_lenet, **_LARGE),
    _task("ocr-words-large-mlp", _large_by_words, _letter_mlp, batch_size=20),
    _task("ocr-words-small", _small_by_words, _letter_mlp, batch_size=20),
)
