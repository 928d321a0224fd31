"""From texts to counts n_is: the word rule, the vocabulary, and a cache of counted files.

**The rule** (`Tokenizer.tokenize`). The text is put in lower case and in Unicode form NFC, and the tag ``<br />`` is
removed. A word is a run of Unicode letters and digits (`str.isalnum`); a single apostrophe, plain or typographic,
between two of them belongs to the word, every other sign separates words.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from attnembed._files import PathLike, replacing, write_json
from attnembed._validation import check_integer, freeze
from attnembed.attention.reviews import ReaderOptions, content_digest, iter_reviews, locate
from attnembed.errors import AttnembedError, DataFileError, InputError, InputTypeError

__all__ = ["ReviewCounts", "Tokenizer", "count_reviews", "drop_empty"]

# Part of every cache key and saved file: raise it whenever the rule or the layout changes.
_VERSION = 1
_BREAK = re.compile(r"<br */?>")
# Texts are counted in batches of about this many words, so that memory is the counts and not the texts.
_BATCH_WORDS = 1 << 18


class Tokenizer:
    """Words of texts, a vocabulary, and counts of the one in the other; the module gives the rule.

    Parameters
    ----------
    min_documents : a word enters the vocabulary if at least this many texts hold it
    max_vocabulary : keep this many words, those that occur most often
    max_length : look only at the first this many words of each text

    ``vocabulary`` orders the words by how often they occur, most often first, and alphabetically where that is equal.

    >>> tokenizer = Tokenizer(min_documents=2)
    >>> tokenizer.tokenize("Don't miss 'Alien'!<br />A CLASSIC.")
    ["don't", 'miss', 'alien', 'a', 'classic']
    >>> counts = tokenizer.fit_transform(["good, good film", "a good film", "a bore"])
    >>> tokenizer.vocabulary
    ('good', 'a', 'film')
    >>> counts.toarray()
    array([[2., 0., 1.],
           [1., 1., 1.],
           [0., 1., 0.]])
    """

    def __init__(
        self, *, min_documents: int = 1, max_vocabulary: int | None = None, max_length: int | None = None
    ) -> None:
        self.min_documents = check_integer("min_documents", min_documents, minimum=1)
        self.max_vocabulary = _optional("max_vocabulary", max_vocabulary)
        self.max_length = _optional("max_length", max_length)
        self._vocabulary: tuple[str, ...] | None = None

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words in the order of the columns; AttnembedError before they are learned."""
        if self._vocabulary is None:
            raise AttnembedError("the tokenizer has no vocabulary yet: call fit or fit_transform, or load one")
        return self._vocabulary

    def tokenize(self, text: str) -> list[str]:
        """The words of a text by the rule of the module, at most ``max_length`` of them."""
        return _words(text)[: self.max_length]

    def fit(self, documents: Iterable[str]) -> Tokenizer:
        """Learn the vocabulary from texts, which are run through once; returns itself.

        InputError if there are no texts, one is not text, or no word is left.
        """
        self._learn(documents, keep=False)
        return self

    def fit_transform(self, documents: Iterable[str]) -> sp.csr_array:
        """Learn the vocabulary and count in one run: the result of ``fit`` and ``transform`` without a second."""
        return _stack(self._learn(documents, keep=True))

    def transform(self, documents: Iterable[str]) -> sp.csr_array:
        """Counts (n, V), canonical CSR float64; words outside the vocabulary are dropped.

        The row of a text without a known word is empty: see `drop_empty`.
        """
        size = len(self.vocabulary)
        index = dict(zip(self.vocabulary, range(size)))
        # All other words share one more column, which is then cut off.
        batches = self._batches(documents, lambda words: map(index.get, words, repeat(size)))
        return _stack([_count(ids, ends, size + 1)[:, :size] for ids, ends in batches])

    def save(self, path: PathLike) -> None:
        """Write options and vocabulary as JSON, whole or not at all."""
        options = {"attnembed_tokenizer": _VERSION, **self._options(), "vocabulary": self.vocabulary}
        write_json(path, options)

    @classmethod
    def load(cls, path: PathLike) -> Tokenizer:
        """Read what `save` wrote; DataFileError for anything else, such as a word that the rule cannot produce."""
        try:
            content = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise DataFileError(path, f"cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise DataFileError(path, "is not valid JSON") from error
        if not isinstance(content, dict) or content.pop("attnembed_tokenizer", None) != _VERSION:
            raise DataFileError(path, f"is not a tokenizer of version {_VERSION}")
        words = content.pop("vocabulary", None)
        try:
            tokenizer = cls(**content)
        except (InputError, TypeError) as error:
            raise DataFileError(path, f"has options that cannot be used: {error}") from error
        valid = isinstance(words, list) and words and all(isinstance(word, str) for word in words)
        if not valid or len(set(words)) < len(words) or _words(" ".join(words)) != words:
            raise DataFileError(path, "must hold a vocabulary of distinct words")
        tokenizer._vocabulary = tuple(words)
        return tokenizer

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self._options().items())
        learned = "no vocabulary yet" if self._vocabulary is None else f"{len(self._vocabulary)} words"
        return f"Tokenizer({options}; {learned})"

    def _options(self) -> dict[str, int | None]:
        return {name: getattr(self, name) for name in ("min_documents", "max_vocabulary", "max_length")}

    def _batches(
        self, documents: Iterable[str], lookup: Callable[[list[str]], Iterable[int]]
    ) -> Iterator[tuple[NDArray[np.int32], list[int]]]:
        """The ids of the words of some texts on end, and where each text ends, with 0 in front."""
        if isinstance(documents, str) or not isinstance(documents, Iterable):
            raise InputTypeError("documents", "must be a collection of texts", got=type(documents).__name__)
        ids: list[NDArray[np.int32]] = []
        ends = [0]
        for number, text in enumerate(documents):
            if not isinstance(text, str):
                raise InputTypeError("documents", "must hold text", got=f"{type(text).__name__} at {number}")
            words = self.tokenize(text)
            ids.append(np.fromiter(lookup(words), np.int32, len(words)))
            ends.append(ends[-1] + len(words))
            if ends[-1] >= _BATCH_WORDS:
                yield np.concatenate(ids), ends
                ids, ends = [], [0]
        yield np.concatenate(ids or [np.zeros(0, np.int32)]), ends

    def _learn(self, documents: Iterable[str], *, keep: bool) -> list[sp.csr_array]:
        """Set the vocabulary; return the counts in it, in blocks of rows, if they are to be kept."""
        index: defaultdict[str, int] = defaultdict(count().__next__)  # numbers words as they come
        blocks: list[sp.csr_array] = []
        occurrences = holders = np.zeros(0, np.int64)  # of each word, and texts that hold it
        for ids, ends in self._batches(documents, lambda words: map(index.__getitem__, words)):
            block = _count(ids, ends, len(index))
            occurrences = _add(occurrences, block.sum(axis=0))
            holders = _add(holders, np.bincount(block.indices, minlength=len(index)))
            if keep:
                blocks.append(block)
        names = list(index)
        alphabetical = sorted(np.flatnonzero(holders >= self.min_documents).tolist(), key=names.__getitem__)
        if not alphabetical:
            raise InputError("documents", "must leave at least one word", hint="give more text or lower min_documents")
        kept = np.array(alphabetical)
        kept = kept[np.argsort(-occurrences[kept], kind="stable")][: self.max_vocabulary]
        self._vocabulary = tuple(names[k] for k in kept)
        for number, block in enumerate(blocks):
            block.resize(block.shape[0], len(names))
            blocks[number] = block[:, kept]
        return blocks


