"""Sentences with a tag per word, as in the CoNLL shared tasks (Tjong Kim Sang and Buchholz, CoNLL 2000)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from attnembed._files import PathLike
from attnembed._sources import Source, as_source, check_encoding, has_mark, locate, read_lines
from attnembed._validation import check_integer
from attnembed.errors import DataFileError

__all__ = ["Sentence", "load_conll2000", "load_sentences"]

_GAP = re.compile(r"[ \t]+")
_TAG = re.compile(r"O|[BI]-.+")
_DOCUMENT = "-DOCSTART-"  # begins a line between two documents in the files of 2003
_NO_TAG = "_"  # stands for the part of speech where a file has none


class Sentence(NamedTuple):
    """Words, part-of-speech tags and chunk tags, one of each per token.

    >>> Sentence(("He", "ran"), ("PRP", "VBD"), ("B-NP", "B-VP")).pos
    ('PRP', 'VBD')
    """

    words: tuple[str, ...]
    pos: tuple[str, ...]
    chunks: tuple[str, ...]


def load_conll2000(path: PathLike, *, encoding: str | None = None) -> tuple[tuple[Sentence, ...], tuple[Sentence, ...]]:
    """Read training and test sentences of CoNLL-2000 (Tjong Kim Sang and Buchholz): 8,936 and 2,012 of them.

    ``path`` is the folder with train.txt and test.txt, each possibly with .gz, or its parent if the folder is called
    conll2000. `load_sentences` describes the files, the encoding and the errors.

    >>> import tempfile
    >>> from pathlib import Path
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
        source = as_source(locate(path, names))
        if os.path.samefile(source, path):
            problem = "must be a folder with train.txt and test.txt; load_sentences reads one file"
            raise DataFileError(source.path, problem)
        parts.append(load_sentences(source, encoding=encoding))
    return parts[0], parts[1]


def load_sentences(
    path: PathLike, *, encoding: str | None = None, tag_column: int | None = None
) -> tuple[Sentence, ...]:
    """Read one file of sentences: one token per line, a blank line after each sentence.

    Columns are separated by spaces or tabs. The first is the word and the last its tag; between them may come the part
    of speech ("_" if missing) and, as in CoNLL-2003, the chunk tag. Tags are "O", or "B-" or "I-" with a type. A line
    that begins with "-DOCSTART-" separates documents and is skipped.

    Parameters
    ----------
    path : a file or a pipe, or a folder that holds train.txt
    encoding : of the text; by default that of the byte order mark (UTF-8, UTF-16, UTF-32). A file without one is read
        as UTF-8 if it is valid UTF-8, and otherwise as latin-1, the encoding of CoNLL-2000
    tag_column : position of the tags from 0; by default the last column (in four columns, 2 reads the chunk tags)

    Raises DataFileError, with the line, for a file that is missing or damaged, does not have 2, 3 or 4 columns, the
    same number in every line, or contains another tag.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "train.txt")
    ...     _ = file.write_text("He PRP B-NP\\nran VBD B-VP\\n. . O\\n\\nStop VB B-VP\\n")
    ...     sentences = load_sentences(file)
    >>> sentences[0]
    Sentence(words=('He', 'ran', '.'), pos=('PRP', 'VBD', '.'), chunks=('B-NP', 'B-VP', 'O'))
    """
    check_encoding(encoding)
    tag = -1 if tag_column is None else check_integer("tag_column", tag_column, minimum=1)
    source = as_source(locate(path, ("train.txt", "train.txt.gz")))
    sentences: list[Sentence] = []
    tokens: list[list[str]] = []
    width = 0
    known: set[str] = set()
    # The empty line at the end closes the last sentence.
    for line, text in chain(_lines(source, encoding), [(0, "")]):
        cells = _GAP.split(text.strip(" \t\r\n"))
        if (len(cells) == 1 and not cells[0]) or cells[0] == _DOCUMENT:
            if tokens:
                sentences.append(_sentence(tokens, tag))
                tokens = []
            continue
        if len(cells) != width:
            if width or not max(2, tag + 1) <= len(cells) <= 4:
                raise DataFileError(source.path, _columns_expected(width, tag, cells), line=line)
            width = len(cells)
        if cells[tag] not in known:
            if not _TAG.fullmatch(cells[tag]):
                problem = f"must hold a chunk tag O, B-type or I-type; got {cells[tag][:40]!r}"
                raise DataFileError(source.path, problem, line=line)
            known.add(cells[tag])
        tokens.append(cells)
    if not sentences:
        raise DataFileError(source.path, "is empty")
    return tuple(sentences)


def _lines(source: Source, encoding: str | None) -> Iterator[tuple[int, str]] | list[tuple[int, str]]:
    """Numbered lines; without an encoding or a mark, all of them are UTF-8 or all are latin-1."""
    if encoding is not None or has_mark(source):
        return read_lines(source, encoding)
    try:
        return list(read_lines(source, "utf-8"))
    except DataFileError as error:
        if not isinstance(error.__cause__, UnicodeError):
            raise
    return read_lines(source, "latin-1")


def _sentence(tokens: list[list[str]], tag: int) -> Sentence:
    columns = list(zip(*tokens))
    return Sentence(columns[0], columns[1] if len(columns) > 2 else (_NO_TAG,) * len(tokens), columns[tag])


def _columns_expected(width: int, tag: int, cells: list[str]) -> str:
    got = repr(" ".join(cells)[:40])
    if width:
        return f"has {len(cells)} columns where the first line has {width}; got {got}"
    if tag >= len(cells):
        return f"has no column {tag}; got {got}"
    return f"must hold a word and its tag, with its POS tag or its POS and chunk tags in between; got {got}"
