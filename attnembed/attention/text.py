"""From texts to counts n_is: the word rule, the vocabulary, and a cache of counted files.

**The rule** (`Tokenizer.tokenize`). The text is converted to lower case and to Unicode form NFC, and ``<br />`` is
removed. A word is a run of Unicode letters and digits (`str.isalnum`); a single apostrophe, plain or typographic,
between two of them belongs to the word; every other character separates words.

With ``keep_marks`` a combining mark or a joiner after a letter, a digit or another mark also belongs to the word, as in
Unicode's own rule (Annex 29, WB4). Without it the vowel signs of Hindi and other scripts separate words, and so does
the dot that lower-casing a dotted capital I leaves behind.
"""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from attnembed._files import Member, PathLike, parse_json, read_checked, replacing, write_json
from attnembed._frozen import KeepsFrozen
from attnembed._validation import as_path, as_real_array, check_flag, check_integer, freeze
from attnembed.attention.counting import as_counts
from attnembed.attention.reviews import ReaderOptions, content_digest, iter_reviews, source_and_format
from attnembed.errors import AttnembedError, DataFileError, InputError, InputTypeError

__all__ = ["ReviewCounts", "Tokenizer", "count_reviews", "drop_empty"]

# Part of every cache key and saved file: raise it whenever the rule or the layout changes.
_VERSION = 1
_BREAK = re.compile(r"<br */?>")
# Texts are counted in batches of about this many words, so that memory holds the counts and not the texts.
_BATCH_WORDS = 1 << 18


class Tokenizer:
    """Splits texts into words, learns a vocabulary and counts its words in texts; the rule is given in the module.

    Parameters
    ----------
    min_documents : a word enters the vocabulary if at least this many texts contain it
    max_vocabulary : keep this many words, the most frequent ones
    max_length : read only this many words from the start of each text
    keep_marks : combining marks belong to words instead of separating them

    ``vocabulary`` orders the words by frequency, most frequent first, and alphabetically on ties.

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
    >>> Tokenizer().tokenize("हिन्दी"), Tokenizer(keep_marks=True).tokenize("हिन्दी")
    (['ह', 'न', 'द'], ['हिन्दी'])
    """

    def __init__(
        self,
        *,
        min_documents: int = 1,
        max_vocabulary: int | None = None,
        max_length: int | None = None,
        keep_marks: bool = False,
    ) -> None:
        self.min_documents = check_integer("min_documents", min_documents, minimum=1)
        self.max_vocabulary = _optional("max_vocabulary", max_vocabulary)
        self.max_length = _optional("max_length", max_length)
        self.keep_marks = check_flag("keep_marks", keep_marks)
        self._vocabulary: tuple[str, ...] | None = None

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words in the order of the columns; AttnembedError if none have been learned yet."""
        if self._vocabulary is None:
            raise AttnembedError("the tokenizer has no vocabulary yet: call fit or fit_transform, or load one")
        return self._vocabulary

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words by the rule of the module, at most ``max_length`` of them."""
        if not isinstance(text, str):
            raise InputTypeError("text", "must be text", got=type(text).__name__)
        return self._words(text)[: self.max_length]

    def _words(self, text: str) -> list[str]:
        return _words(text, self.keep_marks)

    def fit(self, documents: Iterable[str]) -> Tokenizer:
        """Learn the vocabulary in one pass over the texts; returns itself.

        InputError if there are no texts, one is not text, or no word remains.
        """
        self._learn(documents, keep=False)
        return self

    def fit_transform(self, documents: Iterable[str]) -> sp.csr_array:
        """Learn the vocabulary and count in one pass: the result of ``fit`` and ``transform`` without a second pass."""
        return _stack(self._learn(documents, keep=True))

    def transform(self, documents: Iterable[str]) -> sp.csr_array:
        """Count the words of texts, (n, V) canonical CSR float64; words outside the vocabulary are dropped.

        The row of a text without known words is empty: see `drop_empty`.
        """
        size = len(self.vocabulary)
        index = dict(zip(self.vocabulary, range(size)))
        # All other words share one more column, which is then cut off.
        batches = self._batches(documents, lambda words: map(index.get, words, repeat(size)))
        return _stack([_count(ids, ends, size + 1)[:, :size] for ids, ends in batches])

    def save(self, path: PathLike) -> None:
        """Write options and vocabulary as JSON, atomically."""
        options = {"attnembed_tokenizer": _VERSION, **self._options(), "vocabulary": self.vocabulary}
        write_json(path, options)

    @classmethod
    def load(cls, path: PathLike) -> Tokenizer:
        """Read a file written by `save`; DataFileError for anything else, even a word that the rule cannot produce."""
        try:
            content = parse_json(path, as_path("path", path).read_bytes())
        except OSError as error:
            raise DataFileError(path, f"cannot be read: {error.strerror or error}") from error
        if not isinstance(content, dict) or content.pop("attnembed_tokenizer", None) != _VERSION:
            raise DataFileError(path, f"is not a tokenizer of version {_VERSION}")
        words = content.pop("vocabulary", None)
        try:
            tokenizer = cls(**content)
        except (InputError, TypeError) as error:
            raise DataFileError(path, f"has options that cannot be used: {error}") from error
        if not tokenizer._could_learn(words):
            raise DataFileError(path, "must hold a vocabulary of distinct words")
        tokenizer._vocabulary = tuple(words)
        return tokenizer

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self._options().items())
        learned = "no vocabulary yet" if self._vocabulary is None else f"{len(self._vocabulary)} words"
        return f"Tokenizer({options}; {learned})"

    def _options(self) -> dict[str, int | None]:
        return {name: getattr(self, name) for name in ("min_documents", "max_vocabulary", "max_length", "keep_marks")}

    def _could_learn(self, words: Any) -> bool:
        """Whether a list may be the vocabulary of a tokenizer with these options: words of its rule, each once."""
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            return False
        return len(set(words)) == len(words) and self._words(" ".join(words)) == words

    def _batches(
        self, documents: Iterable[str], lookup: Callable[[list[str]], Iterable[int]]
    ) -> Iterator[tuple[NDArray[np.int32], list[int]]]:
        """The ids of the words of some texts, end to end, and the ends of the texts, preceded by 0."""
        if isinstance(documents, (str, np.ma.MaskedArray)) or not isinstance(documents, Iterable):
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
        index: defaultdict[str, int] = defaultdict(count().__next__)  # numbers words as they appear
        blocks: list[sp.csr_array] = []
        occurrences = holders = np.zeros(0, np.int64)  # of each word, and the texts that contain it
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
class ReviewCounts(KeepsFrozen):
    """Counts (n, V), labels (n,) in {-1, +1} and the V words; unpacks as ``counts, labels, vocabulary``.

    ``cache`` tells how the cache was used: "off", "read", "written", or "rebuilt" (the entry was damaged).
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
    """Count the words of the reviews in a file or folder, without holding the texts in memory.

    A tokenizer without a vocabulary learns it from this file; one with a vocabulary uses it: pass the same one for the
    training and then for the test reviews. ``cache`` names a folder that keeps the counts, under a key of the content
    of the file (not its name or date), the options of reader and tokenizer, and the vocabulary. A damaged entry is
    detected and rebuilt. Other options and errors are those of `iter_reviews`.

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
    source, kind = source_and_format(path, options.get("format"))
    content = content_digest(source, options.get("split"))
    learned = tokenizer._vocabulary
    key = repr((_VERSION, kind, content, sorted(options.items()), tokenizer._options(), learned))
    entry = as_path("cache", cache) / f"counts-{hashlib.sha256(key.encode()).hexdigest()}.npz"
    found = _read_entry(entry, tokenizer)
    if found is not None:
        tokenizer._vocabulary = found.vocabulary
        return found
    result = _count_file(source, tokenizer, options, "rebuilt" if entry.exists() else "written")
    _write_entry(entry, result)
    return result