@dataclass(frozen=True, eq=False, repr=False)
class ReviewCounts:
    """Counts (n, V), labels (n,) in {-1, +1} and the V words; unpacks as ``counts, labels, vocabulary``.

    ``cache`` says what became of the cache: "off", "read", "written", or "rebuilt" (what was there was damaged).
    """

    counts: sp.csr_array
    labels: NDArray[np.float64]
    vocabulary: tuple[str, ...]
    cache: Literal["off", "read", "written", "rebuilt"]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.counts, self.labels, self.vocabulary))

    def __repr__(self) -> str:
        n, size = self.counts.shape
        return f"ReviewCounts({n} texts, {size} words, {self.counts.nnz} counts, cache {self.cache})"


def count_reviews(
    path: PathLike, tokenizer: Tokenizer, *, cache: PathLike | None = None, **options: Unpack[ReaderOptions]
) -> ReviewCounts:
    """Count the reviews of a file or folder, without ever holding the texts.

    A tokenizer without a vocabulary learns it from this file, one with a vocabulary counts in it: pass the same one for
    the training and then for the test reviews. ``cache`` names a folder that keeps the counts; they are found again by
    the content of the file (not its name or date), the options of reader and tokenizer, and the vocabulary. A damaged
    entry is noticed and made anew. The other options and the errors are those of `iter_reviews`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "reviews.tsv")
    ...     _ = file.write_text("1\\tgood film\\n0\\tbad film\\n")
    ...     for _ in range(2):
    ...         print(count_reviews(file, Tokenizer(), cache=folder))
    ReviewCounts(2 texts, 3 words, 4 counts, cache written)
    ReviewCounts(2 texts, 3 words, 4 counts, cache read)
    """
    if not isinstance(tokenizer, Tokenizer):
        raise InputTypeError("tokenizer", "must be a Tokenizer", got=type(tokenizer).__name__)
    if cache is None:
        return _count_file(path, tokenizer, options, "off")
    source, kind = locate(path, options.get("format"))
    content = content_digest(source, options.get("split"))
    learned = tokenizer._vocabulary
    key = repr((_VERSION, kind, content, sorted(options.items()), tokenizer._options(), learned))
    entry = Path(cache) / f"counts-{hashlib.sha256(key.encode()).hexdigest()}.npz"
    found = _read_entry(entry)
    if found is not None:
        tokenizer._vocabulary = found.vocabulary
        return found
    result = _count_file(source, tokenizer, options, "rebuilt" if entry.exists() else "written")
    _write_entry(entry, result)
    return result


