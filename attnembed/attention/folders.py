"""Labelled texts in folders, one text per file: ``pos/*.txt`` and ``neg/*.txt``, on disk or inside an archive.

Hidden files are skipped: a disk used on a Mac holds a ``._0_9.txt`` beside each ``0_9.txt``.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from attnembed import _archives
from attnembed._archives import is_hidden, listed
from attnembed._sources import Source, file_source, read_text
from attnembed._validation import check_choice
from attnembed.attention.labels import Record
from attnembed.errors import DataFileError

__all__ = ["LabelledFile", "archive_contents", "archive_parts", "folder_files", "text_records"]

LabelledFile = tuple[Source, str]  # a text and the name of its folder, "neg" or "pos"

_TEXT = re.compile(r"(?P<root>(?:.*?/)??)(?:(?P<part>train|test)/)?(?P<label>neg|pos)/[^/]+\.txt")
_PARTS = ("train", "test")
_DATA_SUFFIXES = {".tsv", ".csv", ".txt", ".tab", ".json", ".jsonl", ".ndjson"}
_PACKED_SUFFIXES = {".gz", ".bz2", ".xz"}
_ABOUT = {"readme", "license", "licence", "notes", "description", "changelog", "citation"}


def folder_files(path: Path, split: str | None) -> list[LabelledFile]:
    """The texts of a folder with their labels, in reading order."""
    if split is None:
        parts = [part for part in (path / "train", path / "test") if part.is_dir()] or [path]
    else:
        parts = [path / check_choice("split", split, _PARTS)]
    files: list[LabelledFile] = []
    for folder in (part / label for part in parts for label in ("neg", "pos")):
        if not folder.is_dir():
            raise DataFileError(folder, "is not there; a folder of reviews holds neg/ and pos/")
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".txt") and not is_hidden(name))
        except OSError as error:
            raise DataFileError(folder, f"cannot be read: {error.strerror or error}") from error
        files += [(file_source(folder / name), folder.name) for name in names]
    return files


def archive_contents(source: Source, split: str | None, member: str | None) -> list[LabelledFile] | Source:
    """The content of an archive: the texts of its folders, all in memory, or the one file of reviews."""
    if split is not None:
        check_choice("split", split, _PARTS)

    def kept(name: str) -> bool:
        match = _TEXT.fullmatch(name)
        return member is None and match is not None and split in (None, match["part"])

    found = _archives.scan(source, kept)
    texts = {name: match for name in found if (match := _TEXT.fullmatch(name))}
    if member is not None or not texts:
        return _archives.member(source, _chosen(source, list(found), split, member))
    # An archive may hold the folder at any depth, but only one of them is read.
    root = min((match["root"] for match in texts.values()), key=lambda root: (root.count("/"), root))
    parts = {match["part"] for match in texts.values() if match["root"] == root}
    if split is not None and split not in parts:
        raise DataFileError(_archives.shown(source, f"{root}{split}"), "is not there; the archive holds no such part")
    wanted: Sequence[str | None] = [split] if split else [part for part in _PARTS if part in parts] or [None]
    files: list[LabelledFile] = []
    for part in wanted:
        for label in ("neg", "pos"):
            names = [n for n, m in texts.items() if (m["root"], m["part"], m["label"]) == (root, part, label)]
            for name in sorted(names, key=lambda name: PurePosixPath(name).name):
                files.append((_held(source, name, found[name] or b""), label))
    return files


def archive_parts(source: Source) -> tuple[str, ...]:
    """("train", "test") of an archive that holds both, as folders or as files; () of anything else."""
    if not _archives.archive_kind(source):
        return ()
    names = _archives.scan(source, lambda _: False)
    folders = {match["part"] for name in names if (match := _TEXT.fullmatch(name))}
    files = {part for part in _PARTS for name in names if _is_data(PurePosixPath(name.casefold()), part)}
    return _PARTS if (folders or files) == set(_PARTS) else ()


def _held(source: Source, name: str, content: bytes) -> Source:
    def opener() -> BinaryIO:
        return io.BytesIO(content)

    return Source(_archives.shown(source, name), opener)


def _chosen(source: Source, names: Sequence[str], split: str | None, member: str | None) -> str:
    """The name of the file of reviews among the members of an archive."""
    if member is not None:
        fits = [name for name in names if name == member or name.endswith(f"/{member}")]
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise DataFileError(source.path, f"holds several files called {member!r}: {listed(fits)}; say which")
        raise DataFileError(source.path, f"holds no {member!r}; its files are {listed(names) or 'none'}")
    fits = [name for name in names if _is_data(PurePosixPath(name.casefold()), split)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        first = PurePosixPath(fits[0]).name
        raise DataFileError(source.path, f"holds several files: {listed(fits)}; pass one, such as member={first!r}")
    if any(name.startswith(("xl/", "word/", "ppt/")) for name in names):
        raise DataFileError(source.path, "is an Office document; save it as CSV")
    problem = f"holds neither pos/ and neg/ nor a file of reviews{f' called {split}' if split else ''}"
    raise DataFileError(source.path, f"{problem}; its files are {listed(names) or 'none'}")


def _is_data(name: PurePosixPath, split: str | None) -> bool:
    suffixes = [suffix for suffix in name.suffixes if suffix not in _PACKED_SUFFIXES]
    stem = name.name.split(".")[0]
    return bool(suffixes) and suffixes[-1] in _DATA_SUFFIXES and stem not in _ABOUT and split in (None, stem)


def text_records(files: Sequence[LabelledFile], encoding: str | None) -> Iterator[Record]:
    """One record per file."""
    for source, label in files:
        yield source.path, None, read_text(source, encoding), label
