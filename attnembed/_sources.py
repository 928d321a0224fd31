"""Bytes and lines of data files: plain or compressed, on disk, from a pipe, or inside an archive.

gzip, bzip2 and xz are detected from the first bytes, never from the name. The encoding is that of the byte order mark,
if there is one. Nothing is written to disk, and no input can grow without bound: see `MAX_RATIO` and `MAX_LINE`.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from attnembed._files import PathLike
from attnembed._validation import shown
from attnembed.errors import DataFileError, InputError, InputTypeError

# Text compresses about tenfold. A file that unpacks to more than this many times its size is malicious.
MAX_RATIO = 200
FREE_BYTES = 1 << 26  # below this, the ratio does not matter
MAX_LINE = 1 << 28  # bytes of one line, or of one text
MAX_HELD = 1 << 31  # bytes of content held in memory: a pipe, the texts of an archive
PIPE_PATIENCE = 2.0  # seconds to wait for a writer to open a named pipe

_BUFFER = 1 << 15
_SMALL = 1 << 16  # bytes of a file read at once, such as one of thousands of reviews
_STANDARD_INPUT = re.compile(r"/dev/(stdin|fd/\d+)|/proc/[^/]+/fd/\d+")
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
# First bytes of files passed by mistake -> their kind. No text begins with any of them.
_FOREIGN = {
    b"\x28\xb5\x2f\xfd": "is compressed with Zstandard, which is not supported; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "is a 7-Zip archive, which is not supported; unpack it first",
    b"Rar!\x1a\x07": "is a RAR archive, which is not supported; unpack it first",
    b"PAR1": "is a Parquet file, which is not supported; convert it to CSV",
    b"ARROW1": "is an Arrow file, which is not supported; convert it to CSV",
    b"SQLite format 3\0": "is an SQLite database, which is not supported; export a table as CSV",
    b"\x89PNG\r\n": "is an image, not text",
    b"\xff\xd8\xff": "is an image, not text",
    b"%PDF-": "is a PDF document, not text",
    b"\x89HDF\r\n": "is an HDF5 file, which is not supported",
    b"\x93NUMPY": "is a NumPy array, not text",
    b"\xd0\xcf\x11\xe0": "is an Office document; save it as CSV",
    **dict.fromkeys(ZIP, "is a zip archive; unpack it first"),
}
_FOREIGN_HEAD = re.compile(b"|".join(map(re.escape, _FOREIGN)))
_MARKS = (  # the longer ones first: the mark of UTF-32 begins with that of UTF-16
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_WIDE = {"utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig"}


@dataclass(frozen=True, eq=False)
class Source(os.PathLike[str]):
    """Something that can be read repeatedly from its first byte; ``path`` is its name in messages.

    ``allowance`` is the largest number of unpacked bytes; None stands for `MAX_RATIO` times its own size.
    """

    path: Path
    opener: Callable[[], BinaryIO] = field(repr=False)
    allowance: int | None = None

    def __fspath__(self) -> str:
        return os.fspath(self.path)


def is_folder(path: PathLike) -> bool:
    """Whether the path names a folder; InputTypeError for anything but a path."""
    if isinstance(path, Source):
        return False
    try:
        return os.path.isdir(Path(path))
    except TypeError as error:
        raise InputTypeError("path", "must be a path", got=type(path).__name__) from error


def locate(path: PathLike, names: tuple[str, ...]) -> Path:
    """The path itself, or in a folder the first existing file of these names."""
    if not is_folder(path):
        return Path(path)
    found = next((Path(path) / name for name in names if os.path.exists(Path(path) / name)), None)
    if found is None:
        raise DataFileError(path, f"holds none of {', '.join(names)}")
    return found


def regular(path: Path) -> Path:
    """The path, for formats that cannot be read from a pipe; DataFileError unless it names a regular file."""
    if not os.path.isfile(path):
        raise DataFileError(path, "must be a regular file" if os.path.exists(path) else "does not exist")
    return path


def as_source(path: PathLike) -> Source:
    """A regular file, or the content of a pipe, which is read here once; DataFileError for anything else."""
    if isinstance(path, Source):
        return path
    if is_folder(path):
        raise DataFileError(path, "is a folder, not a file")
    file = Path(path)
    try:
        mode = os.stat(file).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a name with a null byte
        raise DataFileError(file, "does not exist") from error
    except OSError as error:
        raise DataFileError(file, f"cannot be read: {error.strerror or error}") from error
    # A file as standard input may share its position with the shell: its bytes can be read only once.
    if stat.S_ISFIFO(mode) or (stat.S_ISREG(mode) and _STANDARD_INPUT.fullmatch(str(file))):
        content = _drained(file)
        return Source(file, lambda: io.BytesIO(content))
    if not stat.S_ISREG(mode):
        raise DataFileError(file, "is neither a file nor a pipe")
    return file_source(file)


def file_source(path: Path) -> Source:
    """A file known to exist."""

    def opener() -> BinaryIO:
        return open(path, "rb")

    return Source(path, opener)


def _drained(path: Path) -> bytes:
    """The whole content of a pipe. A named pipe without a writer is given up instead of blocking."""
    blocks: list[bytes] = []
    size, attached = 0, False
    give_up = time.monotonic() + PIPE_PATIENCE
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb", buffering=0):
            while True:
                try:
                    block = os.read(descriptor, _BUFFER)
                except BlockingIOError:  # there is a writer that has not written yet
                    attached = True
                    os.set_blocking(descriptor, True)
                    continue
                if block:
                    blocks.append(block)
                    size += len(block)
                    if size > MAX_HELD:
                        raise DataFileError(path, f"gives more than {MAX_HELD:,} bytes; write it to a file first")
                elif blocks or attached or time.monotonic() > give_up:
                    break
                else:
                    time.sleep(0.02)
    except OSError as error:
        raise DataFileError(path, f"cannot be read: {error.strerror or error}") from error
    if not blocks:
        raise DataFileError(path, "is an empty pipe")
    return b"".join(blocks)


# ----------------------------------------------------------------------------------------------------------- unpacking


class _Guarded(io.RawIOBase):
    """A stream that raises DataFileError once it has produced more than allowed."""

    def __init__(self, stream: Any, path: Path, allowance: int, owner: Generator[Any, None, None] | None) -> None:
        self._stream, self._path, self._left, self._owner = stream, path, allowance, owner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._stream.readinto1(buffer)  # content before the damage is not lost
        self._left -= count
        if self._left < 0:
            raise DataFileError(self._path, f"unpacks to more than {MAX_RATIO} times its size, unlike any text")
        return count

    def close(self) -> None:
        self._stream.close()
        if self._owner is not None:
            self._owner.close()
        super().close()


def allowance_of(size: int) -> int:
    """The largest number of bytes allowed from this many compressed ones."""
    return max(FREE_BYTES, MAX_RATIO * size)


def guarded(
    stream: Any, source: Source, allowance: int, *, owner: Generator[Any, None, None] | None = None
) -> io.BufferedReader:
    """A buffered stream that gives at most ``allowance`` bytes; ``owner`` is closed with it."""
    return io.BufferedReader(_Guarded(stream, source.path, allowance, owner), _BUFFER)


_PACKINGS: dict[str, Callable[[Any], Any]] = {
    "gzip": lambda stream: gzip.GzipFile(fileobj=stream),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}


def _packing(head: bytes) -> str:
    """The compression of a file that begins with these bytes; "" if there is none."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:3] == b"BZh" and re.match(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", head):
        return "bzip2"
    return "xz" if head[:6] == b"\xfd7zXZ\0" else ""