def drop_empty(counts: Any, labels: ArrayLike) -> tuple[sp.csr_array, NDArray[np.float64], NDArray[np.intp]]:
    """Rows with at least one count, canonical CSR float64, their labels, and their row numbers.

    ``counts`` (n, V) is dense or sparse, as for `TokenDataset.from_counts`.

    >>> counts, labels, kept = drop_empty(sp.csr_array([[1.0, 2.0], [0.0, 0.0], [0.0, 1.0]]), [1, 1, -1])
    >>> kept, labels
    (array([0, 2]), array([ 1., -1.]))
    """
    matrix = as_counts("counts", counts)
    signs = np.asarray(as_real_array("labels", labels, ndim=1), dtype=np.float64)
    if signs.shape != matrix.shape[:1]:
        raise InputError("labels", f"must have one entry per row ({matrix.shape[0]})", got=f"shape {signs.shape}")
    kept = np.flatnonzero(np.diff(matrix.indptr))
    return matrix[kept], signs[kept], kept


class _Signs(dict[int, int]):
    """Table for `str.translate`: all but letters, digits and apostrophes becomes a space. Filled as signs appear."""

    def __init__(self, *, keep_marks: bool) -> None:
        super().__init__({ord("'"): ord("'"), ord("’"): ord("'")})
        self.keep_marks = keep_marks

    def __missing__(self, code: int) -> int:
        sign = chr(code)
        self[code] = code if sign.isalnum() or (self.keep_marks and _is_mark(sign)) else ord(" ")
        return self[code]


_SIGNS = {keep_marks: _Signs(keep_marks=keep_marks) for keep_marks in (False, True)}
_JOINERS = "\u200c\u200d"


def _is_mark(sign: str) -> bool:
    return unicodedata.category(sign)[0] == "M" or sign in _JOINERS


