"""Where a data set lies: the path names the file, or the folder that holds it."""

from __future__ import annotations

import os
from pathlib import Path

from attnembed._files import PathLike
from attnembed._sources import is_folder
from attnembed.errors import DataFileError


def locate(path: PathLike, names: tuple[str, ...]) -> Path:
    """The path itself, or what the folder that it names holds under the first of the names."""
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