@contextmanager
def unpacked(source: Source) -> Iterator[io.BufferedReader]:
    """The bytes of a source, decompressed. `reason` describes errors raised by damage while they are read."""
    with source.opener() as opened:
        raw = opened if isinstance(opened, io.BufferedReader) else io.BufferedReader(cast(Any, opened))
        packing = _packing(raw.peek(10)[:10])
        if not packing:
            yield raw
            return
        allowance = source.allowance
        if allowance is None:
            allowance = allowance_of(raw.seek(0, os.SEEK_END))
            raw.seek(0)
        with guarded(_PACKINGS[packing](raw), source, allowance) as stream:
            yield stream


# Exceptions raised by reading compressed or damaged bytes.
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, MemoryError)


def reason(error: BaseException, source: Source) -> str:
    """The fault of a source whose reading raised this."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, MemoryError):
        return "needs more memory than is available"
    kind = "or truncated archive"
    if isinstance(error, (OSError, EOFError, zlib.error, lzma.LZMAError)):
        with suppress(OSError, DataFileError), source.opener() as stream:
            kind = f"{_packing(stream.read(10)) or 'compressed'} file"
    if isinstance(error, EOFError):
        return f"ends too early: the {kind} is truncated"
    return f"is a damaged {kind}"


def read_bytes(source: Source) -> bytes:
    """All bytes of a source, decompressed, for content held in memory as a whole."""
    try:
        with source.opener() as raw:
            content = raw.read(_SMALL)
        if len(content) < _SMALL and not _packing(content):
            return content
        with unpacked(source) as stream:
            return read_at_most(stream, MAX_HELD, source)
    except UNREADABLE as error:
        raise DataFileError(source.path, reason(error, source)) from error


def read_at_most(stream: io.BufferedReader, limit: int, source: Source) -> bytes:
    """The rest of a stream; DataFileError beyond the limit."""
    blocks = [stream.read1(1 << 16)]
    while blocks[-1] and limit >= 0:
        limit -= len(blocks[-1])
        blocks.append(stream.read1(1 << 16))  # a large number here would be allocated in any case
    if limit < 0:
        raise DataFileError(source.path, f"holds more than {MAX_HELD:,} bytes; unpack it first")
    return b"".join(blocks)


# ---------------------------------------------------------------------------------------------------------------- text


def check_encoding(encoding: str | None) -> None:
    """InputError unless the name is None or an encoding in which line ends can be found."""
    if encoding is None:
        return
    try:
        fits = _is_wide(encoding) or "\n".encode(encoding) == b"\n"
    except (LookupError, TypeError, ValueError) as error:  # ValueError: a null byte, or no text encoding
        raise InputError("encoding", "must name a text encoding", got=shown(encoding)) from error
    if not fits:
        expected = "must write a line end as one byte, or be a form of UTF-16 or UTF-32"
        raise InputError("encoding", expected, got=encoding, hint="convert the file to UTF-8")


def has_mark(source: Source) -> bool:
    """Whether the text begins with a byte order mark (or with zeros, as in no single-byte encoding)."""
    try:
        with unpacked(source) as stream:
            head = stream.peek(64)[:64]
    except UNREADABLE as error:
        raise DataFileError(source.path, reason(error, source), line=1) from error
    return b"\0" in head or any(head.startswith(mark) for mark, _ in _MARKS)


def _chosen(head: bytes, encoding: str | None, default: str, path: Path) -> tuple[str, int]:
    """The encoding of a text that begins with these bytes, and the length of its byte order mark."""
    if found := _FOREIGN_HEAD.match(head):
        raise DataFileError(path, _FOREIGN[found[0]])
    name = None if encoding is None else codecs.lookup(encoding).name
    for mark, marked in _MARKS:
        # "utf-16" leaves the byte order to the mark; "utf-16-le" and no name may come with a mark, too.
        if head.startswith(mark) and (name is None or marked.startswith(name.removesuffix("-sig"))):
            return marked, len(mark)
    if name in ("utf-16", "utf-32") and head:
        forms = f'encoding="{name}-le" or encoding="{name}-be"'
        raise DataFileError(path, f"begins without the byte order mark of {name}; pass {forms}")
    if name is None and b"\0" in head:
        nulls = head[::2].count(0), head[1::2].count(0)
        if min(nulls) == 0 and 4 * max(nulls) > len(head):
            wide = "utf-16-be" if nulls[0] else "utf-16-le"
            raise DataFileError(path, f'looks like UTF-16 without a byte order mark; pass encoding="{wide}"')
    return encoding or default, 0


def read_text(source: Source, encoding: str | None) -> str:
    """The whole text, without a byte order mark."""
    content = read_bytes(source)
    name, skip = _chosen(content[:64], encoding, "utf-8", source.path)
    try:
        return content[skip:].decode(name)
    except UnicodeError as error:
        good = content[skip:][: getattr(error, "start", 0)]
        ends = good.decode(name, "replace").count("\n") if _is_wide(name) else good.count(b"\n")
        raise _undecodable(source, name, 1 + ends) from error


def read_lines(source: Source, encoding: str | None, *, default: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Numbered lines with their ends, one of them in memory at a time.

    A line ends with a line feed, or with a carriage return in a file without line feeds. ``encoding`` None stands for
    that of the byte order mark, or else for ``default``.
    """
    number = 0
    name = encoding or default
    try:
        with unpacked(source) as stream:
            name, skip = _chosen(stream.peek(64)[:64], encoding, default, source.path)
            stream.read(skip)
            if _is_wide(name):
                wide = _wide_lines(stream, name, source)
                for number, text in enumerate(chain(_at_returns(next(wide, "")), wide), start=1):
                    yield number, text
                return
            raw = iter(partial(stream.readline, MAX_LINE), b"")
            first = next(raw, b"")
            if len(first) == MAX_LINE:
                raise _too_long(source, 1)
            for number, line in enumerate(chain(_at_returns(first), raw), start=1):
                if len(line) == MAX_LINE:
                    raise _too_long(source, number)
                yield number, line.decode(name)
    except UnicodeError as error:
        raise _undecodable(source, name, number) from error
    except UNREADABLE as error:
        raise DataFileError(source.path, reason(error, source), line=number + 1) from error