def _words(text: str, keep_marks: bool = False) -> list[str]:
    # Translating and splitting takes 0.6 times as long as the regular expression \w+(?:'\w+)*.
    plain = unicodedata.normalize("NFC", _BREAK.sub(" ", text.lower())).translate(_SIGNS[keep_marks])
    if keep_marks and not plain.isascii():
        plain = _without_stray_marks(plain)
    # An apostrophe stays only between two letters: first the runs of them go, then the first and last ones of a word.
    return f" {plain} ".replace("''", "  ").replace(" '", "  ").replace("' ", "  ").split()


def _without_stray_marks(plain: str) -> str:
    """Marks that follow no letter, digit or mark become spaces."""
    signs, inside = [], False
    for sign in plain:
        if sign.isalnum():
            inside = True
        elif sign in " '" or not inside:
            sign = sign if sign in " '" else " "
            inside = False
        signs.append(sign)
    return "".join(signs)


def _optional(name: str, value: int | None) -> int | None:
    return None if value is None else check_integer(name, value, minimum=1)


def _add(total: NDArray[np.int64], more: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of two counts, the second of which may have new words at its end."""
    more[: total.size] += total
    return more


def _count(ids: NDArray[np.int32], ends: list[int], size: int) -> sp.csr_array:
    """Counts (n, size) of the ids of n texts, laid end to end."""
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
    return _reviews(counts, np.array(labels), tokenizer.vocabulary, cache)


def _reviews(
    counts: sp.csr_array,
    labels: NDArray[np.float64],
    vocabulary: tuple[str, ...],
    cache: Literal["off", "read", "written", "rebuilt"],
) -> ReviewCounts:
    for array in (counts.data, counts.indices, counts.indptr, labels):
        freeze(array)
    return ReviewCounts(counts, labels, vocabulary, cache)


def _write_entry(path: Path, result: ReviewCounts) -> None:
    """Write an npz followed by its SHA-256, so that damage is detected before any of it is interpreted."""
    counts = result.counts
    short = counts.shape[1] <= 1 << 16
    arrays = {
        "counts": counts.data.astype(np.min_scalar_type(int(counts.data.max(initial=0)))),
        "columns": counts.indices.astype(np.uint16) if short else counts.indices,
        "ends": counts.indptr,
        "labels": result.labels.astype(np.int8),
        "words": np.frombuffer(" ".join(result.vocabulary).encode(), np.uint8),
    }
    buffer = io.BytesIO()
    # Level 1 takes an eighth of the time of savez_compressed, which has no such option, for files as small.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
    content = buffer.getvalue()
    with replacing(path) as temporary:
        temporary.write_bytes(content + hashlib.sha256(content).digest())


# A damaged or foreign entry is rebuilt, whatever the fault.
_ENTRY = {
    "counts": Member("u", ("counts",), low=1, high=2**53 - 1),
    "columns": Member((np.uint16, np.int32, np.int64), ("counts",), low=0),
    "ends": Member((np.int32, np.int64), ("ends",), low=0),
    "labels": Member((np.int8,), ("texts",), low=-1, high=1),
    "words": Member((np.uint8,), ("bytes",)),
}


def _read_entry(path: Path, tokenizer: Tokenizer) -> ReviewCounts | None:
    """The entry written by `_write_entry` for this tokenizer, or None. The digest finds accidents; all is checked."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    content, digest = content[:-32], content[-32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    try:
        arrays = read_checked(path, _ENTRY, content=content)
        words = arrays["words"].tobytes().decode().split(" ")
        labels = arrays["labels"].astype(np.float64)
        columns = arrays["columns"]
        if columns.dtype == np.uint16:
            columns = columns.astype(np.int32)
        parts = (arrays["counts"].astype(np.float64), columns, arrays["ends"])
        counts = _as_written(parts, (labels.size, len(words)))
    except (DataFileError, InputError, UnicodeError):
        return None
    known = tokenizer._vocabulary
    fits = tokenizer._could_learn(words) if known is None else tuple(words) == known
    if counts is None or not fits or not labels.all() or np.ptp(labels) != 2:
        return None
    return _reviews(counts, labels, tuple(words), "read")


def _as_written(parts: tuple[Any, Any, Any], shape: tuple[int, int]) -> sp.csr_array | None:
    """The matrix of these arrays if they are canonical CSR of this shape; others never reach a constructor."""
    _, columns, ends = parts
    if ends.size != shape[0] + 1 or ends[0] != 0 or ends[-1] != columns.size or (np.diff(ends) < 0).any():
        return None
    if columns.size and columns.max() >= shape[1]:
        return None
    rising = np.diff(columns) > 0
    rising[ends[1:-1][(ends[1:-1] > 0) & (ends[1:-1] < columns.size)] - 1] = True  # between two rows
    if not rising.all():
        return None
    return sp.csr_array(parts, shape=shape)
