"""Files: whole or not at all. Everything is written to a temporary name beside its target and renamed."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import platform
import re
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from attnembed.errors import DataFileError, InputError
from attnembed.results import to_plain

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]


# Of a temporary file: .NAME.attnembed-HOST-PID-RANDOM.SUFFIX, hidden, beside the file that it becomes.
_OURS = re.compile(r"\..*\.attnembed-(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]+)-[^-.]*(\.[^.]*)?", re.DOTALL)
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_A_MOMENT, _LONG_AGO = 60.0, 86400.0  # seconds without a write
_LONGEST_NAME = 60  # characters of NAME, so that what is added fits


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success rename it over ``path``, else remove it.

    The file is on the disk before it is renamed, and the folder after that: a power failure leaves the old file or the
    new one. A link is followed. Devices, pipes and folders are refused: renaming would put a file in their place. What
    processes that were killed have left in the folder is removed.
    """
    target = Path(path)
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
    if lock(handle) is None:  # nobody would notice; Windows renames and removes no open file
        os.close(handle)
        handle = -1
    try:
        yield temporary
        # mkstemp makes private files; a result should be as readable as any other new file.
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
    """The folder, made with those above it where it is missing; OSError says what is in the way."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        os.stat(folder)  # a link that leads nowhere, or in a circle, says so
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    return folder


def lock(file: int) -> bool | None:
    """Lock an open file until it is closed, or its process dies; False where another process has locked it.

    None on Windows, and on file systems without locks: nobody is kept out there.
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
    """Return when the content of a file, or the names in a folder, are on the disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return
    file = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(file)
    except OSError:
        if not folder:  # some file systems cannot do it for folders
            raise
    finally:
        os.close(file)


def _remove_stale(folder: Path) -> None:
    """Remove temporary files of ours whose process is dead; what may belong to a live one is left alone."""
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
        return False  # it may have been made just now, and not be locked yet
    file = os.open(entry.path, os.O_RDWR)
    try:
        free = lock(file)
    finally:
        os.close(file)
    # The lock decides, also between containers, which share folders but not the numbers of processes.
    return dead or (not known and age > _LONG_AGO) if free is None else free


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # a process of another user
        pass
    return True


def write_json(path: PathLike, content: dict[str, Any]) -> None:
    """Write ``content`` as indented JSON, whole or not at all; non-finite numbers become text."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(to_plain(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_npz(path: PathLike, **arrays: Any) -> None:
    """Write a compressed npz without pickle, whole or not at all."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise InputError(name, "must not hold Python objects", hint="archives are written without pickle")
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def read_npz(path: PathLike, names: tuple[str, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """Read the named arrays of an npz without pickle; anything malformed is a DataFileError."""
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataFileError(path, "is not an npz archive")
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise DataFileError(path, f"lacks the array(s) {', '.join(missing)}")
            arrays = {name: archive[name] for name in names}
    except DataFileError:
        raise
    except Exception as error:  # a damaged archive raises almost anything, MemoryError among it
        reason = getattr(error, "strerror", None) or "is not a readable npz archive"
        raise DataFileError(path, reason) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # a member without the header of an array comes as bytes
            raise DataFileError(path, f"holds no array under the name {name}")
    return arrays


def read_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of a plain or gzip-compressed file, with their line ends."""
    number = 0
    try:
        with open(path, "rb") as raw:
            zipped = raw.peek(2)[:2] == b"\x1f\x8b"
            for number, line in enumerate(gzip.GzipFile(fileobj=raw) if zipped else raw, start=1):
                text = line.decode(encoding)
                yield number, text.removeprefix("\ufeff") if number == 1 else text
    except UnicodeError as error:
        raise DataFileError(path, f"is not {encoding} text; pass its encoding", line=number) from error
    except EOFError as error:
        raise DataFileError(path, "ends too early: the gzip file is truncated", line=number + 1) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataFileError(path, "is a damaged gzip file", line=number + 1) from error
    except OSError as error:
        raise DataFileError(path, f"cannot be read: {error.strerror or error}") from error


def versions() -> dict[str, str]:
    """Versions of everything that can change a number."""
    from attnembed import __version__

    return {
        "attnembed": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