def _at_returns(line: Any) -> list[Any]:
    """The first line of a file, bytes or text; the lines between carriage returns if no line feed ends it."""
    feed, back = ("\n", "\r") if isinstance(line, str) else (b"\n", b"\r")
    if line.endswith(feed) or back not in line:
        return [line] if line else []
    *whole, rest = line.split(back)
    return [piece + back for piece in whole] + ([rest] if rest else [])


def _wide_lines(stream: BinaryIO, encoding: str, source: Source) -> Iterator[str]:
    """Lines in an encoding that does not write a line feed as one byte."""
    decoder = codecs.getincrementaldecoder(encoding)()
    pieces: list[str] = []  # of the current line
    number, held, block = 1, 0, b"-"
    while block:
        block = stream.read(_BUFFER)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            good = error.object[: error.start].decode(encoding, "replace")
            raise _undecodable(source, encoding, number + good.count("\n")) from error
        *whole, rest = text.split("\n")
        for line in whole:
            yield "".join([*pieces, line, "\n"])
            pieces.clear()
            number, held = number + 1, 0
        pieces.append(rest)
        held += len(rest)
        if held > MAX_LINE:
            raise _too_long(source, number)
    if held:
        yield "".join(pieces)


def _is_wide(encoding: str) -> bool:
    return codecs.lookup(encoding).name in _WIDE


def _undecodable(source: Source, encoding: str, line: int) -> DataFileError:
    return DataFileError(source.path, f"is not {encoding} text; pass its encoding", line=line)


def _too_long(source: Source, line: int) -> DataFileError:
    return DataFileError(source.path, f"has a line of more than {MAX_LINE:,} bytes", line=line)
