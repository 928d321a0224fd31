"""The audit of a file or folder, whose kind is found from its names, or of data in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from attnembed._files import PathLike
from attnembed._progress import Progress
from attnembed._sources import is_folder
from attnembed._validation import as_path, check_choice
from attnembed.attention.data import TokenDataset
from attnembed.attention.reviews import ReaderOptions, load_reviews
from attnembed.attention.text import Tokenizer, drop_empty
from attnembed.auditing.kinds import (
    chain_facts,
    count_facts,
    grid_facts,
    letter_facts,
    review_facts,
    sentence_facts,
)
from attnembed.auditing.record import Audit, Fact, make_audit
from attnembed.errors import DataFileError, InputError, InputTypeError
from attnembed.structured.corpora import load_conll2000, load_horses, load_ocr, load_sentences
from attnembed.structured.data import ChainDataset, GridDataset

__all__ = ["KINDS", "audit", "kinds_of"]

KINDS = ("letters", "sentences", "masks", "reviews")
_VOCABULARY = 20_000

# The files of each kind: a folder holds all names of one of the groups.
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "letters": (("ocr_letters.npz",), ("letter.data",), ("letter.data.gz",), ("letters.pickle",)),
    "sentences": tuple(
        (f"{folder}train.txt{one}", f"{folder}test.txt{other}")
        for folder in ("", "conll2000/")
        for one in ("", ".gz")
        for other in ("", ".gz")
    ),
    "masks": (("weizmann32.npz",), ("horse", "mask"), ("rgb", "figure_ground")),
    "reviews": (
        ("imdb_train.tsv.gz", "imdb_test.tsv.gz"),
        ("train/pos", "test/pos"),
        ("aclImdb/train/pos", "aclImdb/test/pos"),
        ("train.csv", "test.csv"),
        ("pos", "neg"),
        ("yelp_polarity.tsv.gz",),
    ),
}


def kinds_of(path: PathLike) -> tuple[str, ...]:
    """The kinds of data in a folder, or of a file by its name; any other file counts as reviews."""
    root = Path(path)
    if not is_folder(path):
        known = [kind for kind, groups in _NAMES.items() if (root.name,) in groups]
        return tuple(known) or (("sentences",) if root.name.startswith(("train.txt", "test.txt")) else ("reviews",))
    return tuple(
        kind for kind, groups in _NAMES.items() if any(all((root / n).exists() for n in group) for group in groups)
    )


def audit(data: Any, test: Any = None, *, kind: str | None = None, **reader: Unpack[ReaderOptions]) -> Audit:
    """Audit a data set before anything is learned from it.

    The facts are duplicates within and across its parts, contradictions (one input with several labels), overlaps of
    the parts, pure tokens, balance of the classes, lengths, and the scores of constant predictions and look-up tables.

    Parameters
    ----------
    data : a file or folder for `load_ocr`, `load_sentences`, `load_horses` or `load_reviews`; or data in memory, a
        `ChainDataset`, `GridDataset` or `TokenDataset` with labels
    test : the test part, if it is a separate file or data set
    kind : "letters", "sentences", "masks" or "reviews", for a folder that holds several
    reader : options of `load_reviews`

    Returns
    -------
    Audit
        its ``str`` is a page; ``audit[NAME]``, ``.facts``, ``.plot()``, ``.to_dict()``

    Raises
    ------
    InputError
        if there are several kinds of data and none is named.
    DataFileError
        if there are none, or they cannot be read.

    >>> import numpy as np
    >>> from attnembed.structured.data import ChainDataset
    >>> data = ChainDataset([np.eye(2), np.eye(2)], [[0, 1], [0, 0]])
    >>> found = audit(data)
    >>> found["different sequences with more than one sequence of labels"], found["inputs of one position among these"]
    (1, 2)
    """
    if isinstance(data, (ChainDataset, GridDataset, TokenDataset)):
        return _of_data(data, test)
    path = as_path("data", data)
    if kind is not None:
        check_choice("kind", kind, KINDS)
    else:
        kind = _only_kind(path, kinds_of(path))
    if reader and kind != "reviews":
        raise InputError(next(iter(reader)), "belongs to reviews", got=f"kind {kind!r}")
    if test is not None and kind in ("letters", "masks"):
        raise InputError("test", f"is part of the file of {kind}", got=repr(str(test)), hint="leave it out")
    with Progress(f"audit of {kind}", total=2) as progress:
        facts = _read(kind, path, None if test is None else as_path("test", test), reader, progress)
    return make_audit(kind, Path(path).name, facts)


def _only_kind(path: PathLike, found: tuple[str, ...]) -> str:
    if len(found) == 1:
        return found[0]
    if not found:
        wanted = ", ".join(" + ".join(group) for groups in _NAMES.values() for group in groups[:1])
        raise DataFileError(path, f"holds no data of a known name, such as {wanted}; or name a file of reviews")
    raise InputError(
        "kind", "must name one of the kinds that the folder holds", got="none", hint=f"use {', '.join(found)}"
    )


def _of_data(data: Any, test: Any) -> Audit:
    if test is not None and type(test) is not type(data):
        raise InputTypeError("test", f"must be a {type(data).__name__}, as `data`", got=type(test).__name__)
    for name, part in (("data", data), ("test", test)):
        if part is not None and part.labels is None:
            raise InputError(name, "must have labels", hint="an audit compares inputs with their labels")
    if isinstance(data, ChainDataset):
        return make_audit("chains", "data in memory", chain_facts(data, test))
    if isinstance(data, GridDataset):
        return make_audit("grids", "data in memory", grid_facts(data, test))
    return make_audit("counts", "data in memory", count_facts(data, test))


def _read(kind: str, path: PathLike, test: PathLike | None, reader: ReaderOptions, progress: Progress) -> list[Fact]:
    if kind == "letters":
        letters = load_ocr(path)
        progress.update(1, "counting")
        return letter_facts(letters)
    if kind == "masks":
        parts = load_horses(path)
        progress.update(1, "counting")
        return grid_facts(*parts)
    if kind == "sentences":
        if is_folder(path) and test is None:
            train, held = load_conll2000(path)
        else:
            train, held = load_sentences(path), () if test is None else load_sentences(test)
        progress.update(1, "counting")
        return sentence_facts(train, held)
    return _review_facts(path, test, reader, progress)


def _review_facts(path: PathLike, test: PathLike | None, reader: ReaderOptions, progress: Progress) -> list[Fact]:
    sources: list[tuple[PathLike, ReaderOptions]] = [(path, reader)]
    if test is not None:
        sources.append((test, reader))
    elif is_folder(path):
        sources = [(source, {**reader, **options}) for source, options in _review_parts(Path(path))]
    sides = []
    for k, (source, options) in enumerate(sources):
        progress.update(k / len(sources), Path(source).name)
        reviews = load_reviews(source, **options)
        sides.append((reviews.documents, reviews.labels))
    progress.update(1, "counting words")
    tokenizer = Tokenizer(max_vocabulary=_VOCABULARY)
    counts, labels, _ = drop_empty(tokenizer.fit_transform(sides[0][0]), sides[0][1])
    return review_facts(sides, TokenDataset.from_counts(counts, labels, vocab=tokenizer.vocabulary))


def _review_parts(root: Path) -> list[tuple[PathLike, ReaderOptions]]:
    for names in (("imdb_train.tsv.gz", "imdb_test.tsv.gz"), ("train.csv", "test.csv")):
        if all((root / name).is_file() for name in names):
            return [(root / name, {}) for name in names]
    for folder in (root, root / "aclImdb"):
        if (folder / "train" / "pos").is_dir():
            return [(folder, {"split": "train"}), (folder, {"split": "test"})]
    single = root / "yelp_polarity.tsv.gz"
    return [(single if single.is_file() and not (root / "pos").is_dir() else root, {})]
