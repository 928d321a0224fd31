"""Labelled reviews as counts: the files of IMDB and Yelp, or any that `load_reviews` reads, and reviews to show."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from attnembed._files import PathLike
from attnembed._progress import Progress
from attnembed._sources import as_source
from attnembed._typing import Floats, Ints
from attnembed.attention.data import TokenDataset
from attnembed.attention.folders import archive_parts
from attnembed.attention.model import AttentionModel
from attnembed.attention.reviews import ReaderOptions, iter_reviews
from attnembed.attention.text import Tokenizer, count_reviews, drop_empty
from attnembed.attention.training import split_dataset
from attnembed.errors import DataFileError

__all__ = [
    "Corpus",
    "ExampleReview",
    "balanced",
    "example_reviews",
    "has_ratings",
    "load_corpus",
    "no_ratings",
    "once_per_data",
    "without_ratings",
]

T = TypeVar("T")

_RATINGS = frozenset(map(str, range(11)))  # what "7/10" becomes: 7 and 10

# Of either class, so that each has reviews for training, for validation and for the test.
_FEWEST_REVIEWS = {True: 2, False: 3}  # with a test part of its own, and without


@dataclass(frozen=True, eq=False)
class Corpus:
    """Reviews as counts over one vocabulary; ``test`` is None where they come in one part.

    ``source`` says where the texts of the last part are, and how to read them.
    """

    train: TokenDataset
    test: TokenDataset | None
    source: tuple[PathLike, ReaderOptions]

    def split(self, rng: np.random.Generator) -> tuple[TokenDataset, TokenDataset]:
        """Training and test reviews; where there is no test part, a fifth of each class is drawn and held out."""
        return (self.train, self.test) if self.test is not None else split_dataset(self.train, 0.2, rng=rng)


def load_corpus(
    path: Path,
    known: tuple[tuple[str, ...], ...],
    *,
    vocabulary: int,
    cache: Path,
    reader: ReaderOptions | None = None,
) -> Corpus:
    """Count the reviews under ``path``: a file, a folder with one of the ``known`` files, or an aclImdb folder.

    ``reader`` holds options of `load_reviews`. Raises DataFileError for reviews too few to train, choose and test on.
    """
    tokenizer = Tokenizer(max_vocabulary=vocabulary)
    reader = reader or {}
    parts = _parts(path, known, reader)
    data = []
    with Progress("counting reviews", total=len(parts)) as progress:
        for k, (source, split) in enumerate(parts):
            progress.update(k, Path(source).name)
            options: ReaderOptions = {**reader, **({} if split is None else {"split": split})}
            counted = count_reviews(source, tokenizer, cache=cache, **options)
            counts, labels, _ = drop_empty(counted.counts, counted.labels)
            _check_reviews(source, labels, fewest=_FEWEST_REVIEWS[len(parts) == 2])
            data.append(TokenDataset.from_counts(counts, labels, vocab=counted.vocabulary))
    return Corpus(data[0], data[1] if len(data) == 2 else None, (source, options))


def _check_reviews(source: PathLike, labels: Floats, *, fewest: int) -> None:
    n = {sign: int(np.sum(labels == sign)) for sign in (1, -1)}
    if min(n.values()) < fewest:
        problem = f"holds too few reviews: {n[1]} positive and {n[-1]} negative; at least {fewest} of each are needed"
        raise DataFileError(source, problem)


def _parts(path: Path, known: tuple[tuple[str, ...], ...], reader: ReaderOptions) -> list[tuple[PathLike, str | None]]:
    """The files of the training and the test part, or the one file that holds all."""
    if not path.is_dir():
        source = as_source(path)
        parts = () if "member" in reader else archive_parts(source)
        return [(source, part) for part in parts or (None,)]
    for names in known:
        if all((path / name).is_file() for name in names):
            return [(path / name, None) for name in names]  # a training and a test part, or a single one
    for folder in (path, path / "aclImdb"):
        if (folder / "train" / "pos").is_dir():
            return [(folder, "train"), (folder, "test")]
    if (path / "pos").is_dir():
        return [(path, None)]
    wanted = ", ".join(" + ".join(names) for names in (*known, ("pos", "neg")))
    raise DataFileError(path, f"holds none of: {wanted}; or name a file of reviews")


@dataclass(frozen=True, eq=False)
class ExampleReview:
    """A review as words, with the attention on each of them; words outside the vocabulary have none."""

    words: list[str]
    attention: Floats
    label: float
    output: float


def example_reviews(
    model: AttentionModel, corpus: Corpus, *, per_class: int = 2, length: int = 45
) -> list[ExampleReview]:
    """The first reviews of either label that the model gets right and that have at most ``length`` words."""
    index = {word: s for s, word in enumerate(corpus.train.vocab or ())}
    tokenizer = Tokenizer()
    found: dict[float, list[ExampleReview]] = {1.0: [], -1.0: []}
    source, options = corpus.source
    u, g = model.token_scores, model.token_values
    for text, label in iter_reviews(source, **options):
        if len(text) > 8 * length or len(found[label]) >= per_class:
            continue
        words = tokenizer.tokenize(text)
        ids = np.array([index.get(word, -1) for word in words])
        known = ids >= 0
        if not length / 2 <= len(words) <= length or not known.any():
            continue
        weight = np.zeros(len(words))
        weight[known] = np.exp(u[ids[known]] - u[ids[known]].max())
        weight /= weight.sum()
        output = float(weight[known] @ g[ids[known]])
        if label * output > 0:
            found[label].append(ExampleReview(words, weight, label, output))
        if all(len(reviews) >= per_class for reviews in found.values()):
            break
    return found[1.0] + found[-1.0]


def once_per_data(function: Callable[[TokenDataset], T]) -> Callable[[TokenDataset], T]:
    """Keep the results of a function of a data set as long as the data: repetitions share those of a test part."""
    results: WeakKeyDictionary[TokenDataset, T] = WeakKeyDictionary()

    @functools.wraps(function)
    def kept(data: TokenDataset) -> T:
        if data not in results:
            results[data] = function(data)
        return results[data]

    return kept


def balanced(data: TokenDataset, rng: np.random.Generator) -> TokenDataset:
    """Repeat reviews of the smaller class until both are equally many, so that alpha_s ignores the classes' sizes."""
    classes = sorted((np.flatnonzero(data.labels == sign) for sign in (-1, 1)), key=len)
    repeated = np.resize(rng.permutation(classes[0]), classes[1].size)
    if repeated.size == classes[0].size:
        return data  # each review once, in the same order
    return data.subset(np.sort(np.concatenate([repeated, classes[1]])))


def has_ratings(data: TokenDataset) -> bool:
    """Whether a word of the data is a rating."""
    return not _RATINGS.isdisjoint(data.vocab or ())


def no_ratings(data: TokenDataset) -> Ints:
    """The ids of the words that are no rating."""
    return np.delete(np.arange(data.vocab_size), [s for s, word in enumerate(data.vocab or ()) if word in _RATINGS])


@once_per_data
def without_ratings(data: TokenDataset) -> TokenDataset:
    """The data without the words 0 to 10, in which reviews state their rating; reviews of nothing else are left out.

    >>> data = TokenDataset.from_counts([[1, 1], [0, 1], [2, 0], [0, 1]], [1, 1, 1, -1], vocab=["10", "good"])
    >>> without_ratings(data).counts.toarray().ravel().tolist(), without_ratings(data).vocab
    ([1.0, 1.0, 1.0], ('good',))
    """
    kept = no_ratings(data)
    counts, labels, _ = drop_empty(data.counts[:, kept], data.labels)
    vocab = tuple(data.vocab[k] for k in kept) if data.vocab else None
    return TokenDataset._trusted(counts, labels, vocab)  # rows and columns of canonical counts