def drop_empty(counts: sp.csr_array, labels: ArrayLike) -> tuple[sp.csr_array, NDArray[np.float64], NDArray[np.intp]]:
    """Rows with at least one count, their labels, and their row numbers.

    >>> counts, labels, kept = drop_empty(sp.csr_array([[1.0, 2.0], [0.0, 0.0], [0.0, 1.0]]), [1, 1, -1])
    >>> kept, labels
    (array([0, 2]), array([ 1., -1.]))
    """
    signs = np.asarray(labels, dtype=np.float64)
    if signs.shape != counts.shape[:1]:
        raise InputError("labels", f"must have one entry per row ({counts.shape[0]})", got=f"shape {signs.shape}")
    kept = np.flatnonzero(counts.sum(axis=1))
    return counts[kept], signs[kept], kept


class _Signs(dict[int, int]):
    """For `str.translate`: what is neither letter, digit nor apostrophe becomes a space. Fills itself as signs come."""

    def __missing__(self, code: int) -> int:
        self[code] = code if chr(code).isalnum() else ord(" ")
        return self[code]


_SIGNS = _Signs({ord("'"): ord("'"), ord("’"): ord("'")})


def _words(text: str) -> list[str]:
    # Translating and splitting takes 0.6 of the time of the regular expression \w+(?:'\w+)*.
    plain = unicodedata.normalize("NFC", _BREAK.sub(" ", text.lower())).translate(_SIGNS)
    # An apostrophe stays only between two letters: first the runs of them go, then the first and last ones of a word.
    return f" {plain} ".replace("''", "  ").replace(" '", "  ").replace("' ", "  ").split()


def _optional(name: str, value: int | None) -> int | None:
    return None if value is None else check_integer(name, value, minimum=1)


def _add(total: NDArray[np.int64], more: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of two counts, the second of which may have new words at its end."""
    more[: total.size] += total
    return more


def _count(ids: NDArray[np.int32], ends: list[int], size: int) -> sp.csr_array:
    """Counts (n, size) of the ids of n texts that stand on end."""
    # All in int32: one int64 among the three would make all of them int64.
    block = sp.csr_array((np.ones(ids.size, np.int32), ids, np.array(ends, np.int32)), shape=(len(ends) - 1, size))
    block.sum_duplicates()
    return block


def _stack(blocks: list[sp.csr_array]) -> sp.csr_array:
    """All rows in one canonical matrix; the list is emptied before the counts grow to eight bytes each."""
    counts = sp.vstack(blocks, format="csr")
    blocks.clear()
    counts.data = counts.data.astype(np.float64)
    counts.sort_indices()
    return counts


def _count_file(
    path: PathLike, tokenizer: Tokenizer, options: ReaderOptions, cache: Literal["off", "written", "rebuilt"]
) -> ReviewCounts:
    labels: list[float] = []

    def texts() -> Iterator[str]:
        for text, label in iter_reviews(path, **options):
            labels.append(label)
            yield text

    counts = (tokenizer.fit_transform if tokenizer._vocabulary is None else tokenizer.transform)(texts())
    return ReviewCounts(counts, freeze(np.array(labels)), tokenizer.vocabulary, cache)


def _write_entry(path: Path, result: ReviewCounts) -> None:
    """An npz, and after it its SHA-256: whatever is damaged is noticed before any of it is interpreted."""
    counts = result.counts
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        counts=counts.data.astype(np.min_scalar_type(int(counts.data.max(initial=0)))),
        columns=counts.indices,
        ends=counts.indptr,
        labels=result.labels.astype(np.int8),
        words=np.frombuffer(" ".join(result.vocabulary).encode(), np.uint8),
    )
    content = buffer.getvalue()
    with replacing(path) as temporary:
        temporary.write_bytes(content + hashlib.sha256(content).digest())


def _read_entry(path: Path) -> ReviewCounts | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    content, digest = content[:-32], content[-32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        words = tuple(arrays["words"].tobytes().decode().split(" "))
        labels = arrays["labels"].astype(np.float64)
        parts = (arrays["counts"].astype(np.float64), arrays["columns"], arrays["ends"])
    return ReviewCounts(sp.csr_array(parts, shape=(labels.size, len(words))), freeze(labels), words, "read")
