"""Files: whole or not at all. Everything is written to a temporary name beside its target and renamed."""

from __future__ import annotations

import errno
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from attnembed.errors import DataFileError, InputError
from attnembed.results import to_plain

PathLike = str | os.PathLike[str]


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success rename it over ``path``, else remove it.

    A link is followed. Devices, pipes and folders are refused: renaming would put a file in their place.
    """
    target = Path(path)
    try:
        if target.exists() and not target.is_file():
            raise OSError(errno.EINVAL, "Is a directory" if target.is_dir() else "Not a regular file")
        place = Path(os.path.realpath(target))
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.", suffix=place.suffix)
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise DataFileError(target, f"cannot be written: {getattr(error, 'strerror', None) or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; a result should be as readable as any other new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, place)
    except OSError as error:
        raise DataFileError(target, f"cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


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


def versions() -> dict[str, str]:
    """Versions of everything that can change a number."""
    from attnembed import __version__

    return {
        "attnembed": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
