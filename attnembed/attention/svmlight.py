"""Precomputed counts in the SVMlight format, such as labeledBow.feat of the Large Movie Review Dataset."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from attnembed._archives import archive_kind
from attnembed._frozen import KeepsFrozen
from attnembed._sources import Source, as_source, check_encoding, read_lines
from attnembed._validation import check_flag, check_items, freeze
from attnembed.attention.folders import archive_contents
from attnembed.attention.labels import Labels, Record, canonical, check_labels, find_scheme, shown
from attnembed.errors import DataFileError, InputError, InputTypeError

__all__ = ["LabelledCounts", "load_counts"]

# A label, an optional query, and pairs id:count; a count may be written 2.0.
_LINE = re.compile(r"(\S+)(?: +qid:[0-9]+)?((?: +[0-9]{1,10}:[0-9]{1,15}(?:\.0*)?)*) *")
_LARGEST_ID = 2**31 - 2  # as in `TokenDataset`


@dataclass(frozen=True, eq=False, repr=False)
class LabelledCounts(KeepsFrozen):
    """Counts (n, V), labels (n,) in {-1, +1} and the V words; unpacks as ``counts, labels, vocabulary``.

    ``vocabulary`` is None where the words are not known. ``dropped`` is the number of neutral texts left out.
    """

    counts: sp.csr_array
    labels: NDArray[np.float64]
    vocabulary: tuple[str, ...] | None = None
    dropped: int = 0

    def __iter__(self) -> Iterator[Any]:
        return iter((self.counts, self.labels, self.vocabulary))

    def __repr__(self) -> str:
        n, size = self.counts.shape
        neutral = f", {self.dropped} neutral dropped" if self.dropped else ""
        return f"LabelledCounts({n} texts, {size} words, {self.counts.nnz} counts{neutral})"


def load_counts(
    path: str | os.PathLike[str],
    vocab: Iterable[str] | str | os.PathLike[str] | None = None,
    *,
    labels: Labels | None = None,
    zero_based: bool = True,
    encoding: str | None = None,
    member: str | None = None,
) -> LabelledCounts:
    r"""Read counts and labels in the SVMlight format: one text per line, ``label id:count id:count ...``.

    The Large Movie Review Dataset (Maas et al., ACL 2011) stores its counts this way, with ratings 1 to 10 as labels.
    The ids in train/labeledBow.feat are line numbers of imdb.vocab, from 0.

    Parameters
    ----------
    path : a file, compressed or not, a pipe, or an archive
    vocab : V words, or a file with one word per line; without it V is one more than the largest id. Pass the same
        one for training and test data, so that each id keeps its column whichever ids a file contains
    labels : as for `load_reviews`; by default the first scheme that fits, "1-10" for ratings. Neutral texts are dropped
    zero_based : whether ids start at 0; False if they start at 1, as in most other files of this format
    encoding : of both files; by default that of the byte order mark, or UTF-8 without one
    member : the name of one file in an archive that holds several, such as "train/labeledBow.feat"

    Returns
    -------
    LabelledCounts
        ``counts`` (n, V) CSR float64, ``labels`` (n,) and ``vocabulary`` (None without ``vocab``), which
        `TokenDataset.from_counts` takes. A text without words has an empty row: see `drop_empty`.

    Raises DataFileError, with the line, for a missing or damaged file, a count that is not a whole number, an id
    repeated within a line or beyond the vocabulary, labels that fit no scheme, or a single class.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "imdb.vocab").write_text("the\nand\nfine\n")
    ...     _ = Path(folder, "labeledBow.feat").write_text("9 0:2 2:1\n3 0:1 1:4\n")
    ...     counts, labels, vocabulary = load_counts(f"{folder}/labeledBow.feat", f"{folder}/imdb.vocab")
    >>> counts.toarray(), labels
    (array([[2., 0., 1.],
           [1., 4., 0.]]), array([ 1., -1.]))
    >>> vocabulary
    ('the', 'and', 'fine')
    """
    scheme = check_labels(labels)
    check_encoding(encoding)
    words = None if vocab is None else _words(vocab, encoding)
    source = _file(path, member)
    rows = _parse(
        read_lines(source, encoding),
        source,
        0 if check_flag("zero_based", zero_based) else 1,
        None if words is None else len(words),
    )
    if scheme is None:
        scheme = find_scheme(source.path, rows.records)
    signs = np.array([scheme.get(label, np.nan) for *_, label in rows.records])
    if np.isnan(signs).any():
        _, line, _, label = rows.records[int(np.isnan(signs).argmax())]
        raise DataFileError(source.path, f"has the label {label!r}; expected {shown(scheme)}", line=line)
    if not {-1.0, 1.0} <= set(signs):
        held = "only one" if signs.any() else "no text"
        raise DataFileError(source.path, f"must hold both classes; it holds {held}")
    size = int(rows.ids.max(initial=-1)) + 1 if words is None else len(words)
    if not size:
        raise DataFileError(source.path, "must hold at least one word")
    counts = sp.csr_array((rows.counts, rows.ids.astype(np.int32), rows.ends), shape=(signs.size, size))
    counts.sort_indices()
    counts.eliminate_zeros()
    kept = np.flatnonzero(signs)
    return LabelledCounts(counts[kept], freeze(signs[kept]), words, signs.size - kept.size)


def _file(path: str | os.PathLike[str], member: str | None) -> Source:
    source = as_source(path)
    if not archive_kind(source):
        if member is not None:
            raise InputError("member", f"does not apply to {source.path.name}, which is no archive", got=repr(member))
        return source
    content = archive_contents(source, None, member or "labeledBow.feat")
    if not isinstance(content, Source):
        raise DataFileError(source.path, "holds texts in folders; load_reviews reads them")
    return content


def _words(vocab: Iterable[str] | str | os.PathLike[str], encoding: str | None) -> tuple[str, ...]:
    """The words of a vocabulary, given directly or in a file."""
    if not isinstance(vocab, (str, os.PathLike)):
        given = tuple(check_items("vocab", vocab, "words, or a file that holds them"))
        if not given or not all(isinstance(word, str) for word in given):
            got = next((type(word).__name__ for word in given if not isinstance(word, str)), "none")
            raise InputTypeError("vocab", "must hold words, at least one", got=got)
        return given
    source = as_source(vocab)
    words = []
    for line, text in read_lines(source, encoding):
        if not (word := text.strip()):
            raise DataFileError(source.path, "must hold one word per line; got an empty line", line=line)
        words.append(word)
    if not words:
        raise DataFileError(source.path, "is empty")
    return tuple(words)


class _Rows(NamedTuple):
    """Ids from 0 and counts of all rows end to end, the ends of the rows preceded by 0, and one record per row."""

    ids: NDArray[np.int64]
    counts: NDArray[np.float64]
    ends: NDArray[np.int64]
    records: list[Record]


def _parse(lines: Iterable[tuple[int, str]], source: Source, first: int, size: int | None) -> _Rows:
    ids: list[NDArray[np.int64]] = []
    counts: list[NDArray[np.float64]] = []
    ends, records = [0], list[Record]()
    largest = _LARGEST_ID if size is None else size - 1
    for line, text in lines:
        content = text.partition("#")[0].replace("\t", " ").strip(" \r\n")
        if not content:
            continue
        match = _LINE.fullmatch(content)
        if match is None:
            expected = "must hold a label and pairs id:count of whole numbers, separated by spaces"
            raise DataFileError(source.path, f"{expected}; got {content[:40]!r}", line=line)
        numbers = np.fromstring(match[2].replace(":", " "), sep=" ") if match[2] else np.zeros(0)
        found = numbers[::2].astype(np.int64) - first
        if problem := _wrong_ids(found, first, largest):
            raise DataFileError(source.path, problem, line=line)
        ids.append(found)
        counts.append(numbers[1::2])
        ends.append(ends[-1] + found.size)
        records.append((source.path, line, "", canonical(match[1])))
    if not records:
        raise DataFileError(source.path, "is empty")
    return _Rows(np.concatenate(ids), np.concatenate(counts), np.array(ends), records)


def _wrong_ids(ids: NDArray[np.int64], first: int, largest: int) -> str:
    """The fault in the ids of one line, from 0; "" if there is none."""
    if not ids.size:
        return ""
    if ids.min() < 0:
        return "holds the id 0, so that ids start at 0; pass zero_based=True"
    if ids.max() > largest:
        return f"must hold ids from {first} to {largest + first}; got {ids.max() + first}"
    steps = np.diff(ids)
    if steps.size and steps.min() <= 0:  # ids in increasing order cannot repeat
        found, times = np.unique(ids, return_counts=True)
        if times.max() > 1:
            return f"holds the id {found[times.argmax()] + first} twice"
    return ""
