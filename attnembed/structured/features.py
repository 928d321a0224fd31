"""Indicator features of a token and its neighbours, as used in text chunking (Sha and Pereira, NAACL 2003)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, groupby

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Ints
from attnembed._validation import check_integer, check_items
from attnembed.errors import AttnembedError, InputError, InputTypeError
from attnembed.structured.sentences import Sentence

__all__ = ["TEMPLATES", "WindowFeatures"]


_REACH = 2  # tokens to either side
_AFFIXES = range(1, 5)

# The parts of a feature: an attribute, and the offsets from the token at which it is read.
TEMPLATES: tuple[tuple[str, tuple[int, ...]], ...] = (
    *(("word", (k,)) for k in range(-2, 3)),
    *(("word", (k, k + 1)) for k in (-1, 0)),
    *(("pos", (k,)) for k in range(-2, 3)),
    *(("pos", (k, k + 1)) for k in range(-2, 2)),
    *(("pos", (k, k + 1, k + 2)) for k in range(-2, 1)),
    *((f"prefix{n}", (0,)) for n in _AFFIXES),
    *((f"suffix{n}", (0,)) for n in _AFFIXES),
    ("shape", (0,)),
)


class WindowFeatures:
    """Maps each token to 28 ids, one per entry of `TEMPLATES`, in one vocabulary; 0 stands for unknown features.

    The templates are the words (in lower case) at -2 to 2 and their pairs around the token, the part-of-speech tags at
    -2 to 2 with their pairs and triples, prefixes and suffixes of 1 to 4 letters, and the shape of the word: runs of
    capitals, small letters and digits become A, a and 0, so that "Jan.-30" is "Aa.-0". Positions beyond the ends of a
    sentence have a separate symbol. Two templates never share an id.

    A score that is linear in the indicators is the sum of 28 rows of a table of ``n_features`` rows: see
    `layers.EmbeddingSum`.

    Parameters
    ----------
    min_count : a feature enters the vocabulary if it occurs at least this often in the training sentences

    >>> train = [Sentence(("He", "ran"), ("PRP", "VBD"), ("B-NP", "B-VP"))]
    >>> features = WindowFeatures().fit(train)
    >>> ids = features.transform([Sentence(("He", "sat"), ("PRP", "VBD"), ("B-NP", "B-VP"))])[0]
    >>> ids.shape, features.n_features
    ((2, 28), 53)
    >>> [TEMPLATES[slot] for slot in np.flatnonzero(ids[0] == 0)]
    [('word', (1,)), ('word', (0, 1))]
    """

    def __init__(self, *, min_count: int = 1) -> None:
        self.min_count = check_integer("min_count", min_count, minimum=1)
        self._codes: dict[str, dict[str, int]] = {}
        self._tables: list[Ints] = []

    @property
    def n_features(self) -> int:
        """Ids are in 0..n_features - 1; AttnembedError before `fit`."""
        return 1 + sum(table.size for table in self._learned)

    @property
    def _learned(self) -> list[Ints]:
        if not self._tables:
            raise AttnembedError("the features have no vocabulary yet: call fit")
        return self._tables

    def fit(self, sentences: Iterable[Sentence]) -> WindowFeatures:
        """Learn the vocabulary; returns itself. InputError for anything but sentences, or if no feature remains."""
        lengths, symbols = _symbols(sentences)
        if not lengths.size:
            raise InputError("sentences", "must hold at least one")
        # 0 stands for positions beyond a sentence, 1 for values that do not occur in these sentences.
        codes = {name: dict(zip(dict.fromkeys(values), count(2))) for name, (values, _) in symbols.items()}
        tables = []
        for keys in _keys(lengths, symbols, codes):
            found, occurrences = np.unique(keys, return_counts=True)
            tables.append(found[occurrences >= self.min_count])
        if not any(table.size for table in tables):
            raise InputError("min_count", "must leave at least one feature", got=self.min_count)
        self._codes, self._tables = codes, tables
        return self

    def transform(self, sentences: Iterable[Sentence]) -> list[NDArray[np.int32]]:
        """The ids of n sentences, n arrays (L, 28).

        InputError for anything but sentences, AttnembedError before `fit`.
        """
        tables = self._learned
        lengths, symbols = _symbols(sentences)
        if not lengths.size:
            return []
        ids = np.empty((lengths.sum(), len(TEMPLATES)), np.int32)
        start = 1
        for slot, (table, keys) in enumerate(zip(tables, _keys(lengths, symbols, self._codes))):
            place = np.searchsorted(table, keys)
            ids[:, slot] = np.where(np.append(table, -1)[place] == keys, start + place, 0)
            start += table.size
        return np.split(ids, np.cumsum(lengths)[:-1])


def _symbols(sentences: Iterable[Sentence]) -> tuple[Ints, dict[str, tuple[list[str], Ints]]]:
    """Lengths (n,), and for each attribute its values for the distinct words (or tags) and the index at each token."""
    held = check_items("sentences", sentences, "Sentence objects")
    for number, sentence in enumerate(held):
        if not isinstance(sentence, Sentence):
            raise InputTypeError(
                "sentences", "must hold Sentence objects", got=f"{type(sentence).__name__} at {number}"
            )
        if not len(sentence.words) == len(sentence.pos) > 0:
            got = f"{len(sentence.words)} and {len(sentence.pos)} in sentence {number}"
            raise InputError("sentences", "must have a word and a tag per token, at least one", got=got)
    words, tokens = _numbered(word for sentence in held for word in sentence.words)
    tags, tagged = _numbered(tag for sentence in held for tag in sentence.pos)
    symbols = {name: (values, tokens) for name, values in _attributes(words).items()}
    return np.array([len(sentence.words) for sentence in held], dtype=np.intp), {**symbols, "pos": (tags, tagged)}


def _attributes(words: list[str]) -> dict[str, list[str]]:
    """The attributes that depend on the word alone, by the names of `TEMPLATES`."""
    lower = [word.lower() for word in words]
    return {
        "word": lower,
        **{f"prefix{n}": [word[:n] for word in lower] for n in _AFFIXES},
        **{f"suffix{n}": [word[-n:] for word in lower] for n in _AFFIXES},
        "shape": ["".join(kind for kind, _ in groupby(map(_kind, word))) for word in words],
    }


def _kind(character: str) -> str:
    return "A" if character.isupper() else "a" if character.islower() else "0" if character.isdigit() else character


def _numbered(names: Iterable[str]) -> tuple[list[str], Ints]:
    """The distinct names in order of appearance, and the index of each name among them."""
    index: defaultdict[str, int] = defaultdict(count().__next__)
    places = np.array([index[name] for name in names], dtype=np.intp)
    for name in index:
        if not isinstance(name, str):
            raise InputTypeError("sentences", "must hold words and tags that are text", got=repr(name))
    return list(index), places


def _keys(
    lengths: Ints, symbols: Mapping[str, tuple[list[str], Ints]], codes: Mapping[str, Mapping[str, int]]
) -> Iterator[Ints]:
    """For each template, one number (N,) that encodes its value at each token."""
    n_tokens = int(lengths.sum())
    # Sentences are separated, and surrounded, by as many places as a template can reach.
    at = np.arange(n_tokens) + _REACH * np.repeat(np.arange(1, lengths.size + 1), lengths)
    lines = {}
    for name, (values, tokens) in symbols.items():
        lines[name] = np.zeros(n_tokens + _REACH * (lengths.size + 1), dtype=np.int64)
        lines[name][at] = np.array([codes[name].get(value, 1) for value in values])[tokens]
    for name, places in TEMPLATES:
        keys = np.zeros(n_tokens, dtype=np.int64)
        for place in places:
            keys = keys * (len(codes[name]) + 2) + lines[name][at + place]
        yield keys
