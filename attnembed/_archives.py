"""Members of zip and tar archives, read without writing anything to disk.

Names that begin with a dot, and files left behind by operating systems (``__MACOSX``, Thumbs.db, desktop.ini), are not
data. Links and devices are skipped too. Members are never written anywhere, so their names can do no harm.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from attnembed._sources import MAX_HELD, UNREADABLE, ZIP, Source, allowance_of, guarded, read_at_most, reason, unpacked
from attnembed.errors import DataFileError

_LEFT_BEHIND = {"__macosx", "thumbs.db", "desktop.ini"}
_MAX_MEMBERS = 1 << 20

Opened = Callable[[], Any]


def is_hidden(name: str) -> bool:
    """Whether a file of this name belongs to the system rather than the data.

    >>> [is_hidden(name) for name in ("0_1.txt", "._0_1.txt", ".DS_Store", "Thumbs.db", "__MACOSX")]
    [False, True, True, True, True]
    """
    return name.startswith(".") or name.casefold() in _LEFT_BEHIND


def archive_kind(source: Source) -> str:
    """ "zip", "tar" (compressed or not), or "" for anything else."""
    try:
        with unpacked(source) as stream:
            block = stream.read(tarfile.BLOCKSIZE)
        if block.startswith(ZIP):
            return "zip"
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (*UNREADABLE, ValueError):  # the reader will meet the same damage and report where it is
        return ""
    return "tar"


def scan(source: Source, kept: Callable[[str], bool]) -> dict[str, bytes | None]:
    """The names of all members, in the archive's order, with the contents of those to be kept."""
    found: dict[str, bytes | None] = {}
    held = 0
    for name, opened in _members(source):
        found[name] = None
        if kept(name):
            with _explained(source), opened() as stream:
                content = read_at_most(stream, MAX_HELD - held, source)
            held += len(content)
            found[name] = content
    return found


def member(source: Source, name: str) -> Source:
    """One member of an archive, read as a stream."""

    allowance = allowance_of(_size(source))

    def opener() -> BinaryIO:
        walk = _members(source)
        for found, opened in walk:
            if found == name:
                with _explained(source):
                    return cast(BinaryIO, guarded(opened(), source, allowance, owner=walk))
        raise DataFileError(source.path, f"does not hold {name}")

    return Source(shown(source, name), opener, allowance)


def shown(source: Source, name: str) -> Path:
    """A path naming a member in messages."""
    return source.path / "".join(c if c.isprintable() else "?" for c in name)


def listed(names: Iterable[str], limit: int = 6) -> str:
    """Names for a message: the first few, and the number of others.

    >>> listed(["a.csv", "b.csv", "c.csv"], limit=2)
    "'a.csv', 'b.csv' and 1 more"
    """
    every = [name if len(name) < 60 else name[:60] + "..." for name in names]
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(map(repr, every[:limit])) + more


def _size(source: Source) -> int:
    with source.opener() as stream:
        return stream.seek(0, os.SEEK_END)


def _members(source: Source) -> Generator[tuple[str, Opened], None, None]:
    """Visible regular members, each with a function that opens it; in a tar, before the next one is requested."""
    with _explained(source):
        walk = _zip_members if archive_kind(source) == "zip" else _tar_members
        for count, (name, opened) in enumerate(walk(source)):
            if count >= _MAX_MEMBERS:
                raise DataFileError(source.path, f"holds more than {_MAX_MEMBERS:,} files; unpack it first")
            parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
            if parts and not any(map(is_hidden, parts)):
                yield "/".join(parts), opened


def _zip_members(source: Source) -> Iterator[tuple[str, Opened]]:
    allowance = allowance_of(_size(source))
    with source.opener() as stream, zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                raise DataFileError(source.path, "is encrypted; unpack it first")

            def opened(info: zipfile.ZipInfo = info) -> Any:
                return guarded(archive.open(info), source, allowance)  # its declared sizes may be wrong

            yield info.filename, opened


class _Header(tarfile.TarInfo):
    """A header that raises where it is damaged or missing; tarfile treats either as the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf.count(0) == tarfile.BLOCKSIZE:  # a block of zeros is the proper end
                raise
            raise tarfile.ReadError(str(error)) from error


def _tar_members(source: Source) -> Iterator[tuple[str, Opened]]:
    with unpacked(source) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive:
        while (info := archive.next()) is not None:
            if info.isreg() and not info.issparse():
                yield info.name, partial(archive.extractfile, info)
            cast(Any, archive).members.clear()  # otherwise every header is kept


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """Report damage as DataFileError. A damaged archive can raise almost anything."""
    try:
        yield
    except (DataFileError, GeneratorExit):
        raise
    except Exception as error:
        raise DataFileError(source.path, reason(error, source)) from error
