"""Atomic writing of files: everything goes to a temporary name beside its target and is then renamed."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import platform
import re
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from attnembed._validation import as_path
from attnembed._version import __version__
from attnembed.errors import DataFileError, InputError
from attnembed.results import to_plain

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]


# Name of a temporary file: .NAME.attnembed-HOST-PID-RANDOM.SUFFIX, hidden, beside its target.
_OURS = re.compile(r"\..*\.attnembed-(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]+)-[^-.]*(\.[^.]*)?", re.DOTALL)
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_A_MOMENT, _LONG_AGO = 60.0, 86400.0  # seconds without a write
_LONGEST_NAME = 60  # characters of NAME, to leave room for the rest


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success rename it to ``path``, otherwise remove it.

    The file is synced before it is renamed, and the folder afterwards: a power failure leaves either the old file or
    the new one. Links are followed. Devices, pipes and folders are rejected, because renaming would replace them by a
    file. Temporary files of killed processes are removed from the folder.
    """
    target = as_path("path", path)
    try:
        with suppress(FileNotFoundError):
            mode = os.stat(target).st_mode
            if not stat.S_ISREG(mode):
                raise OSError(errno.EINVAL, "Is a directory" if stat.S_ISDIR(mode) else "Not a regular file")
        place = Path(os.path.realpath(target))
        make_folder(place.parent)
        _remove_stale(place.parent)
        prefix = f".{place.name[:_LONGEST_NAME]}.attnembed-{_HOST}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=prefix, suffix=place.suffix[:_LONGEST_NAME])
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise DataFileError(target, f"cannot be written: {getattr(error, 'strerror', None) or error}") from error
    temporary = Path(name)
    if lock(handle) is None:  # the lock protects nothing; Windows does not rename or remove open files
        os.close(handle)
        handle = -1
    try:
        yield temporary
        # mkstemp creates private files; a result should be as readable as any other new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        sync_path(temporary)
        os.replace(temporary, place)
        sync_path(place.parent)
    except OSError as error:
        raise DataFileError(target, f"cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
        if handle >= 0:
            os.close(handle)


def make_folder(path: PathLike) -> Path:
    """Create the folder and its parents if missing; OSError names the obstacle."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        os.stat(folder)  # raises for a broken or circular link
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    return folder


def writable_folder(path: PathLike) -> Path:
    """Create the folder if missing and check that files can be written in it, before the work rather than after it.

    Raises DataFileError if it cannot be created or written.
    """
    folder = as_path("out", path)
    try:
        make_folder(folder)
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise DataFileError(folder, f"cannot be created: {getattr(error, 'strerror', None) or error}") from error
    try:
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise DataFileError(folder, f"cannot be written: {error.strerror or error}") from error


def lock(file: int) -> bool | None:
    """Lock an open file until it is closed or its process dies; False if another process holds the lock.

    None on Windows and on file systems without locks, where nothing is excluded.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def sync_path(path: Path) -> None:
    """Return once the content of a file, or the names in a folder, are on disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return
    file = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(file)
    except OSError:
        if not folder:  # some file systems cannot sync folders
            raise
    finally:
        os.close(file)


def _remove_stale(folder: Path) -> None:
    """Remove our temporary files whose process is dead; files that may belong to a live one are kept."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _OURS.fullmatch(entry.name)
            if match is not None and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    if _is_stale(entry, match["host"], int(match["pid"])):
                        os.unlink(entry.path)


def _is_stale(entry: os.DirEntry[str], host: str, pid: int) -> bool:
    age = time.time() - entry.stat(follow_symlinks=False).st_mtime
    known = host == _HOST and os.name != "nt"
    dead = known and not _is_alive(pid)
    if not dead and age < _A_MOMENT:
        return False  # it may have been created just now, and not be locked yet
    file = os.open(entry.path, os.O_RDWR)
    try:
        free = lock(file)
    finally:
        os.close(file)
    # The lock decides, even between containers, which share folders but not process ids.
    return dead or (not known and age > _LONG_AGO) if free is None else free


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process
        pass
    return True


def write_text(path: PathLike, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: PathLike, content: dict[str, Any]) -> None:
    """Write ``content`` as indented JSON, atomically; non-finite numbers become text."""
    write_text(path, json.dumps(to_plain(content), indent=2, allow_nan=False) + "\n")


def write_npz(path: PathLike, **arrays: Any) -> None:
    """Write a compressed npz without pickle, atomically."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise InputError(name, "must not hold Python objects", hint="archives are written without pickle")
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)


@dataclass(frozen=True)
class Member:
    """The requirements on one array of an archive.

    ``types`` are kinds as in `numpy.dtype.kind` ("iu", "f", "U"), or a tuple of dtypes; byte order is ignored.
    ``shape`` has one size per axis: an int, or a name, which stands for the same size throughout the schema. Entries
    lie between ``low`` and ``high``, inclusive, and floats are finite unless ``finite`` is False.

    >>> Member("iu", ("n", 2), low=0)
    Member(types='iu', shape=('n', 2), low=0, high=None, finite=True)
    """

    types: str | tuple[Any, ...]
    shape: tuple[int | str, ...]
    low: float | None = None
    high: float | None = None
    finite: bool = True


def read_checked(
    path: PathLike, schema: Mapping[str, Member], *, content: bytes | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Read the arrays named by ``schema`` from an npz without pickle, in native byte order.

    ``content``, if given, is read instead of the file. Raises DataFileError, with the name, for an array that is
    missing or does not have the type, shape or range of its `Member`; nothing is cast or broadcast.
    """
    sizes: dict[str, int] = {}
    arrays = {}
    for name, array in read_npz(path, tuple(schema), content=content).items():
        member = schema[name]
        if problem := _type_problem(array, member) or _shape_problem(array, member, sizes):
            raise DataFileError(path, f"must hold {name} {problem}")
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if problem := _value_problem(array, member):
            raise DataFileError(path, f"must hold {name} {problem}")
        arrays[name] = array
    return arrays


def _type_problem(array: np.ndarray[Any, Any], member: Member) -> str:
    native = array.dtype.newbyteorder("=")
    if isinstance(member.types, str):
        expected = " or ".join(_KINDS[kind] for kind in member.types)
        fits = native.kind in member.types
    else:
        expected = "of type " + " or ".join(str(np.dtype(item)) for item in member.types)
        fits = native in [np.dtype(item) for item in member.types]
    return "" if fits else f"{expected}; got {array.dtype}"


def _shape_problem(array: np.ndarray[Any, Any], member: Member, sizes: dict[str, int]) -> str:
    known = tuple(sizes.get(size, size) if isinstance(size, str) else size for size in member.shape)
    fits = array.ndim == len(known) and all(isinstance(a, str) or a == b for a, b in zip(known, array.shape))
    if not fits:
        shown = ", ".join(map(str, known)) + ("," if len(known) == 1 else "")
        return f"of shape ({shown}); got {array.shape}"
    for axis, size in zip(member.shape, array.shape):
        if isinstance(axis, str) and sizes.setdefault(axis, size) != size:
            return f"of shape {member.shape}; got {array.shape}"
    return ""


def _value_problem(array: np.ndarray[Any, Any], member: Member) -> str:
    if array.dtype.kind == "U" and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
        # NumPy reads code points beyond Unicode, and fails with a SystemError when converting them to text.
        return "" if codes.max(initial=0) <= sys.maxunicode else "of text; got invalid code points"
    if not array.size or array.dtype.kind not in "biuf":
        return ""
    if member.finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        return f"that is finite; got {array[~np.isfinite(array)][0]}"
    smallest, largest = array.min(), array.max()  # NaN is out of every range
    if member.low is not None and not smallest >= member.low:
        return f"of at least {member.low}; got {smallest}"
    if member.high is not None and not largest <= member.high:
        return f"of at most {member.high}; got {largest}"
    return ""


_KINDS = {
    "b": "of truth values", "i": "of integers", "u": "of unsigned integers", "f": "of floats", "U": "of text",
    "S": "of bytes", "c": "of complex numbers",
}  # fmt: skip


def read_npz(
    path: PathLike, names: tuple[str, ...], *, content: bytes | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """The named arrays of an npz without pickle, with unchecked contents: see `read_checked`."""
    path = as_path("path", path)
    path = Path(path)
    try:
        with open(path, "rb") if content is None else io.BytesIO(content) as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataFileError(path, "is not an npz archive")
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise DataFileError(path, f"lacks the array(s) {', '.join(missing)}")
            arrays = {name: archive[name] for name in names}
    except DataFileError:
        raise
    except Exception as error:  # a damaged archive can raise almost anything, even MemoryError
        reason = getattr(error, "strerror", None) or "is not a readable npz archive"
        raise DataFileError(path, reason) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # a member without an array header is returned as bytes
            raise DataFileError(path, f"holds no array under the name {name}")
    return arrays


def parse_json(path: PathLike, text: str | bytes, *, what: str = "", line: int | None = None) -> Any:
    """The value of a JSON text from a file; ``what`` describes it there ("the state of the generator")."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets nested thousands deep
        raise DataFileError(
            path, f"holds {what} that is not valid JSON" if what else "is not valid JSON", line=line
        ) from error


def versions() -> dict[str, str]:
    """The versions of everything that can affect a result."""
    return {
        "attnembed": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
